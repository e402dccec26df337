//! How long a token lives, worked out from what the upstream said. Pure.
//!
//! Upstreams say it in several ways at once and not always truly, so the earliest plausible source wins; nothing is
//! ever assumed. The upstream's clock is compared with itself (`exp − iat`, `exp − Date`) wherever it can be, so that
//! skew between the two does not matter; with ours only where a point in time comes with nothing else to compare it to.

use std::time::Duration;

/// What an answer says about the token's life. All times of day are the upstream's own, in Unix seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// The JWT's `iat` claim (RFC 7519 §4.1.6).
    pub issued_at: Option<i64>,
    /// The JWT's `exp` claim (RFC 7519 §4.1.4).
    pub expires_at: Option<i64>,
    /// An absolute expiry field of the answer.
    pub ends_at: Option<i64>,
    /// The `Date` header of the answer: what the upstream thought the time was.
    pub answered_at: Option<i64>,
    /// What we think it is; asked only where the upstream has named a point in time and no other.
    pub local: Option<i64>,
    /// A relative field, such as `expires_in` (RFC 6749 §5.1).
    pub expires_in: Option<Duration>,
    /// What the operator configured.
    pub configured: Option<Duration>,
}

/// What counts as plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// An issued life below this is refused.
    pub shortest: Duration,
    /// A longer life is cut to this.
    pub longest: Duration,
}

/// Why no lifetime could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// No source at all.
    #[error("the answer does not say how long the token lives, and no lifetime is configured")]
    Unknown,
    /// The token is already over by the upstream's own clock.
    #[error("the token is already expired by the upstream's own clock")]
    AlreadyExpired,
    /// A source gives a life below the bound.
    #[error("the token's life of {} is less than shortest_lifetime ({})", told(*life), told(*shortest))]
    TooShort {
        /// What was said.
        life: Duration,
        /// The bound.
        shortest: Duration,
    },
}

/// Claims and `Date` count whole seconds: a token minted late in its second ends up to a second before `start + (exp −
/// iat)`, so that second is given away.
const TRUNCATION: Duration = Duration::from_secs(1);

/// The lifetime to count from just before the request was sent.
pub fn decide(sources: Sources, bounds: Bounds) -> Result<Duration, Implausible> {
    let issued = issued_lifetime(sources, bounds)?;
    let left = left_at_answer(sources)?;
    [issued, left].into_iter().flatten().min().map(|life| life.min(bounds.longest)).ok_or(Implausible::Unknown)
}

/// The life that the token was given when it was minted.
fn issued_lifetime(sources: Sources, bounds: Bounds) -> Result<Option<Duration>, Implausible> {
    let claimed = match (sources.issued_at, sources.expires_at) {
        (Some(iat), Some(exp)) => {
            let too_short = Implausible::TooShort { life: Duration::ZERO, shortest: bounds.shortest };
            Some(seconds_between(iat, exp).ok_or(too_short)?)
        }
        (None, Some(_) | None) | (Some(_), None) => None,
    };
    let shortest = [claimed, sources.expires_in, sources.configured].into_iter().flatten().min();
    match shortest {
        Some(life) if life < bounds.shortest => Err(Implausible::TooShort { life, shortest: bounds.shortest }),
        Some(life) if Some(life) == claimed => Ok(Some(life.saturating_sub(TRUNCATION))),
        Some(life) => Ok(Some(life)),
        None => Ok(None),
    }
}

/// What is left of it: less than the issued life where the upstream hands out the same token again.
fn left_at_answer(sources: Sources) -> Result<Option<Duration>, Implausible> {
    let Sources { issued_at, expires_at, ends_at, answered_at, local, .. } = sources;
    let claim = expires_at.filter(|_| answered_at.is_some() || issued_at.is_none());
    let (Some(end), Some(now)) = ([claim, ends_at].into_iter().flatten().min(), answered_at.or(local)) else {
        return Ok(None);
    };
    match seconds_between(now, end).map(|left| left.saturating_sub(TRUNCATION)) {
        Some(left) if !left.is_zero() => Ok(Some(left)),
        Some(_) | None => Err(Implausible::AlreadyExpired),
    }
}

fn seconds_between(from: i64, to: i64) -> Option<Duration> {
    let seconds = to.checked_sub(from)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn told(life: Duration) -> String {
    humantime::format_duration(life).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { shortest: Duration::from_secs(30), longest: Duration::from_secs(2 * 365 * 86_400) };

    fn jwt(iat: i64, exp: i64) -> Sources {
        Sources { issued_at: Some(iat), expires_at: Some(exp), ..Sources::default() }
    }

    fn seconds(result: Result<Duration, Implausible>) -> Result<u64, Implausible> {
        result.map(|life| life.as_secs())
    }

    #[test]
    fn both_lifetimes_seen_at_emnify() {
        assert_eq!(seconds(decide(jwt(1_000, 15_400), BOUNDS)), Ok(14_399));
        assert_eq!(seconds(decide(jwt(1_000, 605_800), BOUNDS)), Ok(604_799));
    }

    #[test]
    fn the_earliest_plausible_source_wins() {
        let sensos = Sources { expires_in: Some(Duration::from_secs(86_400)), ..jwt(0, 36_000) };
        assert_eq!(seconds(decide(sensos, BOUNDS)), Ok(35_999));
        let short = Sources { expires_in: Some(Duration::from_secs(600)), ..jwt(0, 36_000) };
        assert_eq!(seconds(decide(short, BOUNDS)), Ok(600));
    }

    #[test]
    fn a_token_that_was_minted_earlier_has_only_its_rest() {
        let rest = Sources { answered_at: Some(14_000), ..jwt(0, 14_400) };
        assert_eq!(seconds(decide(rest, BOUNDS)), Ok(399));
        let over = Sources { answered_at: Some(14_400), ..jwt(0, 14_400) };
        assert_eq!(decide(over, BOUNDS), Err(Implausible::AlreadyExpired));
    }

    #[test]
    fn our_own_clock_is_asked_last() {
        let local = Sources { local: Some(5_000), ..Sources::default() };
        let table = [
            (Sources { ends_at: Some(6_000), ..local }, Ok(999)),
            (Sources { ends_at: Some(6_000), answered_at: Some(5_500), ..local }, Ok(499)),
            (Sources { ends_at: Some(5_000), ..local }, Err(Implausible::AlreadyExpired)),
            (Sources { expires_at: Some(6_000), ..local }, Ok(999)),
            (Sources { local: Some(5_000), ..jwt(0, 1_000) }, Ok(999)),
            (Sources { ends_at: Some(5_600), local: Some(5_000), ..jwt(0, 1_000) }, Ok(599)),
            (Sources { ends_at: Some(6_000), expires_at: Some(5_100), ..local }, Ok(99)),
            (Sources { ends_at: Some(i64::MIN), ..local }, Err(Implausible::AlreadyExpired)),
            (Sources { ends_at: Some(i64::MAX), ..local }, Ok(BOUNDS.longest.as_secs())),
        ];
        for (sources, expected) in table {
            assert_eq!(seconds(decide(sources, BOUNDS)), expected, "{sources:?}");
        }
    }

    #[test]
    fn absurd_lives_are_refused_or_capped() {
        let too_short = |life| Err(Implausible::TooShort { life, shortest: BOUNDS.shortest });
        assert_eq!(decide(jwt(100, 100), BOUNDS), too_short(Duration::ZERO));
        assert_eq!(decide(jwt(100, 50), BOUNDS), too_short(Duration::ZERO));
        assert_eq!(decide(jwt(i64::MIN, i64::MAX), BOUNDS), too_short(Duration::ZERO));
        assert_eq!(decide(jwt(0, i64::MAX), BOUNDS), Ok(BOUNDS.longest));
        assert_eq!(decide(Sources::default(), BOUNDS), Err(Implausible::Unknown));
        let no_life = Sources { expires_in: Some(Duration::ZERO), ..Sources::default() };
        assert_eq!(decide(no_life, BOUNDS), too_short(Duration::ZERO));
    }
}
