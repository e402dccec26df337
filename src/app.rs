//! The composition root: a configuration becomes a bound, then a running broker. The one module that knows all others.
//!
//! Every address is bound before anything is served, so that a conflict shows at once and whoever starts the process
//! learns the ports.

mod reload;
mod roster;
mod trial;

pub use trial::Trial;

use crate::audit::{self, Audit};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, Files, History, Problems, Source};
use crate::engine::{self, Engine};
use crate::grpc::{self, Means, Parts, Reflection};
use crate::listener::{Limits, Listener, Protocol};
use crate::policy::Policy;
use crate::readiness::{Latch, Readiness};
use crate::supervisor::{Ended, Hangup, Signals, Supervisor};
use crate::telemetry::logs::Filter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request::RequestIds;
use crate::telemetry::rpc::RpcMetrics;
use crate::{admin, config, listener};
use reload::Reloader;
use roster::Roster;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Connections of orchestrators and scrapers at once: anybody may reach that listener, so it must not eat up the file
/// descriptors, and no single one of them all the places.
const PROBE_CONNECTIONS: usize = 64;
const PROBE_CONNECTIONS_PER_PEER: usize = 32;

/// How long the probes may take to end once all else has: they have nobody to finish for.
const PROBE_END: Duration = Duration::from_millis(250);

/// A broker that has its addresses and is about to run.
pub struct App {
    supervisor: Supervisor,
    /// Owns the probe listener, which outlives everything else: it is what tells that the process drains.
    probes: Supervisor,
    readiness: Readiness,
    starting: Latch,
    roster: Roster,
    engine: Engine,
    grpc: Listener,
    probe: Listener,
    parts: Parts,
    metrics: Metrics,
    history: History,
    audit: Audit,
    drain_timeout: Duration,
    following: Option<Following>,
}

/// What a configuration is taken up from while the broker runs.
struct Following {
    source: Source,
    files: Files,
    filter: Filter,
    hangup: Hangup,
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
    /// The configuration is valid by itself, and can't be used.
    #[error(transparent)]
    Config(#[from] Problems),
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

/// What can't be seen from the configuration alone: whether its certificates, proxies and addresses are of use.
pub fn rehearse(config: &Config) -> Result<(), Problems> {
    roster::rehearse(config)
}

/// As [`rehearse`], for each Workspace too: what `serve` finds out when it makes them.
pub fn rehearse_whole(config: Config) -> Result<(), Problems> {
    roster::rehearse_whole(config)
}

impl App {
    /// Makes the parts and binds the addresses. Nothing is served yet.
    pub async fn bind(config: Config, reflection: Reflection) -> Result<Self, Error> {
        let clock = Clock::system();
        let supervisor = Supervisor::new();
        let readiness = Readiness::new();
        let starting = readiness.latch("starting");
        let metrics = Metrics::new(&clock);
        let history = metrics.register(History::register);
        let drain_timeout = config.server.drain_timeout;
        let [many, few] = connection_limits(&config.server);
        let refused = metrics.register(listener::Metrics::register);
        let grpc = listen(config.server.grpc_listen, Protocol::Http2, many).await?.counting(refused.of("grpc"));
        let probe = listen(config.server.probe_listen, Protocol::Http1, few).await?.counting(refused.of("probe"));
        let counted = metrics.register(engine::Metrics::register);
        let engine = Engine::new(clock.clone(), supervisor.clone(), roster::settings(&config), counted);
        let audit = open_audit(&config, &clock, &supervisor, metrics.register(audit::Metrics::register))?;
        let rule = config.health;
        let mut roster = Roster::new(engine.clone(), &config);
        roster.install(roster.prepare(config)?);
        history.accepted(clock.now().wall, Vec::new());
        let parts = Parts {
            broker: Broker::new(engine.clone(), Policy, audit.clone()),
            clock,
            readiness: readiness.clone(),
            overall: engine.judge(rule),
            supervisor: supervisor.clone(),
            metrics: metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS)),
            request_ids: RequestIds::new(fastrand::u64(..)),
            reflection,
        };
        let (probes, following) = (Supervisor::new(), None);
        Ok(Self {
            supervisor,
            probes,
            readiness,
            starting,
            roster,
            engine,
            grpc,
            probe,
            parts,
            metrics,
            history,
            audit,
            drain_timeout,
            following,
        })
    }

    /// Takes up what changes in the files from here on, and on SIGHUP, also if that came before. `files`: as they were
    /// when the configuration that this was made of was read from them.
    #[must_use]
    pub fn following(mut self, source: Source, files: Files, filter: Filter, hangup: Hangup) -> Self {
        self.following = Some(Following { source, files, filter, hangup });
        self
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Where `/livez`, `/readyz`, `/metrics` and `/config` are served.
    pub fn probe_address(&self) -> SocketAddr {
        self.probe.local_addr()
    }

    /// Who owns the tasks.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Serves until SIGTERM or SIGINT, then drains until all is done or the drain timeout is over. A second signal
    /// ends the drain at once. The probes answer to the end.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = Signals::install().map_err(Error::Signals)?;
        let Self { supervisor, probes, readiness, drain_timeout, .. } = &self;
        let (supervisor, probes, readiness) = (supervisor.clone(), probes.clone(), readiness.clone());
        let (drain_timeout, audit) = (*drain_timeout, self.audit.clone());
        self.start();
        let died = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                None
            }
            task = supervisor.failed() => Some(task),
            task = probes.failed() => Some(task),
        };
        readiness.drain();
        let begun = Instant::now();
        tokio::select! {
            // At the deadline what still runs is dropped. That is what was agreed, and no failure.
            ended = supervisor.shutdown(drain_timeout) => {
                tracing::info!(duration_ms = millis(begun.elapsed()), cut = ended == Ended::Cut, "drained");
            }
            signal = signals.next() => {
                tracing::warn!(signal, duration_ms = millis(begun.elapsed()), "a second signal ends the drain");
                return Err(Error::CutShort);
            }
        }
        // Nothing leaves any more.
        audit.close().await;
        let (Ended::Clean | Ended::Cut) = probes.shutdown(PROBE_END).await;
        died.map_or(Ok(()), |task| Err(Error::TaskDied(task)))
    }

    fn start(self) {
        let Self { supervisor, probes, readiness, starting, roster, engine, grpc, probe, parts, audit, .. } = self;
        let (grpc_address, probe_address) = (grpc.local_addr(), probe.local_addr());
        let (seed, clock) = (fastrand::u64(..), parts.clock.clone());
        audit.event(&audit::Record::Start { version: env!("CARGO_PKG_VERSION") });
        probes.spawn_critical("audit", audit::watch(audit.clone(), readiness.clone()));
        let told = admin::router(readiness, self.metrics, self.history.clone());
        probes.spawn_critical("probe listener", probe.run(told, probes.clone(), seed));
        let routes = grpc::routes(parts, Means::Loopback);
        supervisor.spawn_critical("gRPC listener", grpc.run(routes, supervisor.clone(), seed));
        if let Some(Following { source, files, filter, hangup }) = self.following {
            let history = self.history;
            let reloader =
                Reloader { source, files, roster, history, audit, clock, filter, pending: None, rest: Duration::ZERO };
            supervisor.spawn_critical("configuration", reload::follow(reloader, hangup, supervisor.clone()));
        }
        drop(starting);
        tracing::info!(grpc = %grpc_address, probes = %probe_address, workspaces = engine.len(), "serving");
    }
}

/// Those of the gRPC listener and of the probe listener. A connection that was asked to go is not cut before the drain
/// is over, or a longer drain would be none.
fn connection_limits(server: &config::Server) -> [Limits; 2] {
    let limits = Limits::default();
    let many = Limits {
        max_connections: server.max_connections,
        max_connections_per_peer: server.max_connections_per_peer,
        grace: limits.grace.max(server.drain_timeout),
        ..limits
    };
    let few = Limits {
        max_connections: PROBE_CONNECTIONS,
        max_connections_per_peer: PROBE_CONNECTIONS_PER_PEER,
        ..Limits::default()
    };
    listener::fit([many, few])
}

/// A file that can't be opened is told at the start, where somebody looks; one that fails later is waited for.
fn open_audit(
    config: &Config,
    clock: &Clock,
    supervisor: &Supervisor,
    metrics: audit::Metrics,
) -> Result<Audit, Problems> {
    Audit::open(&config.audit, clock.clone(), supervisor, metrics).map_err(|error| {
        let text = format!("can't be written: {error}");
        config::Problem { key: "audit.file".to_owned(), place: config::Place::Unknown, text }.into()
    })
}

fn millis(took: Duration) -> u64 {
    took.as_millis().try_into().unwrap_or(u64::MAX)
}

async fn listen(address: SocketAddr, protocol: Protocol, limits: Limits) -> Result<Listener, Error> {
    Listener::bind(address, protocol, limits).await.map_err(|source| Error::Bind { address, source })
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("grpc", &self.grpc).field("probe", &self.probe).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::path::Path;

    #[test]
    fn no_connection_is_cut_before_the_drain_is_over() {
        let least = Limits::default().grace;
        for (drain, grace) in [(0, least), (10, least.max(Duration::from_secs(10))), (600, Duration::from_secs(600))] {
            let config = Config::parse(
                &format!("[server]\ndrain_timeout = \"{drain}s\""),
                Path::new("."),
                &Environment::default(),
            );
            let [many, _] = connection_limits(&config.unwrap().server);
            assert_eq!(many.grace, grace);
        }
    }
}
