//! The answer of a step: how what comes back is read.

use super::super::reader::{Section, Value};
use super::super::scalar::{choice, days, duration, seconds};
use super::{each, field_name, name, path};
use crate::provider::recipe::{Answer, Class, Condition, Constant, Expiry, Format, Holds, Path, Rule, Source, Unit};

/// The keys of an answer and of the tables in it.
const ANSWER_KEYS: &[&str] =
    &["success", "when", "failures", "token", "token_type", "refresh_token", "expiry", "extra_headers", "attributes"];
const CONDITION_KEYS: &[&str] = &["path", "equals", "present"];
const RULE_KEYS: &[&str] = &["status", "when", "class", "says"];
const TOKEN_KEYS: &[&str] = &["body"];
const EXPIRY_KEYS: &[&str] = &["jwt", "relative", "unit", "absolute", "format", "asked", "fixed"];
/// All of them.
#[cfg(test)]
pub(super) const KEYS: [&[&str]; 5] = [ANSWER_KEYS, CONDITION_KEYS, RULE_KEYS, TOKEN_KEYS, EXPIRY_KEYS];

const CLASSES: [(&str, Class); 5] = [
    ("rejected", Class::Rejected),
    ("locked-out", Class::LockedOut),
    ("throttled", Class::Throttled),
    ("unavailable", Class::Unavailable),
    ("malformed", Class::Malformed),
];
const UNITS: [(&str, Unit); 2] = [named_unit(Unit::Seconds), named_unit(Unit::Milliseconds)];
const FORMATS: [(&str, Format); 3] = [
    named_format(Format::Rfc3339),
    named_format(Format::Unix(Unit::Seconds)),
    named_format(Format::Unix(Unit::Milliseconds)),
];
/// Whether a token that is no JWT is refused.
const JWTS: [(&str, bool); 2] = [("required", true), ("if-any", false)];

const fn named_unit(unit: Unit) -> (&'static str, Unit) {
    (unit.as_str(), unit)
}

const fn named_format(format: Format) -> (&'static str, Format) {
    (format.as_str(), format)
}

/// `None` where a problem left nothing to put in place. What failures mean is looked up in `shared` last.
pub(super) fn answer(section: &mut Section<'_, '_>, shared: &[Rule]) -> Option<Answer> {
    if !section.has("answer") {
        section.problem_with("answer", "is missing; expected a table that says where the token is");
        return None;
    }
    let mut table = section.table("answer", ANSWER_KEYS);
    let success = statuses(&mut table, "success");
    let when = items(&mut table, "when", CONDITION_KEYS, condition);
    let mut failures = rules(&mut table);
    failures.extend_from_slice(shared);
    if !when.is_empty() && failures.is_empty() {
        let path = table.path_of("when");
        table.reading.warn(
            path,
            "says what a success is, and there are no failures: an answer that is refused with a status of success is \
             malformed, and tried again and again; a rule such as failures = \
             [{ when = [{ path = \"code\", equals = 1 }], class = \"rejected\" }] says that the credential is refused",
        );
    }
    let token = token(&mut table);
    let scheme = table.read("token_type", path);
    let refresh_token = table.read("refresh_token", path);
    let expiry = items(&mut table, "expiry", EXPIRY_KEYS, expiry);
    let extra_headers = paths(&mut table, "extra_headers");
    let attributes = paths(&mut table, "attributes");
    Some(Answer {
        success: if table.has("success") { success } else { vec![200] },
        when,
        failures,
        token: token?,
        scheme,
        refresh_token,
        expiry,
        extra_headers,
        attributes,
    })
}

/// What failures mean.
pub(super) fn rules(section: &mut Section<'_, '_>) -> Vec<Rule> {
    items(section, "failures", RULE_KEYS, rule)
}

/// The tables of an array, but for those with problems.
fn items<'t, T>(
    section: &mut Section<'_, 't>,
    key: &str,
    keys: &'static [&'static str],
    mut read: impl FnMut(&mut Section<'_, 't>) -> Option<T>,
) -> Vec<T> {
    let found = section.items(key, &format!("an array of tables, such as {key} = [{}]", example(key)));
    let items = found.iter().enumerate().filter_map(|(position, item)| {
        let path = format!("{}[{position}]", section.path_of(key));
        section.reading.item(path, item, keys).and_then(|mut table| read(&mut table))
    });
    items.collect()
}

/// One table of an array with this key.
fn example(key: &str) -> &'static str {
    match key {
        "failures" => "{ status = [400], class = \"rejected\" }",
        "expiry" => "{ relative = \"expires_in\", unit = \"s\" }",
        _ => "{ path = \"code\", equals = 0 }",
    }
}

fn paths(table: &mut Section<'_, '_>, key: &str) -> Vec<(String, Path)> {
    each(table, key, "a table of paths", |entry| path(Value::of(entry.item.get_ref())))
}

fn statuses(section: &mut Section<'_, '_>, key: &str) -> Vec<u16> {
    let expected = "an array of statuses, such as [200, 201]";
    let read = section.read(key, |value| {
        let Value::Array(items) = value else {
            return Err(value.instead_of(expected));
        };
        let statuses: Option<Vec<u16>> = items.iter().map(|item| status(Value::of(item.get_ref()))).collect();
        statuses.filter(|all| !all.is_empty()).ok_or_else(|| format!("expected {expected}"))
    });
    read.unwrap_or_default()
}

fn status(value: Value<'_>) -> Option<u16> {
    match value {
        Value::Integer(number) => number.and_then(|number| u16::try_from(number).ok()),
        _ => None,
    }
}

fn token(table: &mut Section<'_, '_>) -> Option<Source> {
    let expected = "the path of the token, or { body = true } where the whole body is the token";
    match table.find("token").map(|found| found.value) {
        Some(Value::Table(_)) => {
            let mut token = table.table("token", TOKEN_KEYS);
            token.require("body", "true", only_true).map(|()| Source::Body)
        }
        _ => table.require("token", expected, path).map(Source::Path),
    }
}

fn only_true(value: Value<'_>) -> Result<(), String> {
    match value {
        Value::Boolean(true) => Ok(()),
        Value::Boolean(false) => Err("expected true".to_owned()),
        other => Err(other.instead_of("true")),
    }
}

fn condition(table: &mut Section<'_, '_>) -> Option<Condition> {
    let path = table.require("path", "the path of a member of the body", path);
    let equals = table.read("equals", constants);
    let present = table.read("present", only_true);
    let holds = match [table.has("equals"), table.has("present")] {
        [true, false] => equals.map(Holds::OneOf),
        [false, true] => present.map(|()| Holds::Present),
        [true, true] | [false, false] => {
            let (path, place) = (table.path().to_owned(), table.place());
            table.reading.problem(path, place, "expected one of equals and present");
            None
        }
    };
    Some(Condition { path: path?, holds: holds? })
}

fn constants(value: Value<'_>) -> Result<Vec<Constant>, String> {
    let expected = "a text, a whole number or a boolean, or an array of them";
    match value {
        Value::Array(items) if !items.is_empty() => {
            let constants = items.iter().map(|item| constant(Value::of(item.get_ref())));
            constants.collect::<Option<_>>().ok_or_else(|| format!("expected {expected}"))
        }
        other => constant(other).map(|constant| vec![constant]).ok_or_else(|| other.instead_of(expected)),
    }
}

fn constant(value: Value<'_>) -> Option<Constant> {
    match value {
        Value::Text(text) => Some(Constant::Text(text.to_owned())),
        Value::Integer(number) => number.map(Constant::Number),
        Value::Boolean(boolean) => Some(Constant::Boolean(boolean)),
        _ => None,
    }
}

fn rule(table: &mut Section<'_, '_>) -> Option<Rule> {
    let statuses = statuses(table, "status");
    let when = items(table, "when", CONDITION_KEYS, condition);
    let class = table.require("class", &words(&CLASSES), choice(&CLASSES));
    let says = table.read("says", name("a text of one line"));
    Some(Rule { statuses, when, class: class?, says })
}

fn expiry(table: &mut Section<'_, '_>) -> Option<Expiry> {
    let kinds = ["jwt", "relative", "absolute", "asked", "fixed"];
    let mut given = kinds.into_iter().filter(|kind| table.has(kind));
    let (Some(kind), None) = (given.next(), given.next()) else {
        let (path, place) = (table.path().to_owned(), table.place());
        table.reading.problem(path, place, "expected one of jwt, relative, absolute, asked and fixed");
        return None;
    };
    let takes = match kind {
        "relative" | "asked" => "unit",
        "absolute" => "format",
        _ => "",
    };
    for other in ["unit", "format"].into_iter().filter(|other| *other != takes) {
        if table.has(other) {
            table.problem_with(other, format!("means nothing beside {kind}"));
        }
    }
    match kind {
        "jwt" => table.read("jwt", choice(&JWTS)).map(|required| Expiry::Jwt { required }),
        "relative" => {
            let (path, unit) = (table.read("relative", path), unit(table));
            Some(Expiry::Relative(path?, unit?))
        }
        "absolute" => {
            let path = table.read("absolute", path);
            let format = table.require("format", &words(&FORMATS), choice(&FORMATS));
            Some(Expiry::Absolute(path?, format?))
        }
        "asked" => {
            let (parameter, unit) = (table.read("asked", field_name("the name of a parameter")), unit(table));
            Some(Expiry::Asked(parameter?, unit?))
        }
        _ => table.read("fixed", duration(seconds(1)..=days(3_650))).map(Expiry::Fixed),
    }
}

/// Never assumed: an upstream that counts milliseconds would otherwise have tokens that live a thousand times too long.
fn unit(table: &mut Section<'_, '_>) -> Option<Unit> {
    table.require("unit", &words(&UNITS), choice(&UNITS))
}

fn words<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    quoted.join(" or ")
}
