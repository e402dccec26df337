//! The limits of the listener, over real sockets. Each has a test here that fails without it: `docs/limits.md` says
//! which.

mod caps;
mod going;
mod grpc;
mod hostile;
mod phases;
pub(crate) mod raw;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use futures_util::stream;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::audit::Audit;
use token_broker::broker::Broker;
use token_broker::clock::Clock;
use token_broker::engine::{self, Engine};
use token_broker::grpc::{Parts, Reflection};
use token_broker::health::Rule;
use token_broker::listener::{self, Limits, Listener, Protocol};
use token_broker::policy::Policy;
use token_broker::readiness::Readiness;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A limit that a test lets pass.
const SHORT: Duration = Duration::from_millis(200);

struct Served {
    address: SocketAddr,
    supervisor: Supervisor,
    metrics: Metrics,
}

async fn serve(protocol: Protocol, limits: Limits, routes: Router) -> Served {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let metrics = Metrics::new(&Clock::system());
    let refused = metrics.register(listener::Metrics::register).of("grpc");
    let listener = Listener::bind(any, protocol, limits).await.unwrap().counting(refused);
    let address = listener.local_addr();
    let supervisor = Supervisor::new();
    supervisor.spawn_critical("listener", listener.run(routes, supervisor.clone(), 1));
    Served { address, supervisor, metrics }
}

impl Served {
    /// How many connections were refused for this reason, and that none was for another.
    fn refused(&self, reason: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let counts = text.lines().filter_map(|line| {
            let (labels, count) = line.strip_prefix("token_broker_connections_refused_total")?.split_once(' ')?;
            Some((labels.to_owned(), count.parse::<u64>().unwrap()))
        });
        let (of_it, others): (Vec<_>, Vec<_>) =
            counts.partition(|(labels, _)| labels.contains(&format!("reason=\"{reason}\"")));
        assert_eq!(others.len(), 4, "{others:?}");
        assert!(others.iter().all(|(_, count)| *count == 0), "{others:?}");
        of_it.iter().map(|(_, count)| count).sum()
    }
}

/// The broker's own routes, without a Workspace.
async fn serve_broker(limits: Limits, further: Router) -> Served {
    let (clock, supervisor) = (Clock::system(), Supervisor::new());
    let metrics = Metrics::new(&clock);
    let settings = engine::Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::from_secs(10),
        max_waiters: 1,
        max_workspaces: 1,
        max_watches: 1,
        seed: 1,
    };
    let counted = metrics.register(engine::Metrics::register);
    let engine = Engine::new(clock.clone(), supervisor.clone(), settings, counted);
    let routes = token_broker::grpc::routes(
        Parts {
            overall: engine.judge(Rule { max_unhealthy: 1.0 }),
            broker: Broker::new(engine, Policy, Audit::none()),
            clock,
            readiness: Readiness::new(),
            supervisor: supervisor.clone(),
            metrics: metrics.register(|registry| RpcMetrics::register(registry, &token_broker::grpc::METHODS)),
            request_ids: RequestIds::new(1),
            reflection: Reflection::Off,
        },
        token_broker::grpc::Means::Loopback,
    );
    serve(Protocol::Http2, limits, further.merge(routes)).await
}

/// An honest caller, on a connection of its own.
pub(crate) async fn honest_call(address: SocketAddr) {
    let call = async {
        let mut health = HealthClient::new(channel(address).await);
        let request = HealthCheckRequest { service: String::new() };
        health.check(request).await.unwrap().into_inner().status
    };
    assert_eq!(timeout(PATIENCE, call).await.expect("an honest call hung"), 1, "SERVING");
}

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Asserts that it took this long, give or take what a busy machine adds.
fn assert_took(begun: Instant, at_least: Duration) {
    let took = begun.elapsed();
    assert!(took >= at_least && took < at_least + PATIENCE / 2, "{took:?}");
}

/// What is known of the answers of [`pouring`].
struct Poured(mpsc::UnboundedReceiver<usize>);

/// A route whose answer has no end, in pieces of 1 KiB.
fn pouring() -> (MethodRouter, Poured) {
    let (tell, told) = mpsc::unbounded_channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let route = post(move || {
        let tell = tell.lock().unwrap().take().expect("it was called twice");
        tell.send(0).unwrap();
        let pieces = stream::repeat_with(move || {
            // Fails when nobody looks any more.
            let _told = tell.send(1024);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[0; 1024]))
        });
        async move { Body::from_stream(pieces) }
    });
    (route, Poured(told))
}

impl Poured {
    async fn entered(&mut self) {
        assert_eq!(timeout(PATIENCE, self.0.recv()).await.expect("it was not called"), Some(0));
    }

    /// Waits until the answer has been dropped.
    async fn ended(&mut self) {
        let end = async { while self.0.recv().await.is_some() {} };
        timeout(PATIENCE, end).await.expect("the answer goes on");
    }

    /// How many bytes have come once no more come for so long.
    async fn stops(&mut self, quiet: Duration) -> usize {
        let mut bytes = 0;
        while let Ok(Some(more)) = timeout(quiet, self.0.recv()).await {
            bytes += more;
        }
        bytes
    }
}
