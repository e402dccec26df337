//! What of an answer's status and headers is of use. Pure.

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use std::time::{Duration, UNIX_EPOCH};

/// The longest `Retry-After` that is believed.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The status and the headers that callers need. Holds no text of the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The status code, 100–999.
    pub status: u16,
    /// The `Date` header in Unix seconds: what the upstream thought the time was (RFC 9110 §6.6.1).
    pub date: Option<i64>,
    /// `Retry-After`, at most [`LONGEST_RETRY_AFTER`] (RFC 9110 §10.2.3). Never zero: an upstream that asks for fewer
    /// requests and for no wait has said nothing.
    pub retry_after: Option<Duration>,
}

impl Head {
    /// Reads what is of use; what can't be understood counts as absent.
    pub fn new(status: u16, headers: &HeaderMap) -> Self {
        let date = text(headers, DATE).and_then(unix_seconds);
        let retry_after = text(headers, RETRY_AFTER).and_then(|value| wait(value, date));
        Self { status, date, retry_after }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn unix_seconds(date: &str) -> Option<i64> {
    let date = httpdate::parse_http_date(date).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Seconds, or a date. A date is only compared with the upstream's own clock, so that skew does not matter; an upstream
/// without a `Date` header has no clock that could be asked.
fn wait(value: &str, date: Option<i64>) -> Option<Duration> {
    let seconds = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Only too many digits fail here.
        value.parse().unwrap_or(u64::MAX)
    } else {
        let left = unix_seconds(value)?.checked_sub(date?)?;
        u64::try_from(left).ok()?
    };
    (seconds > 0).then(|| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Fri, 20 Nov 2026 12:00:00 GMT";

    fn head(headers: &[(HeaderName, &str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Head::new(429, &headers)
    }

    #[test]
    fn retry_after_in_both_forms() {
        let table = [
            ("30", Some(30)),
            (" 7 ", Some(7)),
            ("Fri, 20 Nov 2026 12:02:00 GMT", Some(120)),
            ("Fri, 20 Nov 2026 18:00:00 GMT", Some(3600)),
            ("86400", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("0", None),
            ("Fri, 20 Nov 2026 11:00:00 GMT", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, seconds) in table {
            let head = head(&[(DATE, NOON), (RETRY_AFTER, value)]);
            assert_eq!(head.retry_after, seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn a_date_means_nothing_without_the_upstreams_clock() {
        let later = "Fri, 20 Nov 2026 12:02:00 GMT";
        assert_eq!(head(&[(RETRY_AFTER, later)]).retry_after, None);
        assert_eq!(head(&[(DATE, "today"), (RETRY_AFTER, later)]).retry_after, None);
    }

    #[test]
    fn the_date_is_read() {
        assert_eq!(head(&[(DATE, NOON)]).date, Some(1_795_176_000));
        assert_eq!(head(&[]).date, None);
    }
}
