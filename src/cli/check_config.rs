//! `check-config`: all that is wrong with a configuration, or what it amounts to.

use super::{Failure, print};
use crate::app;
use crate::config::{Config, Environment, explain};
use std::path::Path;

pub(super) fn check_config(file: &Path) -> Result<(), Failure> {
    let config = load(file)?;
    for warning in &config.warnings {
        print(format_args!("warning: {warning}"))?;
    }
    for line in explain(&config) {
        print(line)?;
    }
    print(format_args!("{}: ok", file.display()))
}

/// Reads a configuration, and tries what it is for as far as that goes without a connection: as `serve` does too.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    let config = Config::load(file, &Environment::of_process());
    let config = config.map_err(|problems| Failure::Usage(problems.to_string()))?;
    let wrong = app::rehearse(&config);
    if wrong.is_empty() { Ok(config) } else { Err(Failure::Usage(wrong.join("\n"))) }
}
