//! `serve`: the broker by configuration.

use super::harden::harden;
use super::{Failure, block_on, check_config};
use crate::app::{self, App};
use crate::config::{Log, LogFormat};
use crate::grpc::Reflection;
use crate::supervisor::Hangup;
use crate::telemetry::logs::{self, Filter, Format};
use std::path::Path;

pub(super) fn serve(file: &Path) -> Result<(), Failure> {
    let hardened = harden();
    block_on(async {
        // First of all: who asks for another look before the first one is over must not end the process by it.
        let hangup = Hangup::install().map_err(app::Error::Signals)?;
        let source = check_config::source(file);
        let (config, files) = check_config::load(&source)?;
        let filter = start_logging(&config.log)?;
        hardened.warn();
        for warning in &config.warnings {
            tracing::warn!(%warning, "configuration");
        }
        let app = App::bind(config, Reflection::Off).await?;
        Ok(app.following(source, files, filter, hangup).run().await?)
    })
}

pub(super) fn start_logging(log: &Log) -> Result<Filter, Failure> {
    let format = match log.format {
        LogFormat::Human => Format::Human,
        LogFormat::Json => Format::Json,
    };
    Ok(logs::init(format, log.level.as_str())?)
}
