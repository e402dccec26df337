//! What one caller has of its limits: places that it holds, and how far ahead of its rates it has run.

use super::rate::Rate;
use crate::policy::Action;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One of something for each action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerAction<T> {
    /// Getting a token.
    pub get: T,
    /// Following tokens: counts the streams that are opened, not what is told on them.
    pub watch: T,
    /// Saying that an upstream rejects a token.
    pub report: T,
    /// Asking how a Workspace, a service or the broker itself does: calls, and streams that are opened.
    pub health: T,
}

impl<T> PerAction<T> {
    /// That of one action.
    pub fn of(&self, action: Action) -> &T {
        match action {
            Action::Get => &self.get,
            Action::Watch => &self.watch,
            Action::Report => &self.report,
            Action::Health => &self.health,
        }
    }

    /// Something else for each.
    pub fn map<U>(self, mut make: impl FnMut(Action, T) -> U) -> PerAction<U> {
        let Self { get, watch, report, health } = self;
        PerAction {
            get: make(Action::Get, get),
            watch: make(Action::Watch, watch),
            report: make(Action::Report, report),
            health: make(Action::Health, health),
        }
    }

    fn all(&self) -> [&T; 4] {
        let Self { get, watch, report, health } = self;
        [get, watch, report, health]
    }
}

/// The account of one caller. It takes no lock.
#[derive(Debug, Default)]
pub(super) struct Account {
    in_flight: Places,
    /// See [`Rate`].
    worked_off: PerAction<AtomicU64>,
}

/// So many at once.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicUsize);

impl Places {
    /// Takes one, unless that would be more than `most`. Whoever took it gives it back.
    pub(super) fn take(&self, most: usize) -> bool {
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    pub(super) fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Account {
    pub(super) fn in_flight(&self) -> &Places {
        &self.in_flight
    }

    /// Takes one call in; `Err`: for how many nanoseconds there is no room for one more.
    pub(super) fn charge(&self, action: Action, rate: Rate, now: u64) -> Result<(), u64> {
        let kept = self.worked_off.of(action);
        let mut worked_off = kept.load(Ordering::Acquire);
        loop {
            let next = rate.charge(worked_off, now)?;
            match kept.compare_exchange_weak(worked_off, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(other) => worked_off = other,
            }
        }
    }

    /// Other rates count from now on: nobody owes more than a burst of them.
    pub(super) fn forgive(&self, rates: &PerAction<Rate>, now: u64) {
        for (kept, rate) in self.worked_off.all().into_iter().zip(rates.all()) {
            kept.fetch_min(rate.latest(now), Ordering::AcqRel);
        }
    }

    /// Whether forgetting it would change nothing: a new account is the same.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let is_worked_off = |kept: &AtomicU64| kept.load(Ordering::Acquire) <= now;
        self.in_flight.taken() == 0 && self.worked_off.all().into_iter().all(is_worked_off)
    }
}
