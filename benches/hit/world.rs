//! A broker whose Workspaces all have their tokens, and one hit at each height: the engine, the broker over it, the
//! whole gRPC service without a connection. For `benches/hit/` and `bench/hits.rs`.

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use prost::Message as _;
use prost::bytes::Bytes;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use token_broker::audit::{Audit, Followed, Metrics as AuditMetrics, Output, Terms, Via};
use token_broker::broker::{Ask, Asker, Broker};
use token_broker::clock::Clock;
use token_broker::engine::{Call, Engine, Limits, Metrics, Origin, Settings, Source, Workspace};
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::grpc::{self, METHODS, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::identity::Authenticated;
use token_broker::limits::{
    Limits as CallerLimits, Line, Metrics as CallerMetrics, Pace, PerAction, Settings as Paces,
};
use token_broker::listener::Peer;
use token_broker::policy::{Action, CallerPattern, Grant, Policy, WorkspacePattern};
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use token_broker::token::{Presentation, WorkspaceName};
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::time::Instant;
use tower::Service as _;

/// The length of a token, in bytes; emnify's have between 600 and 800.
const TOKEN: usize = 700;
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// What a caller without a deadline gets.
const PATIENCE: Duration = Duration::from_secs(10);

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4_711);

/// The broker, and the turn of its Workspaces: each hit is for the next one.
pub(crate) struct World {
    engine: Engine,
    broker: Broker,
    routes: Router,
    asks: Vec<(WorkspaceName, Bytes)>,
    turn: usize,
    asker: Asker,
    // Its tasks end with the runtime.
    _supervisor: Supervisor,
}

/// Where the cache is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Height {
    /// The engine alone.
    Engine,
    /// With the question whether the caller may.
    Broker,
    /// All that happens between hyper's request and hyper's response, and the making of the request.
    Grpc,
}

impl Height {
    pub(crate) const ALL: [Self; 3] = [Self::Engine, Self::Broker, Self::Grpc];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Broker => "broker",
            Self::Grpc => "grpc",
        }
    }
}

/// A sink that takes every record. Only the first hit of a Workspace has one.
#[derive(Debug)]
struct Taken;

impl Output for Taken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn follow(&mut self, _anew: bool) -> io::Result<Followed> {
        Ok(Followed::Same)
    }
}

/// An upstream that answers at once.
#[derive(Debug)]
struct Instantly;

impl Provider for Instantly {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let value = AccessToken::new("t".repeat(TOKEN));
        async { Ok(Fetched { value, presentation: Presentation::bearer(), lifetime: WEEK }) }.boxed()
    }
}

impl World {
    /// So many Workspaces, each with its token in the cache.
    pub(crate) async fn warm(workspaces: usize) -> Result<Self, Box<dyn Error>> {
        let (clock, supervisor, mut registry) = (Clock::system(), Supervisor::new(), Registry::default());
        let settings = Settings {
            serve_margin: Duration::from_secs(5),
            min_gap: Duration::from_secs(10),
            max_waiters: 50_000,
            max_workspaces: workspaces,
            max_watches: 1,
            seed: 7,
        };
        let engine = Engine::new(clock.clone(), supervisor.clone(), settings, Metrics::register(&mut registry));
        let upstream = UpstreamName::parse("instantly")?;
        engine.add_upstream(upstream.clone(), limits());
        let policy = Policy::new(vec![Grant {
            caller: CallerPattern::parse("loopback")?,
            workspaces: vec![WorkspacePattern::parse("bench/*")?],
            actions: Action::ALL.into_iter().collect(),
        }]);
        let broker = Broker::new(engine.clone(), policy, Revisions::default()).limited_by(unlimited());
        let (sinks, counted) =
            (vec![("bench", Box::new(Taken) as Box<dyn Output>)], AuditMetrics::register(&mut registry));
        let broker = broker.audited_by(Audit::over(sinks, Terms::default(), clock.clone(), &supervisor, counted)?);
        let parts = Parts {
            broker: broker.clone(),
            clock,
            readiness: Readiness::new(),
            overall: engine.judge(Rule { max_unhealthy: 1.0 }),
            supervisor: supervisor.clone(),
            metrics: RpcMetrics::register(&mut registry, &METHODS),
            request_ids: RequestIds::new(7),
            reflection: Reflection::Off,
        };
        let mut asks = Vec::with_capacity(workspaces);
        for n in 0..workspaces {
            let name = WorkspaceName::parse(&format!("bench/workspace-{n}"))?;
            let provider = Arc::new(Instantly);
            let keep_warm = KeepWarm::WhileUsed;
            engine.put(Workspace { name: name.clone(), upstream: upstream.clone(), keep_warm, provider })?;
            engine.get(&name, Duration::ZERO, call()).await?;
            asks.push((name.clone(), framed(&name)));
        }
        let routes = grpc::routes(parts, grpc::Means::Loopback).with_state(());
        let via = Via { listener: Arc::from("grpc"), peer: None, request: None };
        let asker = Asker { proven: Authenticated::loopback(), via, line: Line::default() };
        Ok(Self { engine, broker, routes, asks, turn: 0, asker, _supervisor: supervisor })
    }

    /// The next Workspace's token. An error unless it comes from the cache.
    pub(crate) async fn hit(&mut self, height: Height) -> Result<(), Box<dyn Error>> {
        match height {
            Height::Engine => self.engine_hit().await,
            Height::Broker => self.broker_hit().await,
            Height::Grpc => self.grpc_hit().await,
        }
    }

    async fn engine_hit(&mut self) -> Result<(), Box<dyn Error>> {
        let (name, _) = next(&mut self.turn, &self.asks)?;
        let served = self.engine.get(name, Duration::ZERO, call()).await?;
        from_cache(served.source)
    }

    async fn broker_hit(&mut self) -> Result<(), Box<dyn Error>> {
        let (name, _) = next(&mut self.turn, &self.asks)?;
        let workspace = name.clone();
        let ask = Ask { workspace, min_validity: Duration::ZERO, deadline: Instant::now() + PATIENCE };
        let served = self.broker.authorise_then_get(&self.asker, &ask).await?;
        from_cache(served.source)
    }

    async fn grpc_hit(&mut self) -> Result<(), Box<dyn Error>> {
        let (_, framed) = next(&mut self.turn, &self.asks)?;
        let request = Request::post("/tokenbroker.v1.TokenService/GetToken")
            .header("content-type", "application/grpc")
            .extension(Line::default())
            .header("te", "trailers")
            .extension(Peer { addr: PEER.into(), identity: None, listener: "grpc".into() })
            .body(Body::new(Full::new(framed.clone())))?;
        let mut answer = self.routes.call(request).await?;
        let mut bytes = 0;
        while let Some(frame) = answer.body_mut().frame().await {
            let frame = frame?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if let Some(trailers) = frame.trailers_ref() {
                let status = trailers.get("grpc-status").map(http::HeaderValue::as_bytes);
                return if status == Some(b"0") && bytes > TOKEN { Ok(()) } else { Err("the call failed".into()) };
            }
        }
        Err("the answer has no trailers".into())
    }
}

/// By a caller without a deadline.
fn call() -> Call {
    Call { origin: Origin(0), deadline: Instant::now() + PATIENCE }
}

/// One caller does what the machine can.
fn unlimited() -> CallerLimits {
    let pace = Pace { per_second: u32::MAX, burst: u32::MAX };
    let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
    CallerLimits::new(&Paces { rates, ..Paces::default() }, CallerMetrics::default())
}

/// So much budget that it plays no part.
fn limits() -> Limits {
    let logins = NonZeroU32::MAX;
    let budget = Budget { logins, per: Duration::from_secs(300) };
    Limits { max_concurrent: NonZeroUsize::MIN, budget, renew_at: 0.5, timeout: PATIENCE }
}

/// As it is sent: not compressed, four bytes of length, the message.
fn framed(name: &WorkspaceName) -> Bytes {
    let request = GetTokenRequest { workspace: name.as_str().to_owned(), min_validity: None };
    let mut framed = vec![0];
    framed.extend(u32::try_from(request.encoded_len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(request.encode_to_vec());
    framed.into()
}

fn next<'a, T>(turn: &mut usize, all: &'a [T]) -> Result<&'a T, &'static str> {
    *turn = if *turn + 1 < all.len() { *turn + 1 } else { 0 };
    all.get(*turn).ok_or("no workspace")
}

fn from_cache(source: Source) -> Result<(), Box<dyn Error>> {
    match source {
        Source::Cache => Ok(()),
        Source::Exchanged => Err("this was no hit".into()),
    }
}
