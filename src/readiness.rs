//! Whether this replica should be sent calls.
//!
//! Whatever must be there first holds a [`Latch`] and drops it once it is. What may come to want while the process runs
//! keeps a [`Report`]. Ready means: no latch is held, no report says unready, and no drain has begun. Promises: readers never block and never miss the last change. Must not know who asks, nor what the
//! latches stand for; readiness never depends on an upstream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is still missing. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Each latch's name, in the order in which they were first taken, and how many of that name are held.
    latches: Vec<(&'static str, usize)>,
    reports: Vec<Arc<Reported>>,
    draining: bool,
}

/// What a report says.
#[derive(Debug)]
struct Reported {
    name: String,
    said: Mutex<(bool, String)>,
}

/// How one thing stands that readiness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// A latch that was dropped.
    Done,
    /// A latch that is held: unready.
    Waiting,
    /// No drain.
    NotBegun,
    /// The drain has begun: unready.
    Begun,
}

impl Check {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::NotBegun => "not begun",
            Self::Begun => "begun",
        }
    }
}

/// Keeps the process unready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping a latch releases it"]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

/// Says of one thing, as often as it changes, whether the process is ready as far as this goes, and in words.
#[derive(Debug)]
pub struct Report {
    reported: Arc<Reported>,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Ready at once: take the latches before anybody looks.
    pub fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), ready: watch::Sender::new(true) }))
    }

    /// Unready until the latch is dropped.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.change(|state| match state.latches.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held += 1,
            None => state.latches.push((name, 1)),
        });
        Latch { name, readiness: self.clone() }
    }

    /// Ready, until it says otherwise.
    pub fn report(&self, name: impl Into<String>) -> Report {
        let reported = Arc::new(Reported { name: name.into(), said: Mutex::new((true, "ready".to_owned())) });
        self.change(|state| state.reports.push(Arc::clone(&reported)));
        Report { reported, readiness: self.clone() }
    }

    /// Unready for good: the first step of a shutdown.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    /// Whether calls should be sent here now.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Follows [`Self::is_ready`].
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// All that readiness depends on, and how each stands: the latches that were ever taken, and the drain.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        let state = self.lock();
        let latch = |held: usize| if held == 0 { Check::Done } else { Check::Waiting };
        let latches = state.latches.iter().map(|(name, held)| (*name, latch(*held)));
        let drain = if state.draining { Check::Begun } else { Check::NotBegun };
        latches.chain([("drain", drain)]).collect()
    }

    /// What the reports say: names and words.
    pub fn reports(&self) -> Vec<(String, String)> {
        self.lock().reports.iter().map(|report| (report.name.clone(), report.lock().1.clone())).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let now = state.latches.iter().all(|(_, held)| *held == 0)
            && state.reports.iter().all(|report| report.lock().0)
            && !state.draining;
        // Sent under the lock, so that two changes can't be told in the wrong order.
        self.0.ready.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reported {
    fn lock(&self) -> MutexGuard<'_, (bool, String)> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// It is well, and this is how it stands: one line for operators, who may be anybody.
    pub fn ready(&self, words: impl Into<String>) {
        self.say(true, words.into());
    }

    /// No calls should be sent here, for this reason.
    pub fn unready(&self, words: impl Into<String>) {
        self.say(false, words.into());
    }

    fn say(&self, ready: bool, words: String) {
        self.readiness.change(|_| *self.reported.lock() = (ready, words));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.readiness.change(|state| state.reports.retain(|report| !Arc::ptr_eq(report, &self.reported)));
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.change(|state| {
            if let Some((_, held)) = state.latches.iter_mut().find(|(name, _)| *name == self.name) {
                *held = held.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_latch_is_dropped() {
        let readiness = Readiness::new();
        let follower = readiness.subscribe();
        let engine = readiness.latch("engine");
        let first = readiness.latch("listener");
        let second = readiness.latch("listener");
        drop(engine);
        drop(second);
        assert_eq!(
            readiness.checks(),
            [("engine", Check::Done), ("listener", Check::Waiting), ("drain", Check::NotBegun)]
        );
        assert!(!readiness.is_ready() && !*follower.borrow());
        drop(first);
        assert_eq!(readiness.checks()[1], ("listener", Check::Done));
        assert!(readiness.is_ready() && *follower.borrow());
    }

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.drain();
        drop(readiness.latch("engine"));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.checks(), [("engine", Check::Done), ("drain", Check::Begun)]);
    }

    #[test]
    fn a_report_may_change_its_mind() {
        let readiness = Readiness::new();
        let report = readiness.report("certificate");
        assert!(readiness.is_ready());
        report.unready("it has expired");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reports(), [("certificate".to_owned(), "it has expired".to_owned())]);
        let other = readiness.report("other");
        other.ready("well");
        assert!(!readiness.is_ready());
        report.ready("30 days left");
        assert!(readiness.is_ready());
        other.unready("gone");
        drop(other);
        assert!(readiness.is_ready());
        assert_eq!(readiness.reports(), [("certificate".to_owned(), "30 days left".to_owned())]);
    }

    #[test]
    fn followers_hear_changes_and_only_changes() {
        let readiness = Readiness::new();
        let mut follower = readiness.subscribe();
        let latch = readiness.latch("engine");
        assert!(follower.has_changed().unwrap());
        follower.mark_unchanged();
        let second = readiness.latch("policy");
        drop(second);
        assert!(!follower.has_changed().unwrap());
        drop(latch);
        assert!(follower.has_changed().unwrap());
    }
}
