//! How things stand with a listener's certificate, for metrics, readiness and the log.

use super::material::Material;
use super::{Error, Observer};
use crate::identity::certificate::Period;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// So long before the end it is said, each once.
const WARNINGS: [Duration; 3] = [DAY.saturating_mul(30), DAY.saturating_mul(7), DAY];

/// What is in force on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// When the certificate and the intermediates beside it count.
    pub period: Period,
    /// The same of the client authority that ends first.
    pub client_ca: Option<Period>,
    /// The same of the revocation list that ends first.
    pub crl: Option<Period>,
    /// Why the files as they are now are not in force.
    pub refused: Option<Arc<Error>>,
}

/// What has been said of one certificate's end.
#[derive(Debug, Default)]
pub(super) struct Warned(Option<(SystemTime, Duration)>);

impl Certificate {
    pub(super) fn of(material: &Material, refused: Option<Arc<Error>>) -> Self {
        let trust = material.trust.as_ref();
        Self {
            period: material.period,
            client_ca: trust.map(|trust| trust.first_authority),
            crl: trust.and_then(|trust| trust.first_revocations),
            refused,
        }
    }

    /// The three, by the names that are used for them.
    pub(super) fn each(&self) -> [(&'static str, Option<Period>); 3] {
        [("server certificate", Some(self.period)), ("client CA", self.client_ca), ("revocation list", self.crl)]
    }

    pub(super) fn tell(&self, observer: &Observer, now: SystemTime) {
        let until = |period: Option<Period>| period.map(|period| period.until);
        observer.counters.ends(self.period.until, until(self.client_ca), until(self.crl));
        let Some(report) = &observer.report else { return };
        let words = self.words(now);
        if self.period.is_over(now) { report.unready(words) } else { report.ready(words) }
    }

    /// One line, without paths: anybody may read it.
    fn words(&self, now: SystemTime) -> String {
        let mut words = String::new();
        for (name, period) in self.each() {
            let Some(period) = period else { continue };
            let separator = if words.is_empty() { "" } else { ", " };
            // Writing to a text can't fail.
            let _written = match period.until.duration_since(now) {
                Ok(left) => write!(words, "{separator}{name} ends in {}", spelled(left)),
                Err(_) => write!(words, "{separator}{name} has expired"),
            };
        }
        if let Some(Error { key, problem, .. }) = self.refused.as_deref() {
            let _written = write!(words, "; the files were refused: {key}: {problem}");
        }
        words
    }
}

fn spelled(left: Duration) -> String {
    let (days, hours) = (left.as_secs() / 86_400, left.as_secs() / 3600);
    match (days, hours) {
        (0, 0) => format!("{} minutes", left.as_secs() / 60),
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

impl Warned {
    /// How much is left, where that has to be said now. Zero: it is over.
    pub(super) fn due(&mut self, period: Period, now: SystemTime) -> Option<Duration> {
        let left = period.until.duration_since(now).unwrap_or_default();
        let step = step(period, left)?;
        let said = self.0.filter(|(until, _)| *until == period.until);
        if said.is_some_and(|(_, said)| said <= step) {
            return None;
        }
        self.0 = Some((period.until, step));
        Some(left)
    }
}

/// The last mark that was passed. What lives shortly is renewed shortly before its end: only marks within the last
/// quarter of its life count, or else an eighth of it.
fn step(period: Period, left: Duration) -> Option<Duration> {
    let life = period.until.duration_since(period.from).unwrap_or_default();
    if left.is_zero() {
        return Some(Duration::ZERO);
    }
    let marks = WARNINGS.into_iter().filter(|mark| *mark <= life / 4);
    let shortest = WARNINGS.into_iter().all(|mark| mark > life / 4).then_some(life / 8);
    marks.chain(shortest).filter(|mark| left <= *mark).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn period(life: Duration) -> Period {
        let from = UNIX_EPOCH + DAY * 10_000;
        Period { from, until: from + life }
    }

    /// At how many hours before the end something is said, looking once an hour.
    fn said(life: Duration) -> Vec<u64> {
        let (period, mut warned) = (period(life), Warned::default());
        let hours = (0..=life.as_secs() / 3600 + 2).map(|hour| period.from + Duration::from_secs(hour * 3600));
        hours.filter_map(|now| warned.due(period, now)).map(|left| left.as_secs() / 3600).collect()
    }

    #[test]
    fn each_mark_is_said_once_and_the_end_too() {
        assert_eq!(said(DAY * 365), [720, 168, 24, 0]);
        assert_eq!(said(DAY * 90), [168, 24, 0]);
        assert_eq!(said(DAY * 5), [24, 0]);
        assert_eq!(said(DAY * 2), [6, 0]);
        assert_eq!(said(DAY / 24), [0]);
    }

    #[test]
    fn a_new_certificate_begins_anew() {
        let (one, mut warned) = (period(DAY * 365), Warned::default());
        assert_eq!(warned.due(one, one.until - DAY * 3), Some(DAY * 3));
        assert_eq!(warned.due(one, one.until - DAY * 2), None);
        let next = Period { from: one.until, until: one.until + DAY * 90 };
        assert_eq!(warned.due(next, one.until - DAY * 2), None);
        assert_eq!(warned.due(next, next.until - DAY * 6), Some(DAY * 6));
    }

    #[test]
    fn the_words_tell_all_that_ends_and_what_was_refused() {
        let (day, year) = (period(DAY), period(DAY * 365));
        let error = Error::new("key_file", std::path::Path::new("/etc/key.pem"), "it is cut off in the middle");
        let certificate = Certificate { period: day, client_ca: Some(year), crl: None, refused: Some(error.into()) };
        assert_eq!(
            certificate.words(day.from + DAY / 2),
            "server certificate ends in 12 hours, client CA ends in 364 days; the files were refused: key_file: it is \
             cut off in the middle"
        );
        let words = certificate.words(day.until + DAY);
        assert!(words.starts_with("server certificate has expired, client CA ends in 363 days"), "{words}");
    }
}
