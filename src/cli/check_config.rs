//! `check-config`: all that is wrong with a configuration, or what it amounts to.

use super::{Failure, print};
use crate::app;
use crate::config::{Config, Environment, Files, Loaded, Source, explain};
use std::mem;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long files that change while they are read are left alone before they are read again.
const SETTLE: Duration = Duration::from_millis(100);
/// Files that change as often as this are not waited for.
const MOST_TRIES: usize = 10;

pub(super) fn check_config(file: &Path) -> Result<(), Failure> {
    let (mut config, _) = load(&source(file))?;
    let (lines, warnings) = (explain(&config), mem::take(&mut config.warnings));
    app::rehearse_whole(config).map_err(|problems| Failure::Usage(problems.to_string()))?;
    for warning in warnings {
        print(format_args!("warning: {warning}"))?;
    }
    for line in lines {
        print(line)?;
    }
    print(format_args!("{}: ok", file.display()))
}

/// This file, and the environment of this process over it.
pub(super) fn source(file: &Path) -> Source {
    Source::new(file, Environment::of_process())
}

/// Reads a configuration, and tries what it is for as far as that goes without a connection: as `serve` does too.
/// Blocks.
pub(super) fn load(source: &Source) -> Result<(Config, Files), Failure> {
    let Loaded { config, files } = settled(|| source.load(), || sleep(SETTLE))?;
    let usable = config.and_then(|config| app::rehearse(&config).map(|()| config));
    let config = usable.map_err(|problems| Failure::Usage(problems.to_string()))?;
    Ok((config, files))
}

/// Files that change while they are read may fit each other by chance only: they are read again, after a pause.
fn settled(mut load: impl FnMut() -> Loaded, pause: impl Fn()) -> Result<Loaded, Failure> {
    for _ in 0..MOST_TRIES {
        let loaded = load();
        if loaded.files.are_of_one_piece() {
            return Ok(loaded);
        }
        pause();
    }
    Err(Failure::Failed("the configuration changes again and again while it is read".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    /// Loads a configuration that is changed after so many readings, each time to another limit. Gives the limit that
    /// was taken, and how often the file was read.
    fn taken(changes: usize) -> (Option<usize>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token-broker.toml");
        let write = |limit| fs::write(&path, format!("engine.max_workspaces = {limit}")).unwrap();
        let source = Source::new(&path, Environment::default());
        let loads = Cell::new(0);
        write(10);
        let load = || {
            let loaded = source.load();
            loads.set(loads.get() + 1);
            if loads.get() <= changes {
                write(10_usize.pow(1 + u32::try_from(loads.get() % 2).unwrap()));
            }
            loaded
        };
        let loaded = settled(load, || ()).ok();
        (loaded.map(|loaded| loaded.config.unwrap().engine.max_workspaces), loads.get())
    }

    #[test]
    fn files_that_change_while_they_are_read_are_read_again() {
        assert_eq!(taken(0), (Some(10), 1));
        assert_eq!(taken(1), (Some(100), 2));
        assert_eq!(taken(usize::MAX), (None, MOST_TRIES));
    }
}
