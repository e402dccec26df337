//! A connection, as far as the limits know it: whose calls it carries, and until when nothing is read of it since its
//! caller goes on asking although it is refused.
//!
//! Promises: a line that ever carried the calls of two callers is never paused, for that would hold up who is within
//! its limits; no pause is longer than [`LONGEST`] from the last refusal; nothing waits here, so nothing takes memory.

use super::nanos;
use super::rate::Rate;
use crate::identity::Caller;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// Refusals of one line in the long run, and ahead of that: who waits as long as it is told has far fewer.
const REFUSALS_PER_SECOND: u32 = 100;
const REFUSALS_AT_ONCE: u32 = 200;
/// In less than this a peer's PING has its answer, and whoever mends its ways is heard.
const LONGEST: Duration = Duration::from_secs(1);

/// One connection. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What the refusals count from.
    beginning: Instant,
    /// See [`Rate`]; here it runs ahead of the burst too, and that is the pause.
    worked_off: AtomicU64,
    caller: OnceLock<Caller>,
    of_many: AtomicBool,
}

impl Default for Line {
    fn default() -> Self {
        Self(Arc::new(Shared {
            beginning: Instant::now(),
            worked_off: AtomicU64::new(0),
            caller: OnceLock::new(),
            of_many: AtomicBool::new(false),
        }))
    }
}

impl Line {
    /// A call of this caller came by it.
    pub fn carries(&self, caller: &Caller) {
        if self.0.caller.get_or_init(|| caller.clone()) != caller {
            self.carries_many();
        }
    }

    /// Who is at its other end speaks for others.
    pub fn carries_many(&self) {
        self.0.of_many.store(true, Ordering::Release);
    }

    /// Until when nothing is read of it.
    pub fn paused(&self) -> Option<Instant> {
        let Shared { beginning, worked_off, of_many, .. } = &*self.0;
        let worked_off = worked_off.load(Ordering::Acquire);
        let until = worked_off.saturating_sub(refusals().latest(0));
        if until == 0 || of_many.load(Ordering::Acquire) {
            return None;
        }
        Some(*beginning + Duration::from_nanos(until)).filter(|until| *until > Instant::now())
    }

    /// A call that came by it was refused. Whether a pause begins with that.
    pub(super) fn refused(&self) -> bool {
        let Shared { beginning, worked_off, .. } = &*self.0;
        let now = nanos(beginning.elapsed());
        let (rate, was_paused) = (refusals(), self.paused().is_some());
        let one_more = |worked_off| Some(rate.overdraw(worked_off, now, nanos(LONGEST)));
        // It never fails, for there is always a next one.
        let _before = worked_off.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        !was_paused && self.paused().is_some()
    }
}

fn refusals() -> Rate {
    Rate::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const INTERVAL: Duration = Duration::from_millis(10);

    fn refuse(line: &Line, times: u32) -> u32 {
        (0..times).map(|_| u32::from(line.refused())).sum()
    }

    fn pause(line: &Line) -> Option<Duration> {
        line.paused().map(|until| until - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn only_refusals_beyond_the_rate_pause_it_and_each_for_so_long() {
        let line = Line::default();
        assert_eq!((refuse(&line, 200), pause(&line)), (0, None));
        assert_eq!((refuse(&line, 1), pause(&line)), (1, Some(INTERVAL)));
        assert_eq!((refuse(&line, 9), pause(&line)), (0, Some(10 * INTERVAL)));
        advance(10 * INTERVAL).await;
        assert_eq!(pause(&line), None);
        assert_eq!((refuse(&line, 1), pause(&line)), (1, Some(INTERVAL)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_no_faster_than_the_rate_is_never_paused() {
        let line = Line::default();
        refuse(&line, 200);
        for _ in 0..1_000 {
            advance(INTERVAL).await;
            assert_eq!((refuse(&line, 1), pause(&line)), (0, None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_pause_is_longer_than_the_longest() {
        let line = Line::default();
        assert_eq!(refuse(&line, 100_000), 1);
        assert_eq!(pause(&line), Some(LONGEST));
        advance(LONGEST / 2).await;
        refuse(&line, 100_000);
        assert_eq!(pause(&line), Some(LONGEST), "from the last refusal");
        advance(LONGEST).await;
        assert_eq!(pause(&line), None);
        // What was refused is worked off like everything.
        advance(2 * LONGEST).await;
        assert_eq!((refuse(&line, 200), pause(&line)), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_many_callers_is_not_paused_and_one_that_is_goes_on_with_the_second_caller() {
        let (one, other) = (Caller::unix(1), Caller::unix(2));
        let line = Line::default();
        (0..3).for_each(|_| line.carries(&one));
        refuse(&line, 1_000);
        assert_eq!(pause(&line), Some(LONGEST));
        line.carries(&other);
        assert_eq!((refuse(&line, 1_000), pause(&line)), (0, None));
        line.carries(&one);
        assert_eq!((refuse(&line, 1_000), pause(&line)), (0, None), "once of many, always of many");
        let proxy = Line::default();
        proxy.carries_many();
        assert_eq!((refuse(&proxy, 1_000), pause(&proxy)), (0, None));
    }
}
