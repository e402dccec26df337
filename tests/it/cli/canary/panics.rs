//! A panic whose text holds a secret: by the process's own hook, from a task, an exchange and a call.
//!
//! Nothing makes the broker itself panic, so this binary runs one test of its own once more, as a process with the
//! broker's logging.

use super::super::{PATIENCE, finish};
use super::scanner::{Scanner, Secret, Seen};
use crate::grants::all_to_loopback;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use prost::Message as _;
use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use token_broker::broker::Broker;
use token_broker::clock::Clock;
use token_broker::engine::{self, Engine};
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::grpc::{self, Means, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::limits::Line;
use token_broker::listener::Peer;
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::logs::{Format, init};
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use token_broker::token::WorkspaceName;
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tower::ServiceExt as _;

/// Set where the test is to panic.
const PANICS: &str = "TOKEN_BROKER_TEST_PANICS";
const TEST: &str = "cli::canary::panics::the_text_of_a_panic_is_told_to_nobody";
const WORKSPACE: &str = "proof/that-panics-are-logged";

#[derive(Debug)]
struct Panics;

fn secret() -> Secret {
    Secret::planted("what was worked on")
}

impl Provider for Panics {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        async { panic!("it was at {}", secret().text) }.boxed()
    }
}

fn engine(clock: &Clock, supervisor: &Supervisor, metrics: &Metrics) -> Engine {
    let settings = engine::Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::from_secs(10),
        max_waiters: 100,
        max_workspaces: 10,
        max_watches: 10,
        seed: 1,
    };
    let engine = Engine::new(clock.clone(), supervisor.clone(), settings, metrics.register(engine::Metrics::register));
    let upstream = UpstreamName::parse("fake").unwrap();
    let limits = engine::Limits {
        max_concurrent: NonZeroUsize::MIN,
        budget: Budget { logins: NonZeroU32::new(1000).unwrap(), per: Duration::from_secs(300) },
        renew_at: 0.5,
        timeout: PATIENCE,
    };
    engine.add_upstream(upstream.clone(), limits);
    let name = WorkspaceName::parse(WORKSPACE).unwrap();
    let provider = Arc::new(Panics);
    engine.put(engine::Workspace { name, upstream, keep_warm: KeepWarm::WhileUsed, provider }).unwrap();
    engine
}

/// All that a caller is told of an exchange that panicked.
async fn asked(supervisor: &Supervisor) -> String {
    let clock = Clock::system();
    let metrics = Metrics::new(&clock);
    let engine = engine(&clock, supervisor, &metrics);
    let parts = Parts {
        broker: Broker::new(engine.clone(), all_to_loopback(), Revisions::default()),
        clock,
        readiness: Readiness::new(),
        overall: engine.judge(Rule { max_unhealthy: 1.0 }),
        supervisor: supervisor.clone(),
        metrics: metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS)),
        request_ids: RequestIds::new(1),
        reflection: Reflection::Off,
    };
    let message = GetTokenRequest { workspace: WORKSPACE.to_owned(), min_validity: None }.encode_to_vec();
    let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], &message].concat();
    let request = http::Request::post("http://memory/tokenbroker.v1.TokenService/GetToken");
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let mut request = request.body(axum::body::Body::from(framed)).unwrap();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
    request.extensions_mut().insert(Peer { addr, identity: None, listener: "grpc".into() });
    request.extensions_mut().insert(Line::default());
    let (head, body) = grpc::routes(parts, Means::Loopback).oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    format!("{head:?} {:?} {}", body.trailers(), metrics.encode().unwrap())
}

#[tokio::test]
async fn the_text_of_a_panic_is_told_to_nobody() {
    if std::env::var_os(PANICS).is_some() {
        drop(init(Format::Json, "trace").unwrap());
        let supervisor = Supervisor::new();
        supervisor.spawn_critical("doomed", async { panic!("it was at {}", secret().text) });
        let told = format!("died: {}\ntold: {}\n", supervisor.failed().await, asked(&supervisor).await);
        std::io::stdout().write_all(told.as_bytes()).unwrap();
        return;
    }
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env(PANICS, "1").kill_on_drop(true);
    let done = finish(command).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut seen = Seen::default();
    seen.add("stdout", done.stdout.as_str());
    seen.add("log", done.stderr.as_str());
    let hits = seen.hits(&Scanner::new([&secret()]));
    assert!(hits.is_empty(), "{hits:#?}");
    assert_eq!(done.stderr.matches("a bug: something panicked").count(), 2, "{}", done.stderr);
    assert!(seen.shows("log", "panics.rs:") && seen.shows("stdout", "died: doomed"), "{done:?}");
    assert!(seen.shows("stdout", "grpc-status") && seen.shows("stdout", "token_broker_exchanges_total"), "{done:?}");
}
