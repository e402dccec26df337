//! The accounts of all callers that are remembered: never more than a number that is set.
//!
//! Promises: who holds a place, or has run ahead of a rate, is not forgotten; a newcomer looks at a bounded number of
//! others, whether it finds room or not; who finds none shares one account with all others who found none.

use super::account::Account;
use crate::identity::Caller;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// At how many callers a newcomer looks, in turn, for some that can be forgotten. Two while there is room, so that
/// those who are gone are forgotten faster than others come.
const LOOKS: usize = 2;
const LOOKS_WHEN_FULL: usize = 16;

/// The accounts.
#[derive(Debug, Default)]
pub(super) struct Callers {
    accounts: DashMap<Caller, Arc<Account>>,
    /// Locked before a shard of the accounts, never after.
    ring: Mutex<Ring>,
    /// Of those for whom there was no room.
    shared: Arc<Account>,
}

/// Those who have an account, in no order, and who of them is looked at next.
#[derive(Debug, Default)]
struct Ring {
    callers: Vec<Caller>,
    hand: usize,
}

/// How many are remembered after a newcomer, and whether there was room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) remembered: usize,
    pub(super) had_room: bool,
}

impl Callers {
    /// Does something to the account of a caller that has one. It can't be forgotten meanwhile.
    pub(super) fn known<T>(&self, caller: &Caller, act: impl FnOnce(&Arc<Account>) -> T) -> Option<T> {
        // The lock of the account's shard is held until the end of it.
        self.accounts.get(caller).map(|account| act(&account))
    }

    /// Makes an account for a caller, or gives it the shared one if that would be more than `most`.
    pub(super) fn newcomer<T>(
        &self,
        caller: &Caller,
        (most, now): (usize, u64),
        act: impl FnOnce(&Arc<Account>) -> T,
    ) -> (T, Arrival) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_idle(&mut ring, most, now);
        let has_room = ring.callers.len() < most;
        let (done, is_kept) = match self.accounts.entry(caller.clone()) {
            // Another call of it was faster.
            Entry::Occupied(account) => (act(account.get()), true),
            Entry::Vacant(place) if has_room => {
                ring.callers.push(caller.clone());
                (act(&place.insert(Arc::default())), true)
            }
            Entry::Vacant(_) => (act(&self.shared), false),
        };
        (done, Arrival { remembered: ring.callers.len(), had_room: is_kept })
    }

    /// Every account that there is, the shared one too.
    pub(super) fn for_each(&self, act: impl Fn(&Account)) {
        act(&self.shared);
        self.accounts.iter().for_each(|account| act(&account));
    }

    fn forget_idle(&self, ring: &mut Ring, most: usize, now: u64) {
        let looks = if ring.callers.len() < most { LOOKS } else { LOOKS_WHEN_FULL };
        for _ in 0..looks {
            if ring.hand >= ring.callers.len() {
                ring.hand = 0;
            }
            let Some(caller) = ring.callers.get(ring.hand) else { return };
            if self.accounts.remove_if(caller, |_, account| account.is_idle(now)).is_some() {
                ring.callers.swap_remove(ring.hand);
            } else {
                ring.hand += 1;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.accounts.len(), self.ring.lock().unwrap().callers.len())
    }
}
