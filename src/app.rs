//! The composition root: a configuration becomes a bound, then a running broker. The one module that knows all others.
//!
//! Every address is bound before anything is served, so that a conflict shows at once and whoever starts the process
//! learns the ports.

use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, Credential, Upstream, Workspace};
use crate::engine::{self, Engine, PutError};
use crate::grpc::{self, Parts, Reflection};
use crate::listener::{Limits, Listener, Protocol};
use crate::policy::Policy;
use crate::provider::Provider;
use crate::provider::emnify;
use crate::readiness::{Latch, Readiness};
use crate::supervisor::{Ended, Signals, Supervisor};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request::RequestIds;
use crate::telemetry::rpc::RpcMetrics;
use crate::upstream::{UpstreamKind, UpstreamName};
use crate::{admin, http};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A broker that has its addresses and is about to run.
pub struct App {
    supervisor: Supervisor,
    readiness: Readiness,
    starting: Latch,
    engine: Engine,
    grpc: Listener,
    probe: Listener,
    parts: Parts,
    metrics: Metrics,
    drain_timeout: Duration,
}

/// Why the broker can't start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address can't be bound.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The HTTP client of an upstream can't be made.
    #[error("upstream {name}: {source}")]
    Upstream {
        /// The upstream.
        name: UpstreamName,
        /// What is wrong.
        source: http::Error,
    },
    /// A Workspace's credential or address is of no use.
    #[error("workspace {name}: {source}")]
    Workspace {
        /// The Workspace.
        name: String,
        /// What is wrong.
        source: emnify::Error,
    },
    /// A Workspace does not fit in.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Signals can't be taken over.
    #[error("can't handle signals: {0}")]
    Signals(io::Error),
    /// A task that the process can't do without has ended.
    #[error("the task {0:?} ended unexpectedly")]
    TaskDied(&'static str),
    /// Somebody would not wait for the drain.
    #[error("a second signal cut the drain short")]
    CutShort,
}

impl App {
    /// Makes the parts and binds the addresses. Nothing is served yet.
    pub async fn bind(config: Config, reflection: Reflection) -> Result<Self, Error> {
        let clock = Clock::system();
        let supervisor = Supervisor::new();
        let readiness = Readiness::new();
        let starting = readiness.latch("starting");
        let metrics = Metrics::new(&clock);
        let drain_timeout = config.server.drain_timeout;
        let limits = Limits { grace: drain_timeout, ..Limits::default() };
        let grpc = listen(config.server.grpc_listen, Protocol::Http2, limits.clone()).await?;
        let probe = listen(config.server.probe_listen, Protocol::Http1, limits).await?;
        let engine = engine(config, &clock, &supervisor, &metrics)?;
        let parts = Parts {
            broker: Broker::new(engine.clone(), Policy),
            clock,
            readiness: readiness.clone(),
            supervisor: supervisor.clone(),
            metrics: metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS)),
            request_ids: RequestIds::new(fastrand::u64(..)),
            reflection,
        };
        Ok(Self { supervisor, readiness, starting, engine, grpc, probe, parts, metrics, drain_timeout })
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub fn probe_address(&self) -> SocketAddr {
        self.probe.local_addr()
    }

    /// Who owns the tasks.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Serves until SIGTERM or SIGINT, then drains until all is done or the drain timeout is over. A second signal
    /// ends the drain at once.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = Signals::install().map_err(Error::Signals)?;
        let Self { supervisor, readiness, starting, engine, grpc, probe, parts, metrics, drain_timeout } = self;
        let (grpc_address, probe_address) = (grpc.local_addr(), probe.local_addr());
        let probes = admin::router(readiness.clone(), metrics);
        let seed = fastrand::u64(..);
        supervisor.spawn_critical("probe listener", probe.run(probes, supervisor.clone(), seed));
        supervisor.spawn_critical("gRPC listener", grpc.run(grpc::routes(parts), supervisor.clone(), seed));
        drop(starting);
        tracing::info!(grpc = %grpc_address, probes = %probe_address, workspaces = engine.len(), "serving");
        let died = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                None
            }
            task = supervisor.failed() => Some(task),
        };
        readiness.drain();
        tokio::select! {
            // At the deadline what still runs is dropped. That is what was agreed, and no failure.
            Ended::Clean | Ended::Cut = supervisor.shutdown(drain_timeout) => {}
            signal = signals.next() => {
                tracing::warn!(signal, "a second signal ends the drain");
                return Err(Error::CutShort);
            }
        }
        died.map_or(Ok(()), |task| Err(Error::TaskDied(task)))
    }
}

async fn listen(address: SocketAddr, protocol: Protocol, limits: Limits) -> Result<Listener, Error> {
    Listener::bind(address, protocol, limits).await.map_err(|source| Error::Bind { address, source })
}

fn engine(config: Config, clock: &Clock, supervisor: &Supervisor, metrics: &Metrics) -> Result<Engine, Error> {
    let settings = engine::Settings {
        serve_margin: config.engine.serve_margin,
        min_gap: config.engine.min_gap,
        max_waiters: config.engine.max_waiters_per_workspace,
        max_workspaces: config.engine.max_workspaces,
        seed: fastrand::u64(..),
    };
    let counted = metrics.register(engine::Metrics::register);
    let engine = Engine::new(clock.clone(), supervisor.clone(), settings, counted);
    let mut clients = HashMap::new();
    for upstream in config.upstreams {
        let client = http::Client::new(&upstream.http);
        let client = client.map_err(|source| Error::Upstream { name: upstream.name.clone(), source })?;
        engine.add_upstream(upstream.name.clone(), limits(&upstream));
        clients.insert(upstream.name.clone(), (upstream, Arc::new(client)));
    }
    for workspace in config.workspaces {
        let found = clients.get(&workspace.upstream);
        let (upstream, client) = found.ok_or_else(|| PutError::UnknownUpstream(workspace.upstream.clone()))?;
        let Workspace { name, keep_warm, .. } = &workspace;
        let (name, keep_warm) = (name.clone(), *keep_warm);
        let provider = provider(upstream, Arc::clone(client), workspace)?;
        engine.put(engine::Workspace { name, upstream: upstream.name.clone(), keep_warm, provider })?;
    }
    Ok(engine)
}

fn limits(upstream: &Upstream) -> engine::Limits {
    engine::Limits {
        max_concurrent: upstream.max_concurrent,
        budget: upstream.budget,
        renew_at: upstream.renew_at,
        // The client ends an exchange by itself; this is for a provider that does not.
        timeout: upstream.http.timeout + Duration::from_secs(1),
    }
}

fn provider(upstream: &Upstream, client: Arc<http::Client>, workspace: Workspace) -> Result<Arc<dyn Provider>, Error> {
    let Workspace { name, organisation, credential, .. } = workspace;
    match (upstream.kind, credential) {
        (UpstreamKind::Emnify, Credential::ApplicationToken(secret)) => {
            let made = emnify::ApplicationToken::new(client, &upstream.base_url, upstream.bounds, organisation, secret);
            let made = made.map_err(|source| Error::Workspace { name: name.to_string(), source })?;
            Ok(Arc::new(made))
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("grpc", &self.grpc).field("probe", &self.probe).finish_non_exhaustive()
    }
}
