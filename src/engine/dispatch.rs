//! One upstream's driver: its queue, its timers, and the task that starts what they allow.
//!
//! A slow or dead upstream can hold up nothing but its own Workspaces: every upstream has its own task, its own queue
//! and its own cap on concurrent exchanges.

use super::entry::Entry;
use super::plan::Urgency;
use super::queue::{Launch, Next, Outlook, Queue};
use super::schedule;
use crate::clock::Now;
use crate::failure::Failure;
use crate::token::WorkspaceName;
use crate::upstream::{Budget, UpstreamName};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

/// How often the wall clock is looked at.
const WALL_WATCH: Duration = Duration::from_secs(1);
/// A smaller shift between the two clocks is no step.
const WALL_STEP: Duration = Duration::from_millis(500);

/// What an operator set for an upstream, as far as the engine goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The most exchanges at a time.
    pub max_concurrent: NonZeroUsize,
    /// Logins per window.
    pub budget: Budget,
    /// The fraction of a token's life after which it is renewed.
    pub renew_at: f64,
    /// An exchange that takes longer has failed.
    pub timeout: Duration,
}

/// One upstream.
pub(super) struct Dispatch {
    pub(super) name: UpstreamName,
    /// Rung when something changed that may let a flight start.
    pub(super) bell: Notify,
    core: Mutex<Core>,
}

struct Core {
    limits: Limits,
    /// Ends the driver when dropped.
    driver: Option<DropGuard>,
    queue: Queue,
    timers: BinaryHeap<Reverse<(Instant, WorkspaceName)>>,
    /// Sum over the tokens in hand, see [`schedule::demand_of`].
    demand: u64,
    wall_lead: WallLead,
}

/// Wall time minus monotonic time, to see the wall clock being stepped.
#[derive(Debug, Clone, Copy)]
struct WallLead(Now);

impl Dispatch {
    pub(super) fn new(name: UpstreamName, limits: Limits, now: Now) -> Self {
        let core = Core {
            limits,
            driver: None,
            queue: Queue::new(limits.max_concurrent, limits.budget, now.mono),
            timers: BinaryHeap::new(),
            demand: 0,
            wall_lead: WallLead(now),
        };
        Self { name, bell: Notify::new(), core: Mutex::new(core) }
    }

    /// What an operator set.
    pub(super) fn limits(&self) -> Limits {
        self.core().limits
    }

    /// New limits. What was used of the budget stays used.
    pub(super) fn change_limits(&self, limits: Limits, now: Instant) {
        {
            let mut core = self.core();
            core.limits = limits;
            core.queue.change_limits(limits.max_concurrent, limits.budget, now);
        }
        self.bell.notify_one();
    }

    /// Its driver runs until this guard is dropped.
    pub(super) fn driven_by(&self, driver: DropGuard) {
        self.core().driver = Some(driver);
    }

    /// Ends the driver.
    pub(super) fn retire(&self) {
        let driver = self.core().driver.take();
        drop(driver);
    }

    /// Puts a Workspace into the queue and says what somebody who waits for it has to expect.
    pub(super) fn enqueue(&self, entry: &Entry, urgency: Urgency, now: Instant) -> Outlook {
        let outlook = {
            let mut core = self.core();
            core.queue.enqueue(&entry.name, urgency, entry.uses());
            core.queue.outlook(now)
        };
        self.bell.notify_one();
        outlook
    }

    pub(super) fn want_probe(&self, entry: &Entry, from: Instant) {
        self.core().queue.want_probe(&entry.name, entry.uses(), from);
        self.bell.notify_one();
    }

    pub(super) fn remove(&self, workspace: &WorkspaceName) {
        self.core().queue.remove(workspace);
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        self.core().queue.next(now)
    }

    pub(super) fn aborted(&self, now: Instant, launch: &Launch) {
        self.core().queue.aborted(now, launch);
    }

    /// A flight came back. Gives the Workspaces whose waiters should hear that they wait in vain, and why.
    pub(super) fn landed(
        &self,
        now: Instant,
        launch: &Launch,
        took: Duration,
        failure: Option<Failure>,
    ) -> (Vec<WorkspaceName>, Outlook) {
        let (in_vain, outlook) = {
            let mut core = self.core();
            (core.queue.landed(now, launch, took, failure), core.queue.outlook(now))
        };
        self.bell.notify_one();
        (in_vain, outlook)
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        self.core().queue.patience()
    }

    pub(super) fn called_off(&self, launch: &Launch) {
        self.core().queue.called_off(launch);
        self.bell.notify_one();
    }

    /// Sets a timer. Timers are never taken back: whoever is woken looks whether it is time.
    pub(super) fn set_timer(&self, at: Instant, workspace: &WorkspaceName) {
        let is_next = {
            let mut core = self.core();
            let is_next = core.timers.peek().is_none_or(|Reverse((next, _))| at < *next);
            core.timers.push(Reverse((at, workspace.clone())));
            is_next
        };
        if is_next {
            self.bell.notify_one();
        }
    }

    /// The Workspaces whose timers are due, with the times they were set for.
    pub(super) fn due(&self, now: Instant) -> Vec<(Instant, WorkspaceName)> {
        let mut core = self.core();
        let mut due = Vec::new();
        while core.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            due.extend(core.timers.pop().map(|Reverse(timer)| timer));
        }
        due
    }

    /// When to look again at the latest.
    pub(super) fn wake_at(&self, now: Instant) -> Instant {
        let timer = self.core().timers.peek().map(|Reverse((at, _))| *at);
        let watch = now + WALL_WATCH;
        timer.map_or(watch, |at| at.min(watch))
    }

    /// Whether the wall clock was stepped since the last look.
    pub(super) fn wall_was_stepped(&self, now: Now) -> bool {
        let mut core = self.core();
        let before = std::mem::replace(&mut core.wall_lead, WallLead(now));
        before.differs_from(now)
    }

    /// A token in hand replaced another: what they cost in logins, see [`schedule::demand_of`].
    pub(super) fn change_demand(&self, from: u64, to: u64) {
        let mut core = self.core();
        core.demand = core.demand.saturating_sub(from).saturating_add(to);
    }

    /// The fraction of the life after which renewals are planned now.
    pub(super) fn renew_fraction(&self) -> f64 {
        let core = self.core();
        let per_second = Duration::from_nanos(core.demand).as_secs_f64();
        schedule::renew_fraction(core.limits.renew_at, per_second, core.queue.rate())
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WallLead {
    fn differs_from(self, now: Now) -> bool {
        let expected = self.0.wall + now.mono.saturating_duration_since(self.0.mono);
        apart(expected, now.wall) > WALL_STEP
    }
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|negative| negative.duration())
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("name", &self.name).finish_non_exhaustive()
    }
}
