//! How many connections the process's limit on open files carries, and how its listeners share them.

use super::limits::Limits;

/// File descriptors that connections leave to everything else: upstream calls, files, the runtime.
const RESERVED: usize = 128;

/// Cuts the connection caps of listeners so that all of them together leave enough file descriptors to the rest of the
/// process. Who asks for little gets it; the others share what is left alike.
pub fn fit(listeners: Vec<Limits>) -> Vec<Limits> {
    let limits = std::fs::read_to_string("/proc/self/limits");
    let Some(files) = limits.ok().as_deref().and_then(open_files) else {
        return listeners;
    };
    let carried = carried(files);
    let wanted: Vec<usize> = listeners.iter().map(|limits| limits.max_connections).collect();
    let most = level(carried, &wanted);
    if wanted.iter().any(|&wanted| wanted > most) {
        let configured: usize = wanted.iter().sum();
        let text = "the limit on open files does not carry the configured number of connections";
        tracing::warn!(open_files = files, configured, carried, "{text}");
    }
    let fitted = |limits: Limits| Limits { max_connections: limits.max_connections.min(most), ..limits };
    listeners.into_iter().map(fitted).collect()
}

/// Under a limit that is very low, half of it: the rest of the process is small then.
fn carried(files: usize) -> usize {
    files.saturating_sub(RESERVED).max(files / 2)
}

/// The highest cap with which the sum of what is wanted fits; at least one.
fn level(carried: usize, wanted: &[usize]) -> usize {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    let mut left = carried;
    for (listeners, want) in (1..=wanted.len()).rev().zip(wanted) {
        if want > left / listeners {
            return (left / listeners).max(1);
        }
        left -= want;
    }
    usize::MAX
}

/// The soft limit on open files in a text as of `/proc/self/limits` (proc(5)); `None` for "unlimited".
fn open_files(limits: &str) -> Option<usize> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_on_files_is_found() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             127                  127                  processes\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files(&text.replace("1024  ", "unlimited")), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn all_listeners_together_leave_descriptors_to_the_rest() {
        // Limit on files, what is wanted, the cap of each.
        let rows: [(usize, &[usize], usize); 6] = [
            (20_000, &[4096, 64], usize::MAX),
            (4096 + 64 + 128, &[4096, 64], usize::MAX),
            (1024, &[4096, 64], 832),
            (512, &[4096, 64], 320),
            (64, &[4096, 64], 16),
            (1, &[4096, 64], 1),
        ];
        for (files, wanted, most) in rows {
            assert_eq!(level(carried(files), wanted), most, "{files} {wanted:?}");
            let sum: usize = wanted.iter().map(|&want| want.min(most)).sum();
            assert!(files < 10 || sum <= carried(files), "{files}: {sum}");
        }
    }
}
