//! How many exchanges one caller may force: by reports, and by asking for more validity than the token in hand has.
//! Other calls are free: they are served from memory, or join a flight that everybody needs.
//!
//! Bounded: callers whose allowance is whole again are forgotten, and when too many are not, nobody new gets one.

use super::Origin;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a caller may force at once.
const BURST: u32 = 10;
/// How long until one more is allowed.
const REFILL: Duration = Duration::from_secs(6);
/// Callers that are remembered.
const MOST_CALLERS: usize = 10_000;

/// The allowances of all callers. Each is kept as the time at which it will be whole again.
#[derive(Debug, Default)]
pub(super) struct Forced(Mutex<HashMap<Origin, Instant>>);

impl Forced {
    /// Takes one from a caller's allowance; `Err`: it is used up for this long.
    pub(super) fn charge(&self, origin: Origin, now: Instant) -> Result<(), Duration> {
        let mut whole_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if whole_at.len() >= MOST_CALLERS {
            whole_at.retain(|_, at| *at > now);
        }
        if whole_at.len() >= MOST_CALLERS && !whole_at.contains_key(&origin) {
            return Err(REFILL);
        }
        let at = whole_at.entry(origin).or_insert(now);
        let after = (*at).max(now) + REFILL;
        match after.saturating_duration_since(now).checked_sub(REFILL * BURST) {
            Some(excess) if !excess.is_zero() => Err(excess),
            Some(_) | None => {
                *at = after;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_gets_a_burst_and_then_one_per_refill() {
        let (forced, now) = (Forced::default(), Instant::now());
        let (one, other) = (Origin(1), Origin(2));
        for _ in 0..BURST {
            assert_eq!(forced.charge(one, now), Ok(()));
        }
        assert_eq!(forced.charge(one, now), Err(REFILL));
        assert_eq!(forced.charge(one, now + REFILL / 2), Err(REFILL / 2));
        assert_eq!(forced.charge(other, now), Ok(()), "others have their own");
        assert_eq!(forced.charge(one, now + REFILL), Ok(()));
        assert_eq!(forced.charge(one, now + REFILL), Err(REFILL));
        let rested = now + REFILL * 100;
        let granted = (0..100).filter(|_| forced.charge(one, rested).is_ok()).count();
        assert_eq!(granted, BURST as usize, "rest is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn more_callers_than_are_remembered_get_none_until_some_are_forgotten() {
        let (forced, now) = (Forced::default(), Instant::now());
        for caller in 0..MOST_CALLERS as u64 {
            assert_eq!(forced.charge(Origin(caller), now), Ok(()));
        }
        let newcomer = Origin(u64::MAX);
        assert_eq!(forced.charge(newcomer, now), Err(REFILL));
        assert_eq!(forced.charge(Origin(1), now), Ok(()), "those who are known go on");
        assert_eq!(forced.charge(newcomer, now + REFILL), Ok(()));
    }
}
