//! The broker's own client, for the command line: one call, one connection, every wait bounded.

use crate::grpc::pb;
use crate::grpc::pb::token_service_client::TokenServiceClient;
use crate::secret::AccessToken;
use prost_types::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What the broker is told beyond the caller's own limit: tonic enforces what it tells, and calls that "Cancelled".
const TIMEOUT_SPARE: Duration = Duration::from_secs(1);
/// The largest answer that is read, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// A connection to a broker.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    timeout: Duration,
}

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
    /// `CACHE` or `EXCHANGED`.
    pub source: &'static str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error("{0:?} is not an address such as http://127.0.0.1:7700")]
    Endpoint(String),
    /// Another scheme than http: nobody must believe that the token travels encrypted.
    #[error("{0:?} is not an http:// address; the broker speaks plaintext, on loopback")]
    Scheme(String),
    /// Nobody answers there.
    #[error("can't reach the broker at {0}; is it running?")]
    Unreachable(String),
    /// The wait is over.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// No broker takes such a `min_validity`.
    #[error("min_validity must be at most ten years")]
    MinValidity,
    /// The broker says no.
    #[error("{0}")]
    Refused(String),
    /// The broker's answer lacks something that it must hold.
    #[error("the broker's answer holds no token")]
    Incomplete,
}

impl Client {
    /// Connects. `timeout` bounds each call.
    pub async fn connect(endpoint: &str, timeout: Duration) -> Result<Self, Error> {
        let parsed = Endpoint::from_shared(endpoint.to_owned());
        let parsed = parsed.map_err(|_invalid| Error::Endpoint(endpoint.to_owned()))?;
        if parsed.uri().authority().is_none() {
            return Err(Error::Endpoint(endpoint.to_owned()));
        }
        if parsed.uri().scheme_str() != Some("http") {
            return Err(Error::Scheme(endpoint.to_owned()));
        }
        let channel = parsed.connect_timeout(CONNECT_TIMEOUT.min(timeout)).connect().await;
        let channel = channel.map_err(|_transport| Error::Unreachable(endpoint.to_owned()))?;
        Ok(Self { channel, timeout })
    }

    /// `TokenService.GetToken`.
    pub async fn get_token(&self, workspace: &str, min_validity: Option<Duration>) -> Result<Token, Error> {
        let mut service = TokenServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let min_validity = min_validity.map(prost_types::Duration::try_from).transpose();
        let min_validity = min_validity.map_err(|_too_long| Error::MinValidity)?;
        let request = self.request(pb::GetTokenRequest { workspace: workspace.to_owned(), min_validity });
        Token::read(self.bounded(service.get_token(request)).await?)
    }

    /// `grpc.health.v1.Health/Check`: whether the service is SERVING. The empty name stands for the whole broker.
    pub async fn is_serving(&self, service: &str) -> Result<bool, Error> {
        let mut health = HealthClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let request = self.request(HealthCheckRequest { service: service.to_owned() });
        let response = self.bounded(health.check(request)).await?;
        Ok(response.status() == ServingStatus::Serving)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout + TIMEOUT_SPARE);
        request
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        match timeout(self.timeout, call).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| refused(&status)),
            Err(_elapsed) => Err(Error::TimedOut(self.timeout)),
        }
    }
}

impl Token {
    fn read(response: pb::GetTokenResponse) -> Result<Self, Error> {
        let source = match response.source() {
            pb::TokenSource::Unspecified => "UNSPECIFIED",
            pb::TokenSource::Cache => "CACHE",
            pb::TokenSource::Exchanged => "EXCHANGED",
        };
        let valid_for = response.valid_for.and_then(|left| left.try_into().ok()).unwrap_or_default();
        let token = response.token.filter(|token| !token.value.is_empty()).ok_or(Error::Incomplete)?;
        Ok(Self {
            value: AccessToken::new(token.value),
            token_type: token.token_type,
            header_name: token.header_name,
            extra_headers: token.extra_headers.into_iter().map(|h| (h.name, AccessToken::new(h.value))).collect(),
            attributes: token.attributes.into_iter().collect(),
            issued_at: token.issued_at.and_then(time),
            expires_at: token.expires_at.and_then(time),
            refresh_after: token.refresh_after.and_then(time),
            valid_for,
            generation: token.generation,
            fingerprint: token.fingerprint,
            source,
        })
    }
}

/// Only what RFC 3339 can write and this machine can count: a broker's answer is input like any other.
fn time(timestamp: Timestamp) -> Option<SystemTime> {
    const YEAR_10_000: i64 = 253_402_300_800;
    let sound = (0..YEAR_10_000).contains(&timestamp.seconds) && (0..1_000_000_000).contains(&timestamp.nanos);
    sound.then_some(timestamp)?.try_into().ok()
}

/// The broker's words, with the reason that programs go by and when to try again.
fn refused(status: &Status) -> Error {
    let mut text = format!("{:?}", status.code());
    if let Some(info) = status.get_details_error_info() {
        // Writing to a String can't fail.
        let _infallible = write!(text, " ({})", info.reason);
    }
    let _infallible = write!(text, ": {}", status.message());
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        let _infallible = write!(text, "; try again in {:.1} s", delay.as_secs_f64());
    }
    // The broker itself never answers so.
    if matches!(status.code(), Code::Unimplemented | Code::Unknown) {
        text.push_str("; is this the gRPC address of a token-broker, and is it running?");
    }
    Error::Refused(text)
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
