//! Assertions of RFC 7523: JWTs that somebody else has signed. Pure.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How far ahead the end of an assertion may lie, in seconds.
const MAX_LIFE: u64 = 3_600;
/// How far the signer's clock may be ahead, in seconds.
const LEEWAY: u64 = 60;
/// How many assertions are remembered; more than these are refused until some are over.
const MAX_SEEN: usize = 100_000;

/// Not a public key of a kind that signs assertions here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PEM public key for RS256, PS256, ES256 or EdDSA")]
pub struct BadKey;

/// What an assertion may be signed with.
#[derive(Clone)]
pub(super) struct PublicKey {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl PublicKey {
    pub(super) fn parse(pem: &str) -> Result<Self, BadKey> {
        if pem.contains("PRIVATE KEY") {
            return Err(BadKey);
        }
        let pem = pem.as_bytes();
        let rsa = || Some((DecodingKey::from_rsa_pem(pem).ok()?, [Algorithm::RS256, Algorithm::PS256].as_slice()));
        let ec = || Some((DecodingKey::from_ec_pem(pem).ok()?, [Algorithm::ES256].as_slice()));
        let ed = || Some((DecodingKey::from_ed_pem(pem).ok()?, [Algorithm::EdDSA].as_slice()));
        let (key, algorithms) = rsa().or_else(ec).or_else(ed).ok_or(BadKey)?;
        Ok(Self { key, algorithms })
    }

    /// The claims, if this key has signed them. Their times are left to the caller, who has the clock.
    fn verify(&self, text: &str) -> Option<Claims> {
        let algorithm = jsonwebtoken::decode_header(text).ok()?.alg;
        if !self.algorithms.contains(&algorithm) {
            return None;
        }
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Some(jsonwebtoken::decode(text, &self.key, &validation).ok()?.claims)
    }
}

/// What an assertion says; times in Unix seconds.
#[derive(Clone, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    aud: Value,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
    pub(super) jti: Option<String>,
    pub(super) scope: Option<String>,
}

/// Who an assertion says it is from, before anything is checked.
pub(super) fn issuer(text: &str) -> Option<String> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(text).ok()?.claims;
    Some(claims.iss)
}

/// The claims of an assertion that one of these keys has signed and that is for one of these audiences now; or what is
/// wrong with it.
pub(super) fn verify(keys: &[PublicKey], text: &str, audiences: &[&str], now: u64) -> Result<Claims, &'static str> {
    let claims = keys.iter().find_map(|key| key.verify(text)).ok_or("the assertion's signature or form is bad")?;
    claims.check(audiences, now)?;
    Ok(claims)
}

impl Claims {
    fn check(&self, audiences: &[&str], now: u64) -> Result<(), &'static str> {
        let is_for_us = |aud: &Value| aud.as_str().is_some_and(|aud| audiences.contains(&aud));
        let is_for_us = match &self.aud {
            Value::Array(several) => several.iter().any(is_for_us),
            one => is_for_us(one),
        };
        if !is_for_us {
            return Err("the assertion is for another audience");
        }
        if self.exp <= now {
            return Err("the assertion is over");
        }
        if self.exp > now.saturating_add(MAX_LIFE) {
            return Err("the assertion lives for more than an hour");
        }
        let latest = now.saturating_add(LEEWAY);
        if self.nbf.is_some_and(|nbf| nbf > latest) || self.iat.is_some_and(|iat| iat > latest) {
            return Err("the assertion is not yet good");
        }
        Ok(())
    }
}

/// The assertions that were used, by signer and `jti`, until they are over.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<(String, String), u64>);

impl Seen {
    /// Takes note of an assertion, or says that it was used before.
    pub(super) fn take(&mut self, claims: &Claims, now: u64) -> Result<(), &'static str> {
        let Some(jti) = claims.jti.clone() else {
            return Ok(());
        };
        self.0.retain(|_, exp| *exp > now);
        let key = (claims.iss.clone(), jti);
        if self.0.contains_key(&key) || self.0.len() >= MAX_SEEN {
            return Err("the assertion was used before");
        }
        self.0.insert(key, claims.exp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(aud: Value, exp: u64) -> Claims {
        let (iss, sub) = ("client".to_owned(), "client".to_owned());
        Claims { iss, sub, aud, exp, nbf: None, iat: None, jti: Some("1".to_owned()), scope: None }
    }

    #[test]
    fn an_assertion_is_for_one_of_the_audiences_and_ends_within_the_hour() {
        for (aud, exp, good) in [
            (json!("a"), 1_001, true),
            (json!(["x", "b"]), 4_600, true),
            (json!("x"), 1_001, false),
            (json!([]), 1_001, false),
            (json!(7), 1_001, false),
            (json!("a"), 1_000, false),
            (json!("a"), 4_601, false),
        ] {
            let checked = claims(aud.clone(), exp).check(&["a", "b"], 1_000);
            assert_eq!(checked.is_ok(), good, "{aud} {exp}");
        }
    }

    #[test]
    fn an_assertion_of_the_future_is_refused_beyond_the_leeway() {
        for (at, good) in [(1_060, true), (1_061, false)] {
            let own = claims(json!("a"), 2_000);
            assert_eq!(Claims { nbf: Some(at), ..own.clone() }.check(&["a"], 1_000).is_ok(), good);
            assert_eq!(Claims { iat: Some(at), ..own }.check(&["a"], 1_000).is_ok(), good);
        }
    }

    #[test]
    fn a_jti_is_taken_once_while_its_assertion_lives() {
        let (mut seen, own) = (Seen::default(), claims(json!("a"), 1_100));
        assert!(seen.take(&own, 1_000).is_ok());
        assert!(seen.take(&own, 1_000).is_err());
        let other = Claims { iss: "another".to_owned(), ..own.clone() };
        assert!(seen.take(&other, 1_000).is_ok());
        assert!(seen.take(&own, 1_100).is_ok());
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for text in ["", "nonsense", private] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }
}
