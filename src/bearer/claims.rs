//! What a caller's token claims, and whether that makes it a caller here. Pure.

use crate::identity::Caller;
use serde_json::{Map, Number, Value};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By how much the clock of an issuer may be ahead of ours. `exp` has no such leeway: a token is over when it says so.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// The longest life that a token may still have. Kubernetes gives some of its tokens a year.
pub const LONGEST_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// What the tokens of an issuer must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What the issuer is called in the configuration, and so in the names of its callers.
    pub name: Arc<str>,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
}

/// Who a token is of, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    /// Who.
    pub(super) caller: Caller,
    /// `exp`.
    pub(super) expires: SystemTime,
}

/// `iss`.
pub(super) fn issuer(claims: &Map<String, Value>) -> Result<&str, &'static str> {
    claims.get("iss").and_then(Value::as_str).ok_or("the token does not say who issued it")
}

impl Rule {
    /// Judges all that does not take a key.
    pub(super) fn judge(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Claimed, &'static str> {
        if issuer(claims)? != self.issuer {
            return Err("the token is of another issuer");
        }
        let expires = date(claims, "exp")?.ok_or("the token does not say when it expires")?;
        if expires <= now {
            return Err("the token has expired");
        }
        if expires > now + LONGEST_LIFE {
            return Err("the token lives for more than 400 days");
        }
        if date(claims, "nbf")?.is_some_and(|begins| begins > now + LEEWAY) {
            return Err("the token is not valid yet");
        }
        if date(claims, "iat")?.is_some_and(|issued| issued > now + LEEWAY) {
            return Err("the token was issued in the future");
        }
        if !self.is_addressed(claims.get("aud"))? {
            return Err("the token is for another audience");
        }
        if claims.contains_key("cnf") {
            return Err("the token is bound to a key, of which its bearer has shown no possession");
        }
        let subject = claims.get("sub").and_then(Value::as_str).ok_or("the token does not say whose it is")?;
        let caller = Caller::bearer(&self.name, subject).or(Err("the token's subject can't be a caller's name"))?;
        Ok(Claimed { caller, expires })
    }

    /// RFC 7519 §4.1.3: one text, or several.
    fn is_addressed(&self, audience: Option<&Value>) -> Result<bool, &'static str> {
        const WRONG: &str = "the token does not say in texts whom it is for";
        let is_ours = |text: &str| self.audiences.iter().any(|ours| ours == text);
        match audience {
            Some(Value::String(text)) => Ok(is_ours(text)),
            Some(Value::Array(items)) => {
                let texts = items.iter().map(|item| item.as_str().ok_or(WRONG));
                texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.into_iter().any(is_ours))
            }
            _ => Err(WRONG),
        }
    }
}

/// RFC 7519 §2: seconds since 1970, perhaps with a fraction, which is cut off. Null is no date, and not no claim.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => moment(number).map(Some).ok_or("a date of the token is out of range"),
        Some(_) => Err("a date of the token is not a number"),
    }
}

fn moment(number: &Number) -> Option<SystemTime> {
    let seconds = match number.as_u64() {
        Some(whole) => Duration::from_secs(whole),
        None => Duration::try_from_secs_f64(number.as_f64()?.floor()).ok()?,
    };
    UNIX_EPOCH.checked_add(seconds)
}
