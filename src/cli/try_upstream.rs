//! `try-upstream`: one exchange, and every step of it in words, without a broker and without a secret shown.

use super::check_config::{load, source};
use super::{Failure, print};
use crate::app::Trial;
use crate::clock::Clock;
use crate::failure;
use crate::provider::Fetched;
use crate::provider::exchange::explain::{Answered, Event, Sent};
use crate::token::Fingerprint;
use clap::Args;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What to try.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The configuration file.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// The Workspace whose credential to exchange.
    workspace: String,
}

pub(super) async fn try_upstream(options: Options) -> Result<(), Failure> {
    let Options { config, workspace } = options;
    let (config, _) = load(&source(&config))?;
    for warning in &config.warnings {
        print(format_args!("warning: {warning}"))?;
    }
    let trial = Trial::new(config, &workspace).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let trial = trial.ok_or_else(|| Failure::Usage("the configuration has no workspace of this name".to_owned()))?;
    let Trial { upstream, kind, flow, base_url, .. } = &trial;
    print(format_args!("{workspace}: the flow {flow} of {kind}, upstream {upstream} at {base_url}"))?;
    let started = Clock::system().now().wall;
    let (first_failure, number) = (Mutex::new(None), Mutex::new(0));
    let listener = |event| {
        if let Err(failure) = print(told(&event, &number)) {
            first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    };
    let result = trial.run(&listener).await;
    if let Some(failure) = first_failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    match result {
        Ok(fetched) => print(granted(&fetched, started)),
        Err(error) => Err(Failure::Failed(format!("{error}\n{}", meaning(error.kind)).into())),
    }
}

fn told(event: &Event, number: &Mutex<usize>) -> String {
    match event {
        Event::Sent(sent) => {
            let mut number = number.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            format!("\n{number}. {}", request(sent))
        }
        Event::Answered(answered) => answer(answered),
    }
}

fn request(sent: &Sent) -> String {
    let Sent { stage, method, url, headers, body } = sent;
    let headers = headers.join(", ");
    let body = body.as_deref().unwrap_or("none");
    format!("{}: {method} {url}\n   headers  {headers}\n   body     {body}", stage.as_str())
}

fn answer(answered: &Answered) -> String {
    let Answered { status, body_bytes, members, outcome, .. } = answered;
    let came = match (status, body_bytes) {
        (Some(status), Some(bytes)) => format!("status {status}, {bytes} bytes"),
        (Some(status), None) => format!("status {status}, without a whole body"),
        (None, _) => "none".to_owned(),
    };
    let members = if members.is_empty() { String::new() } else { format!("\n   members  {}", members.join(", ")) };
    format!("   answer   {came}{members}\n   outcome  {outcome}")
}

fn granted(fetched: &Fetched, started: SystemTime) -> String {
    let Fetched { value, presentation, lifetime } = fetched;
    let scheme =
        if presentation.token_type.is_empty() { String::new() } else { format!("{} ", presentation.token_type) };
    let end = started + Duration::from_secs(lifetime.as_secs());
    let token = format!(
        "\nfingerprint  {}\npresented as {}: {scheme}…\nexpires at   {} (in {})",
        Fingerprint::of(value),
        presentation.header_name,
        humantime::format_rfc3339_seconds(end),
        humantime::format_duration(Duration::from_secs(lifetime.as_secs())),
    );
    let also = presentation.extra_headers.iter().map(|(name, _secret)| format!("\nalso         {name}: …"));
    let attributes = presentation.attributes.iter().map(|(name, value)| format!("\nattribute    {name} = {value}"));
    [token].into_iter().chain(also).chain(attributes).collect()
}

/// What a broker would do about it, or a person can.
fn meaning(kind: failure::Failure) -> &'static str {
    use failure::Failure::{LockedOut, Malformed, Rejected, TenantMismatch, Throttled, Unavailable, Unreachable};
    match kind {
        Unreachable => "No answer came. Look at url, proxy, ca_file and allow_private of the upstream.",
        Unavailable => "The upstream has trouble, or there is no such path. A broker would try again soon.",
        Throttled { .. } => "The upstream wants fewer requests. A broker would wait.",
        Rejected => {
            "The credential or a parameter is refused. A broker would not try again for five minutes, or until it is \
             changed."
        }
        LockedOut => "The account is locked for a while. A broker would wait for five minutes.",
        TenantMismatch => "The token is of another tenant than the workspace: a broker would not hand it out.",
        Malformed => {
            "The answer does not fit the description of the flow: compare its status and members with success, token \
             and expiry."
        }
    }
}
