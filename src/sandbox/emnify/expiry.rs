//! `expiry_date` of an application token: a date, or a date with a time and a time zone. Pure.

use std::time::{Duration, SystemTime};

/// When an application token ends, and how the caller wrote it: a date comes back as a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Expiry {
    at: SystemTime,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `2021-05-29`: the older documentation. Midnight UTC, as in the current one's example.
    Date,
    /// `2021-05-29T00:00:00.000Z`.
    Time,
}

impl Expiry {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.is_ascii() {
            return None;
        }
        if text.len() == "2021-05-29".len() {
            let at = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok()?;
            return Some(Self { at, form: Form::Date });
        }
        let (local, ahead) = split_zone(text)?;
        let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
        let at = match ahead {
            Ahead::East(by) => local.checked_sub(by)?,
            Ahead::West(by) => local.checked_add(by)?,
        };
        Some(Self { at, form: Form::Time })
    }

    pub(super) fn at(&self) -> SystemTime {
        self.at
    }

    pub(super) fn text(&self) -> String {
        let whole = timestamp(self.at);
        match self.form {
            Form::Time => whole,
            Form::Date => whole.split('T').take(1).collect(),
        }
    }
}

/// A time as emnify writes it: RFC 3339 with milliseconds and `Z`.
pub(super) fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

enum Ahead {
    East(Duration),
    West(Duration),
}

/// Takes `Z`, `±hh:mm` or nothing off the end. No zone means UTC.
fn split_zone(text: &str) -> Option<(&str, Ahead)> {
    if let Some(local) = text.strip_suffix('Z') {
        return Some((local, Ahead::East(Duration::ZERO)));
    }
    let (_, time) = text.split_once('T')?;
    let Some(sign) = time.rfind(['+', '-']) else {
        return Some((text, Ahead::East(Duration::ZERO)));
    };
    let (local, zone) = text.split_at_checked(text.len() - time.len() + sign)?;
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let by = Duration::from_secs(3_600 * hours + 60 * minutes);
    let ahead = if zone.starts_with('+') { Ahead::East(by) } else { Ahead::West(by) };
    Some((local, ahead))
}

fn digits(text: &str) -> Option<u64> {
    let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    two.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_documented_forms_mean_the_same_moment_and_come_back_as_they_were() {
        let date = Expiry::parse("2021-05-29").unwrap();
        let time = Expiry::parse("2021-05-29T00:00:00.000Z").unwrap();
        assert_eq!(date.at(), time.at());
        assert_eq!(date.text(), "2021-05-29");
        assert_eq!(time.text(), "2021-05-29T00:00:00.000Z");
    }

    #[test]
    fn a_time_zone_is_taken_off() {
        for text in
            ["2021-05-29T02:30:00+02:30", "2021-05-28T22:00:00-02:00", "2021-05-29T00:00:00", "2021-05-29T00:00:00Z"]
        {
            let expiry = Expiry::parse(text).unwrap();
            assert_eq!(expiry.text(), "2021-05-29T00:00:00.000Z", "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2021-13-29",
            "2021-05-29T",
            "2021-05-29T00:00:00+2",
            "2021-05-29T00:00:00+aa:00",
            "20210529",
            "2021-05-2é",
            "1622246400",
        ] {
            assert_eq!(Expiry::parse(text), None, "{text}");
        }
    }
}
