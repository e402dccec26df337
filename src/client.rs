//! The broker's own client, for the command line: one connection, every wait bounded but that for the next change.

mod connect;
mod endpoint;
mod error;
mod files;
mod token;
mod watch;
mod why;

use crate::grpc::pb;
use crate::grpc::pb::token_service_client::TokenServiceClient;
use connect::{Connector, Noted};
use endpoint::{Endpoint, Way};
use error::refused;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub use error::Error;
pub use files::Identity;
pub use token::Token;
pub use watch::{Event, State, Watch};
pub use why::{Distrust, Flaw, Objection, Why};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between PINGs while a call is open.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// From a PING to giving up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the broker is told beyond the caller's own limit: tonic enforces what it tells, and calls that "Cancelled".
const TIMEOUT_SPARE: Duration = Duration::from_secs(1);
/// The largest answer that is read, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// What a client trusts and shows. No file is kept: those of TLS are read for each connection, the token for each
/// call.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The certificates of the authorities that the broker's own must come from. Without it: the bundled public ones.
    pub ca: Option<PathBuf>,
    /// The client's own certificate.
    pub identity: Option<Identity>,
    /// The name that the broker's certificate must hold, in place of the endpoint's host.
    pub server_name: Option<String>,
    /// The bearer token.
    pub token: Option<PathBuf>,
    /// Whether the token may be sent in plaintext over a network.
    pub clear: Clear,
}

/// Whether a bearer token may be sent where others can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clear {
    /// It is not sent.
    #[default]
    Refused,
    /// Something else protects the way, such as a mesh.
    Accepted,
}

/// A connection to a broker.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    endpoint: Arc<Endpoint>,
    access: Arc<Access>,
    noted: Noted,
    timeout: Duration,
}

impl Client {
    /// Connects, with nothing to show. `timeout` bounds each call. Without a scheme the endpoint is taken as `http://`.
    pub async fn connect(endpoint: &str, timeout: Duration) -> Result<Self, Error> {
        Self::connect_with(endpoint, Access::default(), timeout).await
    }

    /// The same, with this access.
    pub async fn connect_with(endpoint: &str, access: Access, timeout: Duration) -> Result<Self, Error> {
        let endpoint = Arc::new(access.to(endpoint)?);
        let (access, noted, limit) = (Arc::new(access), Noted::default(), CONNECT_TIMEOUT.min(timeout));
        let connector =
            Connector { endpoint: Arc::clone(&endpoint), access: Arc::clone(&access), limit, noted: noted.clone() };
        let connector = tower::service_fn(move |_origin| connector.clone().connect());
        // A stream must notice a broker that is gone without a word.
        let channel = Channel::builder(endpoint.origin())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_timeout(limit);
        let channel = channel.connect_with_connector(connector).await;
        let channel = channel.map_err(|transport| {
            let unreachable = || Error::Unreachable { why: Why::of(&transport), endpoint: endpoint.text.clone() };
            Error::within(&transport).unwrap_or_else(unreachable)
        })?;
        Ok(Self { channel, endpoint, access, noted, timeout })
    }

    /// `TokenService.GetToken`.
    pub async fn get_token(&self, workspace: &str, min_validity: Option<Duration>) -> Result<Token, Error> {
        let min_validity = min_validity.map(prost_types::Duration::try_from).transpose();
        let min_validity = min_validity.map_err(|_too_long| Error::MinValidity)?;
        let request = pb::GetTokenRequest { workspace: workspace.to_owned(), min_validity };
        let mut service = self.tokens();
        Token::of_call(self.call(request, async |request| service.get_token(request).await).await?)
    }

    /// `TokenService.ReportRejectedToken`: the replacement. `upstream_status` is the HTTP status of the rejection.
    pub async fn report(&self, workspace: &str, fingerprint: &str, upstream_status: u16) -> Result<Token, Error> {
        let request = pb::ReportRejectedTokenRequest {
            workspace: workspace.to_owned(),
            fingerprint: fingerprint.to_owned(),
            upstream_status: upstream_status.into(),
        };
        let mut service = self.tokens();
        Token::of_report(self.call(request, async |request| service.report_rejected_token(request).await).await?)
    }

    /// `TokenService.WatchTokens`. Only its beginning is bounded in time.
    pub async fn watch(&self, workspaces: &[String]) -> Result<Watch, Error> {
        let request = pb::WatchTokensRequest { workspaces: workspaces.to_vec() };
        let mut service = self.tokens();
        // With a timeout of its own the broker would end the stream by it, however well it goes.
        let open = async |mut request: Request<_>| {
            request.metadata_mut().remove("grpc-timeout");
            service.watch_tokens(request).await
        };
        Ok(Watch(self.call(request, open).await?))
    }

    /// `grpc.health.v1.Health/Check`: whether the service is SERVING. The empty name stands for the whole broker.
    pub async fn is_serving(&self, service: &str) -> Result<bool, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut health = HealthClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let response = self.call(request, async |request| health.check(request).await).await?;
        Ok(response.status() == ServingStatus::Serving)
    }

    fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    /// One call within its time, by the token as it is now.
    async fn call<Q, A>(
        &self,
        message: Q,
        call: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let answer = async {
            let request = self.request(message).await?;
            call(request).await.map(Response::into_inner).map_err(|status| self.failed(&status))
        };
        timeout(self.timeout, answer).await.unwrap_or(Err(Error::TimedOut(self.timeout)))
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout + TIMEOUT_SPARE);
        if let Some(path) = &self.access.token {
            request.metadata_mut().insert("authorization", files::bearer(path).await?);
        }
        Ok(request)
    }

    /// Who objects to a connection may do so after it was made, and then a call hears no more than that it is cut.
    fn failed(&self, status: &Status) -> Error {
        match (self.noted.why(), refused(status)) {
            (Some(why), Error::Refused { .. }) => Error::Unreachable { endpoint: self.endpoint.text.clone(), why },
            (_, error) => error,
        }
    }
}

impl Access {
    /// The endpoint, unless this access contradicts it.
    fn to(&self, endpoint: &str) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::parse(endpoint, self.server_name.as_deref())?;
        let of_tls = [
            ("--ca", self.ca.is_some()),
            ("--cert", self.identity.is_some()),
            ("--server-name", self.server_name.is_some()),
        ];
        let idle = of_tls.into_iter().find(|(_, is_set)| *is_set && !matches!(endpoint.way, Way::Tls(..)));
        if let Some((option, _)) = idle {
            return Err(Error::NotEncrypted { option, endpoint: endpoint.text });
        }
        if self.token.is_some() && self.clear == Clear::Refused && !endpoint.is_private() {
            return Err(Error::BearerInTheClear(endpoint.text));
        }
        Ok(endpoint)
    }
}
