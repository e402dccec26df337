//! Writes the request of a step: what a recipe says, with the fields in place.
//!
//! Whatever may hold a secret goes into a buffer that is measured first, never grows and is zeroed when it has been
//! dropped. With masked fields the same code writes what a person may see.

use super::given::{Env, Shown};
use crate::http::{self, Request};
use crate::provider::recipe::template::{Filter, Missing, Part, Template, is_name, path_fault};
use crate::provider::recipe::{self, Basic, Body, ENDPOINT, Json, Method, Recipe};
use crate::secret::Broken;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use std::borrow::Cow;
use std::io;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Why a request could not be written. Names fields, never what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("the assertion could not be signed")]
    Signature,
    #[error("a secret {0}")]
    Sealed(#[from] Broken),
    #[error("the header {0} holds characters that no header can carry")]
    Header(String),
    #[error("{name} {why}")]
    Path { name: String, why: &'static str },
    #[error("{0} is not a whole number")]
    Number(String),
    #[error("the user name of Basic authentication holds a ':'")]
    Colon,
    #[error("the URL {0}")]
    Url(#[from] http::Error),
    #[error("the JSON could not be written")]
    Json,
}

/// A request before it is one.
pub(super) struct Draft<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) query: Option<String>,
    headers: Vec<Header<'a>>,
    body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
}

struct Header<'a> {
    name: &'a str,
    value: Zeroizing<Vec<u8>>,
    sensitive: bool,
}

/// JSON with its fields in place.
pub(super) enum Filled<'a> {
    Text(Zeroizing<String>),
    Number(serde_json::Number),
    Boolean(bool),
    Object(Vec<(&'a str, Self)>),
    Array(Vec<Self>),
}

// === The URL ===

/// Where a request goes, without its query.
pub(super) fn endpoint(request: &recipe::Request, env: &Env<'_>, base: &Url) -> Result<Url, Error> {
    for part in request.path.parts() {
        if let Part::Field { name, filter, .. } = part {
            let value = env.parameter(name).unwrap_or_default();
            let fault = match filter {
                Some(Filter::Path) => path_fault(&value),
                Some(Filter::Sha1Hex | Filter::Number) | None => value.is_empty().then_some("must not be empty"),
            };
            if let Some(why) = fault {
                return Err(Error::Path { name: name.clone(), why });
            }
        }
    }
    let tail = request.path.expand_path(env)?.unwrap_or_default();
    let mut path = format!("{}{}", base.path().trim_end_matches('/'), *tail);
    if path.is_empty() {
        path.push('/');
    }
    let mut url = base.clone();
    url.set_path(&path);
    if url.path() == path {
        Ok(url)
    } else {
        // A segment of dots, made of several fields.
        Err(Error::Path { name: "path".to_owned(), why: "leads elsewhere than it says" })
    }
}

fn query(pairs: &[(String, Template)], env: &Env<'_>) -> Result<Option<String>, Error> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, template) in pairs {
        if let Some(value) = template.expand(env)? {
            query.append_pair(name, &value);
        }
    }
    Ok(Some(query.finish()).filter(|query| !query.is_empty()))
}

// === impl Draft ===

impl<'a> Draft<'a> {
    /// The request of a step to this URL. The assertion is in the fields already.
    pub(super) fn new(request: &'a recipe::Request, env: &Env<'a>, url: Url) -> Result<Self, Error> {
        let body = match &request.body {
            Body::Empty => None,
            Body::Json(members) => Some((JSON, json_body(members, request.extra, env)?)),
            Body::Form(pairs) => Some((FORM, form_body(pairs, request.extra, env)?)),
        };
        let query = query(&request.query, env)?;
        Ok(Self { method: request.method, url, query, headers: headers(request, env)?, body })
    }

    pub(super) fn into_request(self) -> Result<Request, Error> {
        let mut request = match self.method {
            Method::Get => Request::get(self.url),
            Method::Post => Request::post(self.url),
        };
        if let Some(query) = self.query {
            request = request.with_query(query);
        }
        if let Some((media_type, body)) = self.body {
            request = request.with_body(media_type, body);
        }
        for Header { name, value, sensitive } in self.headers {
            let with = if sensitive { Request::with_secret_header } else { Request::with_header };
            request = with(request, name, value).map_err(|_invalid| Error::Header(name.to_owned()))?;
        }
        Ok(request)
    }

    pub(super) fn header_names(&self) -> impl Iterator<Item = &str> {
        let media_type = self.body.is_some().then_some("content-type");
        let named = |wanted: &str| self.headers.iter().any(|header| header.name == wanted);
        let own = [Some("accept"), media_type].into_iter().flatten().filter(move |own| !named(own));
        own.chain(self.headers.iter().map(|header| header.name))
    }

    pub(super) fn body_text(&self) -> Option<Cow<'_, str>> {
        self.body.as_ref().map(|(_, body)| String::from_utf8_lossy(body))
    }
}

fn headers<'a>(request: &'a recipe::Request, env: &Env<'_>) -> Result<Vec<Header<'a>>, Error> {
    let mut headers = Vec::with_capacity(request.headers.len() + 1);
    if let Some(basic) = &request.basic
        && let Some(value) = basic_value(basic, env)?
    {
        headers.push(Header { name: "authorization", value, sensitive: true });
    }
    for (name, template) in &request.headers {
        if let Some(value) = template.expand(env)? {
            let value = Zeroizing::new(value.as_bytes().to_vec());
            headers.push(Header { name, value, sensitive: holds_secret(template, env.recipe) });
        }
    }
    Ok(headers)
}

fn holds_secret(template: &Template, recipe: &Recipe) -> bool {
    template.fields().any(|(name, _)| name != ENDPOINT && recipe.parameter(name).is_none())
}

/// Left out as a whole where the user or the password is.
fn basic_value(basic: &Basic, env: &Env<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let (Some(user), Some(password)) = (basic.user.expand(env)?, basic.password.expand(env)?) else {
        return Ok(None);
    };
    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (user.len() + password.len()) + 1));
    if basic.form_encoded {
        encode(&user, &mut pair);
        pair.push(b':');
        encode(&password, &mut pair);
    } else {
        if user.contains(':') {
            return Err(Error::Colon);
        }
        pair.extend_from_slice(user.as_bytes());
        pair.push(b':');
        pair.extend_from_slice(password.as_bytes());
    }
    let length = base64::encoded_len(pair.len(), true).unwrap_or_default();
    let mut encoded = Zeroizing::new(String::with_capacity(length));
    STANDARD.encode_string(&*pair, &mut encoded);
    let mut value = Zeroizing::new(Vec::with_capacity(length + 6));
    value.extend_from_slice(b"Basic ");
    value.extend_from_slice(encoded.as_bytes());
    Ok(Some(value))
}

// === Bodies ===

fn form_body(pairs: &[(String, Template)], extra: bool, env: &Env<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut filled = Vec::with_capacity(pairs.len());
    for (name, template) in pairs {
        filled.extend(template.expand(env)?.map(|value| (name.as_str(), value)));
    }
    if extra {
        filled.extend(extra_pairs(env));
    }
    let size = filled.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(size));
    for (name, value) in &filled {
        if !body.is_empty() {
            body.push(b'&');
        }
        match env.shown {
            Shown::Whole => {
                encode(name, &mut body);
                body.push(b'=');
                encode(value, &mut body);
            }
            Shown::Masked => {
                body.extend_from_slice(name.as_bytes());
                body.push(b'=');
                body.extend_from_slice(value.as_bytes());
            }
        }
    }
    Ok(body)
}

/// The extra parameters. They may be anything, so that where fields are masked they are too.
fn extra_pairs<'a>(env: &Env<'a>) -> impl Iterator<Item = (&'a str, Zeroizing<String>)> {
    let (given, shown) = (env.given, env.shown);
    given.extra.iter().map(move |(name, value)| {
        let value = match shown {
            Shown::Whole => value.to_string(),
            Shown::Masked => format!("‹extra {name}›"),
        };
        (&**name, Zeroizing::new(value))
    })
}

/// Form-encodes; at most three bytes for each.
fn encode(text: &str, out: &mut Vec<u8>) {
    for piece in form_urlencoded::byte_serialize(text.as_bytes()) {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn json_body(members: &[(String, Json)], extra: bool, env: &Env<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut filled = fill_members(members, env)?;
    if extra {
        filled.extend(extra_pairs(env).map(|(name, value)| (name, Filled::Text(value))));
    }
    to_json(&Filled::Object(filled))
}

fn fill_members<'a>(members: &'a [(String, Json)], env: &Env<'_>) -> Result<Vec<(&'a str, Filled<'a>)>, Error> {
    let mut filled = Vec::with_capacity(members.len());
    for (name, value) in members {
        filled.extend(fill_json(value, env)?.map(|value| (name.as_str(), value)));
    }
    Ok(filled)
}

/// Nothing where the text is left out.
pub(super) fn fill_json<'a>(json: &'a Json, env: &Env<'_>) -> Result<Option<Filled<'a>>, Error> {
    Ok(Some(match json {
        Json::Text(template) => match template.expand(env)? {
            None => return Ok(None),
            Some(text) if template.has(Filter::Number) => number(text, template, env.shown)?,
            Some(text) => Filled::Text(text),
        },
        Json::Number(number) => Filled::Number((*number).into()),
        Json::Boolean(value) => Filled::Boolean(*value),
        Json::Object(members) => Filled::Object(fill_members(members, env)?),
        Json::Array(items) => {
            let mut filled = Vec::with_capacity(items.len());
            for item in items {
                filled.extend(fill_json(item, env)?);
            }
            Filled::Array(filled)
        }
    }))
}

/// A whole number as JSON writes it: no sign but `-`, no leading zeros.
fn number<'a>(text: Zeroizing<String>, template: &Template, shown: Shown) -> Result<Filled<'a>, Error> {
    let signed: Option<i64> = text.parse().ok();
    let unsigned: Option<u64> = text.parse().ok();
    let number = signed.map(serde_json::Number::from).or_else(|| unsigned.map(serde_json::Number::from));
    match number {
        Some(number) if number.to_string() == *text => Ok(Filled::Number(number)),
        None if shown == Shown::Masked => Ok(Filled::Text(text)),
        Some(_) | None => {
            let name = template.fields().map(|(name, _)| name).find(|name| is_name(name)).unwrap_or_default();
            Err(Error::Number(name.to_owned()))
        }
    }
}

/// Written twice: once to learn the size, once into a buffer of it.
pub(super) fn to_json(value: &Filled<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut size = Counter(0);
    serde_json::to_writer(&mut size, value).or(Err(Error::Json))?;
    let mut body = Zeroizing::new(Vec::with_capacity(size.0));
    serde_json::to_writer(&mut *body, value).or(Err(Error::Json))?;
    Ok(body)
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Serialize for Filled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => number.serialize(serializer),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(item)?;
                }
                sequence.end()
            }
        }
    }
}

#[cfg(test)]
mod tests;
