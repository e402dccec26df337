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
//! 12. Bounded: Workspaces, flights, waiters. Unknown names cost nothing but the place of who watches them.
//! 13. Forgetting wins: deleted, frozen or re-keyed during a flight discards its result.
//! 14. The answer must be for this Workspace (the provider checks the tenant; what leaves is compared with what was
//!     asked).
//!
//! Decisions are pure (`plan`, `queue`, `schedule`, `bucket`); this module and its drivers (`entry`, `dispatch`,
//! `flight`) act on them. It knows nothing of gRPC, of callers and their rights, or of any upstream's protocol.

mod ask;
mod bucket;
mod census;
mod dispatch;
mod entry;
mod flight;
mod forced;
mod metrics;
pub mod plan;
mod queue;
mod reload;
mod roster;
mod schedule;
mod served;
mod watch;
mod watchers;

use crate::clock::{Clock, Now};
use crate::error::{Error, Reason};
use crate::provider::Provider;
use crate::supervisor::Supervisor;
use crate::token::WorkspaceName;
use crate::upstream::{KeepWarm, UpstreamName};
use dashmap::DashMap;
use dispatch::Dispatch;
use entry::Entry;
use forced::Forced;
use plan::Urgency;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use watchers::Watchers;

pub use ask::{Call, Origin};
pub use dispatch::Limits;
pub use metrics::Metrics;
pub use roster::PutError;
pub use served::{Served, Snapshot, Source};
pub use watch::{Interest, View, Watch};

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
    /// More than this, counted per watcher and Workspace, are not watched at a time.
    pub max_watches: usize,
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

/// The cache of tokens. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    clock: Clock,
    supervisor: Supervisor,
    settings: RwLock<Settings>,
    metrics: Metrics,
    entries: DashMap<WorkspaceName, Arc<Entry>>,
    upstreams: DashMap<UpstreamName, Arc<Dispatch>>,
    watchers: Watchers,
    forced: Forced,
    random: Mutex<fastrand::Rng>,
    /// The last generation that was given out, by any Workspace.
    generation: AtomicU64,
}

impl Engine {
    /// An engine without upstreams and Workspaces. Its tasks belong to the supervisor.
    pub fn new(clock: Clock, supervisor: Supervisor, settings: Settings, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            clock,
            supervisor,
            settings: RwLock::new(settings),
            metrics,
            entries: DashMap::new(),
            upstreams: DashMap::new(),
            watchers: Watchers::new(settings.max_watches),
            forced: Forced::default(),
            random: Mutex::new(fastrand::Rng::with_seed(settings.seed)),
            generation: AtomicU64::new(0),
        }))
    }

    /// By which it tells the time.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// How many Workspaces there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// Looks whether a Workspace's renewal is due, and sets its timer if not.
    fn look_after(&self, entry: &Arc<Entry>, now: Now) {
        let idle = if self.0.watchers.use_it(&entry.name) { Duration::ZERO } else { entry.idle_for(now.mono) };
        let tick = {
            let mut core = entry.core();
            let tick = core.plan.tick(now, idle);
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
