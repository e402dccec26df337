//! What the system denies to onlookers.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use std::fmt;

/// A protection that the system did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    what: &'static str,
    error: io::Errno,
}

/// Asks for all of them, and says which were not to be had:
///
/// * not dumpable: nobody but root attaches a debugger or reads `/proc/PID/mem`, also not who runs as the same user;
/// * no core file;
/// * no new privileges by executing a program.
///
/// To be called before there is a second thread: the last is one thread's own, and threads have it from who starts them.
pub fn harden() -> Vec<Shortfall> {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let asked = [
        ("the process can be read by others of its user", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        ("a crash can leave a core file", setrlimit(Resource::Core, no_core)),
        ("a program that it executed could gain privileges", set_no_new_privs(true)),
    ];
    let failed = |(what, outcome): (_, io::Result<()>)| outcome.err().map(|error| Shortfall { what, error });
    asked.into_iter().filter_map(failed).collect()
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortfall_says_what_it_means_and_why() {
        let shortfall = Shortfall { what: "a crash can leave a core file", error: io::Errno::PERM };
        assert!(shortfall.to_string().starts_with("a crash can leave a core file: Operation not permitted"));
    }
}
