//! `get`, `report` and `healthcheck`: one question to a running broker.

use super::{Broker, Failure, print};
use crate::client::Token;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// What to get.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Get {
    /// The Workspace.
    workspace: String,
    /// Print everything about the token as JSON, not the bare token.
    #[arg(long)]
    json: bool,
    /// The least time that the token must still be valid, such as 5m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    min_validity: Option<Duration>,
}

/// What to report.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Report {
    /// The Workspace.
    workspace: String,
    /// Which token was rejected: its fingerprint, as get --json and watch print it.
    // One in 64 begins with a hyphen.
    #[arg(long, value_name = "FINGERPRINT", allow_hyphen_values = true)]
    fingerprint: String,
    /// The HTTP status with which the upstream rejected it: 400 to 499 but not 429.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..=499))]
    status: u16,
    /// Print everything about the replacement as JSON, not the bare token.
    #[arg(long)]
    json: bool,
}

pub(super) async fn get(broker: Broker, get: Get) -> Result<(), Failure> {
    let client = broker.connect().await?;
    let token = client.get_token(&get.workspace, get.min_validity).await?;
    show(&get.workspace, &token, get.json)
}

pub(super) async fn report(broker: Broker, report: Report) -> Result<(), Failure> {
    let client = broker.connect().await?;
    let token = client.report(&report.workspace, &report.fingerprint, report.status).await?;
    show(&report.workspace, &token, report.json)
}

fn show(workspace: &str, token: &Token, json: bool) -> Result<(), Failure> {
    if json { print(format_args!("{:#}", as_json(workspace, token))) } else { print(token.value.expose()) }
}

pub(super) async fn healthcheck(broker: Broker, service: &str) -> Result<(), Failure> {
    let client = broker.connect().await?;
    if client.is_serving(service).await? { print("serving") } else { Err(Failure::Failed("not serving".into())) }
}

/// Everything about a token.
pub(super) fn as_json(workspace: &str, token: &Token) -> serde_json::Value {
    let at = |time: Option<SystemTime>| time.map(|time| humantime::format_rfc3339_millis(time).to_string());
    let extra = token.extra_headers.iter();
    let extra: BTreeMap<&str, &str> = extra.map(|(name, value)| (name.as_str(), value.expose())).collect();
    json!({
        "workspace": workspace,
        "value": token.value.expose(),
        "token_type": token.token_type,
        "header_name": token.header_name,
        "extra_headers": extra,
        "attributes": token.attributes,
        "issued_at": at(token.issued_at),
        "expires_at": at(token.expires_at),
        "refresh_after": at(token.refresh_after),
        "valid_for_seconds": token.valid_for.as_secs_f64(),
        "generation": token.generation,
        "fingerprint": token.fingerprint,
        "source": token.source,
    })
}
