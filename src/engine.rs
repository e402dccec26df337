//! The cache of tokens and what keeps it fresh. Its promises, each the name of a test in `tests/it/engine.rs`:
//!
//! 1. At most one flight per Workspace. Waiters share its result and its error.
//! 2. A flight is a task of the engine; a caller that goes away changes nothing. A caller waits at most its deadline.
//! 3. One slow or dead upstream delays no other.
//! 4. While a token is valid it is served, whatever happens to renewals. A bad answer never replaces a good token.
//! 5. An expired token is never returned.
//! 6. Renewal starts at a fraction of the real lifetime, spread, and never loops.
//! 7. Lifetime comes from the answer and is counted from before the request; the stricter clock wins.
//! 8. Renewal is demand-aware.
//! 9. Upstream budgets: a bucket per upstream, a part of it kept for waiters, waiters first, most-used first.
//! 10. A definite rejection opens a breaker for that credential only.
//! 11. Failures are remembered and answered at once; a probe finds out when the upstream is back.
//! 12. Bounded: Workspaces, flights, waiters. Unknown names cost nothing.
//! 13. Forgetting wins: deleted, frozen or re-keyed during a flight discards its result.
//! 14. The answer must be for this Workspace (the provider checks the tenant; what leaves is compared with what was asked).
//!
//! Decisions are pure (`plan`, `queue`, `schedule`, `bucket`); this module and its drivers (`entry`, `dispatch`,
//! `flight`) act on them. It knows nothing of gRPC, of callers and their rights, or of any upstream's protocol.

mod bucket;
mod dispatch;
mod entry;
mod flight;
mod metrics;
pub mod plan;
mod queue;
mod schedule;
mod served;

use crate::clock::{Clock, Now};
use crate::error::{Error, Reason};
use crate::provider::Provider;
use crate::supervisor::Supervisor;
use crate::token::{Fingerprint, WorkspaceName};
use crate::upstream::{KeepWarm, UpstreamName};
use dashmap::DashMap;
use dispatch::Dispatch;
use entry::{Core, Entry, Landed};
use plan::{Answer, MIN_RETRY, Rules, Urgency};
use queue::Outlook;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use dispatch::Limits;
pub use metrics::Metrics;
pub use served::{Served, Snapshot, Source};

/// What holds for every Workspace.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Less than this left counts as expired; at most a tenth of the life.
    pub serve_margin: Duration,
    /// The least time between exchanges that callers can force; at most a tenth of the life.
    pub min_gap: Duration,
    /// More callers than this do not wait for one Workspace.
    pub max_waiters: usize,
    /// More Workspaces than this are refused.
    pub max_workspaces: usize,
    /// Seeds the jitter.
    pub seed: u64,
}

/// A Workspace as it is put in.
#[derive(Debug)]
pub struct Workspace {
    /// Its name.
    pub name: WorkspaceName,
    /// Where its tokens come from; must have been added before.
    pub upstream: UpstreamName,
    /// Whether it is renewed when nobody asks.
    pub keep_warm: KeepWarm,
    /// Makes its exchanges.
    pub provider: Arc<dyn Provider>,
}

/// Why a Workspace can't be put in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There is no such upstream.
    #[error("no upstream is called {0}")]
    UnknownUpstream(UpstreamName),
    /// There are too many.
    #[error("no more than {0} workspaces fit")]
    Full(usize),
    /// There is one of that name.
    #[error("there is a workspace called {0} already")]
    Exists(WorkspaceName),
}

/// The cache of tokens. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    clock: Clock,
    supervisor: Supervisor,
    settings: Settings,
    metrics: Metrics,
    entries: DashMap<WorkspaceName, Arc<Entry>>,
    upstreams: DashMap<UpstreamName, Arc<Dispatch>>,
    random: Mutex<fastrand::Rng>,
    /// The last generation that was given out, by any Workspace.
    generation: AtomicU64,
}

/// What a decision under the lock left to do.
enum Step {
    Done(Result<Served, Error>),
    Renew(Urgency, Served),
    Refused { error: Error, probe: bool },
    Wait { queued: bool, landing: watch::Receiver<Option<Landed>> },
}

impl Engine {
    /// An engine without upstreams and Workspaces. Its tasks belong to the supervisor.
    pub fn new(clock: Clock, supervisor: Supervisor, settings: Settings, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            clock,
            supervisor,
            settings,
            metrics,
            entries: DashMap::new(),
            upstreams: DashMap::new(),
            random: Mutex::new(fastrand::Rng::with_seed(settings.seed)),
            generation: AtomicU64::new(0),
        }))
    }

    /// Adds an upstream and starts its driver.
    pub fn add_upstream(&self, name: UpstreamName, limits: Limits) {
        let dispatch = Arc::new(Dispatch::new(name.clone(), limits, self.0.clock.now()));
        self.0.upstreams.insert(name, Arc::clone(&dispatch));
        let driver = flight::drive(self.clone(), dispatch);
        self.0.supervisor.spawn_critical("upstream", driver);
    }

    /// Adds a Workspace.
    pub fn put(&self, workspace: Workspace) -> Result<(), PutError> {
        let Workspace { name, upstream, keep_warm, provider } = workspace;
        if self.0.entries.contains_key(&name) {
            return Err(PutError::Exists(name));
        }
        if self.0.entries.len() >= self.0.settings.max_workspaces {
            return Err(PutError::Full(self.0.settings.max_workspaces));
        }
        let dispatch = self.0.upstreams.get(&upstream).map(|found| Arc::clone(&found));
        let dispatch = dispatch.ok_or(PutError::UnknownUpstream(upstream))?;
        let Settings { serve_margin, min_gap, .. } = self.0.settings;
        let rules = Rules { serve_margin, min_gap, keep_warm };
        let entry = Arc::new(Entry::new(name.clone(), rules, Arc::clone(&dispatch), provider));
        match self.0.entries.entry(name) {
            dashmap::Entry::Occupied(taken) => return Err(PutError::Exists(taken.key().clone())),
            dashmap::Entry::Vacant(free) => drop(free.insert(Arc::clone(&entry))),
        }
        match keep_warm {
            KeepWarm::Always => Self::look_after(&entry, self.0.clock.now()),
            KeepWarm::WhileUsed => {}
        }
        Ok(())
    }

    /// Gives a Workspace a new credential. The token in hand is served until the new credential has brought one, which
    /// is tried at once. False: there is no such Workspace.
    pub fn rekey(&self, name: &WorkspaceName, provider: Arc<dyn Provider>) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        let queued = {
            let mut core = entry.core();
            core.provider = provider;
            core.plan.rekey();
            core.cancel_flight();
            core.announce(Landed::Discarded);
            core.plan.is_queued()
        };
        if queued {
            entry.dispatch.enqueue(&entry, Urgency::Waiting, self.0.clock.now().mono);
        }
        true
    }

    /// Removes a Workspace, its token and whatever is under way. False: there was none.
    pub fn delete(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        // While it stands in the map no other of that name can come, whose place in the queue this would take away.
        Self::withdraw(&entry, |core| {
            core.deleted = true;
            core.plan.forget_token();
        });
        self.0.entries.remove_if(name, |_, found| Arc::ptr_eq(found, &entry)).is_some()
    }

    /// Withdraws a Workspace until it is unfrozen. False: there is none.
    pub fn freeze(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        Self::withdraw(&entry, |core| core.plan.freeze());
        true
    }

    /// Takes a withdrawal back. False: there is no such Workspace.
    pub fn unfreeze(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        entry.core().plan.unfreeze();
        Self::look_after(&entry, self.0.clock.now());
        true
    }

    /// The token of a Workspace, with at least `min_validity` left. Waits at most until `deadline`.
    pub async fn get(&self, name: &WorkspaceName, min_validity: Duration, deadline: Instant) -> Result<Served, Error> {
        let entry = self.entry(name).ok_or_else(unknown)?;
        let now = self.0.clock.now();
        entry.touch(now.mono);
        let served = if let Some(served) = entry.hit(now, min_validity) {
            Ok(served)
        } else {
            let ask = |plan: &mut plan::Plan, now| plan.ask(now, min_validity);
            self.decide_until_done(name, deadline, ask).await
        };
        self.checked(name, served)
    }

    /// The replacement for a token that the upstream rejects. Never withdraws a token: others go on being served.
    pub async fn report(
        &self,
        name: &WorkspaceName,
        rejected: Fingerprint,
        deadline: Instant,
    ) -> Result<Served, Error> {
        let entry = self.entry(name).ok_or_else(unknown)?;
        entry.touch(self.0.clock.now().mono);
        let mut reported = false;
        let report = |plan: &mut plan::Plan, now| {
            // Once is enough: after the flight, whatever stands is the answer.
            let again = std::mem::replace(&mut reported, true);
            if again { plan.ask(now, Duration::ZERO) } else { plan.report(now, rejected) }
        };
        let served = self.decide_until_done(name, deadline, report).await;
        let served = self.checked(name, served)?;
        if served.token.fingerprint == rejected {
            return Err(Error::retry(Reason::TokenStillRejected, self.0.settings.min_gap));
        }
        Ok(served)
    }

    /// How a Workspace stands; `None` if there is none.
    pub fn snapshot(&self, name: &WorkspaceName) -> Option<Snapshot> {
        let entry = self.entry(name)?;
        let now = self.0.clock.now();
        let published = entry.published();
        Some(Snapshot {
            state: entry.core().plan.state(now),
            expires_at: published.map(|published| published.held.validity.expires_at()),
            waiters: entry.waiters(),
        })
    }

    /// How many Workspaces there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// Asks the plan, does what it says, and asks again after every landing, until it says serve or refuse.
    async fn decide_until_done(
        &self,
        name: &WorkspaceName,
        deadline: Instant,
        mut ask: impl FnMut(&mut plan::Plan, Now) -> Answer + Send,
    ) -> Result<Served, Error> {
        let mut source = Source::Cache;
        loop {
            let entry = self.entry(name).ok_or_else(unknown)?;
            let now = self.0.clock.now();
            let (queued, landing) = match Self::step(&entry, now, source, &mut ask) {
                Step::Done(done) => return done,
                Step::Renew(urgency, served) => {
                    entry.dispatch.enqueue(&entry, urgency, now.mono);
                    return Ok(served);
                }
                Step::Refused { error, probe } => {
                    if probe {
                        entry.dispatch.want_probe(&entry);
                    }
                    return Err(error);
                }
                Step::Wait { queued, landing } => (queued, landing),
            };
            if queued && self.0.supervisor.is_draining() {
                // The driver has turned away who waited, or is about to: nothing starts any more.
                return Err(Error::retry(Reason::Draining, MIN_RETRY));
            }
            if queued {
                let outlook = entry.dispatch.enqueue(&entry, Urgency::Waiting, now.mono);
                worth_waiting(outlook, deadline, now.mono)?;
            }
            match self.wait(&entry, landing, deadline).await? {
                Landed::Token | Landed::Discarded => source = Source::Exchanged,
                Landed::Failed(error) => return Err(error),
            }
        }
    }

    fn step(entry: &Entry, now: Now, source: Source, ask: &mut impl FnMut(&mut plan::Plan, Now) -> Answer) -> Step {
        let mut core = entry.core();
        if core.deleted {
            return Step::Done(Err(unknown()));
        }
        let answer = ask(&mut core.plan, now);
        let served = || {
            let published = entry.published();
            published.map(|published| published.served(source)).ok_or_else(|| Error::new(Reason::Bug))
        };
        match answer {
            Answer::Serve => Step::Done(served()),
            Answer::ServeAndRenew(urgency) => match served() {
                Ok(served) => Step::Renew(urgency, served),
                Err(bug) => Step::Done(Err(bug)),
            },
            Answer::Refuse { error, probe } => Step::Refused { error, probe },
            Answer::Wait => Step::Wait { queued: core.plan.is_queued(), landing: core.next_landing() },
        }
    }

    async fn wait(
        &self,
        entry: &Arc<Entry>,
        mut landing: watch::Receiver<Option<Landed>>,
        deadline: Instant,
    ) -> Result<Landed, Error> {
        let Some(_waiting) = entry.wait(self.0.settings.max_waiters) else {
            return Err(Error::retry(Reason::CallerThrottled, Duration::from_secs(1)));
        };
        let landed = timeout_at(deadline, landing.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(landed)) => Ok(landed.clone().unwrap_or(Landed::Discarded)),
            // The entry is gone, and with it the sender: the next look finds that out.
            Ok(Err(_closed)) => Ok(Landed::Discarded),
            Err(_elapsed) => Err(Error::new(Reason::Deadline)),
        }
    }

    /// What leaves is for the Workspace that was asked for, and not expired.
    fn checked(&self, name: &WorkspaceName, served: Result<Served, Error>) -> Result<Served, Error> {
        let served = served?;
        if served.token.workspace != *name {
            tracing::error!(workspace.name = %name, "a token of another workspace was about to be served");
            return Err(Error::new(Reason::Bug));
        }
        if !served.is_servable(self.0.clock.now()) {
            return Err(Error::retry(Reason::UpstreamUnavailable, MIN_RETRY));
        }
        self.0.metrics.served(served.source);
        Ok(served)
    }

    /// Looks whether a Workspace's renewal is due, and sets its timer if not.
    fn look_after(entry: &Arc<Entry>, now: Now) {
        let tick = {
            let mut core = entry.core();
            let tick = core.plan.tick(now, entry.idle_for(now.mono));
            if tick == plan::Tick::Rest && core.plan.is_at_rest() {
                let let_go = std::mem::take(&mut core.demand);
                entry.dispatch.change_demand(let_go, 0);
            }
            tick
        };
        match tick {
            plan::Tick::Renew(urgency) => {
                entry.dispatch.enqueue(entry, urgency, now.mono);
                match urgency {
                    Urgency::Background => Self::set_timer(entry),
                    Urgency::Waiting => {}
                }
            }
            plan::Tick::Later(_) => Self::set_timer(entry),
            plan::Tick::Rest => {}
        }
    }

    /// Sets the timer for what the plan has next, unless an earlier one is set.
    fn set_timer(entry: &Entry) {
        let mut core = entry.core();
        let Some(due) = core.plan.next_due().filter(|_| !core.deleted) else { return };
        if core.timer.is_none_or(|set| due < set) {
            core.timer = Some(due);
            entry.dispatch.set_timer(due, &entry.name);
        }
    }

    fn withdraw(entry: &Entry, change: impl FnOnce(&mut Core)) {
        let mut core = entry.core();
        change(&mut core);
        core.cancel_flight();
        entry.publish(None);
        core.announce(Landed::Discarded);
        let let_go = std::mem::take(&mut core.demand);
        // With the lock still held, so that whoever brings it back is not taken out of the queue again.
        entry.dispatch.change_demand(let_go, 0);
        entry.dispatch.remove(&entry.name);
    }

    fn entry(&self, name: &WorkspaceName) -> Option<Arc<Entry>> {
        self.0.entries.get(name).map(|entry| Arc::clone(&entry))
    }

    fn random(&self) -> f64 {
        self.0.random.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    /// Larger than any before it, and larger than any of an earlier run.
    fn next_generation(&self, minted: SystemTime) -> u64 {
        let micros = minted.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let larger = |last: u64| Some(micros.max(last + 1));
        let last = self.0.generation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, larger);
        micros.max(last.unwrap_or_else(|last| last) + 1)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("workspaces", &self.len()).finish_non_exhaustive()
    }
}

fn unknown() -> Error {
    Error::new(Reason::WorkspaceUnknown)
}

/// Nobody is kept waiting for what can't come before the deadline.
fn worth_waiting(outlook: Outlook, deadline: Instant, now: Instant) -> Result<(), Error> {
    match outlook {
        Outlook::Soon => Ok(()),
        Outlook::Throttled(wait) if now + wait <= deadline => Ok(()),
        Outlook::Throttled(wait) => Err(Error::retry(Reason::UpstreamThrottled, wait)),
        Outlook::Down => Err(Error::retry(Reason::UpstreamUnavailable, MIN_RETRY)),
    }
}
