//! Requests into what the broker understands, tokens into what callers read. All validation of requests is here.

use super::pb;
use crate::broker::Ask;
use crate::clock::Now;
use crate::engine::{Served, Source};
use crate::error::Error;
use crate::token::WorkspaceName;
use prost_types::Timestamp;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The longest `min_validity` that is understood: ten years, far beyond any token.
const LONGEST_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

impl pb::GetTokenRequest {
    pub(super) fn into_ask(self, deadline: Instant) -> Result<Ask, Error> {
        let workspace =
            WorkspaceName::parse(&self.workspace).map_err(|why| Error::invalid("workspace", why.to_string()))?;
        let min_validity = self.min_validity.map_or(Ok(Duration::ZERO), min_validity)?;
        Ok(Ask { workspace, min_validity, deadline })
    }
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

/// What the caller reads, as of `now`.
pub(super) fn response(served: &Served, now: Now) -> pb::GetTokenResponse {
    let left = served.held.validity.remaining(now);
    pb::GetTokenResponse {
        token: Some(token(served)),
        valid_for: Some(prost_types::Duration {
            seconds: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            nanos: left.subsec_nanos().cast_signed(),
        }),
        source: match served.source {
            Source::Cache => pb::TokenSource::Cache.into(),
            Source::Exchanged => pb::TokenSource::Exchanged.into(),
        },
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

    fn ask(seconds: i64, nanos: i32) -> Result<Duration, &'static str> {
        let request = pb::GetTokenRequest {
            workspace: "a".to_owned(),
            min_validity: Some(prost_types::Duration { seconds, nanos }),
        };
        let ask = request.into_ask(Instant::now());
        ask.map(|ask| ask.min_validity).map_err(|error| error.violation.unwrap().field)
    }

    #[tokio::test]
    async fn min_validity_is_taken_as_it_is_or_refused() {
        assert_eq!(ask(0, 0), Ok(Duration::ZERO));
        assert_eq!(ask(60, 5), Ok(Duration::new(60, 5)));
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (1, -1), (-1, 1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, i32::MIN)]
        {
            assert_eq!(ask(seconds, nanos), Err("min_validity"), "{seconds} {nanos}");
        }
    }
}
