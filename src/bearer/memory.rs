//! What was verified already: a token's hash leads to who its bearer is, until the token ends or its key goes.
//!
//! Only what was verified is kept, so that wrong tokens take no memory, and no more than [`MOST`] of it: the oldest
//! gives way. The tokens themselves are not kept.

use crate::identity::Authenticated;
use dashmap::DashMap;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many tokens are remembered.
pub const MOST: usize = 10_000;

/// What stands for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

/// A verified token.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    /// The name of its issuer.
    pub(super) issuer: Arc<str>,
    pub(super) authenticated: Authenticated,
}

#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    found: DashMap<Digest, Remembered>,
    /// In the order in which they came. May hold some that are gone, and never more than `most` in all.
    order: Mutex<VecDeque<Digest>>,
}

impl Digest {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self { most, found: DashMap::new(), order: Mutex::default() }
    }

    /// Whose token this is, if it was verified before and nothing has changed since.
    pub(super) fn find(&self, token: &Digest, now: SystemTime) -> Option<Remembered> {
        let remembered = self.found.get(token).map(|found| Remembered::clone(&found))?;
        if remembered.authenticated.evidence.holds(now) {
            return Some(remembered);
        }
        self.found.remove(token);
        None
    }

    pub(super) fn put(&self, token: Digest, remembered: Remembered, now: SystemTime) {
        let mut order = self.order();
        if self.found.insert(token, remembered).is_some() {
            return;
        }
        if order.len() >= self.most {
            self.make_room(&mut order, now);
        }
        order.push_back(token);
    }

    /// Those that are over first, so that one that still counts goes only if all do.
    fn make_room(&self, order: &mut VecDeque<Digest>, now: SystemTime) {
        self.found.retain(|_, remembered| remembered.authenticated.evidence.holds(now));
        order.retain(|token| self.found.contains_key(token));
        while order.len() >= self.most {
            if let Some(oldest) = order.pop_front() {
                self.found.remove(&oldest);
            }
        }
        // A sweep looks at all of them: it is not to be needed at every token from here on.
        for _ in 0..self.most / 16 {
            if order.len() * 16 <= self.most * 15 {
                break;
            }
            if let Some(oldest) = order.pop_front() {
                self.found.remove(&oldest);
            }
        }
    }

    /// Forgets those whose keys are gone.
    pub(super) fn sweep(&self, now: SystemTime) {
        let mut order = self.order();
        self.found.retain(|_, remembered| remembered.authenticated.evidence.holds(now));
        order.retain(|token| self.found.contains_key(token));
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Caller, Evidence};
    use std::time::{Duration, UNIX_EPOCH};

    #[derive(Debug)]
    struct Until(SystemTime);

    impl Evidence for Until {
        fn holds(&self, now: SystemTime) -> bool {
            now < self.0
        }

        fn ends(&self) -> Option<SystemTime> {
            Some(self.0)
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn put(memory: &Memory, token: &str, until: u64, now: u64) {
        let evidence = Arc::new(Until(at(until)));
        let authenticated = Authenticated { caller: Caller::bearer("idp", token).unwrap(), evidence };
        memory.put(Digest::of(token), Remembered { issuer: Arc::from("idp"), authenticated }, at(now));
    }

    fn has(memory: &Memory, token: &str, now: u64) -> bool {
        memory.find(&Digest::of(token), at(now)).is_some()
    }

    #[test]
    fn what_is_over_is_forgotten_when_it_is_looked_at() {
        let memory = Memory::new(4);
        put(&memory, "a", 10, 0);
        assert!(has(&memory, "a", 9) && !has(&memory, "b", 9));
        assert!(!has(&memory, "a", 10));
        assert_eq!(memory.len(), 0);
    }

    #[test]
    fn the_oldest_gives_way_and_those_that_are_over_before_it() {
        let memory = Memory::new(4);
        for (token, until) in [("a", 100), ("b", 10), ("c", 100), ("d", 100)] {
            put(&memory, token, until, 0);
        }
        put(&memory, "e", 100, 50);
        assert!(["a", "c", "d", "e"].iter().all(|token| has(&memory, token, 50)));
        put(&memory, "f", 100, 50);
        assert!(!has(&memory, "a", 50) && has(&memory, "f", 50));
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let memory = Memory::new(32);
        for n in 0..1_000 {
            put(&memory, &n.to_string(), 100, 0);
            // Coming and going leaves nothing behind either.
            memory.found.remove(&Digest::of(&n.to_string())).filter(|_| n % 3 == 0).unwrap_or_else(|| {
                let evidence = Arc::new(Until(at(100)));
                let authenticated = Authenticated { caller: Caller::bearer("idp", "x").unwrap(), evidence };
                (Digest::of("x"), Remembered { issuer: Arc::from("idp"), authenticated })
            });
            put(&memory, &n.to_string(), 100, 0);
            assert!(memory.len() <= 32 && memory.order().len() <= 33, "{n}");
        }
        memory.sweep(at(100));
        assert_eq!((memory.len(), memory.order().len()), (0, 0));
    }
}
