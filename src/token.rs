//! A token, the Workspace it is for, and how long it may be served. Pure.

use crate::clock::Now;
use crate::secret::AccessToken;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The longest Workspace name, in bytes.
pub const MAX_NAME_LENGTH: usize = 128;

/// The name of a Workspace: 1–128 of `a-z 0-9 . _ -` in non-empty segments separated by `/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceName(Arc<str>);

/// Why a text is not a Workspace name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_NAME_LENGTH`] bytes.
    #[error("must be at most 128 characters long")]
    TooLong,
    /// A character outside the allowed set.
    #[error("may only hold a-z, 0-9, '.', '_', '-' and '/' between segments")]
    Character,
    /// A leading, trailing or doubled `/`.
    #[error("must not hold an empty segment (a leading, trailing or doubled '/')")]
    EmptySegment,
}

impl WorkspaceName {
    /// Reads a name as it is; nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_NAME_LENGTH {
            return Err(InvalidName::TooLong);
        }
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if !text.bytes().all(allowed) {
            return Err(InvalidName::Character);
        }
        if text.split('/').any(str::is_empty) {
            return Err(InvalidName::EmptySegment);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for WorkspaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// `base64url(SHA-256("tb-fp-v1" ‖ token)[..16])`: names a token without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a token.
    pub fn of(value: &AccessToken) -> Self {
        let digest: [u8; 32] = Sha256::new().chain_update(b"tb-fp-v1").chain_update(value.expose()).finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(digest.split_at(16).0);
        Self(first)
    }

    /// Evenly spread, as the digest is.
    pub(crate) fn first_byte(self) -> u8 {
        let [first, ..] = self.0;
        first
    }

    /// The text form, exactly: 22 characters of base64url without padding.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long a token may be served, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When the request that brought the token was sent.
    pub started: Now,
    /// What the upstream gave, counted from `started`.
    pub lifetime: Duration,
    /// Too little to be served: less than this left counts as expired.
    pub margin: Duration,
}

impl Validity {
    /// `serve_margin` is cut to a tenth of the lifetime.
    pub fn new(started: Now, lifetime: Duration, serve_margin: Duration) -> Self {
        let margin = serve_margin.min(lifetime / 10);
        Self { started, lifetime, margin }
    }

    /// The monotonic end.
    pub fn deadline(&self) -> Instant {
        self.started.mono + self.lifetime
    }

    /// For how long it may still be handed out, by the stricter of the two clocks.
    pub fn servable_for(&self, now: Now) -> Duration {
        self.remaining(now).saturating_sub(self.margin)
    }

    /// The end by the local wall clock: what callers are told.
    pub fn expires_at(&self) -> SystemTime {
        self.started.wall + self.lifetime
    }

    /// Time left by the stricter of the two clocks; zero when it is over.
    pub fn remaining(&self, now: Now) -> Duration {
        let mono = self.deadline().saturating_duration_since(now.mono);
        let wall = self.expires_at().duration_since(now.wall).unwrap_or_default();
        mono.min(wall)
    }

    /// Whether the token may be handed out now.
    pub fn is_servable(&self, now: Now) -> bool {
        self.remaining(now) > self.margin
    }
}

/// One token of one Workspace, as it is handed out. Immutable; a renewal makes a new one.
#[derive(Debug)]
pub struct Token {
    /// Whose it is. Compared with what was asked for on the way out.
    pub workspace: WorkspaceName,
    /// The secret part.
    pub value: AccessToken,
    /// How it is presented.
    pub presentation: Presentation,
    /// Orders the tokens of this Workspace.
    pub generation: u64,
    /// Names it in logs and reports.
    pub fingerprint: Fingerprint,
}

/// How a token travels in a request.
#[derive(Debug, Default)]
pub struct Presentation {
    /// The scheme before the value, such as `Bearer`; empty for the bare value.
    pub token_type: String,
    /// The header that carries it, lower case.
    pub header_name: String,
    /// Further secret headers that travel with it.
    pub extra_headers: Vec<(String, AccessToken)>,
    /// Companion values that are no secret.
    pub attributes: BTreeMap<String, String>,
}

impl Presentation {
    /// `Authorization: Bearer …`, as most APIs want it.
    pub fn bearer() -> Self {
        Self { token_type: "Bearer".to_owned(), header_name: "authorization".to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rejected_never_normalised() {
        for good in ["a", "demo/emnify", "team-1/a.b_c", &"x".repeat(128)] {
            assert_eq!(WorkspaceName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        let bad = [
            ("", InvalidName::Empty),
            ("/a", InvalidName::EmptySegment),
            ("a/", InvalidName::EmptySegment),
            ("a//b", InvalidName::EmptySegment),
            ("A", InvalidName::Character),
            ("a b", InvalidName::Character),
            ("a\0", InvalidName::Character),
            ("a%2fb", InvalidName::Character),
            ("ａ", InvalidName::Character),
            (&"x".repeat(129), InvalidName::TooLong),
        ];
        for (text, why) in bad {
            assert_eq!(WorkspaceName::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_fingerprint_can_be_computed_by_anyone() {
        // printf 'tb-fp-v1%s' abc | openssl dgst -sha256 -binary | head -c 16 | basenc --base64url
        assert_eq!(Fingerprint::of(&AccessToken::new("abc")).to_string(), "MuKcNVrA5JdLBEuiqcxaYQ");
    }

    #[test]
    fn a_fingerprint_is_read_back_exactly_or_not_at_all() {
        let fingerprint = Fingerprint::of(&AccessToken::new("abc"));
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        for bad in [
            "",
            "MuKcNVrA5JdLBEuiqcxaY",
            "MuKcNVrA5JdLBEuiqcxaYQ==",
            "MuKcNVrA5JdLBEuiqcxaYR",
            "MuKcNVrA5JdLBEuiqcxa+Q",
        ] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_stricter_clock_wins() {
        let clock = crate::clock::Clock::simulated();
        let validity = Validity::new(clock.now(), Duration::from_secs(1000), Duration::from_secs(5));
        assert_eq!(validity.remaining(clock.now()), Duration::from_secs(1000));
        clock.step_wall_ms(400_000);
        assert_eq!(validity.remaining(clock.now()), Duration::from_secs(600));
        clock.step_wall_ms(-3_000_000);
        assert_eq!(validity.remaining(clock.now()), Duration::from_secs(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_the_margin_counts_as_expired() {
        let clock = crate::clock::Clock::simulated();
        let validity = Validity::new(clock.now(), Duration::from_secs(20), Duration::from_secs(5));
        assert_eq!(validity.margin, Duration::from_secs(2), "at most a tenth of the life");
        tokio::time::advance(Duration::from_millis(17_999)).await;
        assert!(validity.is_servable(clock.now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!validity.is_servable(clock.now()));
    }
}
