//! Texts with places for fields: `{name}`, `{name?}`, `{name|sha1-hex}`, `{name|number}`, `{name|path}`; `{{` and `}}`
//! are braces.
//!
//! A template is checked when it is made, so that expanding it can only fail for want of a field. What it is expanded
//! into is measured first and zeroed when it has been dropped: no growing buffer leaves a part of a secret behind.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::borrow::Cow;
use std::fmt;
use zeroize::Zeroizing;

/// A text with places for fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Text(String),
    /// The place of a field.
    Field {
        /// Its name.
        name: String,
        /// Whether the whole template is left out without it.
        optional: bool,
        /// What is made of it.
        filter: Option<Filter>,
    },
}

/// What is made of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// SHA-1 in lower-case hex (emnify's passwords).
    Sha1Hex,
    /// A path of several segments, from its `/` on, as it stands. In the path of a request only.
    Path,
    /// A JSON number instead of a text. The whole template then is this one place, in a JSON body.
    Number,
}

/// What is wrong with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A `{` without `}`, or the other way round.
    #[error("has a brace without its other half; write {{{{ or }}}} for the brace itself")]
    Brace,
    /// `${name}`, as other formats have it.
    #[error("has a '$' before a place, which would be sent; a place is written {{name}}")]
    Dollar,
    /// A name that is none.
    #[error("has a place whose name is not of a-z, 0-9 and '_'")]
    Name,
    /// No filter of this name.
    #[error("has a filter that is none of sha1-hex, number and path")]
    Filter,
    /// A number beside other text.
    #[error("has a number beside other text")]
    Number,
}

/// Knows the fields that templates name.
pub trait Lookup {
    /// The field of this name, if it is given.
    fn find(&self, name: &str) -> Option<Found<'_>>;
}

/// A field.
#[derive(Debug)]
pub enum Found<'a> {
    /// What it is. Likely a secret.
    Value(Cow<'a, str>),
    /// What stands for it where it is shown: no filter is applied.
    Mask(String),
}

/// A field that is not given and can't be left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing")]
pub struct Missing(pub String);

/// Where the text goes, and so what is escaped in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Nothing,
    Path,
}

/// A piece of what a template is expanded into.
enum Piece<'a> {
    Text(Cow<'a, str>),
    Made(Zeroizing<String>),
}

// === impl Template ===

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, brace, after)) = split_at_brace(rest) {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push(brace);
                rest = after;
                continue;
            }
            let (place, after) =
                if brace == '{' { after.split_once('}').ok_or(Error::Brace)? } else { return Err(Error::Brace) };
            if plain.ends_with('$') {
                return Err(Error::Dollar);
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(place_of(place)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let is_number = |part: &Part| matches!(part, Part::Field { filter: Some(Filter::Number), .. });
        if parts.len() > 1 && parts.iter().any(is_number) { Err(Error::Number) } else { Ok(Self { parts }) }
    }

    /// Its pieces.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names of its fields, with whether each is optional.
    pub fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { name, optional, .. } => Some((name.as_str(), *optional)),
            Part::Text(_) => None,
        })
    }

    /// Whether one of its places has this filter.
    pub fn has(&self, wanted: Filter) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Field { filter: Some(filter), .. } if *filter == wanted))
    }

    /// The text with its fields in place; nothing if it is left out.
    pub fn expand(&self, lookup: &dyn Lookup) -> Result<Option<Zeroizing<String>>, Missing> {
        self.filled(lookup, Escape::Nothing)
    }

    /// The same for the path of a URL: each field is one segment, but for those with the filter `path`.
    pub fn expand_path(&self, lookup: &dyn Lookup) -> Result<Option<Zeroizing<String>>, Missing> {
        self.filled(lookup, Escape::Path)
    }

    fn filled(&self, lookup: &dyn Lookup, escape: Escape) -> Result<Option<Zeroizing<String>>, Missing> {
        let mut pieces = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match piece(part, lookup, escape)? {
                Some(piece) => pieces.push(piece),
                None => return Ok(None),
            }
        }
        let length = pieces.iter().map(|piece| piece.text().len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for piece in &pieces {
            text.push_str(piece.text());
        }
        Ok(Some(text))
    }
}

/// Back to the text that it was read from.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Field { name, optional, filter } => {
                    let mark = if *optional { "?" } else { "" };
                    match filter {
                        Some(filter) => write!(f, "{{{name}{mark}|{}}}", filter.as_str())?,
                        None => write!(f, "{{{name}{mark}}}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

impl Filter {
    fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "sha1-hex" => Ok(Self::Sha1Hex),
            "path" => Ok(Self::Path),
            "number" => Ok(Self::Number),
            _ => Err(Error::Filter),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Sha1Hex => "sha1-hex",
            Self::Path => "path",
            Self::Number => "number",
        }
    }
}

impl Piece<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// Whether a text can be the name of a field.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// What is wrong with a value of the filter `path`, if anything is.
pub fn path_fault(value: &str) -> Option<&'static str> {
    if !value.starts_with('/') {
        Some("must begin with '/'")
    } else if value.chars().any(|c| c.is_control() || matches!(c, '?' | '#' | '\\')) {
        Some("must not hold '?', '#', '\\' or control characters")
    } else if value.split('/').any(is_dots) {
        Some("must not hold the segments '.' and '..'")
    } else {
        None
    }
}

/// Also in the spellings that a URL parser takes for dots.
fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let brace = text.chars().find(|c| matches!(c, '{' | '}'))?;
    text.split_once(brace).map(|(before, after)| (before, brace, after))
}

fn place_of(text: &str) -> Result<Part, Error> {
    let (field, filter) = match text.split_once('|') {
        Some((field, filter)) => (field, Some(Filter::parse(filter)?)),
        None => (text, None),
    };
    let (name, optional) = match field.strip_suffix('?') {
        Some(name) => (name, true),
        None => (field, false),
    };
    if is_name(name) { Ok(Part::Field { name: name.to_owned(), optional, filter }) } else { Err(Error::Name) }
}

fn piece<'a>(part: &'a Part, lookup: &'a dyn Lookup, escape: Escape) -> Result<Option<Piece<'a>>, Missing> {
    let (name, optional, filter) = match part {
        Part::Text(text) => return Ok(Some(Piece::Text(Cow::Borrowed(text)))),
        Part::Field { name, optional, filter } => (name, *optional, *filter),
    };
    let value = match lookup.find(name) {
        Some(Found::Value(value)) => value,
        Some(Found::Mask(mask)) => return Ok(Some(Piece::Text(Cow::Owned(mask)))),
        None if optional => return Ok(None),
        None => return Err(Missing(name.clone())),
    };
    Ok(Some(match (filter, escape) {
        (Some(Filter::Sha1Hex), _) => Piece::Made(sha1_hex(&value)),
        (Some(Filter::Path), Escape::Path) => Piece::Text(Cow::Owned(encoded(&value, may_stand_in_path))),
        (None, Escape::Path) => Piece::Text(Cow::Owned(encoded(&value, is_unreserved))),
        (Some(Filter::Number | Filter::Path) | None, _) => Piece::Text(value),
    }))
}

fn sha1_hex(text: &str) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::with_capacity(40));
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
        for half in [byte >> 4, byte & 0xf] {
            hex.extend(char::from_digit(u32::from(half), 16));
        }
    }
    hex
}

/// Percent-encodes what may not stand. Only parameters come here, and they are no secret.
fn encoded(text: &str, may_stand: fn(u8) -> bool) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if may_stand(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String never fails.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §3.3, and `%`: who gives a path may have encoded a part of it.
fn may_stand_in_path(byte: u8) -> bool {
    is_unreserved(byte) || b"/%!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fields;

    impl Lookup for Fields {
        fn find(&self, name: &str) -> Option<Found<'_>> {
            let value = match name {
                "password" => "pw",
                "segment" => "a/b ü%",
                "deep" => "/1.0/auth/a b%20c",
                "masked" => return Some(Found::Mask("‹masked›".to_owned())),
                _ => return None,
            };
            Some(Found::Value(Cow::Borrowed(value)))
        }
    }

    fn expanded(text: &str) -> Result<Option<String>, Missing> {
        let template = Template::parse(text).unwrap();
        Ok(template.expand(&Fields)?.map(|text| text.to_string()))
    }

    #[test]
    fn fields_take_their_places() {
        let table = [
            ("", Ok(Some(""))),
            ("plain", Ok(Some("plain"))),
            ("{{{password}}}", Ok(Some("{pw}"))),
            ("a{{b}}c", Ok(Some("a{b}c"))),
            ("{password}{password?}!", Ok(Some("pwpw!"))),
            // printf pw | openssl sha1
            ("{password|sha1-hex}", Ok(Some("1a91d62f7ca67399625a4368a6ab5d4a3baa6073"))),
            ("{masked|sha1-hex}", Ok(Some("‹masked›"))),
            ("a{absent?}b", Ok(None)),
            ("a{absent}b", Err(Missing("absent".to_owned()))),
        ];
        for (text, expected) in table {
            assert_eq!(expanded(text), expected.map(|text| text.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn the_buffer_never_grows() {
        let text =
            Template::parse("{password}:{password|sha1-hex}:{segment}").unwrap().expand(&Fields).unwrap().unwrap();
        assert_eq!(text.capacity(), text.len());
    }

    #[test]
    fn a_path_keeps_its_fields_in_their_segments() {
        let path = Template::parse("{deep|path}/x y/{segment}").unwrap();
        let path = path.expand_path(&Fields).unwrap().unwrap();
        assert_eq!(*path, "/1.0/auth/a%20b%20c/x y/a%2Fb%20%C3%BC%25");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_found_out() {
        for good in ["/", "/a", "/1.0/auth/token", "/a/b/", "/a..b/...", "/a%20b"] {
            assert_eq!(path_fault(good), None, "{good}");
        }
        for bad in ["", "a", "http://x", "/a?b", "/a#b", "/a\\b", "/..", "/a/../b", "/a/.", "/%2E%2e/b", "/.%2e", "/\n"]
        {
            assert!(path_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let table = [
            ("{", Error::Brace),
            ("}", Error::Brace),
            ("a}b", Error::Brace),
            ("{a", Error::Brace),
            ("{}", Error::Name),
            ("{?}", Error::Name),
            ("{A}", Error::Name),
            ("{a b}", Error::Name),
            ("{a??}", Error::Name),
            ("{a|}", Error::Filter),
            ("{a|md5}", Error::Filter),
            ("{a|sha1-hex|path}", Error::Filter),
            ("x{a|number}", Error::Number),
            ("{a|number}{b|number}", Error::Number),
        ];
        for (text, expected) in table {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_read(
            text in "[a-z{}?|/ -]{0,24}|(\\{[a-z_0-9]{1,4}\\??(\\|sha1-hex|\\|path)?\\}|[{]{2}|[}]{2}|x){0,6}"
        ) {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
