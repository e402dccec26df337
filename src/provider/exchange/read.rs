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
use crate::lifetime::{self, Bounds, Implausible, Sources};
use crate::provider::recipe::{Answer, Class, Condition, Path, Source, Tenant, TenantSource};
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
        Some(rule) => (rule.class, Cow::Borrowed(rule.says.as_deref().unwrap_or_else(|| words_of(rule.class)))),
        None if answer.success.contains(&status) => (Class::Malformed, Cow::Borrowed(fault)),
        None => by_status(status, &answer.success),
    };
    let code = json.and_then(error_code).map(|code| format!(" ({code})")).unwrap_or_default();
    FetchError::new(class.failure(head.retry_after), format!("status {status}: {words}{code}"))
}

fn by_status(status: u16, success: &[u16]) -> (Class, Cow<'static, str>) {
    let class = match status {
        400 | 401 | 403 | 422 => Class::Rejected,
        429 => Class::Throttled,
        404 | 408 | 500..=599 => Class::Unavailable,
        300..=399 => return (Class::Malformed, Cow::Borrowed("redirects are not followed")),
        200..=299 => return (Class::Malformed, Cow::Owned(format!("not one of success = {success:?}"))),
        _ => {
            let words = format!("neither one of success = {success:?} nor named in failures");
            return (Class::Malformed, Cow::Owned(words));
        }
    };
    (class, Cow::Borrowed(words_of(class)))
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
        match (&answer.token, json) {
            (Source::Body, _) if body.trim_ascii().is_empty() => Some(Cow::Borrowed("an empty body")),
            (Source::Path(_), None) => {
                let size = body.len();
                let hint = if bare_token(body).is_some_and(is_one_word) {
                    "; for a body that is the token itself there is token = { body = true }"
                } else {
                    ""
                };
                Some(Cow::Owned(format!("{size} bytes that are not the documented JSON{hint}")))
            }
            (Source::Path(path), Some(json)) => {
                let missing = || json.at(path).is_none().then(|| format!("no {path} in the answer"));
                unmet(answer, json).or_else(missing).map(Cow::Owned)
            }
            (Source::Body, _) => None,
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
            Source::Body => bare_token(self.body),
        };
        let text = text.ok_or_else(|| match &self.answer.token {
            Source::Path(path) => {
                self.malformed(format_args!("{path} is not a text ({})", self.at(path).map_or("null", Node::kind)))
            }
            Source::Body => self.malformed("the body is a document and not the token itself"),
        })?;
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
        let lifetime = lifetime::decide(sources, terms.bounds);
        let lifetime = lifetime.map_err(|why| self.malformed(self.implausible(why, &sources)))?;
        Ok(Fetched { lifetime, presentation: self.presentation(terms)?, value })
    }

    fn check_scheme(&self, expected: &str) -> Result<(), FetchError> {
        let Some(path) = &self.answer.scheme else { return Ok(()) };
        let Some(said) = self.at(path) else { return Ok(()) };
        match said.as_text() {
            Some(scheme) if scheme.eq_ignore_ascii_case(expected) => Ok(()),
            Some(_) | None => {
                let kind = said.kind();
                let why = format_args!("the token_type at {path} ({kind}) is not the scheme of presentation");
                Err(self.malformed(why))
            }
        }
    }

    /// Why no lifetime could be had, with the members that were looked at.
    fn implausible(&self, why: Implausible, sources: &Sources) -> String {
        let (expiry, json) = (&self.answer.expiry, self.json.as_ref());
        let member = match why {
            Implausible::Unknown => {
                let looked_at = expiry::looked_at(expiry);
                return format!("nothing says how long the token lives; looked for: {looked_at}");
            }
            Implausible::TooShort { life, .. } => expiry::member_of_span(expiry, json, life),
            Implausible::AlreadyExpired => sources.ends_at.and_then(|end| expiry::member_of_point(expiry, json, end)),
        };
        member.map_or_else(|| why.to_string(), |member| format!("{why}: {member}"))
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
            None => match &tenant.said {
                TenantSource::Claim(claim) if said.claims.is_err() => {
                    format!("the token is no JWT, so it has no claim {claim} to compare with {parameter}")
                }
                TenantSource::Claim(claim) => {
                    format!("the token has no claim {claim} of use to compare with {parameter}")
                }
                TenantSource::Answer(path) => {
                    format!("the answer has no {path} of use to compare with {parameter}")
                }
            },
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
                Some(_) | None => return Err(self.malformed(format_args!("no text at {path} for the header {name}"))),
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

/// Which condition of `when` is not met, and by what kind of value.
fn unmet(answer: &Answer, json: &Node<'_>) -> Option<String> {
    let Condition { path, .. } = answer.when.iter().find(|condition| !json.meets(condition))?;
    let found = json.at(path).map_or(Cow::Borrowed("not there"), Node::kind_of_code);
    Some(format!("when is not met: {path} ({found})"))
}

/// A document where a token is expected is an error page, or a member whose path the recipe lacks.
fn bare_token(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body.trim_ascii()).ok().filter(|text| !text.starts_with(['{', '[', '<', '"']))
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

/// Neither empty nor a form.
fn is_one_word(text: &str) -> bool {
    !text.is_empty() && is_printable(text) && !text.contains('&')
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
