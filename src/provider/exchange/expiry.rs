//! How long a token lives, by all that the recipe says to look at. Pure.
//!
//! What numbers mean: a fraction is cut off; one too large for us is the largest, which the upstream's bounds then cut;
//! zero and less are refused, by the bounds or here; a text counts where it is of digits alone. Null is absent. Any
//! other kind of value makes the answer malformed: a unit or a format must have been misunderstood.

use super::given::Env;
use super::json::{Node, Number};
use crate::jwt::{self, Claims};
use crate::lifetime::Sources;
use crate::provider::recipe::{Expiry, Format, Unit};
use std::time::{Duration, UNIX_EPOCH};

/// What is wrong with what the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Token(#[from] jwt::Error),
    #[error("the token does not say when it expires")]
    NoClaim,
    #[error("the lifetime is not a number")]
    Span,
    #[error("the lifetime is negative")]
    Negative,
    #[error("the end of the lifetime is no point in time")]
    Point,
    #[error("the lifetime that is asked for is no whole number")]
    Asked,
}

/// The token, as far as it is a JWT, and the answer that it came in.
pub(super) struct Said<'a> {
    pub(super) claims: Result<&'a Claims, jwt::Error>,
    pub(super) json: Option<&'a Node<'a>>,
}

/// Adds what these sources say; the earliest of each kind stays.
pub(super) fn collect(
    expiry: &[Expiry],
    said: &Said<'_>,
    env: &Env<'_>,
    mut sources: Sources,
) -> Result<Sources, Error> {
    for source in expiry {
        match source {
            Expiry::Jwt { required } => claimed(&mut sources, said, *required)?,
            Expiry::Relative(path, unit) => {
                let found = said.json.and_then(|json| json.at(path));
                let span = found.map(|node| span(node, *unit)).transpose()?;
                sources.expires_in = earliest(sources.expires_in, span);
            }
            Expiry::Absolute(path, format) => {
                let found = said.json.and_then(|json| json.at(path));
                let point = found.map(|node| point(node, *format).ok_or(Error::Point)).transpose()?;
                sources.ends_at = earliest(sources.ends_at, point);
            }
            Expiry::Asked(name, unit) => {
                let asked = env.parameter(name).map(|text| digits(&text).ok_or(Error::Asked)).transpose()?;
                sources.configured = earliest(sources.configured, asked.map(|number| unit.of(number)));
            }
            Expiry::Fixed(life) => sources.configured = earliest(sources.configured, Some(*life)),
        }
    }
    Ok(sources)
}

fn claimed(sources: &mut Sources, said: &Said<'_>, required: bool) -> Result<(), Error> {
    match said.claims {
        Ok(claims) if claims.exp.is_some() => {
            sources.issued_at = claims.iat;
            sources.expires_at = claims.exp;
            Ok(())
        }
        Ok(_) if required => Err(Error::NoClaim),
        Err(error) if required || error == jwt::Error::Date => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn earliest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

fn span(node: &Node<'_>, unit: Unit) -> Result<Duration, Error> {
    let number = match node {
        Node::Number(Number::Whole(number)) => u64::try_from(*number).or(Err(Error::Negative))?,
        Node::Number(Number::Large(number)) => *number,
        Node::Number(Number::Float(number)) if *number < 0.0 => return Err(Error::Negative),
        Node::Number(Number::Float(number)) => u64::try_from(whole(*number)).unwrap_or_default(),
        Node::Text(_) => node.as_text().and_then(digits).ok_or(Error::Span)?,
        Node::Null | Node::Boolean(_) | Node::Array(_) | Node::Object(_) => return Err(Error::Span),
    };
    Ok(unit.of(number))
}

fn point(node: &Node<'_>, format: Format) -> Option<i64> {
    match format {
        Format::Rfc3339 => rfc_3339(node.as_text()?),
        Format::Unix(unit) => {
            let number = match node {
                Node::Number(Number::Whole(number)) => *number,
                Node::Number(Number::Large(_)) => i64::MAX,
                Node::Number(Number::Float(number)) => whole(number.floor()),
                Node::Text(_) => i64::try_from(digits(node.as_text()?)?).unwrap_or(i64::MAX),
                Node::Null | Node::Boolean(_) | Node::Array(_) | Node::Object(_) => return None,
            };
            Some(match unit {
                Unit::Seconds => number,
                Unit::Milliseconds => number.div_euclid(1000),
            })
        }
    }
}

/// A number of digits; one with too many is the largest.
pub(super) fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from a float saturates, which is what 'never' should become"
)]
fn whole(number: f64) -> i64 {
    number as i64
}

/// Unix seconds, a fraction cut off. The offset is read here, the rest by humantime, which knows `Z` alone.
fn rfc_3339(text: &str) -> Option<i64> {
    let (local, offset) = if let Some(local) = text.strip_suffix(['Z', 'z']) {
        (local, 0)
    } else {
        let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
        (local, offset_seconds(offset)?)
    };
    let local = local.replace('t', "T");
    let since = humantime::parse_rfc3339(&format!("{local}Z")).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()?.checked_sub(offset)
}

/// `+01:30` in seconds.
fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, rest) = if let Some(rest) = text.strip_prefix('+') { (1, rest) } else { (-1, text.strip_prefix('-')?) };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then_some(sign * seconds)
}

impl Unit {
    fn of(self, number: u64) -> Duration {
        match self {
            Self::Seconds => Duration::from_secs(number),
            Self::Milliseconds => Duration::from_millis(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn node(text: &str) -> Node<'_> {
        json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn spans_are_read_in_every_form() {
        let table = [
            ("3600", Ok(3600)),
            ("0", Ok(0)),
            ("\"3600\"", Ok(3600)),
            ("3599.99", Ok(3599)),
            ("3.6e3", Ok(3600)),
            ("1e300", Ok(i64::MAX as u64)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("\"99999999999999999999999\"", Ok(u64::MAX)),
            ("-1", Err(Error::Negative)),
            ("-0.5", Err(Error::Negative)),
            ("\"-1\"", Err(Error::Span)),
            ("\"1h\"", Err(Error::Span)),
            ("\"\"", Err(Error::Span)),
            ("\" 1\"", Err(Error::Span)),
            ("true", Err(Error::Span)),
            ("[3600]", Err(Error::Span)),
            ("{}", Err(Error::Span)),
        ];
        for (text, expected) in table {
            assert_eq!(span(&node(text), Unit::Seconds), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(span(&node("31536000000"), Unit::Milliseconds), Ok(Duration::from_secs(31_536_000)));
    }

    #[test]
    fn points_in_time_are_read_in_every_form() {
        let unix = Format::Unix(Unit::Seconds);
        let table = [
            (unix, "1795176000", Some(1_795_176_000)),
            (unix, "\"1795176000\"", Some(1_795_176_000)),
            (unix, "1795176000.9", Some(1_795_176_000)),
            (unix, "-0.5", Some(-1)),
            (unix, "1e300", Some(i64::MAX)),
            (unix, "18446744073709551615", Some(i64::MAX)),
            (unix, "\"2026-11-20T12:00:00Z\"", None),
            (unix, "false", None),
            (Format::Unix(Unit::Milliseconds), "1795176000999", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20T12:00:00Z\"", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20t12:00:00.999z\"", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20T13:30:00+01:30\"", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20T07:00:00.5-05:00\"", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20T12:00:00-00:00\"", Some(1_795_176_000)),
            (Format::Rfc3339, "\"2026-11-20T12:00:00\"", None),
            (Format::Rfc3339, "\"2026-11-20T12:00:00+1:30\"", None),
            (Format::Rfc3339, "\"2026-11-20T12:00:00+24:00\"", None),
            (Format::Rfc3339, "\"2026-02-30T12:00:00Z\"", None),
            (Format::Rfc3339, "\"ü+01:00\"", None),
            (Format::Rfc3339, "\"\"", None),
            (Format::Rfc3339, "1795176000", None),
        ];
        for (format, text, expected) in table {
            assert_eq!(point(&node(text), format), expected, "{text}");
        }
    }
}
