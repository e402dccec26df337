//! `[audit]`: where it is written down who got which token, and what happens where it can't be.

use super::reader::{Section, Value};
use super::scalar::{boolean, choice, duration, hours, seconds, text};
use crate::audit::{Settings, Terms, WhenUnavailable};
use std::path::PathBuf;
use std::time::Duration;

/// The keys of the section.
pub(super) const KEYS: &[&str] = &["sinks", "file", "when_unavailable", "timeout", "repeats_every", "fsync"];

const SINKS: &str = "an array of \"stdout\" and \"file\", such as [\"stdout\"]";

pub(super) fn read(section: &mut Section<'_, '_>) -> Settings {
    let policies = [("deny", WhenUnavailable::Deny), ("allow", WhenUnavailable::Allow)];
    let usual = Terms::default();
    let limit = duration(Duration::from_millis(10)..=seconds(10));
    let terms = Terms {
        when_unavailable: section.read("when_unavailable", choice(&policies)).unwrap_or(usual.when_unavailable),
        timeout: section.read("timeout", limit).unwrap_or(usual.timeout),
        repeats_every: section.read("repeats_every", duration(seconds(1)..=hours(1))).unwrap_or(usual.repeats_every),
        fsync: section.read("fsync", boolean_or_variable).unwrap_or(usual.fsync),
    };
    let stated = section.has("sinks");
    let sinks = section.read("sinks", sinks);
    let is_wrong = stated && sinks.is_none();
    let Sinks { stdout, file } = sinks.unwrap_or(Sinks { stdout: true, file: false });
    let path = section.read("file", path);
    if file && path.is_none() && !section.has("file") {
        section.problem_with("file", "is missing; expected the path of a file, since sinks names \"file\"");
    } else if !file && !is_wrong && section.has("file") {
        section.problem_with("file", "is of no use: sinks does not name \"file\"");
    }
    if !stdout && !file && terms.when_unavailable == WhenUnavailable::Deny {
        section.problem_with("sinks", "must name one at least: without a record no token leaves");
    }
    let base = section.reading.base_dir;
    let file = path.filter(|_| file).map(|path| base.join(path));
    Settings { stdout, file, terms }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sinks {
    stdout: bool,
    file: bool,
}

impl Sinks {
    fn with(self, word: &str) -> Result<Self, String> {
        match word {
            "stdout" if !self.stdout => Ok(Self { stdout: true, ..self }),
            "file" if !self.file => Ok(Self { file: true, ..self }),
            _ => Err(format!("expected {SINKS}")),
        }
    }
}

fn sinks(value: Value<'_>) -> Result<Sinks, String> {
    match value {
        Value::Array(items) => items.iter().try_fold(Sinks::default(), |sinks, item| {
            let word = text("\"stdout\" or \"file\"")(Value::of(item.get_ref()))?;
            sinks.with(word)
        }),
        Value::Variable(words) => words.split(',').try_fold(Sinks::default(), Sinks::with),
        other => Err(other.instead_of(SINKS)),
    }
}

fn path(value: Value<'_>) -> Result<PathBuf, String> {
    let expected = "the path of a file";
    let text = text(expected)(value)?;
    if text.is_empty() { Err(format!("expected {expected}")) } else { Ok(PathBuf::from(text)) }
}

fn boolean_or_variable(value: Value<'_>) -> Result<bool, String> {
    match value {
        Value::Variable("true") => Ok(true),
        Value::Variable("false") => Ok(false),
        Value::Variable(_) => Err("expected true or false".to_owned()),
        other => boolean()(other),
    }
}
