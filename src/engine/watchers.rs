//! Who wants to hear of which Workspace. Kept by name and beside the Workspaces: one that does not exist yet, or was
//! deleted and made anew, is watched like any other, and one that nobody watches costs nothing.
//!
//! A change is told as "look again", never as a message: a mailbox holds each Workspace at most once, so what is kept
//! for a watcher that does not look is bounded by what it watches.

use super::Origin;
use crate::error::{Error, Reason};
use crate::token::WorkspaceName;
use dashmap::DashMap;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// When a watcher that found no place should try again.
const RETRY: Duration = Duration::from_secs(1);
/// One caller has at most half of the places, or this many: the most that one request may name.
const LEAST_SHARE: usize = 1_000;

/// All watchers, by Workspace.
#[derive(Debug)]
pub(super) struct Watchers {
    by_name: DashMap<WorkspaceName, HashMap<u64, Watcher>>,
    next_id: AtomicU64,
    places: Arc<Semaphore>,
    /// What one caller may have of the places.
    share: usize,
    shares: Arc<Shares>,
}

/// The places of each caller that has any.
type Shares = DashMap<Origin, usize>;

/// Places among the watches, given back on drop.
#[derive(Debug)]
pub(super) struct Places {
    _of_all: OwnedSemaphorePermit,
    shares: Arc<Shares>,
    origin: Origin,
    count: usize,
}

/// One watcher of one Workspace.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) mailbox: Arc<Mailbox>,
    /// What the Workspace is called in the mailbox.
    pub(super) index: usize,
    /// Whether watching counts as using.
    pub(super) uses: bool,
}

/// What one watcher has to look at again.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    pub(super) bell: Notify,
}

/// The Workspaces that changed, by their places.
#[derive(Debug, Default)]
struct Letters {
    changed: BTreeSet<usize>,
    /// Where the next look begins, so that one that changes all the time holds up no other.
    next: usize,
}

impl Watchers {
    pub(super) fn new(places: usize) -> Self {
        let share = (places / 2).max(LEAST_SHARE);
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { by_name: DashMap::new(), next_id: AtomicU64::new(0), places, share, shares: Arc::default() }
    }

    /// Room for one watcher of so many Workspaces: among all, and in the share of its caller.
    pub(super) fn reserve(&self, count: usize, origin: Origin) -> Result<Places, Error> {
        let throttled = || Error::retry(Reason::CallerThrottled, RETRY);
        let needed = u32::try_from(count).map_err(|_too_many| throttled())?;
        let of_all = Arc::clone(&self.places).try_acquire_many_owned(needed).map_err(|_none_left| throttled())?;
        let mut taken = self.shares.entry(origin).or_default();
        *taken += count;
        let is_within = *taken <= self.share;
        drop(taken);
        // From here on they are given back by the drop, refused or not.
        let places = Places { _of_all: of_all, shares: Arc::clone(&self.shares), origin, count };
        if is_within { Ok(places) } else { Err(throttled()) }
    }

    pub(super) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(&self, name: &WorkspaceName, id: u64, watcher: Watcher) {
        self.by_name.entry(name.clone()).or_default().insert(id, watcher);
    }

    pub(super) fn remove(&self, name: &WorkspaceName, id: u64) {
        self.by_name.remove_if_mut(name, |_, watchers| {
            watchers.remove(&id);
            watchers.is_empty()
        });
    }

    /// Something about a Workspace may look different from now on. Must be told after the change can be seen.
    pub(super) fn tell(&self, name: &WorkspaceName) {
        if let Some(watchers) = self.by_name.get(name) {
            watchers.values().for_each(|watcher| watcher.mailbox.put(watcher.index));
        }
    }

    /// Whether somebody watches the Workspace in order to use it.
    pub(super) fn use_it(&self, name: &WorkspaceName) -> bool {
        self.by_name.get(name).is_some_and(|watchers| watchers.values().any(|watcher| watcher.uses))
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.shares.remove_if_mut(&self.origin, |_, taken| {
            *taken = taken.saturating_sub(self.count);
            *taken == 0
        });
    }
}

impl Mailbox {
    pub(super) fn put(&self, index: usize) {
        self.letters().changed.insert(index);
        self.bell.notify_one();
    }

    /// The next to look at, in turn.
    pub(super) fn take(&self) -> Option<usize> {
        let mut letters = self.letters();
        let index = letters.changed.range(letters.next..).next().or_else(|| letters.changed.first()).copied()?;
        letters.changed.remove(&index);
        letters.next = index + 1;
        Some(index)
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkspaceName {
        WorkspaceName::parse(text).unwrap()
    }

    fn watcher(mailbox: &Arc<Mailbox>, index: usize, uses: bool) -> Watcher {
        Watcher { mailbox: Arc::clone(mailbox), index, uses }
    }

    #[test]
    fn a_workspace_that_nobody_watches_any_more_costs_nothing() {
        let (watchers, mailbox) = (Watchers::new(10), Arc::default());
        for id in 0..100 {
            watchers.add(&name("nowhere"), id, watcher(&mailbox, 0, false));
        }
        assert_eq!(watchers.by_name.len(), 1);
        (0..100).for_each(|id| watchers.remove(&name("nowhere"), id));
        assert!(watchers.by_name.is_empty());
        watchers.tell(&name("nowhere"));
        assert!(watchers.by_name.is_empty() && mailbox.take().is_none());
    }

    #[test]
    fn one_caller_has_half_of_the_places_and_gives_them_back() {
        let watchers = Watchers::new(10_000);
        let (one, other) = (Origin(1), Origin(2));
        let first: Vec<_> = (0..5).map(|_| watchers.reserve(1_000, one).unwrap()).collect();
        assert_eq!(watchers.reserve(1, one).unwrap_err().reason, Reason::CallerThrottled);
        // What was refused takes nothing, neither from the caller nor from the others.
        let second = watchers.reserve(5_000, other).unwrap();
        assert!(watchers.reserve(1, Origin(3)).is_err(), "there are no more");
        drop(first);
        let again = watchers.reserve(5_000, one).unwrap();
        drop((again, second));
        assert!(watchers.shares.is_empty(), "who has none is forgotten");
    }

    #[test]
    fn with_few_places_one_caller_still_has_a_whole_request() {
        let watchers = Watchers::new(1_500);
        let places = watchers.reserve(1_000, Origin(1)).unwrap();
        assert!(watchers.reserve(1, Origin(1)).is_err());
        assert!(watchers.reserve(500, Origin(2)).is_ok());
        drop(places);
    }

    #[test]
    fn only_who_watches_to_use_it_uses_it() {
        let (watchers, mailbox) = (Watchers::new(10), Arc::default());
        watchers.add(&name("a"), 1, watcher(&mailbox, 0, false));
        assert!(!watchers.use_it(&name("a")));
        watchers.add(&name("a"), 2, watcher(&mailbox, 0, true));
        assert!(watchers.use_it(&name("a")));
        watchers.remove(&name("a"), 2);
        assert!(!watchers.use_it(&name("a")));
    }

    #[test]
    fn what_is_kept_for_who_does_not_look_is_bounded_by_what_it_watches() {
        let mailbox = Mailbox::default();
        (0..10_000).for_each(|change| mailbox.put(change % 3));
        assert_eq!(mailbox.letters().changed.len(), 3);
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take()).collect();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn one_that_changes_all_the_time_holds_up_no_other() {
        let mailbox = Mailbox::default();
        (0..5).for_each(|index| mailbox.put(index));
        let taken: Vec<_> = (0..7)
            .filter_map(|_| {
                mailbox.put(0);
                mailbox.take()
            })
            .collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 0, 0]);
    }
}
