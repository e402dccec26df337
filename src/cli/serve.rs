//! `serve`: the broker by configuration.

use super::{Failure, block_on, check_config};
use crate::app::App;
use crate::config::{Log, LogFormat};
use crate::grpc::Reflection;
use crate::telemetry::logs::{self, Format};
use std::path::Path;

pub(super) fn serve(file: &Path) -> Result<(), Failure> {
    let config = check_config::load(file)?;
    start_logging(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    block_on(async {
        let app = App::bind(config, Reflection::Off).await?;
        Ok(app.run().await?)
    })
}

pub(super) fn start_logging(log: &Log) -> Result<(), Failure> {
    let format = match log.format {
        LogFormat::Human => Format::Human,
        LogFormat::Json => Format::Json,
    };
    Ok(logs::init(format, log.level.as_str())?)
}
