//! A token as a client reads it.

use super::Error;
use crate::grpc::pb;
use crate::secret::AccessToken;
use prost_types::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// A token as the broker handed it out.
#[derive(Debug)]
pub struct Token {
    /// The token itself.
    pub value: AccessToken,
    /// The scheme before it.
    pub token_type: String,
    /// The header that carries it.
    pub header_name: String,
    /// Further secret headers that travel with it.
    pub extra_headers: Vec<(String, AccessToken)>,
    /// Companion values that are no secret.
    pub attributes: BTreeMap<String, String>,
    /// When the broker sent the request that brought it.
    pub issued_at: Option<SystemTime>,
    /// When the broker stops trusting it.
    pub expires_at: Option<SystemTime>,
    /// When to ask again.
    pub refresh_after: Option<SystemTime>,
    /// What was left of it when the broker answered.
    pub valid_for: Duration,
    /// Orders tokens of one Workspace.
    pub generation: u64,
    /// Names it.
    pub fingerprint: String,
    /// `CACHE` or `EXCHANGED`, for an answer to a call.
    pub source: Option<&'static str>,
}

impl Token {
    pub(super) fn of_call(response: pb::GetTokenResponse) -> Result<Self, Error> {
        let source = source(response.source());
        Self::read(response.token, response.valid_for, Some(source))
    }

    pub(super) fn of_report(response: pb::ReportRejectedTokenResponse) -> Result<Self, Error> {
        let source = source(response.source());
        Self::read(response.token, response.valid_for, Some(source))
    }

    pub(super) fn read(
        token: Option<pb::Token>,
        valid_for: Option<prost_types::Duration>,
        source: Option<&'static str>,
    ) -> Result<Self, Error> {
        let token = token.filter(|token| !token.value.is_empty()).ok_or(Error::Incomplete)?;
        Ok(Self {
            value: AccessToken::new(token.value),
            token_type: token.token_type,
            header_name: token.header_name,
            extra_headers: token.extra_headers.into_iter().map(|h| (h.name, AccessToken::new(h.value))).collect(),
            attributes: token.attributes.into_iter().collect(),
            issued_at: token.issued_at.and_then(time),
            expires_at: token.expires_at.and_then(time),
            refresh_after: token.refresh_after.and_then(time),
            valid_for: valid_for.and_then(|left| left.try_into().ok()).unwrap_or_default(),
            generation: token.generation,
            fingerprint: token.fingerprint,
            source,
        })
    }
}

fn source(source: pb::TokenSource) -> &'static str {
    match source {
        pb::TokenSource::Unspecified => "UNSPECIFIED",
        pb::TokenSource::Cache => "CACHE",
        pb::TokenSource::Exchanged => "EXCHANGED",
    }
}

/// Only what RFC 3339 can write and this machine can count: a broker's answer is input like any other.
fn time(timestamp: Timestamp) -> Option<SystemTime> {
    const YEAR_10_000: i64 = 253_402_300_800;
    let sound = (0..YEAR_10_000).contains(&timestamp.seconds) && (0..1_000_000_000).contains(&timestamp.nanos);
    sound.then_some(timestamp)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_calendar_holds_is_none() {
        for (seconds, nanos) in [(-1, 0), (253_402_300_800, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(time(Timestamp { seconds, nanos }), None, "{seconds} {nanos}");
        }
        let last = time(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }).unwrap();
        assert_eq!(humantime::format_rfc3339_millis(last).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
