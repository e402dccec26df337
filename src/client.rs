//! The broker's own client, for the command line: one connection, every wait bounded but that for the next change.

mod error;
mod token;
mod watch;

use crate::grpc::pb;
use crate::grpc::pb::token_service_client::TokenServiceClient;
use error::refused;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub use error::{Error, Why};
pub use token::Token;
pub use watch::{Event, State, Watch};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between PINGs while a call is open.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// From a PING to giving up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
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

impl Client {
    /// Connects. `timeout` bounds each call. Without a scheme the endpoint is taken as `http://`.
    pub async fn connect(endpoint: &str, timeout: Duration) -> Result<Self, Error> {
        let has_scheme = endpoint.is_empty() || endpoint.contains("://");
        let endpoint = if has_scheme { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let parsed = Endpoint::from_shared(endpoint.clone());
        let parsed = parsed.map_err(|_invalid| Error::Endpoint(endpoint.clone()))?;
        if parsed.uri().authority().is_none() {
            return Err(Error::Endpoint(endpoint));
        }
        if parsed.uri().scheme_str() != Some("http") {
            return Err(Error::Scheme(endpoint));
        }
        // A stream must notice a broker that is gone without a word.
        let parsed = parsed.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = parsed.connect_timeout(CONNECT_TIMEOUT.min(timeout)).connect().await;
        let channel = channel.map_err(|transport| Error::Unreachable { why: Why::of(&transport), endpoint })?;
        Ok(Self { channel, timeout })
    }

    /// `TokenService.GetToken`.
    pub async fn get_token(&self, workspace: &str, min_validity: Option<Duration>) -> Result<Token, Error> {
        let mut service = self.tokens();
        let min_validity = min_validity.map(prost_types::Duration::try_from).transpose();
        let min_validity = min_validity.map_err(|_too_long| Error::MinValidity)?;
        let request = self.request(pb::GetTokenRequest { workspace: workspace.to_owned(), min_validity });
        Token::of_call(self.bounded(service.get_token(request)).await?)
    }

    /// `TokenService.ReportRejectedToken`: the replacement. `upstream_status` is the HTTP status of the rejection.
    pub async fn report(&self, workspace: &str, fingerprint: &str, upstream_status: u16) -> Result<Token, Error> {
        let mut service = self.tokens();
        let request = self.request(pb::ReportRejectedTokenRequest {
            workspace: workspace.to_owned(),
            fingerprint: fingerprint.to_owned(),
            upstream_status: upstream_status.into(),
        });
        Token::of_report(self.bounded(service.report_rejected_token(request)).await?)
    }

    /// `TokenService.WatchTokens`. Only its beginning is bounded in time.
    pub async fn watch(&self, workspaces: &[String]) -> Result<Watch, Error> {
        let mut service = self.tokens();
        let request = pb::WatchTokensRequest { workspaces: workspaces.to_vec() };
        Ok(Watch(self.bounded(service.watch_tokens(request)).await?))
    }

    /// `grpc.health.v1.Health/Check`: whether the service is SERVING. The empty name stands for the whole broker.
    pub async fn is_serving(&self, service: &str) -> Result<bool, Error> {
        let mut health = HealthClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let request = self.request(HealthCheckRequest { service: service.to_owned() });
        let response = self.bounded(health.check(request)).await?;
        Ok(response.status() == ServingStatus::Serving)
    }

    fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
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
