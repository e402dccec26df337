//! The tokens of the simulators other than emnify: JWTs with a `kid`, signed with HS256.
//!
//! Real ones are mostly RS256; nobody but the issuer verifies these, so the sandbox does without a key pair. `iss` says
//! which simulator a token is of and what it is for, and `jti` makes every token another one.

use super::jwt::{decode, encode};
use super::world::{World, unix_seconds};
use hmac::Mac as _;
use serde_json::{Map, Value};
use std::time::SystemTime;

const HEADER: &str = r#"{"alg":"HS256","kid":"sandbox-1","typ":"JWT"}"#;

impl World {
    /// A JWT that lives so many seconds, with these claims and `iss`, `iat`, `exp` and `jti`.
    pub(super) fn bearer(&mut self, issuer: &str, mut claims: Map<String, Value>, at: SystemTime, life: u64) -> String {
        let iat = unix_seconds(at);
        claims.insert("iss".to_owned(), issuer.into());
        claims.insert("iat".to_owned(), iat.into());
        claims.insert("exp".to_owned(), iat.saturating_add(life).into());
        claims.insert("jti".to_owned(), format!("sandbox-{}", self.number()).into());
        let signed = format!("{}.{}", encode(HEADER), encode(Value::Object(claims).to_string()));
        let signature = encode(self.key.hs256(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of such a token, where it is good now.
    pub(super) fn bearer_claims(&self, issuer: &str, token: &str, at: SystemTime) -> Option<Map<String, Value>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let signature = decode(signature).ok()?;
        let is_own = header == encode(HEADER) && self.key.hs256(signed).verify_slice(&signature).is_ok();
        let claims: Map<String, Value> = serde_json::from_slice(&decode(payload).ok()?).ok()?;
        let is_of_issuer = claims.get("iss").and_then(Value::as_str) == Some(issuer);
        let lives = claims.get("exp").and_then(Value::as_u64).is_some_and(|exp| unix_seconds(at) < exp);
        (is_own && is_of_issuer && lives && !self.issued.is_rejected(token)).then_some(claims)
    }
}

/// The claims in a JSON object that was written as such.
pub(super) fn claims(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(claims) => claims,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Settings;
    use serde_json::json;
    use std::time::Duration;

    const ISSUER: &str = "sandbox/test";

    #[test]
    fn a_token_is_good_for_its_issuer_until_its_exp_or_until_it_is_rejected() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let mut world = World::new(Settings::default(), at);
        let token = world.bearer(ISSUER, claims(json!({ "sub": "a" })), at, 60);
        let after = |seconds| at + Duration::from_secs(seconds);
        assert_eq!(world.bearer_claims(ISSUER, &token, after(59)).unwrap()["sub"], "a");
        assert_eq!(world.bearer_claims(ISSUER, &token, after(60)), None);
        assert_eq!(world.bearer_claims("sandbox/another", &token, at), None);
        world.issued.use_up(&token);
        assert_eq!(world.bearer_claims(ISSUER, &token, at), None);
    }

    #[test]
    fn no_two_tokens_are_the_same_and_none_may_be_edited() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let mut world = World::new(Settings::default(), at);
        let first = world.bearer(ISSUER, Map::new(), at, 60);
        assert_ne!(first, world.bearer(ISSUER, Map::new(), at, 60));
        let longer = world.bearer(ISSUER, Map::new(), at, 600);
        let (signed, _) = longer.rsplit_once('.').unwrap();
        let (_, signature) = first.rsplit_once('.').unwrap();
        for text in [format!("{signed}.{signature}"), format!("{signed}."), signed.to_owned(), String::new()] {
            assert_eq!(world.bearer_claims(ISSUER, &text, at), None, "{text}");
        }
    }
}
