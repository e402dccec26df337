//! Parameters: names and choices that are no secret, as an upstream or a Workspace gives them.

use super::reader::{Entry, Section, Value, shown, unknown};
use crate::provider::exchange::MAX_PARAMETER;
use std::collections::BTreeMap;

const EXPECTED: &str = "a table of texts and whole numbers";

/// The parameters under this key, but for those with problems. Where `known` is given, none may have another name.
pub(super) fn read(section: &mut Section<'_, '_>, key: &str, known: Option<&[&str]>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for Entry { name, item } in section.entries(key, EXPECTED) {
        let value = match known {
            Some([]) => Err("means nothing here: there are no parameters".to_owned()),
            Some(known) if !known.contains(&name) => Err(unknown("parameter", name, known.iter().copied())),
            Some(_) | None => value(Value::of(item.get_ref())),
        };
        match value {
            Ok(value) => {
                if is_named_like_a_secret(name) {
                    let path = section.path_of(&format!("{key}.{}", shown(name)));
                    section.reading.warn(
                        path,
                        "is named like a secret and kept in the clear; what must not be seen belongs into credential",
                    );
                }
                parameters.insert(name.to_owned(), value);
            }
            Err(text) => {
                let place = section.reading.place(item);
                section.problem(&format!("{key}.{}", shown(name)), place, text);
            }
        }
    }
    parameters
}

/// Whether a name says that what it names must not be seen.
pub(super) fn is_named_like_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "password", "passwd", "passphrase", "token", "key", "credential", "credentials", "authorization"]
        .iter()
        .any(|word| name.ends_with(word))
}

fn value(value: Value<'_>) -> Result<String, String> {
    let expected = format!("a text of one line, at most {MAX_PARAMETER} bytes, or a whole number");
    match value {
        Value::Text(text) if (1..=MAX_PARAMETER).contains(&text.len()) && !text.chars().any(char::is_control) => {
            Ok(text.to_owned())
        }
        Value::Integer(Some(number)) => Ok(number.to_string()),
        Value::Text(_) => Err(format!("expected {expected}")),
        other => Err(other.instead_of(&expected)),
    }
}
