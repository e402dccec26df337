//! The composition root: a configuration becomes a bound, then a running broker. The one module that knows all others.
//!
//! Every address is bound before anything is served, so that a conflict shows at once and whoever starts the process
//! learns the ports.

mod issuers;
mod listeners;
mod reload;
mod roster;
mod trial;

pub use trial::Trial;

use crate::audit::{self, Audit};
use crate::bearer::{self, Issuers};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, Files, History, Place, Problem, Problems, Source};
use crate::engine::{self, Engine};
use crate::grpc::{self, Parts, Reflection};
use crate::limits;
use crate::policy::Policy;
use crate::readiness::{Latch, Readiness};
use crate::revision::Revisions;
use crate::supervisor::{Ended, Hangup, Signals, Supervisor};
use crate::telemetry::logs::Filter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request::RequestIds;
use crate::telemetry::rpc::RpcMetrics;
use crate::{admin, tls};
use futures_util::FutureExt as _;
use listeners::{Judges, Listeners};
use reload::Reloader;
use roster::Roster;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

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
    listeners: Listeners,
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
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration is valid by itself, and can't be used.
    #[error(transparent)]
    Config(#[from] Problems),
    /// The files of a listener's TLS are of no use.
    #[error(transparent)]
    Tls(#[from] tls::Error),
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
    listeners::rehearse(config)?;
    issuers::rehearse(config)?;
    roster::rehearse(config)
}

/// As [`rehearse`], for each Workspace too: what `serve` finds out when it makes them.
pub fn rehearse_whole(config: Config) -> Result<(), Problems> {
    listeners::rehearse(&config)?;
    issuers::rehearse(&config)?;
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
        let revisions = Revisions::default();
        let judges = Judges { revisions: revisions.clone(), clock: clock.clone() };
        let told = metrics.register(bearer::Metrics::register);
        let issuers = Issuers::new(clock.clone(), revisions.clone(), supervisor.clone(), told);
        let listeners = Listeners::bind(&config, &judges, &issuers, &metrics, &readiness).await?;
        let counted = metrics.register(engine::Metrics::register);
        let engine = Engine::new(clock.clone(), supervisor.clone(), roster::settings(&config), counted);
        let audit = open_audit(&config, &clock, &supervisor, metrics.register(audit::Metrics::register))?;
        let rule = config.health;
        // It lets nobody until the configuration's grants are in force.
        let broker = Broker::new(engine.clone(), Policy::default(), revisions);
        let callers = limits::Limits::new(&config.limits, metrics.register(limits::Metrics::register));
        let broker = broker.limited_by(callers).audited_by(audit.clone());
        let mut roster = Roster::new(engine.clone(), broker.clone(), issuers, &config);
        roster.install(roster.prepare(config)?);
        history.accepted(clock.now().wall, Vec::new());
        let parts = Parts {
            broker,
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
            listeners,
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

    /// Where gRPC is served: the first TCP port.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.listeners.grpc_address()
    }

    /// Where `/livez`, `/readyz`, `/metrics` and `/config` are served.
    pub fn probe_address(&self) -> Option<SocketAddr> {
        self.listeners.probe_address()
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
        let Self { supervisor, probes, readiness, starting, roster, engine, listeners, parts, audit, .. } = self;
        let (grpc_address, probe_address) = (listeners.first(), listeners.probe_address());
        let clock = parts.clock.clone();
        audit.event(&audit::Record::Start { version: env!("CARGO_PKG_VERSION") });
        let (watched, owner) = (audit::watch(audit.clone(), readiness.clone()), probes.clone());
        // It ends once all is written, a moment before its owner does.
        let watched = watched.then(|()| async move { owner.draining().await });
        probes.spawn_critical("audit", watched);
        let told = admin::router(readiness, self.metrics, self.history.clone());
        listeners.start(&parts, &supervisor, told, &probes);
        if let Some(Following { source, files, filter, hangup }) = self.following {
            let history = self.history;
            let reloader =
                Reloader { source, files, roster, history, audit, clock, filter, pending: None, rest: Duration::ZERO };
            supervisor.spawn_critical("configuration", reload::follow(reloader, hangup, supervisor.clone()));
        }
        drop(starting);
        tracing::info!(
            grpc = grpc_address,
            probes = probe_address.map(tracing::field::display),
            workspaces = engine.len(),
            "serving"
        );
    }
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
        Problem { key: "audit.file".to_owned(), place: Place::Unknown, text }.into()
    })
}

fn millis(took: Duration) -> u64 {
    took.as_millis().try_into().unwrap_or(u64::MAX)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("grpc", &self.grpc_address()).finish_non_exhaustive()
    }
}
