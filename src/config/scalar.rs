//! Readers of single values: each takes what was found and gives a value in range, or the sentence that says what is
//! expected.

use super::reader::{Value, nearest};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

const MINUTE: u64 = 60;

/// Durations of the ranges below, in one place so that they read as what they are.
pub(super) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
pub(super) const fn minutes(count: u64) -> Duration {
    seconds(count * MINUTE)
}
pub(super) const fn hours(count: u64) -> Duration {
    minutes(count * MINUTE)
}
pub(super) const fn days(count: u64) -> Duration {
    hours(count * 24)
}

/// A duration as a person would write it into the file: days at the most, since months have no length.
pub(super) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (millis / 86_400_000, "d"),
        (millis / 3_600_000 % 24, "h"),
        (millis / 60_000 % 60, "m"),
        (millis / 1_000 % 60, "s"),
        (millis % 1_000, "ms"),
    ];
    let used = units.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = used.map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

/// Any text.
pub(super) fn text<'t>(expected: &str) -> impl FnOnce(Value<'t>) -> Result<&'t str, String> {
    move |value| match value {
        Value::Text(text) | Value::Variable(text) => Ok(text),
        other => Err(other.instead_of(expected)),
    }
}

/// A text that `parse` understands.
pub(super) fn parsed<'t, T, E: Display>(
    expected: &str,
    parse: impl FnOnce(&'t str) -> Result<T, E>,
) -> impl FnOnce(Value<'t>) -> Result<T, String> {
    move |value| {
        let text = text(expected)(value)?;
        parse(text).map_err(|error| error.to_string())
    }
}

/// One of a few words.
pub(super) fn choice<'t, T: Copy>(words: &[(&str, T)]) -> impl FnOnce(Value<'t>) -> Result<T, String> {
    move |value| {
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = quoted.join(" or ");
        let text = text(&expected)(value)?;
        words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            match nearest(text, words.iter().map(|(word, _)| *word).filter(|word| word.len() > 3)) {
                Some(near) => format!("expected {expected}; did you mean \"{near}\"?"),
                None => format!("expected {expected}"),
            }
        })
    }
}

/// A duration such as "10s".
pub(super) fn duration<'t>(range: RangeInclusive<Duration>) -> impl FnOnce(Value<'t>) -> Result<Duration, String> {
    move |value| {
        let expected = format!(
            "a duration from {} to {}, such as \"10s\", \"5m\" or \"250ms\"",
            shown(*range.start()),
            shown(*range.end()),
        );
        let text = text(&expected)(value)?;
        // The parser's own error may quote the value.
        let duration = humantime::parse_duration(text).ok();
        duration.filter(|duration| range.contains(duration)).ok_or_else(|| format!("expected {expected}"))
    }
}

/// `true` or `false`.
pub(super) fn boolean<'t>() -> impl FnOnce(Value<'t>) -> Result<bool, String> {
    |value| match value {
        Value::Boolean(value) => Ok(value),
        other => Err(other.instead_of("true or false")),
    }
}

/// A whole number.
pub(super) fn integer<'t>(range: RangeInclusive<u32>) -> impl FnOnce(Value<'t>) -> Result<u32, String> {
    move |value| {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match value {
            Value::Integer(number) => number.and_then(|number| u32::try_from(number).ok()),
            Value::Variable(text) => text.parse().ok(),
            other => return Err(other.instead_of(&expected)),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| format!("expected {expected}"))
    }
}

/// A number with a fraction.
pub(super) fn fraction<'t>(range: RangeInclusive<f64>) -> impl FnOnce(Value<'t>) -> Result<f64, String> {
    move |value| {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = match value {
            Value::Float(number) => Some(number),
            // 0 and 1 are numbers to whoever writes them.
            Value::Integer(number) => number.and_then(|number| i32::try_from(number).ok()).map(f64::from),
            Value::Variable(text) => text.parse().ok(),
            other => return Err(other.instead_of(&expected)),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| format!("expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_range() {
        let read = |text| duration(seconds(1)..=minutes(5))(Value::Text(text)).ok();
        assert_eq!(read("10s"), Some(seconds(10)));
        assert_eq!(read("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(read("5m"), Some(seconds(300)));
        for wrong in ["5m 1s", "999ms", "10", "", "ten seconds", "-1s", "99999999999999999999y"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let error = duration(seconds(1)..=minutes(5))(Value::Integer(Some(10)));
        assert_eq!(
            error,
            Err("expected a duration from 1s to 5m, such as \"10s\", \"5m\" or \"250ms\", found an integer".to_owned())
        );
    }

    #[test]
    fn numbers_stay_in_their_range_wherever_they_come_from() {
        let rows = [
            (Value::Integer(Some(16)), Some(16)),
            (Value::Variable("16"), Some(16)),
            (Value::Text("16"), None),
            (Value::Variable("16.0"), None),
            (Value::Integer(Some(0)), None),
            (Value::Integer(Some(-1)), None),
            (Value::Integer(Some(i64::MAX)), None),
            (Value::Integer(None), None),
            (Value::Float(16.0), None),
        ];
        for (value, expected) in rows {
            assert_eq!(integer(1..=100)(value).ok(), expected, "{value:?}");
        }
        assert_eq!(fraction(0.1..=0.95)(Value::Float(0.5)), Ok(0.5));
        for wrong in [0.0, 0.96, f64::NAN, f64::INFINITY] {
            assert!(fraction(0.1..=0.95)(Value::Float(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(fraction(0.0..=1.0)(Value::Integer(Some(1))), Ok(1.0));
        assert_eq!(fraction(0.0..=1.0)(Value::Variable("0.25")), Ok(0.25));
        for wrong in [Value::Integer(Some(2)), Value::Integer(Some(i64::MAX)), Value::Variable("NaN"), Value::Text("1")]
        {
            assert!(fraction(0.0..=1.0)(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let rows = [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(10), "10ms"),
            (minutes(5), "5m"),
            (days(31), "31d"),
            (days(730) + hours(4) + minutes(1) + seconds(2), "730d 4h 1m 2s"),
        ];
        for (duration, text) in rows {
            assert_eq!(shown(duration), text);
            assert_eq!(humantime::parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn no_error_quotes_the_value() {
        let secret = "s3cret-in-the-wrong-place";
        let errors = [
            duration(seconds(1)..=minutes(5))(Value::Text(secret)).err(),
            integer(1..=2)(Value::Variable(secret)).err(),
            fraction(0.1..=0.2)(Value::Text(secret)).err(),
            choice(&[("a", 1)])(Value::Text(secret)).err(),
        ];
        for error in errors {
            assert!(!error.unwrap().contains(secret));
        }
    }
}
