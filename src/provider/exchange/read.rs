//! What an answer means. Pure.
//!
//! The status decides first, then what the recipe says of the body; the body of a failure may be missing or of any
//! shape. Nothing of the upstream's text goes into an outcome but whole numbers and the codes of [`ERROR_CODES`].

use super::expiry::{self, Said};
use super::given::{Env, MAX_PARAMETER, MAX_SECRET};
use super::json::{self, Node};
use crate::failure::Failure;
use crate::http::{Cause, Head, Response, SendError};
use crate::jwt;
use crate::lifetime::{self, Bounds, Sources};
use crate::provider::recipe::{Answer, Class, Path, Source, Tenant, TenantSource};
use crate::provider::{FetchError, Fetched};
use crate::secret::{AccessToken, LongLivedSecret};
use crate::token::Presentation;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// The longest attribute, in bytes: a `scope` that comes back is as long as the parameter that asked for it may be.
const MAX_ATTRIBUTE: usize = MAX_PARAMETER;

/// The codes of RFC 6749 §5.2 and its kin that an operator is told by name.
const ERROR_CODES: &[&str] = &[
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// A success, with its body read.
pub(super) struct Opened<'a> {
    answer: &'a Answer,
    head: Head,
    body: &'a [u8],
    json: Option<Node<'a>>,
}

/// What a token must meet to be handed out.
pub(super) struct Terms<'a> {
    pub(super) env: Env<'a>,
    pub(super) bounds: Bounds,
    /// The life that the upstream's configuration states.
    pub(super) configured: Option<Duration>,
    /// The local time in Unix seconds.
    pub(super) local: i64,
}

/// Tells a success from a failure, and says what the failure is.
pub(super) fn open<'a>(answer: &'a Answer, response: &'a Response) -> Result<Opened<'a>, FetchError> {
    let opened = Opened { answer, head: response.head, body: &response.body, json: json::parse(&response.body) };
    match opened.fault() {
        None => Ok(opened),
        Some(words) => Err(failure(answer, &opened.head, opened.json.as_ref(), &words)),
    }
}

/// No whole answer came. A status that came decides on its own, because bodies of failures are optional.
pub(super) fn unanswered(answer: &Answer, error: &SendError) -> FetchError {
    let kind = match error {
        SendError::Body(head, _) if !answer.success.contains(&head.status) => return failure(answer, head, None, ""),
        SendError::Body(_, Cause::TooLarge) | SendError::NoAnswer(Cause::TooLarge | Cause::Garbled) => {
            Failure::Malformed
        }
        SendError::Body(..) => Failure::Unavailable,
        SendError::NoAnswer(
            Cause::Refused | Cause::Unresolved | Cause::Connect | Cause::Tls | Cause::Timeout | Cause::Interrupted,
        ) => Failure::Unreachable,
    };
    FetchError::new(kind, error.to_string())
}

/// The first rule that fits, or else the status by itself. `fault` is what a success status lacks.
fn failure(answer: &Answer, head: &Head, json: Option<&Node<'_>>, fault: &str) -> FetchError {
    let status = head.status;
    let fits = |rule: &&crate::provider::recipe::Rule| {
        let meets = |json: &Node<'_>| rule.when.iter().all(|condition| json.meets(condition));
        (rule.statuses.is_empty() || rule.statuses.contains(&status))
            && (rule.when.is_empty() || json.is_some_and(meets))
    };
    let (class, words) = match answer.failures.iter().find(fits) {
        Some(rule) => (rule.class, rule.says.as_deref().unwrap_or_else(|| words_of(rule.class))),
        None if answer.success.contains(&status) => (Class::Malformed, fault),
        None => by_status(status),
    };
    let code = json.and_then(error_code).map(|code| format!(" ({code})")).unwrap_or_default();
    FetchError::new(class.failure(head.retry_after), format!("status {status}: {words}{code}"))
}

fn by_status(status: u16) -> (Class, &'static str) {
    let class = match status {
        400 | 401 | 403 | 422 => Class::Rejected,
        429 => Class::Throttled,
        404 | 408 | 500..=599 => Class::Unavailable,
        300..=399 => return (Class::Malformed, "redirects are not followed"),
        _ => return (Class::Malformed, "the status fits no class"),
    };
    (class, words_of(class))
}

fn words_of(class: Class) -> &'static str {
    match class {
        Class::Rejected => "the credential is refused",
        Class::LockedOut => "the account is locked for a while",
        Class::Throttled => "too many requests",
        Class::Unavailable => "the upstream can't answer now",
        Class::Malformed => "the answer can't be acted upon",
    }
}

fn error_code(json: &Node<'_>) -> Option<&'static str> {
    let said = json.at(&Path(vec!["error".to_owned()]))?.as_text()?;
    ERROR_CODES.iter().find(|code| **code == said).copied()
}

// === impl Opened ===

impl Opened<'_> {
    /// What keeps it from being a success, in our own words.
    fn fault(&self) -> Option<Cow<'static, str>> {
        let Self { answer, head, body, json } = self;
        if !answer.success.contains(&head.status) {
            return Some(Cow::Borrowed("no success"));
        }
        let meets = |json: &Node<'_>| answer.when.iter().all(|condition| json.meets(condition));
        match (&answer.token, json) {
            (Source::Body, _) if body.trim_ascii().is_empty() => Some(Cow::Borrowed("an empty body")),
            (Source::Path(_), None) => {
                let size = body.len();
                Some(Cow::Owned(format!("{size} bytes that are not the documented JSON")))
            }
            (Source::Path(_), Some(json)) if !meets(json) => Some(Cow::Borrowed("the answer does not say success")),
            (Source::Path(path), Some(json)) if json.at(path).is_none() => {
                Some(Cow::Owned(format!("no {} in the answer", path.0.join("."))))
            }
            (Source::Body | Source::Path(_), _) => None,
        }
    }

    /// The names of the members that came, for a person who asks.
    pub(super) fn json(&self) -> Option<&Node<'_>> {
        self.json.as_ref()
    }

    /// A refresh token, if one of use came.
    pub(super) fn grant(&self) -> Option<LongLivedSecret> {
        let text = self.at(self.answer.refresh_token.as_ref()?)?.as_text()?;
        let is_sound = (1..=MAX_SECRET).contains(&text.len()) && !text.chars().any(char::is_control);
        is_sound.then(|| LongLivedSecret::new(text))
    }

    /// The token.
    pub(super) fn token(&self) -> Result<AccessToken, FetchError> {
        let text = match &self.answer.token {
            Source::Path(path) => self.at(path).and_then(Node::as_text),
            // A document where a token is expected is an error page, or a member whose path the recipe lacks.
            Source::Body => {
                std::str::from_utf8(self.body.trim_ascii()).ok().filter(|text| !text.starts_with(['{', '[', '<', '"']))
            }
        };
        let text = text.ok_or_else(|| self.malformed("the token is not a text"))?;
        let length = text.len();
        if !(1..=MAX_TOKEN).contains(&length) {
            Err(self.malformed(format_args!("a token of {length} bytes")))
        } else if !is_printable(text) {
            Err(self.malformed("a token with characters that no header can carry"))
        } else {
            Ok(AccessToken::new(text))
        }
    }

    /// The token as it is handed out.
    pub(super) fn finish(&self, value: AccessToken, terms: &Terms<'_>) -> Result<Fetched, FetchError> {
        if jwt::is_unsigned(value.expose()) {
            return Err(self.malformed("a token whose algorithm is 'none'"));
        }
        self.check_scheme(&terms.env.recipe.presentation.scheme)?;
        let claims = jwt::claims(value.expose());
        if let Err(error @ jwt::Error::Duplicate) = claims {
            return Err(self.malformed(error));
        }
        let said = Said { claims: claims.as_ref().map_err(|error| *error), json: self.json.as_ref() };
        let known = Sources {
            answered_at: self.head.date,
            local: Some(terms.local),
            configured: terms.configured,
            ..Sources::default()
        };
        let sources = expiry::collect(&self.answer.expiry, &said, &terms.env, known);
        let sources = sources.map_err(|error| self.malformed(error))?;
        if let Some(tenant) = &terms.env.recipe.tenant {
            self.check_tenant(tenant, &said, &terms.env)?;
        }
        let lifetime = lifetime::decide(sources, terms.bounds).map_err(|error| self.malformed(error))?;
        Ok(Fetched { lifetime, presentation: self.presentation(terms)?, value })
    }

    fn check_scheme(&self, expected: &str) -> Result<(), FetchError> {
        let Some(said) = self.answer.scheme.as_ref().and_then(|path| self.at(path)) else {
            return Ok(());
        };
        match said.as_text() {
            Some(scheme) if scheme.eq_ignore_ascii_case(expected) => Ok(()),
            Some(_) | None => Err(self.malformed("the token is of another type than the recipe says")),
        }
    }

    fn check_tenant(&self, tenant: &Tenant, said: &Said<'_>, env: &Env<'_>) -> Result<(), FetchError> {
        let Some(expected) = env.parameter(&tenant.parameter) else {
            return Ok(());
        };
        let found = match &tenant.said {
            TenantSource::Claim(name) => said.claims.ok().and_then(|claims| claims.get(name)).and_then(claim_text),
            TenantSource::Answer(path) => self.at(path).and_then(Node::as_shown),
        };
        let parameter = &tenant.parameter;
        let detail = match found {
            Some(found) if found == expected => return Ok(()),
            Some(found) if is_short_number(&found) && is_short_number(&expected) => {
                format!("the token is for {parameter} {found}, not {expected}")
            }
            Some(_) => format!("the token is for another {parameter} than the Workspace's"),
            None => format!("the token names no {parameter}"),
        };
        Err(FetchError::new(Failure::TenantMismatch, detail))
    }

    fn presentation(&self, terms: &Terms<'_>) -> Result<Presentation, FetchError> {
        let presented = &terms.env.recipe.presentation;
        let mut presentation = Presentation {
            token_type: presented.scheme.clone(),
            header_name: presented.header.clone(),
            ..Presentation::default()
        };
        for (name, path) in &self.answer.extra_headers {
            let value = self.at(path).and_then(Node::as_text).filter(|text| is_printable(text));
            match value {
                Some(text) if (1..=MAX_TOKEN).contains(&text.len()) => {
                    presentation.extra_headers.push((name.clone(), AccessToken::new(text)));
                }
                Some(_) | None => return Err(self.malformed(format_args!("no value for the header {name}"))),
            }
        }
        for (name, path) in &self.answer.attributes {
            let Some(found) = self.at(path) else { continue };
            let value =
                found.as_shown().filter(|text| text.len() <= MAX_ATTRIBUTE && !text.chars().any(char::is_control));
            let value = value.ok_or_else(|| self.malformed(format_args!("the attribute {name} is not of one line")))?;
            presentation.attributes.insert(name.clone(), value.into_owned());
        }
        Ok(presentation)
    }

    fn at(&self, path: &Path) -> Option<&Node<'_>> {
        self.json.as_ref()?.at(path)
    }

    fn malformed(&self, why: impl fmt::Display) -> FetchError {
        FetchError::new(Failure::Malformed, format!("status {}: {why}", self.head.status))
    }
}

fn claim_text(value: &serde_json::Value) -> Option<Cow<'_, str>> {
    match value {
        serde_json::Value::String(text) => Some(Cow::Borrowed(text)),
        serde_json::Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// What may be shown of a tenant: a text may be anything.
fn is_short_number(text: &str) -> bool {
    text.len() <= 20 && expiry::digits(text).is_some()
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
