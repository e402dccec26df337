//! Requests into what the broker understands, tokens into what callers read. All validation of requests is here.

use super::pb;
use super::pb::watch_tokens_response::State;
use crate::broker::{Ask, Report};
use crate::clock::Now;
use crate::engine::{Served, Source, View};
use crate::error::Error;
use crate::token::{Fingerprint, WorkspaceName};
use prost_types::Timestamp;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The longest `min_validity` that is understood: ten years, far beyond any token.
const LONGEST_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How many Workspaces one stream may follow.
const MOST_WATCHED: usize = 1_000;
/// A throttled request says nothing about its token (RFC 6585 §4).
const TOO_MANY_REQUESTS: i32 = 429;

impl pb::GetTokenRequest {
    pub(super) fn into_ask(self, deadline: Instant) -> Result<Ask, Error> {
        let workspace = workspace(&self.workspace)?;
        let min_validity = self.min_validity.map_or(Ok(Duration::ZERO), min_validity)?;
        Ok(Ask { workspace, min_validity, deadline })
    }
}

impl pb::ReportRejectedTokenRequest {
    pub(super) fn into_report(self, deadline: Instant) -> Result<Report, Error> {
        let workspace = workspace(&self.workspace)?;
        let rejected = Fingerprint::parse(&self.fingerprint).ok_or_else(|| {
            Error::invalid("fingerprint", "must be the 22 characters that stand in Token.fingerprint")
        })?;
        let is_a_rejection = (400..500).contains(&self.upstream_status) && self.upstream_status != TOO_MANY_REQUESTS;
        if !is_a_rejection {
            let text = "must be the HTTP status that rejected the token: 400 to 499 but not 429";
            return Err(Error::invalid("upstream_status", text));
        }
        Ok(Report { workspace, rejected, deadline })
    }
}

impl pb::WatchTokensRequest {
    pub(super) fn into_names(self) -> Result<Vec<WorkspaceName>, Error> {
        if !(1..=MOST_WATCHED).contains(&self.workspaces.len()) {
            return Err(Error::invalid("workspaces", format!("must hold 1 to {MOST_WATCHED} names")));
        }
        let mut seen = HashSet::new();
        let mut names = Vec::with_capacity(self.workspaces.len());
        for (at, text) in self.workspaces.iter().enumerate() {
            let invalid = |why: String| Error::invalid(format!("workspaces[{at}]"), why);
            names.push(WorkspaceName::parse(text).map_err(|why| invalid(why.to_string()))?);
            if !seen.insert(text) {
                return Err(invalid("stands there twice".to_owned()));
            }
        }
        Ok(names)
    }
}

fn workspace(text: &str) -> Result<WorkspaceName, Error> {
    WorkspaceName::parse(text).map_err(|why| Error::invalid("workspace", why.to_string()))
}

fn min_validity(wire: prost_types::Duration) -> Result<Duration, Error> {
    // An ill-formed duration (nanos out of range, signs that differ) must not be normalised into a valid one.
    let well_formed = (-999_999_999..=999_999_999).contains(&wire.nanos)
        && (wire.seconds == 0 || wire.nanos == 0 || (wire.seconds > 0) == (wire.nanos > 0));
    if !well_formed {
        return Err(Error::invalid("min_validity", "must be a well-formed google.protobuf.Duration"));
    }
    let validity =
        Duration::try_from(wire).map_err(|_negative| Error::invalid("min_validity", "must not be negative"))?;
    if validity > LONGEST_VALIDITY {
        return Err(Error::invalid("min_validity", "must be at most ten years"));
    }
    Ok(validity)
}

/// What a caller of `GetToken` reads, as of `now`.
pub(super) fn response(served: &Served, now: Now) -> pb::GetTokenResponse {
    pb::GetTokenResponse {
        token: Some(token(served)),
        valid_for: Some(valid_for(served, now)),
        source: source(served).into(),
    }
}

/// What a caller of `ReportRejectedToken` reads, as of `now`.
pub(super) fn replacement(served: &Served, now: Now) -> pb::ReportRejectedTokenResponse {
    pb::ReportRejectedTokenResponse {
        token: Some(token(served)),
        valid_for: Some(valid_for(served, now)),
        source: source(served).into(),
    }
}

/// What a watcher reads of one Workspace, as of `now`.
pub(super) fn state(workspace: &WorkspaceName, view: &View, now: Now) -> pb::WatchTokensResponse {
    let (state, valid_for) = match view {
        View::Token(served) => (State::Token(token(served)), Some(valid_for(served, now))),
        View::Withdrawn(error) => (State::Withdrawn(withdrawn(error)), None),
    };
    pb::WatchTokensResponse { workspace: workspace.as_str().to_owned(), state: Some(state), valid_for }
}

fn withdrawn(error: &Error) -> pb::Withdrawn {
    pb::Withdrawn { reason: error.reason.as_str().to_owned(), retry_after: error.retry_after.map(duration) }
}

fn valid_for(served: &Served, now: Now) -> prost_types::Duration {
    duration(served.held.validity.remaining(now))
}

fn source(served: &Served) -> pb::TokenSource {
    match served.source {
        Source::Cache => pb::TokenSource::Cache,
        Source::Exchanged => pb::TokenSource::Exchanged,
    }
}

fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: span.subsec_nanos().cast_signed(),
    }
}

fn token(served: &Served) -> pb::Token {
    let (token, validity) = (&served.token, &served.held.validity);
    let shown = &token.presentation;
    let extra = shown.extra_headers.iter();
    pb::Token {
        workspace: token.workspace.as_str().to_owned(),
        value: token.value.expose().to_owned(),
        token_type: shown.token_type.clone(),
        header_name: shown.header_name.clone(),
        extra_headers: extra
            .map(|(name, value)| pb::Header { name: name.clone(), value: value.expose().to_owned() })
            .collect(),
        attributes: shown.attributes.clone().into_iter().collect(),
        issued_at: Some(timestamp(validity.started.wall)),
        expires_at: Some(timestamp(validity.expires_at())),
        refresh_after: Some(timestamp(served.held.refresh_after())),
        generation: token.generation,
        fingerprint: token.fingerprint.to_string(),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(seconds: i64, nanos: i32) -> Result<Duration, String> {
        let request = pb::GetTokenRequest {
            workspace: "a".to_owned(),
            min_validity: Some(prost_types::Duration { seconds, nanos }),
        };
        let ask = request.into_ask(Instant::now());
        ask.map(|ask| ask.min_validity).map_err(|error| error.violation.unwrap().field.into_owned())
    }

    #[tokio::test]
    async fn min_validity_is_taken_as_it_is_or_refused() {
        assert_eq!(ask(0, 0), Ok(Duration::ZERO));
        assert_eq!(ask(60, 5), Ok(Duration::new(60, 5)));
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (1, -1), (-1, 1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, i32::MIN)]
        {
            assert_eq!(ask(seconds, nanos), Err("min_validity".to_owned()), "{seconds} {nanos}");
        }
    }
}
