//! `try-upstream`: one exchange, and every step of it in words, without a broker. Of what is sent, the secrets of the
//! credential, the tokens and the extra parameters are masked; of what comes back, only what the description calls an
//! attribute is shown.

use super::check_config::{load, source};
use super::harden::Hardened;
use super::{Failure, print};
use crate::app::Trial;
use crate::clock::Clock;
use crate::config::nearest;
use crate::failure;
use crate::provider::Fetched;
use crate::provider::exchange::explain::{Answered, Event, Sent};
use crate::provider::recipe::Stage;
use crate::token::Fingerprint;
use clap::Args;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Exchanges a second time, by the refresh token that the login brought.
    #[arg(long)]
    refresh: bool,
}

pub(super) async fn try_upstream(options: Options, hardened: Hardened) -> Result<(), Failure> {
    let Options { config, workspace, refresh } = options;
    let (config, _) = load(&source(&config))?;
    for shortfall in hardened.shortfalls() {
        print(format_args!("warning: {shortfall}"))?;
    }
    for warning in &config.warnings {
        print(format_args!("warning: {warning}"))?;
    }
    let near = nearest(&workspace, config.workspaces.iter().map(|one| one.name.as_str())).map(str::to_owned);
    let trial = Trial::new(config, &workspace).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let trial = trial.ok_or_else(|| {
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Failure::Usage(format!("the configuration has no workspace of this name{hint}"))
    })?;
    let Trial { upstream, kind, flow, url, .. } = &trial;
    print(format_args!("{workspace}: the flow {flow} of {kind}, upstream {upstream} at {url}"))?;
    let told = Told::default();
    once(&trial, &told).await?;
    if refresh {
        again(&trial, &told).await?;
    }
    Ok(())
}

/// One attempt, and what it brought.
async fn once(trial: &Trial, told: &Told) -> Result<(), Failure> {
    let started = Clock::system().now().wall;
    let result = trial.run(&|event| told.tell(&event)).await;
    told.printed()?;
    match result {
        Ok(fetched) => print(granted(&fetched, started)),
        Err(error) => Err(Failure::Failed(format!("{error}\n{}", meaning(error.kind)).into())),
    }
}

/// A second attempt, which has to get its token by a refresh.
async fn again(trial: &Trial, told: &Told) -> Result<(), Failure> {
    if !trial.would_refresh() {
        let text = "there is nothing to refresh with: the flow has no refresh, or the login's answer no refresh token";
        return Err(Failure::Failed(text.into()));
    }
    once(trial, told).await?;
    if told.state().refused {
        let text = "the refresh failed, and the login after it brought the token: a broker would log in each time";
        return Err(Failure::Failed(text.into()));
    }
    Ok(())
}

/// What has been printed of the steps.
#[derive(Default)]
struct Told(Mutex<State>);

#[derive(Default)]
struct State {
    requests: usize,
    /// Whether a refresh brought no token.
    refused: bool,
    failure: Option<Failure>,
}

impl Told {
    fn tell(&self, event: &Event) {
        let mut state = self.state();
        let text = match event {
            Event::Sent(sent) => {
                state.requests += 1;
                format!("\n{}. {}", state.requests, request(sent))
            }
            Event::Answered(answered) => {
                state.refused |= answered.stage == Stage::Refresh && !answered.is_good;
                answer(answered)
            }
        };
        if let Err(failure) = print(text) {
            state.failure.get_or_insert(failure);
        }
    }

    /// The first failure to print, if there was one.
    fn printed(&self) -> Result<(), Failure> {
        self.state().failure.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            "The answer does not fit the description of the flow: compare its status and members with success, when, \
             failures, token, token_type, expiry, extra_headers and attributes. An answer that refuses something with \
             a status of success needs a rule in failures."
        }
    }
}
