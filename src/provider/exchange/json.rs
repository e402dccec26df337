//! The JSON of an answer, read strictly: one document, UTF-8, no member twice, at most 128 levels deep.
//!
//! Texts are borrowed from the body, which is zeroed when it has been dropped; those with escapes are copied once, and
//! zeroed too. Which of two members of one name another reader would take is not ours to guess: such a body is refused.

use crate::provider::recipe::{Condition, Constant, Holds, Path};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// A value. No `Debug`: it holds tokens.
pub(super) enum Node<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Text<'a>),
    Array(Vec<Self>),
    Object(BTreeMap<Cow<'a, str>, Self>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Large(u64),
    Float(f64),
}

pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

/// The document, if the body is one.
pub(super) fn parse(body: &[u8]) -> Option<Node<'_>> {
    serde_json::from_slice(body).ok()
}

impl Node<'_> {
    /// The member at the end of this path; nothing where it is null.
    pub(super) fn at(&self, path: &Path) -> Option<&Self> {
        let found = path.0.iter().try_fold(self, |node, name| match node {
            Self::Object(members) => members.get(name.as_str()),
            Self::Array(items) => items.get(name.parse::<usize>().ok()?),
            Self::Null | Self::Boolean(_) | Self::Number(_) | Self::Text(_) => None,
        })?;
        if matches!(found, Self::Null) { None } else { Some(found) }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Null | Self::Boolean(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// A text, or a number or boolean as JSON writes it.
    pub(super) fn as_shown(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Self::Boolean(value) => Some(Cow::Owned(value.to_string())),
            Self::Number(Number::Whole(value)) => Some(Cow::Owned(value.to_string())),
            Self::Number(Number::Large(value)) => Some(Cow::Owned(value.to_string())),
            Self::Number(Number::Float(value)) => Some(Cow::Owned(value.to_string())),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// What kind of value it is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// The same for a member that says how a request went, with what may be shown of such a one: a boolean, or a whole
    /// number of few digits. Never a text.
    pub(super) fn kind_of_code(&self) -> Cow<'static, str> {
        match self {
            Self::Boolean(value) => Cow::Owned(format!("boolean {value}")),
            Self::Number(Number::Whole(value)) if (-999_999..=999_999).contains(value) => {
                Cow::Owned(format!("number {value}"))
            }
            other => Cow::Borrowed(other.kind()),
        }
    }

    pub(super) fn meets(&self, condition: &Condition) -> bool {
        let found = self.at(&condition.path);
        match (&condition.holds, found) {
            (Holds::Present, found) => found.is_some(),
            (Holds::OneOf(constants), Some(found)) => constants.iter().any(|constant| found.is(constant)),
            (Holds::OneOf(_), None) => false,
        }
    }

    fn is(&self, constant: &Constant) -> bool {
        match (self, constant) {
            (Self::Text(text), Constant::Text(expected)) => text.as_str() == expected,
            (Self::Number(Number::Whole(value)), Constant::Number(expected)) => value == expected,
            (Self::Boolean(value), Constant::Boolean(expected)) => value == expected,
            _ => false,
        }
    }
}

impl Text<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Node::Number(Number::Whole(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Node::Number(i64::try_from(value).map_or(Number::Large(value), Number::Whole)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Node::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Node::Text(Text::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Node::Text(Text::Owned(Zeroizing::new(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Node::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((Name(name), value)) = members.next_entry()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Node::Object(all))
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameReader;

        impl<'de> Visitor<'de> for NameReader {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(NameReader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path(text.split('.').map(str::to_owned).collect())
    }

    #[test]
    fn members_are_found_by_their_path() {
        let json = parse(br#"{"a":{"b":["x",{"c":"\u0041"}]},"n":null,"1":true}"#).unwrap();
        let table = [
            ("a.b.0", Some("x")),
            ("a.b.1.c", Some("A")),
            ("1", Some("true")),
            ("n", None),
            ("a.x", None),
            ("a", None),
        ];
        for (way, expected) in table {
            assert_eq!(json.at(&path(way)).and_then(Node::as_shown).as_deref(), expected, "{way}");
        }
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        let deep = "[".repeat(100_000);
        let closed = format!("{}{}", "[".repeat(129), "]".repeat(129));
        let table =
            ["", " ", "{", r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"\u0062":2}}"#, "{}{}", "{} x", "\u{feff}{}", "NaN"];
        for body in table.into_iter().chain([deep.as_str(), closed.as_str()]) {
            assert!(parse(body.as_bytes()).is_none(), "{body:.40}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_none());
        assert!(parse(b"{\"a\":\"\0\"}").is_none());
        assert!(parse(b" {\"a\":[{}, {}]}\r\n").is_some());
    }

    #[test]
    fn a_constant_is_met_by_its_own_kind_alone() {
        let json = parse(br#"{"text":"1","number":1,"float":1.0,"yes":true,"null":null}"#).unwrap();
        let table = [
            ("text", Holds::OneOf(vec![Constant::Text("1".to_owned())]), true),
            ("text", Holds::OneOf(vec![Constant::Number(1)]), false),
            ("number", Holds::OneOf(vec![Constant::Number(0), Constant::Number(1)]), true),
            ("number", Holds::OneOf(vec![Constant::Text("1".to_owned())]), false),
            ("float", Holds::OneOf(vec![Constant::Number(1)]), false),
            ("yes", Holds::OneOf(vec![Constant::Boolean(true)]), true),
            ("yes", Holds::Present, true),
            ("null", Holds::Present, false),
            ("none", Holds::Present, false),
        ];
        for (name, holds, expected) in table {
            assert_eq!(json.meets(&Condition { path: path(name), holds }), expected, "{name}");
        }
    }
}
