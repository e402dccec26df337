//! When an issuer's keys are asked for. Pure; time and randomness are arguments.
//!
//! Every `interval`, a little earlier or later so that many brokers do not come at once; after a failure sooner, ever
//! more rarely; and before that if a token names a key that is not there, at most once per [`EARLY_GAP`].

use std::time::Duration;
use tokio::time::Instant;

/// The least time between two looks that tokens can cause.
pub(super) const EARLY_GAP: Duration = Duration::from_secs(10);

/// How many unknown keys are remembered between two such looks.
const MOST_ABSENT: usize = 64;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long to wait after a look; `failures`: how many there were in a row.
pub(super) fn pause(interval: Duration, failures: u32, random: f64) -> Duration {
    let wait = match failures.checked_sub(1) {
        None => interval,
        Some(before) => (FIRST_RETRY * 2_u32.saturating_pow(before.min(16))).min(LAST_RETRY).min(interval),
    };
    wait.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

/// Looks that tokens cause. Looks are counted from 1, and one follows the other.
#[derive(Debug, Default)]
pub(super) struct Early {
    begun: u64,
    ended: u64,
    /// The look that was asked for last, and when.
    asked: Option<(u64, Instant)>,
    /// What was not there after it.
    absent: Vec<String>,
}

/// What becomes of a token whose key is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was looked for a moment ago, and was not there.
    Absent,
    /// Wait for the end of this look, which somebody else asked for.
    Join(u64),
    /// Wait for the end of this look, and have it begun.
    Begin(u64),
    /// No look is due for so long.
    TooSoon(Duration),
}

impl Early {
    /// Asks for a look, for the sake of this `kid`.
    pub(super) fn ask(&mut self, kid: &str, now: Instant) -> Answer {
        if self.absent.iter().any(|absent| absent == kid) && self.rest(now).is_some() {
            return Answer::Absent;
        }
        match (self.asked, self.rest(now)) {
            (Some((look, _)), _) if look > self.ended => Answer::Join(look),
            (_, Some(rest)) => Answer::TooSoon(rest),
            (_, None) => {
                // One that is under way may have been answered before the key was there.
                let look = self.begun + 1;
                self.asked = Some((look, now));
                self.absent.clear();
                Answer::Begin(look)
            }
        }
    }

    /// How long no look can be asked for.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let (_, at) = self.asked?;
        let rest = (at + EARLY_GAP).saturating_duration_since(now);
        (!rest.is_zero()).then_some(rest)
    }

    /// It was looked for, and is not there.
    pub(super) fn note_absent(&mut self, kid: &str) {
        if self.absent.len() < MOST_ABSENT && !self.absent.iter().any(|absent| absent == kid) {
            self.absent.push(kid.to_owned());
        }
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// The look that had begun is over; its number.
    pub(super) fn end(&mut self) -> u64 {
        self.ended = self.begun;
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_soon_then_rarely() {
        let minutes = Duration::from_secs(300);
        let seconds: Vec<_> = (0..9).map(|failures| pause(minutes, failures, 0.5).as_secs()).collect();
        assert_eq!(seconds, [300, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(minutes, u32::MAX, 0.5), LAST_RETRY);
        assert_eq!(pause(Duration::from_secs(5), 9, 0.5), Duration::from_secs(5), "never rarer than usual");
        assert_eq!(pause(minutes, 0, 0.0), Duration::from_secs(270));
        assert_eq!(pause(minutes, 0, 1.0), Duration::from_secs(330));
    }

    #[test]
    fn tokens_cause_one_look_in_ten_seconds() {
        let (mut early, start) = (Early::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        early.begin();
        assert_eq!(early.ask("new", at(0)), Answer::Begin(2), "the look under way may be too old to tell");
        assert_eq!(early.end(), 1);
        assert_eq!(early.ask("other", at(1)), Answer::Join(2));
        early.begin();
        assert_eq!(early.end(), 2);
        early.note_absent("new");
        assert_eq!(early.ask("new", at(2)), Answer::Absent);
        assert_eq!(early.ask("third", at(4_000)), Answer::TooSoon(Duration::from_secs(6)));
        assert_eq!(early.ask("new", at(10_000)), Answer::Begin(3), "by now it may be there");
    }

    #[test]
    fn unknown_keys_take_no_memory() {
        let (mut early, now) = (Early::default(), Instant::now());
        assert_eq!(early.ask("a", now), Answer::Begin(1));
        for n in 0..10_000 {
            early.note_absent(&n.to_string());
        }
        assert_eq!(early.absent.len(), MOST_ABSENT);
    }
}
