//! The gRPC face with its real routes and layers, over memory instead of a port, on paused time.
//!
//! The client enforces no deadline of its own, so that what is seen is what the broker does.

mod deadlines;
mod fake;
mod health;
mod input;
mod matrix;
mod reasons;
mod report;
mod rights;
mod surface;
mod token;
mod watch;

use crate::grants::all_to_loopback;
use fake::FakeProvider;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use token_broker::broker::Broker;
use token_broker::clock::Clock;
use token_broker::engine::{self, Engine};
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{GetTokenRequest, GetTokenResponse};
use token_broker::grpc::{self, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::identity::{self, Authenticated, Caller};
use token_broker::listener::{Limits, Peer, serve_io};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use token_broker::token::WorkspaceName;
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::io::duplex;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::Service;

/// The Workspace of [`App`].
const WORKSPACE: &str = "fleet/europe";
const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";
/// Beyond every limit of the broker: a wait that reaches it has hung.
const HUNG: Duration = Duration::from_secs(120);
/// What a client takes of one answer unread (RFC 9113 §6.9.2), in bytes.
const USUAL_WINDOW: u32 = 65_535;
const HOUR: Duration = Duration::from_secs(3600);
/// When a connection is asked to go. Paused time leaps, and few tests are about the age.
const USUAL_AGE: Duration = Duration::from_secs(365 * 86_400);

/// A broker with one Workspace, and a client of it.
struct App {
    channel: Channel,
    routes: axum::Router,
    peer: Peer,
    broker: Broker,
    engine: Engine,
    provider: Arc<FakeProvider>,
    clock: Clock,
    readiness: Readiness,
    supervisor: Supervisor,
    metrics: Metrics,
}

impl App {
    async fn new() -> Self {
        Self::start(Reflection::Off, Readiness::new(), Caller::loopback()).await
    }

    /// Called by somebody who may do nothing.
    async fn of_a_stranger() -> Self {
        Self::start(Reflection::Off, Readiness::new(), Caller::unix(1)).await
    }

    async fn start(reflection: Reflection, readiness: Readiness, caller: Caller) -> Self {
        Self::judged(Rule { max_unhealthy: 1.0 }, reflection, readiness, caller).await
    }

    /// With this rule over all Workspaces.
    async fn judged(rule: Rule, reflection: Reflection, readiness: Readiness, caller: Caller) -> Self {
        let (clock, supervisor) = (Clock::simulated(), Supervisor::new());
        let metrics = Metrics::new(&clock);
        let provider = Arc::new(FakeProvider::default());
        let engine = engine(&clock, &supervisor, &metrics, &provider);
        let broker = Broker::new(engine.clone(), all_to_loopback(), Revisions::default());
        let (means, peer) = known_as(caller);
        let routes = grpc::routes(
            Parts {
                broker: broker.clone(),
                clock: clock.clone(),
                readiness: readiness.clone(),
                overall: engine.judge(rule),
                supervisor: supervisor.clone(),
                metrics: metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS)),
                request_ids: RequestIds::new(1),
                reflection,
            },
            means,
        );
        let channel = connect(&routes, peer.clone(), &supervisor, (USUAL_WINDOW, USUAL_AGE)).await;
        Self { channel, routes, peer, broker, engine, provider, clock, readiness, supervisor, metrics }
    }

    /// A client that takes so many bytes of an answer before it has read them.
    async fn client_with_window(&self, bytes: u32) -> TokenServiceClient<Channel> {
        let channel = connect(&self.routes, self.peer.clone(), &self.supervisor, (bytes, USUAL_AGE)).await;
        TokenServiceClient::with_origin(channel, http::Uri::from_static("http://memory"))
    }

    /// A connection that is asked to go at this age.
    async fn channel_of_age(&self, age: Duration) -> Channel {
        connect(&self.routes, self.peer.clone(), &self.supervisor, (USUAL_WINDOW, age)).await
    }

    fn client(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::with_origin(self.channel.clone(), http::Uri::from_static("http://memory"))
    }

    async fn get(&self, request: GetTokenRequest) -> Result<GetTokenResponse, Status> {
        self.client().get_token(request).await.map(tonic::Response::into_inner)
    }

    /// A call with these headers, and how long it took.
    async fn timed(&self, timeout: Option<&str>) -> (Result<GetTokenResponse, Status>, Duration) {
        let mut request = tonic::Request::new(asking(WORKSPACE));
        if let Some(timeout) = timeout {
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let begun = Instant::now();
        let answer = tokio::time::timeout(HUNG, self.client().get_token(request)).await;
        let answer = answer.expect("the call hung").map(tonic::Response::into_inner);
        (answer, begun.elapsed())
    }

    /// The bytes of one message as they are, with its five-byte prefix; the status that came of it.
    async fn get_with(&self, message: &[u8]) -> Status {
        self.call_with(GET_TOKEN, message).await
    }

    /// The same of any method.
    async fn call_with(&self, method: &str, message: &[u8]) -> Status {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        self.raw_to(method, Body::new(Full::from(framed))).await
    }

    /// A call with any body at all; the status that came of it.
    async fn raw(&self, body: Body) -> Status {
        self.raw_to(GET_TOKEN, body).await
    }

    async fn raw_to(&self, method: &str, body: Body) -> Status {
        let request = Request::post(format!("http://memory{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let answer = tokio::time::timeout(HUNG, self.channel.clone().call(request)).await;
        let (head, body) = answer.expect("the call hung").unwrap().into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let status = |headers: &HeaderMap| Status::from_header_map(headers);
        status(&head.headers).or_else(|| trailers.as_ref().and_then(status)).expect("no grpc-status")
    }

    fn assert_metric(&self, line: &str) {
        let text = self.metrics.encode().unwrap();
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

/// How a caller is told apart, and its connection.
fn known_as(caller: Caller) -> (grpc::Means, Peer) {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1)).into();
    if caller == Caller::loopback() {
        return (grpc::Means::Loopback, Peer { addr, identity: None, listener: "grpc".into() });
    }
    let identity = Some(Authenticated { caller, evidence: Arc::new(identity::Channel) });
    (grpc::Means::Channel, Peer { addr, identity, listener: "grpc".into() })
}

/// One more connection to a broker.
async fn connect(
    routes: &axum::Router,
    peer: Peer,
    supervisor: &Supervisor,
    (window, age): (u32, Duration),
) -> Channel {
    let (client, server) = duplex(64 * 1024);
    let limits = Limits { max_age: age, ..Limits::default() };
    let serving = serve_io(server, peer, limits, routes.clone(), supervisor.clone());
    supervisor.spawn("connection", serving);
    Channel::over(client, supervisor, window).await
}

fn engine(clock: &Clock, supervisor: &Supervisor, metrics: &Metrics, provider: &Arc<FakeProvider>) -> Engine {
    let settings = engine::Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::from_secs(10),
        max_waiters: 100,
        max_workspaces: 200,
        max_watches: 1_000,
        seed: 1,
    };
    let counted = metrics.register(engine::Metrics::register);
    let engine = Engine::new(clock.clone(), supervisor.clone(), settings, counted);
    let upstream = UpstreamName::parse("fake").unwrap();
    let limits = engine::Limits {
        max_concurrent: NonZeroUsize::MIN,
        budget: Budget { logins: NonZeroU32::new(1000).unwrap(), per: Duration::from_secs(300) },
        renew_at: 0.5,
        timeout: Duration::from_secs(300),
    };
    engine.add_upstream(upstream.clone(), limits);
    let name = WorkspaceName::parse(WORKSPACE).unwrap();
    let provider = Arc::clone(provider) as Arc<dyn token_broker::provider::Provider>;
    engine.put(engine::Workspace { name, upstream, keep_warm: KeepWarm::WhileUsed, provider }).unwrap();
    engine
}

/// One HTTP/2 connection without any layer of tonic's around it.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Channel {
    async fn over(io: tokio::io::DuplexStream, supervisor: &Supervisor, window: u32) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
        // Ends with an error when the broker cuts it, which is for the calls on it to notice.
        supervisor.spawn("client", async move { drop(connection.await) });
        Self(sender)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Response<Incoming>, hyper::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn asking(workspace: &str) -> GetTokenRequest {
    GetTokenRequest { workspace: workspace.to_owned(), min_validity: None }
}

fn with_validity(seconds: i64, nanos: i32) -> GetTokenRequest {
    GetTokenRequest { min_validity: Some(prost_types::Duration { seconds, nanos }), ..asking(WORKSPACE) }
}

/// The code, and the reason in `google.rpc.ErrorInfo`, which must be of our domain.
fn told(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "token-broker");
    (status.code(), info.reason)
}
