//! The two limits of emnify's login, as state machines. Pure: the time is an argument.
//!
//! [`Lockout`]: three consecutive failures block an account for five minutes. [`Window`]: so many logins in any span
//! of five minutes. What identifies an account or a client is not known here.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How strict the sandbox is; the defaults are emnify's documented numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Consecutive failures that lock an account.
    pub failures: u32,
    /// For how long a locked account is refused.
    pub lockout: Duration,
    /// Logins of one client address within [`Self::window`].
    pub logins: usize,
    /// The sliding span in which they are counted.
    pub window: Duration,
    /// Whether a 429 says when to come back. emnify documents no `Retry-After`.
    pub retry_after: RetryAfter,
}

/// Whether an answer that throttles carries the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryAfter {
    /// As emnify, as far as is known.
    #[default]
    Absent,
    /// The seconds until the window admits again, rounded up.
    Sent,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: 3,
            lockout: Duration::from_secs(300),
            logins: 100,
            window: Duration::from_secs(300),
            retry_after: RetryAfter::Absent,
        }
    }
}

/// The failures of one account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lockout {
    failures: u32,
    locked_until: Option<Instant>,
}

impl Lockout {
    pub(super) fn is_locked(&self, now: Instant) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// Counts a failure; the one that reaches the limit locks. Attempts during a lock are not counted, so they do not
    /// prolong it.
    pub(super) fn failed(&mut self, now: Instant, limits: &Limits) {
        if self.is_locked(now) {
            return;
        }
        self.locked_until = None;
        self.failures += 1;
        if self.failures >= limits.failures {
            *self = Self { failures: 0, locked_until: Some(now + limits.lockout) };
        }
    }

    /// A success ends the row of failures.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// The logins of one client address: a sliding log. A refused login is not counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    admitted: VecDeque<Instant>,
}

impl Window {
    /// Admits a login, or says for how long none will be.
    pub(super) fn admit(&mut self, now: Instant, limits: &Limits) -> Result<(), Duration> {
        self.forget_old(now, limits);
        if self.admitted.len() < limits.logins {
            self.admitted.push_back(now);
            return Ok(());
        }
        let free_at = self.admitted.front().map(|oldest| *oldest + limits.window);
        Err(free_at.map_or(limits.window, |at| at.saturating_duration_since(now)))
    }

    /// Whether nothing of it matters any more.
    pub(super) fn is_empty(&mut self, now: Instant, limits: &Limits) -> bool {
        self.forget_old(now, limits);
        self.admitted.is_empty()
    }

    fn forget_old(&mut self, now: Instant, limits: &Limits) {
        while let Some(oldest) = self.admitted.front()
            && now.saturating_duration_since(*oldest) >= limits.window
        {
            self.admitted.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { logins: 3, ..Limits::default() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_third_failure_in_a_row_locks_for_five_minutes() {
        let (start, mut lockout) = (Instant::now(), Lockout::default());
        lockout.failed(start, &limits());
        lockout.failed(start, &limits());
        assert!(!lockout.is_locked(start));
        lockout.failed(start, &limits());
        assert!(lockout.is_locked(start + seconds(299)));
        assert!(!lockout.is_locked(start + seconds(300)));
    }

    #[test]
    fn a_success_ends_the_row() {
        let (start, mut lockout) = (Instant::now(), Lockout::default());
        for _ in 0..5 {
            lockout.failed(start, &limits());
            lockout.failed(start, &limits());
            lockout.succeeded();
        }
        assert!(!lockout.is_locked(start));
    }

    #[test]
    fn attempts_during_a_lock_do_not_prolong_it_and_a_new_row_starts_after_it() {
        let (start, mut lockout) = (Instant::now(), Lockout::default());
        for after in [0, 0, 0, 100, 200, 299] {
            lockout.failed(start + seconds(after), &limits());
        }
        let end = start + seconds(300);
        assert!(!lockout.is_locked(end));
        lockout.failed(end, &limits());
        lockout.failed(end, &limits());
        assert!(!lockout.is_locked(end));
        lockout.failed(end, &limits());
        assert!(lockout.is_locked(end));
    }

    #[test]
    fn the_window_slides() {
        let (start, mut window) = (Instant::now(), Window::default());
        for after in [0, 100, 200] {
            assert_eq!(window.admit(start + seconds(after), &limits()), Ok(()));
        }
        let at = |after| start + seconds(after);
        assert_eq!(window.admit(at(250), &limits()), Err(seconds(50)));
        assert_eq!(window.admit(at(299), &limits()), Err(seconds(1)));
        assert_eq!(window.admit(at(300), &limits()), Ok(()));
        assert_eq!(window.admit(at(301), &limits()), Err(seconds(99)));
        assert!(!window.is_empty(at(599), &limits()));
        assert!(window.is_empty(at(600), &limits()));
    }

    #[test]
    fn a_limit_of_nothing_admits_nothing() {
        let none = Limits { logins: 0, ..limits() };
        let mut window = Window::default();
        assert_eq!(window.admit(Instant::now(), &none), Err(seconds(300)));
    }
}
