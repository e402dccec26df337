//! What is agreed about an upstream before anything is asked of it: its name, its budget. Pure.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The longest upstream name, in bytes.
pub const MAX_NAME_LENGTH: usize = 64;

/// The name of an upstream: 1–64 of `a-z 0-9 . _ -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamName(Arc<str>);

/// Why a text is not an upstream name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_NAME_LENGTH`] bytes.
    #[error("must be at most 64 characters long")]
    TooLong,
    /// A character outside the allowed set.
    #[error("may only hold a-z, 0-9, '.', '_' and '-'")]
    Character,
}

impl UpstreamName {
    /// Reads a name as it is; nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_NAME_LENGTH {
            return Err(InvalidName::TooLong);
        }
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if !text.bytes().all(allowed) {
            return Err(InvalidName::Character);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for UpstreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How many logins an upstream allows in a window of time, and how that becomes a token bucket.
///
/// A full bucket and what flows in during one window never add up to more than the limit, so no window holds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The limit.
    pub logins: NonZeroU32,
    /// The window that the limit is for.
    pub per: Duration,
}

impl Budget {
    /// How many logins may go out at once: a quarter of the limit, so that a crash loop can't use the limit up.
    pub fn capacity(self) -> u32 {
        (self.logins.get() / 4).max(1)
    }

    /// The part of the capacity that background work leaves to waiting callers: 20 %, rounded down so that a bucket of
    /// one still lets background work through.
    pub fn kept_for_waiters(self) -> u32 {
        self.capacity() / 5
    }

    /// How many logins flow in per window. One at least: a limit of 1 is all capacity, and would never refill.
    pub fn refill_per_window(self) -> u32 {
        (self.logins.get() - self.capacity()).max(1)
    }
}

/// Whether a Workspace's token is renewed when nobody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeepWarm {
    /// Renewed for as long as the Workspace exists.
    Always,
    /// Let go after one full lifetime without a read.
    #[default]
    WhileUsed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rejected_never_normalised() {
        for good in ["emnify", "a.b_c-1", &"x".repeat(64)] {
            assert_eq!(UpstreamName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        let bad = [
            ("", InvalidName::Empty),
            ("a/b", InvalidName::Character),
            ("A", InvalidName::Character),
            ("ä", InvalidName::Character),
            (&"x".repeat(65), InvalidName::TooLong),
        ];
        for (text, why) in bad {
            assert_eq!(UpstreamName::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_window_never_holds_more_than_the_limit_and_every_bucket_refills() {
        let rows = [(1, 1, 0, 1), (2, 1, 0, 1), (4, 1, 0, 3), (7, 1, 0, 6), (100, 25, 5, 75), (1_000, 250, 50, 750)];
        for (logins, capacity, kept, refill) in rows {
            let budget = Budget { logins: NonZeroU32::new(logins).unwrap(), per: Duration::from_secs(300) };
            assert_eq!(budget.capacity(), capacity, "{logins}");
            assert_eq!(budget.kept_for_waiters(), kept, "{logins}");
            assert_eq!(budget.refill_per_window(), refill, "{logins}");
            assert!(logins == 1 || capacity + refill <= logins, "{logins}");
        }
    }
}
