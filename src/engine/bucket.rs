//! A token bucket: how many logins may still go out. Pure.

use crate::upstream::Budget;
use tokio::time::Instant;

/// Rounding of the refill must not cost a whole login.
const EPSILON: f64 = 1e-6;

/// Counts logins, not tokens of callers. Starts full: that is a quarter of the limit, see [`Budget`].
#[derive(Debug)]
pub(super) struct Bucket {
    capacity: f64,
    /// Kept for waiting callers.
    reserve: f64,
    per_second: f64,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    pub(super) fn new(budget: Budget, now: Instant) -> Self {
        let capacity = f64::from(budget.capacity());
        let per_second = f64::from(budget.refill_per_window()) / budget.per.as_secs_f64();
        let reserve = f64::from(budget.kept_for_waiters());
        Self { capacity, reserve, per_second, level: capacity, filled_at: now }
    }

    /// Another budget. What was taken stays taken; at most one window's worth of it is paid off first, since older
    /// logins count no more.
    pub(super) fn change(&mut self, budget: Budget, now: Instant) {
        let taken = self.capacity - self.level_at(now);
        let new = Self::new(budget, now);
        let level = (new.capacity - taken).max(-f64::from(budget.refill_per_window()));
        *self = Self { level, ..new };
    }

    /// Logins per second in the long run.
    pub(super) fn rate(&self) -> f64 {
        self.per_second
    }

    /// When a login may go out, counting `ahead` others before it; `now` or earlier: at once.
    pub(super) fn ready_at(&self, now: Instant, use_reserve: bool, ahead: usize) -> Instant {
        let ahead = u32::try_from(ahead).map_or(f64::MAX, f64::from);
        let needed = 1.0 + ahead + if use_reserve { 0.0 } else { self.reserve };
        let missing = needed - self.level_at(now);
        if missing <= EPSILON {
            return now;
        }
        now + std::time::Duration::from_secs_f64((missing / self.per_second).min(86_400.0))
    }

    /// Takes one login out; whoever takes has asked [`Self::ready_at`].
    pub(super) fn take(&mut self, now: Instant) {
        self.level = self.level_at(now) - 1.0;
        self.filled_at = now;
    }

    /// Puts one back: the attempt never reached the upstream.
    pub(super) fn put_back(&mut self, now: Instant) {
        self.level = (self.level_at(now) + 1.0).min(self.capacity);
        self.filled_at = now;
    }

    fn level_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.filled_at);
        since.as_secs_f64().mul_add(self.per_second, self.level).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn emnify() -> Budget {
        Budget { logins: NonZeroU32::new(100).unwrap(), per: Duration::from_secs(300) }
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_the_limit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(emnify(), start);
        let mut taken = Vec::new();
        for tick in 0..9_000_u32 {
            let now = start + Duration::from_millis(100) * tick;
            // An idle stretch lets the bucket fill up before the next rush.
            let idle = (3_000..5_000).contains(&tick);
            while !idle && bucket.ready_at(now, true, 0) <= now {
                bucket.take(now);
                taken.push(now);
            }
        }
        let window = Duration::from_secs(300);
        let fullest = taken.iter().map(|from| taken.iter().filter(|at| **at >= *from && **at < *from + window).count());
        let fullest = fullest.max().unwrap();
        assert!((98..=100).contains(&fullest), "{fullest}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_is_kept_for_waiters_and_a_start_gets_a_quarter() {
        let now = Instant::now();
        let mut bucket = Bucket::new(emnify(), now);
        let mut background = 0;
        while bucket.ready_at(now, false, 0) <= now {
            bucket.take(now);
            background += 1;
        }
        assert_eq!(background, 20);
        let mut waiters = 0;
        while bucket.ready_at(now, true, 0) <= now {
            bucket.take(now);
            waiters += 1;
        }
        assert_eq!(waiters, 5);
        let next = bucket.ready_at(now, true, 0) - now;
        assert!(next.abs_diff(Duration::from_secs(4)) < Duration::from_millis(1), "75 in 300 s: {next:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_budget_is_no_fresh_one() {
        let now = Instant::now();
        let budget = |logins| Budget { logins: NonZeroU32::new(logins).unwrap(), per: Duration::from_secs(300) };
        let left = |bucket: &mut Bucket| {
            let mut left = 0;
            while bucket.ready_at(now, true, 0) <= now {
                bucket.take(now);
                left += 1;
            }
            left
        };
        // limit before, taken, limit after → what is left
        for (before, taken, after, expected) in
            [(100, 10, 100, 15), (100, 25, 100, 0), (100, 10, 200, 40), (100, 10, 60, 5), (100, 25, 40, 0)]
        {
            let mut bucket = Bucket::new(budget(before), now);
            (0..taken).for_each(|_| bucket.take(now));
            bucket.change(budget(after), now);
            assert_eq!(left(&mut bucket), expected, "{before} {taken} {after}");
        }
        let mut bucket = Bucket::new(budget(1_000_000), now);
        (0..250_000).for_each(|_| bucket.take(now));
        bucket.change(budget(4), now);
        let wait = bucket.ready_at(now, true, 0) - now;
        assert!(wait <= Duration::from_secs(401), "one window, and one login: {wait:?}");
    }
}
