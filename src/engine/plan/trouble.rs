//! What a failure means for the next attempt: how long to back off, and what callers are told meanwhile. Pure.

use crate::error::{Error, Reason};
use crate::failure::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// The least time between two attempts while the upstream is in trouble.
pub const MIN_RETRY: Duration = Duration::from_millis(1_500);

/// How long a rejected credential is left alone (emnify locks an account for five minutes after three failures).
pub const BREAKER_OPEN: Duration = Duration::from_secs(300);

const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
const FIRST_THROTTLE: Duration = Duration::from_secs(30);
const LONGEST_THROTTLE: Duration = Duration::from_secs(300);

/// A failure that stands, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    failure: Failure,
    in_a_row: u32,
    retry_at: Instant,
}

impl Trouble {
    /// The trouble after one more failure. `left` is the time for which a token in hand can still be served.
    pub(super) fn after(
        before: Option<Self>,
        failure: Failure,
        now: Instant,
        left: Option<Duration>,
        random: f64,
    ) -> Self {
        let in_a_row = before.map_or(1, |before| before.in_a_row.saturating_add(1));
        let delay = match failure {
            Failure::Unreachable | Failure::Unavailable | Failure::Malformed => transient_delay(in_a_row, left, random),
            Failure::Throttled { retry_after: Some(delay) } => longer(delay.max(MIN_RETRY), random),
            Failure::Throttled { retry_after: None } => {
                longer(doubled(FIRST_THROTTLE, in_a_row, LONGEST_THROTTLE), random)
            }
            Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch => longer(BREAKER_OPEN, random),
        };
        Self { failure, in_a_row, retry_at: now + delay }
    }

    pub(super) fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// May be over at any moment, so that a probe before `retry_at` is worth its price. An answer that was not
    /// understood is not such: a wrong secret looks like that where an API says so with a success and its description
    /// does not know.
    pub(super) fn is_outage(&self) -> bool {
        match self.failure {
            Failure::Unreachable | Failure::Unavailable => true,
            Failure::Malformed
            | Failure::Throttled { .. }
            | Failure::Rejected
            | Failure::LockedOut
            | Failure::TenantMismatch => false,
        }
    }

    /// Is over by itself, sooner or later.
    pub(super) fn is_transient(&self) -> bool {
        match self.failure {
            Failure::Unreachable | Failure::Unavailable | Failure::Malformed => true,
            Failure::Throttled { .. } | Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch => false,
        }
    }

    /// An operator must act.
    pub(super) fn is_rejection(&self) -> bool {
        match self.failure {
            Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch => true,
            Failure::Unreachable | Failure::Unavailable | Failure::Malformed | Failure::Throttled { .. } => false,
        }
    }

    /// What a caller without a token is told.
    pub(super) fn error(&self, now: Instant) -> Error {
        let wait = self.retry_at.saturating_duration_since(now);
        match self.failure {
            // The back-off is over: an attempt is under way.
            Failure::Unreachable | Failure::Unavailable if wait.is_zero() => {
                Error::retry(Reason::UpstreamUnavailable, MIN_RETRY)
            }
            Failure::Unreachable | Failure::Unavailable => {
                Error::retry(Reason::UpstreamUnavailable, wait.min(MIN_RETRY))
            }
            Failure::Throttled { .. } | Failure::LockedOut => Error::retry(Reason::UpstreamThrottled, wait),
            Failure::Rejected => Error::new(Reason::CredentialRejected),
            Failure::TenantMismatch => Error::new(Reason::TenantMismatch),
            Failure::Malformed => Error::new(Reason::UpstreamMalformed),
        }
    }
}

/// Doubling, spread over a fifth downward, and denser near the end of a token that is still served.
fn transient_delay(in_a_row: u32, left: Option<Duration>, random: f64) -> Duration {
    let delay = doubled(FIRST_BACK_OFF, in_a_row, LONGEST_BACK_OFF);
    let delay = left.map_or(delay, |left| delay.min(left / 8));
    delay.mul_f64(1.0 - 0.2 * random).max(MIN_RETRY)
}

fn doubled(first: Duration, in_a_row: u32, longest: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(in_a_row.saturating_sub(1).min(16));
    first.saturating_mul(factor).min(longest)
}

/// Up to a tenth longer, never shorter: the upstream named, or is known for, a least time.
fn longer(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(1.0 + 0.1 * random)
}
