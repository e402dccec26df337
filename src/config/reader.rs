//! The walk over a TOML tree that collects what is wrong instead of stopping at it.
//!
//! A [`Section`] is one table with the keys that it may hold. Its readers give a value or `None`, and leave a problem
//! behind for each `None` that the file is to blame for; whoever reads goes on with the next key either way.

use super::environment::Environment;
use super::problem::{Place, Problem, Warning};
use crate::files::Files;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What variables of the overlay begin with.
pub(super) const OVERLAY_PREFIX: &str = "TOKEN_BROKER__";

/// In the place of a key that is not shown; its line is.
const HIDDEN: &str = "\"…\"";

/// One run over one file: what it draws on, and what it found so far.
#[derive(Debug)]
pub(super) struct Reading<'t> {
    pub(super) environment: &'t Environment,
    pub(super) base_dir: &'t Path,
    pub(super) files: &'t mut Files,
    /// Where each line begins, for telling a position's line.
    line_starts: Vec<usize>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

/// A table, the path to it, and the run it belongs to.
#[derive(Debug)]
pub(super) struct Section<'r, 't> {
    pub(super) reading: &'r mut Reading<'t>,
    table: Option<&'t DeTable<'t>>,
    keys: Keys,
    path: String,
    place: Place,
    overlay: Overlay,
}

/// What keys a section may hold.
#[derive(Debug, Clone, Copy)]
enum Keys {
    /// These.
    Of(&'static [&'static str]),
    /// Whoever reads it decides.
    Free,
}

/// Whether the environment may override the scalars of a section.
#[derive(Debug, Clone, Copy)]
enum Overlay {
    /// It may, under this name of the section.
    Of(&'static str),
    None,
}

/// A value as it was found, with its place.
#[derive(Debug, Clone)]
pub(super) struct Found<'t> {
    pub(super) value: Value<'t>,
    pub(super) place: Place,
}

/// One entry of a table whose names are free.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) name: &'t str,
    pub(super) item: &'t Spanned<DeValue<'t>>,
}

/// A value of the file or of the overlay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'t> {
    Text(&'t str),
    /// Text from the environment: stands for any scalar.
    Variable(&'t str),
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(&'t [Spanned<DeValue<'t>>]),
    Table(&'t DeTable<'t>),
}

impl<'t> Value<'t> {
    pub(super) fn of(value: &'t DeValue<'t>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text),
            DeValue::Integer(digits) => Self::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).ok()),
            DeValue::Float(digits) => Self::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Datetime(_) => Self::Datetime,
            DeValue::Array(items) => Self::Array(items.as_ref()),
            DeValue::Table(table) => Self::Table(table),
        }
    }

    /// The sentence for a value of the wrong type.
    pub(super) fn instead_of(self, expected: &str) -> String {
        let found = match self {
            Self::Text(_) => "a text",
            Self::Variable(_) => return format!("expected {expected}"),
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a floating-point number",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        };
        format!("expected {expected}, found {found}")
    }
}

fn as_table<'t>(value: Value<'t>, expected: &str) -> Result<&'t DeTable<'t>, String> {
    match value {
        Value::Table(table) => Ok(table),
        other => Err(other.instead_of(expected)),
    }
}

fn entries<'t>(table: Option<&'t DeTable<'t>>) -> Vec<Entry<'t>> {
    let entries = table.into_iter().flatten();
    entries.map(|(name, item)| Entry { name: name.get_ref().as_ref(), item }).collect()
}

// === impl Reading ===

impl<'t> Reading<'t> {
    pub(super) fn new(text: &str, base_dir: &'t Path, environment: &'t Environment, files: &'t mut Files) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(position, _)| position + 1)).collect();
        Self { environment, base_dir, files, line_starts, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem(&mut self, key: impl Into<String>, place: Place, text: impl Into<String>) {
        self.problems.push(Problem { key: key.into(), place, text: text.into() });
    }

    pub(super) fn warn(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.warnings.push(Warning { key: key.into(), place: Place::Unknown, text: text.into() });
    }

    /// Line and column of a position in the file, both from 1.
    pub(super) fn line_and_column(&self, position: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= position);
        let start = line.checked_sub(1).and_then(|at| self.line_starts.get(at));
        (line, position - start.copied().unwrap_or_default() + 1)
    }

    pub(super) fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        Place::Line(self.line_and_column(spanned.span().start).0)
    }

    /// The whole file as a section.
    pub(super) fn root<'r>(&'r mut self, table: &'t DeTable<'t>, keys: &'static [&'static str]) -> Section<'r, 't> {
        Section::open(self, Some(table), keys, (String::new(), Place::Unknown))
    }

    /// The table of one item of an array of tables.
    pub(super) fn item<'r>(
        &'r mut self,
        path: String,
        item: &'t Spanned<DeValue<'t>>,
        keys: &'static [&'static str],
    ) -> Option<Section<'r, 't>> {
        let place = self.place(item);
        match Value::of(item.get_ref()) {
            Value::Table(table) => Some(Section::open(self, Some(table), keys, (path, place))),
            other => {
                self.problem(path, place, other.instead_of("a table"));
                None
            }
        }
    }
}

// === impl Section ===

impl<'r, 't> Section<'r, 't> {
    fn open(
        reading: &'r mut Reading<'t>,
        table: Option<&'t DeTable<'t>>,
        keys: &'static [&'static str],
        (path, place): (String, Place),
    ) -> Self {
        let section = Self { reading, table, keys: Keys::Of(keys), path, place, overlay: Overlay::None };
        section.report_unknown_keys(keys)
    }

    fn report_unknown_keys(self, keys: &[&str]) -> Self {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let text = unknown("key", name, keys.iter().copied());
                let place = self.reading.place(key);
                let path = self.path_of(&shown(name));
                self.reading.problem(path, place, text);
            }
        }
        self
    }

    /// A section of the root whose scalars the environment may override; empty where the file has none.
    pub(super) fn overlaid(&mut self, name: &'static str, keys: &'static [&'static str]) -> Section<'_, 't> {
        let mut section = self.table(name, keys);
        section.overlay = Overlay::Of(name);
        section
    }

    /// A table below this one; empty where the file has none.
    pub(super) fn table(&mut self, key: &str, keys: &'static [&'static str]) -> Section<'_, 't> {
        let (table, place) = match self.find(key) {
            Some(found) => match found.value {
                Value::Table(table) => (Some(table), found.place),
                other => {
                    let expected = format!("a table with {}", keys.join(", "));
                    self.problem(key, found.place.clone(), other.instead_of(&expected));
                    (None, found.place)
                }
            },
            None => (None, self.place.clone()),
        };
        let path = self.path_of(&shown(key));
        Section::open(self.reading, table, keys, (path, place))
    }

    /// As [`Self::table`] where that has been read before, and has told of its unknown keys.
    pub(super) fn table_again(&mut self, key: &str, keys: &'static [&'static str]) -> Section<'_, 't> {
        let found = self.find(key);
        let place = found.as_ref().map_or_else(|| self.place(), |found| found.place.clone());
        let table = found.and_then(|found| as_table(found.value, "").ok());
        let path = self.path_of(&shown(key));
        Section { reading: self.reading, table, keys: Keys::Of(keys), path, place, overlay: Overlay::None }
    }

    /// The entries of a table whose names are free; none where the file has none.
    pub(super) fn entries(&mut self, key: &str, expected: &str) -> Vec<Entry<'t>> {
        entries(self.read(key, |value| as_table(value, expected)))
    }

    /// The same, and nothing is a problem.
    pub(super) fn entries_of(&self, key: &str) -> Vec<Entry<'t>> {
        entries(self.find(key).and_then(|found| as_table(found.value, "").ok()))
    }

    /// Where a path below this section stands, as far as the file goes along with it: `login.answer.failures[1].class`.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let mut place = self.place();
        let mut here = self.table.map(Value::Table);
        for step in steps {
            let next = match here {
                Some(Value::Table(table)) => table.get(step),
                Some(Value::Array(items)) => step.parse().ok().and_then(|position: usize| items.get(position)),
                _ => None,
            };
            let Some(next) = next else { break };
            place = self.reading.place(next);
            here = Some(Value::of(next.get_ref()));
        }
        place
    }

    /// A table below this one whose names are free; empty where the file has none.
    pub(super) fn free(&mut self, key: &str, expected: &str) -> Section<'_, 't> {
        let found = self.find(key);
        let place = found.map_or_else(|| self.place(), |found| found.place);
        let table = self.read(key, |value| as_table(value, expected));
        let path = self.path_of(key);
        Section { reading: self.reading, table, keys: Keys::Free, path, place, overlay: Overlay::None }
    }

    /// The items of an array; none where the file has none.
    pub(super) fn items(&mut self, key: &str, expected: &str) -> &'t [Spanned<DeValue<'t>>] {
        self.read(key, |value| match value {
            Value::Array(items) => Ok(items),
            other => Err(other.instead_of(expected)),
        })
        .unwrap_or_default()
    }

    /// The value of a key, from the overlay if it is there.
    pub(super) fn find(&self, key: &str) -> Option<Found<'t>> {
        let is_listed = match self.keys {
            Keys::Of(keys) => keys.contains(&key),
            Keys::Free => true,
        };
        debug_assert!(is_listed, "{key} is read and not listed");
        if let Overlay::Of(section) = self.overlay {
            let name = variable(section, key);
            if let Some(value) = self.reading.environment.get(&name) {
                // What is not Unicode is no valid value of any setting, and neither is its replacement character.
                let value = Value::Variable(value.to_str().unwrap_or("\u{fffd}"));
                let place = Place::Variable(name);
                return Some(Found { value, place });
            }
        }
        let value = self.table?.get(key)?;
        Some(Found { value: Value::of(value.get_ref()), place: self.reading.place(value) })
    }

    /// The value of a key, if it is there and right.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl FnOnce(Value<'t>) -> Result<T, String>) -> Option<T> {
        let found = self.find(key)?;
        match parse(found.value) {
            Ok(value) => Some(value),
            Err(text) => {
                self.problem(key, found.place, text);
                None
            }
        }
    }

    /// As [`Self::read`], and it is a problem if the key is not there.
    pub(super) fn require<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(Value<'t>) -> Result<T, String>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.problem(key, self.place.clone(), format!("is missing; expected {expected}"));
            return None;
        }
        self.read(key, parse)
    }

    /// A text as it stands in the file, whether or not it is valid.
    pub(super) fn written(&self, key: &str) -> Option<&'t str> {
        match self.find(key)?.value {
            Value::Text(text) | Value::Variable(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(super) fn problem(&mut self, key: &str, place: Place, text: impl Into<String>) {
        let path = self.path_of(key);
        self.reading.problem(path, place, text);
    }

    /// As [`Self::problem`], where the key stands, or else where its section does.
    pub(super) fn problem_with(&mut self, key: &str, text: impl Into<String>) {
        let found = self.find(key);
        let place = found.map_or_else(|| self.place(), |found| found.place);
        self.problem(key, place, text);
    }
}

/// The name of the variable that overrides a setting.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{OVERLAY_PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

/// The sentence for a name that means nothing here.
pub(super) fn unknown<'k>(what: &str, name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("unknown {what}; did you mean {near}?");
    }
    let all: Vec<_> = known.collect();
    format!("unknown {what}; expected one of {}", all.join(", "))
}

/// The known name that a mistyped one is closest to.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// A key of the file as a problem may show it: only if it looks like a name that somebody gave, of short words and few
/// digits. Anything else may be a secret that was put before the `=`.
pub(super) fn shown(key: &str) -> String {
    const LONGEST: usize = 40;
    const LONGEST_WORD: usize = 14;
    const MOST_DIGITS: usize = 3;
    let digits = key.bytes().filter(u8::is_ascii_digit).count();
    let mut words = key.split(['_', '-', '.', '/', ':', ' ']);
    let is_word = |word: &str| word.len() <= LONGEST_WORD && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if key.len() > LONGEST || digits > MOST_DIGITS || !words.all(is_word) {
        return HIDDEN.to_owned();
    }
    let is_bare = !key.is_empty() && !key.contains(['.', '/', ':', ' ']);
    if is_bare { key.to_owned() } else { format!("\"{key}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_recognised_and_a_strange_one_is_not() {
        let known = ["timeout", "connect_timeout", "url"];
        let rows = [
            ("timout", Some("timeout")),
            ("tiemout", Some("timeout")),
            ("connect-timeout", Some("connect_timeout")),
            ("uri", Some("url")),
            ("password", None),
            ("", None),
        ];
        for (typed, meant) in rows {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
    }

    #[test]
    fn a_key_that_may_be_a_secret_is_not_shown() {
        for name in ["grpc_listen", "X-Api-Key", "1nce", "sha256", "plaintext_lets_the_network_read_tokens"] {
            assert_eq!(shown(name), name);
        }
        assert_eq!(shown("esc.org"), "\"esc.org\"");
        assert_eq!(shown(""), "\"\"");
        for name in ["a\nb", "qhXvTzRbWcLpKdMnYsFg", "9f86d081884c", "p:a+s s%20", "a&b=c"] {
            assert_eq!(shown(name), HIDDEN, "{name}");
        }
        assert_eq!(shown(&"a-".repeat(25)), HIDDEN);
    }

    #[test]
    fn positions_become_lines_and_columns() {
        let environment = Environment::default();
        let mut files = Files::new(crate::secret::MarkKey::random());
        let reading = Reading::new("ab\ncd\n", Path::new("."), &environment, &mut files);
        let rows = [(0, (1, 1)), (1, (1, 2)), (2, (1, 3)), (3, (2, 1)), (6, (3, 1))];
        for (position, expected) in rows {
            assert_eq!(reading.line_and_column(position), expected, "{position}");
        }
    }
}
