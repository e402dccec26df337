//! Which flight of an upstream may start, and when. Pure.
//!
//! Every flight of an upstream's Workspaces goes through its queue: it keeps the upstream's budget, the cap on
//! concurrent exchanges, `Retry-After`, and the order (waiters before background work, most-used first). While the
//! upstream is down it lets through one probe at a time. It knows no token and no caller.

use super::bucket::Bucket;
use super::plan::{MIN_RETRY, Urgency};
use crate::failure::Failure;
use crate::token::WorkspaceName;
use crate::upstream::Budget;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::Instant;

/// So many transient failures in a row, of two Workspaces at least, mean that the upstream itself is down.
const DOWN_AFTER: u32 = 3;
/// How long that is believed when nobody has tried again: an outage that is long over is not held against the next
/// caller.
const DOWN_MEMORY: Duration = Duration::from_secs(60);
/// How long a 429 without `Retry-After` counts, when a second Workspace gets one too.
const THROTTLE_MEMORY: Duration = Duration::from_secs(30);

/// A place in the queue: the greatest goes first.
type Place = (Urgency, u64, Reverse<u64>);

/// From when on a probe may try a Workspace, and the order of asking.
type Turn = (Instant, u64);

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Start this one.
    Start(Launch),
    /// Nothing before then, unless something happens.
    At(Instant),
    /// Nothing until something happens.
    Idle,
}

/// A flight that may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) workspace: WorkspaceName,
    probe: Option<Probe>,
}

/// A flight in a back-off, to see whether the upstream is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    /// The one before it.
    last: Option<Instant>,
}

impl Launch {
    /// Whether it is to find out whether the upstream is back.
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// What somebody who would wait in the queue has to expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// As soon as a slot is free.
    Soon,
    /// The budget, or the upstream's word, forbids it for so long.
    Throttled(Duration),
    /// The upstream is down: probes find out when it is back.
    Down,
}

#[derive(Debug)]
pub(super) struct Queue {
    max_concurrent: usize,
    bucket: Bucket,
    waiting: BTreeMap<Place, WorkspaceName>,
    places: HashMap<WorkspaceName, Place>,
    arrivals: u64,
    urgent: usize,
    flying: usize,
    /// Workspaces in a back-off that somebody asks for, and how much, in the order in which a probe may try them.
    wanted: BTreeMap<Turn, (WorkspaceName, u64)>,
    wanted_places: HashMap<WorkspaceName, Turn>,
    probing: bool,
    last_probe: Option<Instant>,
    /// How long the last exchange that brought a token took.
    usual: Option<Duration>,
    failures: Streak,
    last_throttled: Option<(WorkspaceName, Instant)>,
    paused_until: Option<Instant>,
}

/// Transient failures with no answer of another kind between them.
#[derive(Debug, Default)]
struct Streak {
    length: u32,
    last: Option<Instant>,
    of: Option<WorkspaceName>,
    of_several: bool,
}

impl Queue {
    pub(super) fn new(max_concurrent: NonZeroUsize, budget: Budget, now: Instant) -> Self {
        Self {
            max_concurrent: max_concurrent.get(),
            bucket: Bucket::new(budget, now),
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            arrivals: 0,
            urgent: 0,
            flying: 0,
            wanted: BTreeMap::new(),
            wanted_places: HashMap::new(),
            probing: false,
            last_probe: None,
            usual: None,
            failures: Streak::default(),
            last_throttled: None,
            paused_until: None,
        }
    }

    /// New limits. What was used of the budget stays used, and what flies goes on.
    pub(super) fn change_limits(&mut self, max_concurrent: NonZeroUsize, budget: Budget, now: Instant) {
        self.max_concurrent = max_concurrent.get();
        self.bucket.change(budget, now);
    }

    /// Puts a Workspace in, or moves it forward; at most one place each. `uses`: how much it is asked for.
    pub(super) fn enqueue(&mut self, workspace: &WorkspaceName, urgency: Urgency, uses: u64) {
        let before = self.places.get(workspace).copied();
        // Coarse, so that a much-asked Workspace is not moved with every call.
        let weight = u64::from(uses.checked_ilog2().unwrap_or_default());
        if before.is_some_and(|(was, weighed, _)| was >= urgency && weighed >= weight) {
            return;
        }
        self.remove(workspace);
        self.arrivals += 1;
        let urgency = before.map_or(urgency, |(was, ..)| was.max(urgency));
        let place = (urgency, weight, Reverse(self.arrivals));
        self.urgent += usize::from(urgency == Urgency::Waiting);
        self.places.insert(workspace.clone(), place);
        self.waiting.insert(place, workspace.clone());
    }

    /// Takes a Workspace out.
    pub(super) fn remove(&mut self, workspace: &WorkspaceName) {
        if let Some(order) = self.wanted_places.remove(workspace) {
            self.wanted.remove(&order);
        }
        if let Some(place) = self.places.remove(workspace) {
            self.waiting.remove(&place);
            self.urgent -= usize::from(place.0 == Urgency::Waiting);
        }
    }

    /// Somebody asks for a Workspace that is in a back-off: a probe may try it, from this moment on.
    pub(super) fn want_probe(&mut self, workspace: &WorkspaceName, uses: u64, from: Instant) {
        if self.places.contains_key(workspace) || self.wanted_places.contains_key(workspace) {
            return;
        }
        self.arrivals += 1;
        let turn = (from, self.arrivals);
        self.wanted.insert(turn, (workspace.clone(), uses));
        self.wanted_places.insert(workspace.clone(), turn);
    }

    /// What a caller who joins the queue has to expect.
    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Outlook::Throttled(until - now);
        }
        if self.is_down(now) {
            return Outlook::Down;
        }
        let ready = self.bucket.ready_at(now, true, self.urgent.saturating_sub(1));
        match ready.saturating_duration_since(now) {
            Duration::ZERO => Outlook::Soon,
            wait => Outlook::Throttled(wait),
        }
    }

    /// What may start now. Call until it names no start.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Next::At(until);
        }
        if self.flying >= self.max_concurrent {
            return Next::Idle;
        }
        let queued = if self.is_down(now) { Next::Idle } else { self.next_queued(now) };
        if let Next::Start(launch) = queued {
            return self.launch(launch, now);
        }
        match (queued, self.next_probe(now)) {
            (_, Next::Start(launch)) => self.launch(launch, now),
            (Next::At(one), Next::At(other)) => Next::At(one.min(other)),
            (Next::At(at), _) | (_, Next::At(at)) => Next::At(at),
            (_, Next::Idle) => Next::Idle,
        }
    }

    /// A launched flight did not start after all.
    pub(super) fn aborted(&mut self, now: Instant, launch: &Launch) {
        self.flying -= 1;
        self.bucket.put_back(now);
        if let Some(probe) = launch.probe {
            self.probing = false;
            self.last_probe = probe.last;
        }
    }

    /// A flight was called off: what it would have brought is unknown, and the upstream may have seen it.
    pub(super) fn called_off(&mut self, launch: &Launch) {
        self.flying -= 1;
        if launch.probe.is_some() {
            self.probing = false;
        }
    }

    /// A flight came back, after it `took` so long. Gives the Workspaces that stand in the queue if it shows that the
    /// upstream is down or wants rest: who waits for them need not find that out by waiting.
    pub(super) fn landed(
        &mut self,
        now: Instant,
        launch: &Launch,
        took: Duration,
        failure: Option<Failure>,
    ) -> Vec<WorkspaceName> {
        let was_closed = self.is_closed(now);
        self.note(now, launch, took, failure);
        let turned = !was_closed && self.is_closed(now);
        if turned { self.places.keys().cloned().collect() } else { Vec::new() }
    }

    /// Nothing but probes, or nothing at all, may start.
    fn is_closed(&self, now: Instant) -> bool {
        self.is_down(now) || self.paused_until.is_some_and(|until| until > now)
    }

    fn note(&mut self, now: Instant, launch: &Launch, took: Duration, failure: Option<Failure>) {
        self.flying -= 1;
        if launch.probe.is_some() {
            self.probing = false;
        }
        match failure {
            Some(Failure::Unreachable) => {
                self.bucket.put_back(now);
                self.failures.add(now, &launch.workspace);
            }
            Some(Failure::Unavailable | Failure::Malformed) => self.failures.add(now, &launch.workspace),
            Some(Failure::Throttled { retry_after }) => {
                self.failures = Streak::default();
                self.throttled(now, &launch.workspace, retry_after);
            }
            Some(Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch) => {
                self.failures = Streak::default();
            }
            None => {
                self.usual = Some(took);
                self.succeeded(now, launch.probe.is_some());
            }
        }
    }

    /// How long an attempt in an outage may take, where that is less than any exchange may. One that hangs on a silent
    /// upstream would hold the place of the next one until the exchange's own deadline, and so see the recovery late.
    /// It gives up after a few times what the upstream used to take; one in ten waits its full time, in case the
    /// upstream has become that slow.
    pub(super) fn patience(&self) -> Option<Duration> {
        let impatient = self.failures.length % 10 != 9;
        self.usual.map(|usual| (usual * 4).max(MIN_RETRY)).filter(|_| impatient)
    }

    /// Logins per second in the long run.
    pub(super) fn rate(&self) -> f64 {
        self.bucket.rate()
    }

    fn next_queued(&self, now: Instant) -> Next {
        let Some((place, workspace)) = self.waiting.last_key_value() else {
            return Next::Idle;
        };
        let urgent = place.0 == Urgency::Waiting;
        // Background work leaves a fifth of the slots to waiters, as it does of the budget.
        if !urgent && self.flying >= self.max_concurrent - self.max_concurrent / 5 {
            return Next::Idle;
        }
        match self.bucket.ready_at(now, urgent, 0) {
            at if at > now => Next::At(at),
            _ => Next::Start(Launch { workspace: workspace.clone(), probe: None }),
        }
    }

    fn next_probe(&self, now: Instant) -> Next {
        let queued = self.waiting.last_key_value().map(|(_, name)| name).filter(|_| self.is_down(now));
        let wanted = self.wanted.first_key_value().map(|((from, _), (name, _))| (*from, name));
        let Some((from, workspace)) = queued.map(|name| (now, name)).or(wanted) else {
            return Next::Idle;
        };
        if self.probing {
            return Next::Idle;
        }
        let rested = self.last_probe.map_or(now, |last| last + MIN_RETRY);
        // What ails one Workspace alone must not use up what is kept for the callers of the others.
        match rested.max(from).max(self.bucket.ready_at(now, self.is_down(now), 0)) {
            at if at > now => Next::At(at),
            _ => Next::Start(Launch { workspace: workspace.clone(), probe: Some(Probe { last: self.last_probe }) }),
        }
    }

    fn launch(&mut self, launch: Launch, now: Instant) -> Next {
        self.remove(&launch.workspace);
        self.bucket.take(now);
        self.flying += 1;
        if launch.probe.is_some() {
            self.probing = true;
            self.last_probe = Some(now);
        }
        Next::Start(launch)
    }

    /// One 429 concerns the Workspace that got it; when a second Workspace gets one meanwhile, it is the upstream that
    /// wants rest.
    fn throttled(&mut self, now: Instant, workspace: &WorkspaceName, retry_after: Option<Duration>) {
        let until = now + retry_after.unwrap_or(THROTTLE_MEMORY);
        let another = self.last_throttled.take().filter(|(who, _)| who != workspace);
        if let Some((_, other)) = another.filter(|(_, other)| *other > now) {
            self.paused_until = self.paused_until.max(Some(until.max(other)));
        }
        self.last_throttled = Some((workspace.clone(), until));
    }

    /// The upstream is back: whoever was asked for meanwhile gets a turn.
    fn succeeded(&mut self, now: Instant, probe: bool) {
        let was_down = self.is_down(now);
        self.failures = Streak::default();
        if probe || was_down {
            // Who was tried a moment ago gets a probe when its turn comes.
            let later = self.wanted.split_off(&(now + Duration::from_nanos(1), 0));
            for (workspace, uses) in std::mem::replace(&mut self.wanted, later).into_values() {
                self.wanted_places.remove(&workspace);
                self.enqueue(&workspace, Urgency::Waiting, uses);
            }
        }
    }

    fn is_down(&self, now: Instant) -> bool {
        let fresh = |last: Instant| now.saturating_duration_since(last) < DOWN_MEMORY;
        let remembered = self.probing || self.failures.last.is_some_and(fresh);
        self.failures.of_several && self.failures.length >= DOWN_AFTER && remembered
    }
}

impl Streak {
    fn add(&mut self, now: Instant, workspace: &WorkspaceName) {
        self.last = Some(now);
        self.length = self.length.saturating_add(1);
        self.of_several |= self.of.as_ref().is_some_and(|before| before != workspace);
        self.of = Some(workspace.clone());
    }
}

#[cfg(test)]
mod tests;
