//! Who got which token: the record that is written before a token leaves.
//!
//! Promises: the first time that a token leaves for a caller by a face, its record is durable before (`write(2)`
//! returned, for at least one sink); repeats are counted and written now and then, and so are refusals, which never
//! wait; a sink that fails or hangs holds nobody for longer than the configured time; it is tried again until it
//! works; memory and queues are bounded. A record may exist of a token that did not leave after all, never the other
//! way round.
//!
//! What is written is decided in `audit::record`; `docs/audit.md` describes it. Must not know how callers are told
//! apart.

mod denials;
mod line;
mod metrics;
mod output;
mod pairs;
mod record;
mod sink;
mod watch;

pub use denials::{By, Denial};
pub use metrics::Metrics;
pub use output::{Followed, Output};
pub use pairs::Face;
pub use record::{Record, SCHEMA, Time};
pub use watch::watch;

use crate::clock::{Clock, Now};
use crate::error::{Error, Reason};
use crate::identity::Caller;
use crate::supervisor::Supervisor;
use crate::telemetry::request::RequestId;
use crate::token::{Fingerprint, Validity, WorkspaceName};
use denials::Denials;
use line::Line;
use output::{Appended, Stdout};
use pairs::{Begun, Key, Look, Pair, Pairs, Parts, Standing};
use sink::Sink;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// When to ask again for what had no record: failed sinks are tried more often than that.
pub const RETRY: Duration = Duration::from_secs(1);

/// How the audit is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether records go to stdout.
    pub stdout: bool,
    /// The file that records are added to.
    pub file: Option<PathBuf>,
    /// What can change while the process runs.
    pub terms: Terms,
}

/// The part of the settings that can change while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What becomes of a token whose record can't be written.
    pub when_unavailable: WhenUnavailable,
    /// How long a record may take.
    pub timeout: Duration,
    /// How often repeats and refusals are written.
    pub repeats_every: Duration,
    /// Whether written means that it outlasts a loss of power.
    pub fsync: bool,
}

/// What becomes of a token whose record can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnavailable {
    /// It stays.
    Deny,
    /// It leaves, and is counted.
    Allow,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            when_unavailable: WhenUnavailable::Deny,
            timeout: Duration::from_millis(250),
            repeats_every: Duration::from_secs(10),
            fsync: false,
        }
    }
}

/// How a request came in.
#[derive(Debug, Clone)]
pub struct Via {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The other end of the connection, if it has an address.
    pub peer: Option<SocketAddr>,
    /// The request's id.
    pub request: Option<RequestId>,
}

/// A token that is about to leave.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// For whom.
    pub caller: &'a Caller,
    /// Whose token.
    pub workspace: &'a WorkspaceName,
    /// Which one.
    pub fingerprint: Fingerprint,
    /// By which way.
    pub face: Face,
    /// Until when it is a token at all.
    pub validity: &'a Validity,
    /// How it was asked for.
    pub via: &'a Via,
}

/// The audit. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    process: Arc<str>,
    terms: RwLock<Terms>,
    pairs: Pairs,
    denials: Mutex<Denials>,
    sinks: Vec<Arc<Sink>>,
    /// Releases that went on without a record, and nobody was told yet.
    unrecorded: AtomicU64,
    /// Wakes whoever watches the sinks.
    bell: Arc<Notify>,
    /// Whether it sleeps until the bell rings.
    asleep: AtomicBool,
    closing: Notify,
    metrics: Metrics,
}

impl Audit {
    /// Opens the sinks and starts their threads.
    pub fn open(settings: &Settings, clock: Clock, supervisor: &Supervisor, metrics: Metrics) -> io::Result<Self> {
        let mut outputs: Vec<(&'static str, Box<dyn Output>)> = Vec::new();
        if settings.stdout {
            outputs.push(("stdout", Box::new(Stdout::open()?)));
        }
        if let Some(path) = &settings.file {
            outputs.push(("file", Box::new(Appended::open(path.clone())?)));
        }
        Self::over(outputs, settings.terms, clock, supervisor, metrics)
    }

    /// The same over any outputs.
    pub fn over(
        outputs: Vec<(&'static str, Box<dyn Output>)>,
        terms: Terms,
        clock: Clock,
        supervisor: &Supervisor,
        metrics: Metrics,
    ) -> io::Result<Self> {
        // Tells processes apart; nothing depends on its being hard to guess.
        let process: Arc<str> = Arc::from(format!("{:016x}", fastrand::u64(..)));
        let bell = Arc::new(Notify::new());
        let mut sinks = Vec::with_capacity(outputs.len());
        for (name, output) in outputs {
            let sink = Arc::new(Sink::new(name, Arc::clone(&process), Arc::clone(&bell), metrics.of(name)));
            sink.set_fsync(terms.fsync);
            let (inside, clock) = (Arc::clone(&sink), clock.clone());
            supervisor.thread(name, move || sink::write_all(inside, output, clock))?;
            sinks.push(sink);
        }
        let inner = Inner {
            clock,
            process,
            terms: RwLock::new(terms),
            pairs: Pairs::default(),
            denials: Mutex::default(),
            sinks,
            unrecorded: AtomicU64::new(0),
            bell,
            asleep: AtomicBool::new(false),
            closing: Notify::new(),
            metrics,
        };
        Ok(Self(Some(Arc::new(inner))))
    }

    /// Keeps no records and refuses nothing. For tests of what has nothing to do with the audit.
    pub fn none() -> Self {
        Self(None)
    }

    /// To be waited for before a token leaves. On an error it must not.
    pub async fn release(&self, release: &Release<'_>) -> Result<(), Error> {
        let Some(inner) = &self.0 else { return Ok(()) };
        match inner.pairs.look(release) {
            Look::Repeat => Ok(()),
            Look::First => inner.first(release).await,
        }
    }

    /// Counts a refusal. Waits for nothing.
    pub fn denied(&self, denial: &Denial<'_>) {
        let Some(inner) = &self.0 else { return };
        let now = inner.clock.now().wall;
        inner.denials.lock().unwrap_or_else(PoisonError::into_inner).add(denial, now);
    }

    /// Writes an event. Waits for nothing.
    pub fn event(&self, record: &Record<'_>) {
        if let Some(inner) = &self.0 {
            inner.event(record);
        }
    }

    /// Files are opened anew before anything else is written.
    pub fn reopen(&self) {
        self.sinks().iter().for_each(|sink| sink.reopen());
    }

    /// Other terms count from now on.
    pub fn configure(&self, terms: Terms) {
        if let Some(inner) = &self.0 {
            *inner.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
            inner.sinks.iter().for_each(|sink| sink.set_fsync(terms.fsync));
            inner.bell.notify_one();
        }
    }

    /// Writes what was counted and that the process ends. Takes at most twice the time that a record may take.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        inner.closing.notify_one();
        inner.close().await;
    }

    fn sinks(&self) -> &[Arc<Sink>] {
        self.0.as_ref().map_or(&[], |inner| &inner.sinks)
    }
}

impl Inner {
    async fn first(&self, release: &Release<'_>) -> Result<(), Error> {
        if !self.sinks.iter().any(|sink| sink.is_up()) {
            return self.unavailable();
        }
        let (now, terms) = (self.clock.now(), self.terms());
        let pair = Pair::new(now.wall, release.ends(now), now.mono + terms.timeout);
        let (begun, gone) = self.pairs.begin(release.key(), pair, now.mono);
        for repeats in gone.iter().filter_map(|(key, pair)| pair.take_repeats(key, now.wall)) {
            self.push(&repeats.record(), None);
        }
        match begun {
            Begun::Repeat => Ok(()),
            Begun::Shared(pair) => {
                let outcome = self.wait_for(&pair, release).await;
                if pair.standing() == Standing::Written {
                    // The record tells of one token that left, and this is another.
                    pair.repeat();
                }
                outcome
            }
            Begun::First(pair) => {
                let progress: Vec<u64> = self.sinks.iter().map(|sink| sink.progress()).collect();
                if self.push(&release.record(), Some(&pair)) {
                    self.metrics.releases.inc();
                } else {
                    pair.give_up();
                }
                let outcome = self.wait_for(&pair, release).await;
                if pair.standing() != Standing::Written {
                    self.look_for_hung(&progress);
                }
                outcome
            }
        }
    }

    /// Waits for the record of a pair, together with whoever else does.
    async fn wait_for(&self, pair: &Arc<Pair>, release: &Release<'_>) -> Result<(), Error> {
        let settled = timeout_at(pair.patience, pair.settled()).await;
        match settled.unwrap_or_else(|_late| pair.give_up()) {
            Standing::Written => Ok(()),
            Standing::Writing | Standing::GivenUp => {
                self.pairs.forget(release, pair);
                self.unavailable()
            }
        }
    }

    /// A sink that wrote nothing for as long as a record may take is no longer waited for.
    fn look_for_hung(&self, progress: &[u64]) {
        for (sink, before) in self.sinks.iter().zip(progress) {
            if sink.progress() == *before {
                sink.hung();
            }
        }
    }

    fn unavailable(&self) -> Result<(), Error> {
        match self.terms().when_unavailable {
            WhenUnavailable::Deny => {
                self.metrics.unavailable.inc();
                Err(Error::retry(Reason::AuditUnavailable, RETRY))
            }
            WhenUnavailable::Allow => {
                self.metrics.unrecorded.inc();
                self.unrecorded.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn terms(&self) -> Terms {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, record: &Record<'_>) {
        self.metrics.events.inc();
        self.push(record, None);
    }

    /// Gives a record to every sink. Whether one takes it.
    fn push(&self, record: &Record<'_>, pair: Option<&Arc<Pair>>) -> bool {
        let body = record::body(self.clock.now().wall, &self.process, record);
        let line = Line { body: body.into(), pair: pair.cloned() };
        let mut taken = false;
        for sink in &self.sinks {
            taken |= sink.offer(&line);
        }
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.bell.notify_one();
        }
        taken
    }
}

impl Release<'_> {
    fn key(&self) -> Key {
        let Self { caller, workspace, fingerprint, face, .. } = *self;
        Key { caller: caller.clone(), workspace: workspace.clone(), fingerprint, face }
    }

    fn record(&self) -> Record<'_> {
        Record::Release {
            caller: self.caller.as_str(),
            workspace: self.workspace.as_str(),
            fingerprint: self.fingerprint,
            face: self.face.as_str(),
            listener: &self.via.listener,
            peer: self.via.peer,
            request_id: self.via.request.as_ref().map(RequestId::as_str),
            expires_at: Time(self.validity.expires_at()),
        }
    }

    fn ends(&self, now: Now) -> Instant {
        now.mono + self.validity.remaining(now)
    }
}

impl Parts for Release<'_> {
    fn parts(&self) -> (&str, &str, Fingerprint, Face) {
        (self.caller.as_str(), self.workspace.as_str(), self.fingerprint, self.face)
    }
}
