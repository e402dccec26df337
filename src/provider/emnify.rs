//! emnify: an application token is exchanged for an `auth_token` at `POST /api/v1/authenticate`.
//!
//! What the wire looks like is emnify's own documentation (docs.emnify.com, "Authentication") and recorded traffic.
//! The status decides first; the body of a failure is optional, of several shapes, and only looked at for the lockout
//! that comes as a 401. The token is an HS384 JWT, so it can't be verified here: its claims are read for its life and
//! its organisation. Nothing of the upstream's text leaves this module except the token.

use crate::address::Objection;
use crate::failure::Failure;
use crate::http::{Cause, Client, Error as UrlError, Head, Request, Response, SendError};
use crate::jwt::{self, Claims};
use crate::lifetime::{self, Bounds, Sources};
use crate::provider::{FetchError, Fetched, Provider};
use crate::secret::{AccessToken, LongLivedSecret};
use crate::token::Presentation;
use futures_util::future::BoxFuture;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// The longest `auth_token` that is taken, in bytes. emnify's are about 400.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The longest application token that is sent, in bytes. emnify's are about 500.
pub const MAX_SECRET: usize = 16 * 1024;

/// emnify's code for "too many requests", also sent with status 401 while an account is locked.
const TOO_MANY_REQUESTS: i64 = 1105;

/// Exchanges an application token.
pub struct ApplicationToken {
    client: Arc<Client>,
    endpoint: Url,
    secret: LongLivedSecret,
    terms: Terms,
}

/// What is wrong with the settings of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upstream's base URL.
    #[error("the base URL {0}")]
    Base(#[source] UrlError),
    /// Nothing in the secret.
    #[error("the application token is empty")]
    SecretEmpty,
    /// More than [`MAX_SECRET`].
    #[error("the application token is too long")]
    SecretTooLong,
    /// A line break at the end of a file, most likely.
    #[error("the application token holds white space or control characters")]
    SecretCharacter,
}

/// What an answer must meet.
#[derive(Debug, Clone, Copy)]
struct Terms {
    bounds: Bounds,
    organisation: Option<u64>,
}

/// What is read of a success: everything else, and nulls, are ignored. No `Debug`: it holds the token.
#[derive(Deserialize)]
struct Success {
    auth_token: Option<String>,
    mfa_token: Option<IgnoredAny>,
}

/// What is read of a failure, if it is JSON at all.
#[derive(Deserialize)]
struct Refusal {
    error_code: Option<Value>,
    error_token: Option<Value>,
}

#[derive(Serialize)]
struct Credentials<'a> {
    application_token: &'a str,
}

// === impl ApplicationToken ===

impl ApplicationToken {
    /// The exchange of one Workspace's secret at the upstream with this base URL (such as `https://cdn.emnify.net`).
    /// Where `organisation` is given, a token of any other is refused.
    pub fn new(
        client: Arc<Client>,
        base: &Url,
        bounds: Bounds,
        organisation: Option<u64>,
        secret: LongLivedSecret,
    ) -> Result<Self, Error> {
        client.check_url(base).map_err(Error::Base)?;
        check_secret(secret.expose())?;
        let mut endpoint = base.clone();
        endpoint.path_segments_mut().or(Err(Error::Base(UrlError::Url(Objection::Scheme))))?.pop_if_empty().extend([
            "api",
            "v1",
            "authenticate",
        ]);
        Ok(Self { client, endpoint, secret, terms: Terms { bounds, organisation } })
    }

    async fn attempt(&self) -> Result<Fetched, FetchError> {
        let body = body(self.secret.expose())?;
        let request = Request::post_json(self.endpoint.clone(), body);
        match self.client.send(request).await {
            Ok(response) => judge(&response, self.terms),
            Err(error) => Err(unanswered(&error)),
        }
    }
}

impl Provider for ApplicationToken {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(self.attempt())
    }
}

impl fmt::Debug for ApplicationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("emnify::ApplicationToken")
            .field("endpoint", &self.endpoint.as_str())
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

fn check_secret(secret: &str) -> Result<(), Error> {
    if secret.is_empty() {
        Err(Error::SecretEmpty)
    } else if secret.len() > MAX_SECRET {
        Err(Error::SecretTooLong)
    } else if secret.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Err(Error::SecretCharacter)
    } else {
        Ok(())
    }
}

/// The buffer never grows, because growing would leave a copy of the secret behind: without control characters, JSON
/// makes of each byte at most two.
fn body(application_token: &str) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let mut body = Zeroizing::new(Vec::with_capacity(2 * application_token.len() + 64));
    match serde_json::to_writer(&mut *body, &Credentials { application_token }) {
        Ok(()) => Ok(body),
        Err(_unlikely) => Err(FetchError::new(Failure::Unreachable, "the request could not be written")),
    }
}

// === What an answer means. Pure. ===

fn judge(response: &Response, terms: Terms) -> Result<Fetched, FetchError> {
    match response.head.status {
        200 => success(response, terms),
        _ => Err(refusal(&response.head, &response.body)),
    }
}

/// No whole answer. A status that came decides on its own, because bodies of failures are optional.
fn unanswered(error: &SendError) -> FetchError {
    let kind = match error {
        SendError::Body(head, _) if head.status != 200 => return refusal(head, &[]),
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

fn refusal(head: &Head, body: &[u8]) -> FetchError {
    let status = head.status;
    let (kind, words) = match status {
        401 if is_lockout(body) => (Failure::LockedOut, "the account is locked for a while"),
        400 | 401 | 403 | 422 => (Failure::Rejected, "the application token is refused"),
        429 => (Failure::Throttled { retry_after: head.retry_after }, "too many requests"),
        404 | 408 | 500..=599 => (Failure::Unavailable, "the upstream can't answer now"),
        300..=399 => (Failure::Malformed, "redirects are not followed"),
        _ => (Failure::Malformed, "the status fits no class"),
    };
    FetchError::new(kind, format!("status {status}: {words}"))
}

fn is_lockout(body: &[u8]) -> bool {
    object::<Refusal>(body).is_some_and(|refusal| {
        refusal.error_code.and_then(|code| code.as_i64()) == Some(TOO_MANY_REQUESTS)
            || refusal.error_token.is_some_and(|t| t == "TooManyRequests")
    })
}

/// A body that is a JSON object. A derived reader alone would take an array for the fields in order too.
fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

fn success(response: &Response, terms: Terms) -> Result<Fetched, FetchError> {
    let value = token(&response.body)?;
    let claims = jwt::claims(value.expose()).map_err(malformed)?;
    check_organisation(&claims, terms.organisation)?;
    Ok(Fetched {
        lifetime: lifetime(&claims, &response.head, terms.bounds)?,
        value,
        presentation: Presentation::bearer(),
    })
}

fn token(body: &[u8]) -> Result<AccessToken, FetchError> {
    let size = body.len();
    let Some(success) = object::<Success>(body) else {
        return Err(malformed(format_args!("{size} bytes that are not the documented JSON object")));
    };
    let token = match (success.auth_token.map(AccessToken::new), success.mfa_token) {
        (Some(token), _) => token,
        (None, Some(_)) => {
            return Err(FetchError::new(
                Failure::Rejected,
                "status 200: the upstream wants a second factor, which an unattended login can't give",
            ));
        }
        (None, None) => return Err(malformed("no auth_token in the answer")),
    };
    let length = token.expose().len();
    if length == 0 || length > MAX_TOKEN {
        return Err(malformed(format_args!("an auth_token of {length} bytes")));
    }
    if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed("an auth_token with characters that no header can carry"));
    }
    Ok(token)
}

fn check_organisation(claims: &Claims, expected: Option<u64>) -> Result<(), FetchError> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let detail = match claims.get("esc.org").map(Value::as_u64) {
        Some(Some(found)) if found == expected => return Ok(()),
        Some(Some(found)) => format!("the token is for organisation {found}, not {expected}"),
        Some(None) | None => format!("the token names no organisation, {expected} is expected"),
    };
    Err(FetchError::new(Failure::TenantMismatch, detail))
}

fn lifetime(claims: &Claims, head: &Head, bounds: Bounds) -> Result<Duration, FetchError> {
    let sources =
        Sources { issued_at: claims.iat, expires_at: claims.exp, answered_at: head.date, ..Sources::default() };
    lifetime::decide(sources, bounds).map_err(malformed)
}

fn malformed(why: impl fmt::Display) -> FetchError {
    FetchError::new(Failure::Malformed, format!("status 200: {why}"))
}

#[cfg(test)]
mod tests;
