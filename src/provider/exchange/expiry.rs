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

/// What is wrong with what the answer says. Names members and kinds of values, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Token(#[from] jwt::Error),
    #[error("the token does not say when it expires")]
    NoClaim,
    #[error("{path} {why}")]
    Span { path: String, why: NoSpan },
    #[error("{path} ({kind}) is no point in time in the format \"{format}\"")]
    Point { path: String, kind: &'static str, format: &'static str },
    #[error("{0}, the lifetime that is asked for, is no whole number")]
    Asked(String),
}

/// Why a value is no time span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSpan {
    #[error("({0}) is no number: for a point in time there is absolute instead of relative")]
    Kind(&'static str),
    #[error("is negative")]
    Negative,
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
                let span = found.map(|node| span(node, *unit)).transpose();
                let span = span.map_err(|why| Error::Span { path: path.to_string(), why })?;
                sources.expires_in = earliest(sources.expires_in, span);
            }
            Expiry::Absolute(path, format) => {
                let found = said.json.and_then(|json| json.at(path));
                let point = found.map(|node| {
                    let (path, kind, format_name) = (path.to_string(), node.kind(), format.as_str());
                    point(node, *format).ok_or(Error::Point { path, kind, format: format_name })
                });
                let point = point.transpose()?;
                sources.ends_at = earliest(sources.ends_at, point);
            }
            Expiry::Asked(name, unit) => {
                let asked = env.parameter(name).map(|text| digits(&text).ok_or_else(|| Error::Asked(name.clone())));
                let asked = asked.transpose()?;
                sources.configured = earliest(sources.configured, asked.map(|number| unit.of(number)));
            }
            Expiry::Fixed(life) => sources.configured = earliest(sources.configured, Some(*life)),
        }
    }
    Ok(sources)
}

/// What is looked at, in words.
pub(super) fn looked_at(expiry: &[Expiry]) -> String {
    let names = expiry.iter().map(|source| match source {
        Expiry::Jwt { .. } => "exp of the token".to_owned(),
        Expiry::Relative(path, _) | Expiry::Absolute(path, _) => path.to_string(),
        Expiry::Asked(name, _) => format!("the parameter {name}"),
        Expiry::Fixed(_) => "fixed".to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The member that gives this time span, and how it was read.
pub(super) fn member_of_span(expiry: &[Expiry], json: Option<&Node<'_>>, wanted: Duration) -> Option<String> {
    expiry.iter().find_map(|source| match source {
        Expiry::Relative(path, unit) => {
            let found = span(json?.at(path)?, *unit).ok()?;
            (found == wanted).then(|| format!("{path} with the unit \"{}\"", unit.as_str()))
        }
        Expiry::Jwt { .. } | Expiry::Absolute(..) | Expiry::Asked(..) | Expiry::Fixed(_) => None,
    })
}

/// The member that gives this point in time, and how it was read.
pub(super) fn member_of_point(expiry: &[Expiry], json: Option<&Node<'_>>, wanted: i64) -> Option<String> {
    expiry.iter().find_map(|source| match source {
        Expiry::Absolute(path, format) => {
            let found = point(json?.at(path)?, *format)?;
            (found == wanted).then(|| format!("{path} with the format \"{}\"", format.as_str()))
        }
        Expiry::Jwt { .. } | Expiry::Relative(..) | Expiry::Asked(..) | Expiry::Fixed(_) => None,
    })
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

fn span(node: &Node<'_>, unit: Unit) -> Result<Duration, NoSpan> {
    let no_number = NoSpan::Kind(node.kind());
    let number = match node {
        Node::Number(Number::Whole(number)) => u64::try_from(*number).or(Err(NoSpan::Negative))?,
        Node::Number(Number::Large(number)) => *number,
        Node::Number(Number::Float(number)) if *number < 0.0 => return Err(NoSpan::Negative),
        Node::Number(Number::Float(number)) => u64::try_from(whole(*number)).unwrap_or_default(),
        Node::Text(_) => node.as_text().and_then(digits).ok_or(no_number)?,
        Node::Null | Node::Boolean(_) | Node::Array(_) | Node::Object(_) => return Err(no_number),
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
            ("-1", Err(NoSpan::Negative)),
            ("-0.5", Err(NoSpan::Negative)),
            ("\"-1\"", Err(NoSpan::Kind("text"))),
            ("\"1h\"", Err(NoSpan::Kind("text"))),
            ("\"\"", Err(NoSpan::Kind("text"))),
            ("\" 1\"", Err(NoSpan::Kind("text"))),
            ("true", Err(NoSpan::Kind("boolean"))),
            ("[3600]", Err(NoSpan::Kind("array"))),
            ("{}", Err(NoSpan::Kind("object"))),
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
