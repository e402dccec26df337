//! A caller's JWT in its parts (RFC 7515 compact form), read strictly and not verified yet. Pure.
//!
//! Stricter than what is read of upstreams' tokens: no padding, no repeated member, no header that would change what
//! the rest means. What is refused is refused with a constant; nothing of the token is in it.

use super::keys::{Algorithm, LONGEST_KID};
use crate::jwt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes.
pub const LONGEST: usize = 8 * 1024;

/// The longest signature in base64url: that of the largest RSA key.
const LONGEST_SIGNATURE: usize = 1024 / 3 * 4 + 4;

/// Headers that would bring a key, name a place to take one from, or change what the signature is of.
const FORBIDDEN: [(&str, &str); 8] = [
    ("crit", "the token has critical extensions, and none is known here"),
    ("b64", "the token is not encoded as a JWT is"),
    ("jwk", "the token brings a key of its own"),
    ("jku", "the token names a place for its key"),
    ("x5u", "the token names a place for its certificate"),
    ("x5c", "the token brings a certificate of its own"),
    ("cty", "the token holds another token"),
    ("zip", "the token is compressed"),
];

/// What `typ` may be, if it is there: a JWT (RFC 7519 §5.1), or an access token (RFC 9068 §2.1). Anything else is a
/// token for another purpose, such as a logout or a proof of possession.
const TYPES: [&str; 4] = ["jwt", "application/jwt", "at+jwt", "application/at+jwt"];

/// A token in its parts.
#[derive(Debug)]
pub(super) struct Token<'t> {
    /// How it says it was signed.
    pub(super) algorithm: Algorithm,
    /// Which key it says it was signed with.
    pub(super) kid: Option<String>,
    /// What it claims. Not to be believed before the signature is verified.
    pub(super) claims: Map<String, Value>,
    /// What the signature is of.
    pub(super) signed: &'t str,
    /// The signature, in base64url.
    pub(super) signature: &'t str,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    pub(super) fn read(text: &'t str) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("the token is longer than 8 KiB");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(PARTS)?;
        let (header, claims) = signed.split_once('.').ok_or(PARTS)?;
        if claims.contains('.') {
            return Err(PARTS);
        }
        if signature.is_empty() || signature.len() > LONGEST_SIGNATURE {
            return Err("the token has no signature of a plausible length");
        }
        let header = object(header)?;
        let (algorithm, kid) = judge(&header)?;
        Ok(Self { algorithm, kid, claims: object(claims)?, signed, signature })
    }
}

const PARTS: &str = "the token does not have the three parts of a JWT";

fn judge(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), &'static str> {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(name, _)| header.contains_key(*name)) {
        return Err(why);
    }
    let name = header.get("alg").and_then(Value::as_str).ok_or("the token does not say how it is signed")?;
    let algorithm = Algorithm::parse(name).ok_or("the token is not signed with a public-key algorithm known here")?;
    let is_type = |typ: &Value| typ.as_str().is_some_and(|typ| TYPES.iter().any(|t| t.eq_ignore_ascii_case(typ)));
    if !header.get("typ").is_none_or(is_type) {
        return Err("the token is of another type than JWT or at+jwt");
    }
    let kid = match header.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str().filter(|kid| (1..=LONGEST_KID).contains(&kid.len())).ok_or(KID)?.to_owned()),
    };
    Ok((algorithm, kid))
}

const KID: &str = "the token names its key by something else than a text of 1 to 256 bytes";

fn object(part: &str) -> Result<Map<String, Value>, &'static str> {
    let json = URL_SAFE_NO_PAD.decode(part).or(Err("a part of the token is not base64url without padding"))?;
    jwt::unique_object(&json).or(Err("a part of the token is not a JSON object without repeated members"))
}
