//! A token bucket in one number: the generic cell rate algorithm, over nanoseconds since some beginning. Pure.
//!
//! What is kept of a caller is when all of its calls so far will have been worked off at the long-run rate. A call is
//! let in if, with it, that lies no further ahead than the burst. So nothing has to be refilled, a refusal costs
//! nothing, and one compare-and-swap takes a call in.

use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// So many calls a second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Between two calls in the long run. Rounded up, so that no second holds more than was allowed.
    interval: u64,
    /// How far ahead of that a caller may run.
    window: u64,
}

impl Rate {
    /// Zero counts as one: a caller that may do nothing is the policy's to refuse.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = SECOND.div_ceil(u64::from(per_second.max(1)));
        Self { interval, window: interval * u64::from(burst.max(1)) }
    }

    /// Takes one call in: when all will be worked off with it. `Err`: for how long there is no room for one more.
    pub(super) fn charge(self, worked_off: u64, now: u64) -> Result<u64, u64> {
        let next = worked_off.max(now).saturating_add(self.interval);
        match next.saturating_sub(self.latest(now)) {
            0 => Ok(next),
            excess => Err(excess),
        }
    }

    /// Takes one call in whether or not there is room, but runs no further than so much ahead of the burst.
    pub(super) fn overdraw(self, worked_off: u64, now: u64, most: u64) -> u64 {
        let next = worked_off.max(now).saturating_add(self.interval);
        next.min(self.latest(now).saturating_add(most))
    }

    /// The furthest that anybody can have run ahead. Whoever comes from a slower rate is set back to it.
    pub(super) fn latest(self, now: u64) -> u64 {
        now.saturating_add(self.window)
    }
}

/// In whole milliseconds, and never shorter: who waits that long must not be told to wait again.
pub(super) fn in_milliseconds(nanos: u64) -> Duration {
    Duration::from_millis(nanos.div_ceil(MILLISECOND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bucket and what it let in, in order.
    struct Bucket {
        rate: Rate,
        worked_off: u64,
        taken: Vec<u64>,
    }

    impl Bucket {
        fn new(per_second: u32, burst: u32) -> Self {
            Self { rate: Rate::new(per_second, burst), worked_off: 0, taken: Vec::new() }
        }

        fn call(&mut self, now: u64) -> Result<(), u64> {
            self.worked_off = self.rate.charge(self.worked_off, now)?;
            self.taken.push(now);
            Ok(())
        }

        /// By the definition: from any call on, no more than the burst and what came due since.
        fn naive(&self, now: u64) -> bool {
            let Rate { interval, window } = self.rate;
            self.taken.iter().enumerate().all(|(index, since)| {
                let with_this = (self.taken.len() - index + 1) as u64;
                with_this * interval <= window + (now - since)
            })
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(10, 3);
        assert_eq!((0..5).map(|_| bucket.call(0).is_ok()).filter(|ok| *ok).count(), 3);
        assert_eq!(bucket.call(0), Err(SECOND / 10));
        assert_eq!(bucket.call(SECOND / 10 - 1), Err(1));
        assert_eq!(bucket.call(SECOND / 10), Ok(()));
        let rested = SECOND * 1_000;
        assert_eq!((0..100).filter(|_| bucket.call(rested).is_ok()).count(), 3, "rest is not saved up");
    }

    #[test]
    fn milliseconds_are_never_too_short() {
        for (nanos, millis) in [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(in_milliseconds(nanos), Duration::from_millis(millis));
        }
    }

    #[test]
    fn a_faster_rate_does_not_wait_for_what_was_owed_to_a_slower_one() {
        let mut bucket = Bucket::new(1, 1_000);
        (0..1_000).for_each(|_| bucket.call(0).unwrap());
        bucket.rate = Rate::new(1_000, 100);
        bucket.worked_off = bucket.worked_off.min(bucket.rate.latest(0));
        assert_eq!(bucket.call(0), Err(SECOND / 1_000));
        assert_eq!(bucket.call(SECOND / 1_000), Ok(()));
    }

    proptest! {
        #[test]
        fn it_decides_as_the_definition_does(
            per_second in 1..2_000_u32,
            burst in 1..20_u32,
            steps in prop::collection::vec((0..4_u8, 0..3_000_000_000_u64), 1..300),
        ) {
            let (mut bucket, mut now) = (Bucket::new(per_second, burst), 0);
            for (kind, step) in steps {
                now += match kind {
                    0 => 0,
                    1 => bucket.rate.interval,
                    2 => step % (2 * bucket.rate.interval),
                    _ => step,
                };
                let expected = bucket.naive(now);
                match bucket.call(now) {
                    Ok(()) => prop_assert!(expected),
                    Err(wait) => {
                        prop_assert!(!expected && wait > 0);
                        // The wait is the shortest that is true.
                        prop_assert!(bucket.rate.charge(bucket.worked_off, now + wait - 1).is_err());
                        prop_assert!(bucket.rate.charge(bucket.worked_off, now + wait).is_ok());
                    }
                }
            }
        }
    }
}
