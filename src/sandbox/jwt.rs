//! The tokens that the simulated emnify mints: HS384, eight claims in the order seen on the wire. Pure.
//!
//! Promises that a token of this sandbox looks like a recorded one byte for byte (header, names, order), and that a
//! verdict on a foreign token says what the real gateway's library would. Must not know who asks, or for what.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac, digest::KeyInit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Sha256, Sha384, Sha512};
use std::fmt;
use std::time::Duration;

/// No `typ`, no `kid`: observed in every recorded token.
const HEADER: &str = r#"{"alg":"HS384"}"#;

/// The claims of an `auth_token`, in wire order. Names hold dots; nothing is nested.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// User-derived tokens only; recorded in 2019, its place in the order is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<String>,
    pub(super) aud: String,
    /// The application token's id (inferred); absent in user-derived tokens.
    #[serde(rename = "esc.app", default, skip_serializing_if = "Option::is_none")]
    pub(super) app: Option<u64>,
    pub(super) api_key: String,
    #[serde(rename = "esc.org")]
    pub(super) organisation: u64,
    #[serde(rename = "esc.orgName")]
    pub(super) organisation_name: String,
    pub(super) iss: String,
    /// Unix seconds.
    pub(super) exp: u64,
    /// Unix seconds, equal to the answer's `Date`.
    pub(super) iat: u64,
}

/// What the sandbox signs with.
#[derive(Clone)]
pub(super) struct Key(Vec<u8>);

/// Why a bearer token is refused. The texts are those of golang-jwt v3/v4, whose message for a malformed token is what
/// the recordings show; all but that one are inferred from the library and were not observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Observed in 24 recordings.
    #[error("token contains an invalid number of segments")]
    Segments,
    #[error("illegal base64 data at input byte 0")]
    Encoding,
    #[error("signature is invalid")]
    Signature,
    #[error("token is expired by {}", GoDuration(*by))]
    Expired { by: Duration },
    /// Rejected by order of the control API; the text is made up.
    #[error("token is revoked")]
    Rejected,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("app", &self.app)
            .field("organisation", &self.organisation)
            .field("exp", &self.exp)
            .field("iat", &self.iat)
            .finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// A signed `auth_token`.
    pub(super) fn sign(&self, claims: &Claims) -> String {
        let signed = format!("{}.{}", encode(HEADER), encode(json(claims)));
        let signature = encode(self.hs384(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// A string that looks like an emnify application token: a JWT of HS512 size without an `exp`.
    pub(super) fn sign_application_token(&self, claims: &Value) -> String {
        let header = encode(r#"{"alg":"HS512"}"#);
        let signed = format!("{header}.{}", encode(claims.to_string()));
        let signature = keyed::<Hmac<Sha512>>(&self.0).chain_update(&signed);
        format!("{signed}.{}", encode(signature.finalize().into_bytes()))
    }

    /// The claims of a token that this key signed, whatever its age.
    pub(super) fn open(&self, token: &str) -> Result<Claims, Refusal> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Segments);
        };
        let header_bytes = decode(header)?;
        let claims = decode(payload)?;
        let signature = decode(signature)?;
        let mac = self.hs384(&format!("{header}.{payload}"));
        if header_bytes != HEADER.as_bytes() || mac.verify_slice(&signature).is_err() {
            return Err(Refusal::Signature);
        }
        serde_json::from_slice(&claims).or(Err(Refusal::Encoding))
    }

    /// The claims of a token that this key signed and that is not over at `now` (Unix seconds).
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Claims, Refusal> {
        let claims = self.open(token)?;
        match now.checked_sub(claims.exp) {
            Some(by) => Err(Refusal::Expired { by: Duration::from_secs(by) }),
            None => Ok(claims),
        }
    }

    pub(super) fn hs256(&self, signed: &str) -> Hmac<Sha256> {
        keyed::<Hmac<Sha256>>(&self.0).chain_update(signed)
    }

    fn hs384(&self, signed: &str) -> Hmac<Sha384> {
        keyed::<Hmac<Sha384>>(&self.0).chain_update(signed)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// A duration as Go prints it: `1h0m5s`.
struct GoDuration(Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", seconds % 60)
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104 §2)")]
fn keyed<M: Mac + KeyInit>(key: &[u8]) -> M {
    <M as Mac>::new_from_slice(key).expect("any length will do")
}

#[expect(clippy::expect_used, reason = "numbers and texts always have a JSON form")]
fn json(claims: &Claims) -> String {
    serde_json::to_string(claims).expect("plain data")
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).or(Err(Refusal::Encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            sub: None,
            aud: "/api/v1/authentication".to_owned(),
            app: Some(7),
            api_key: String::new(),
            organisation: 42,
            organisation_name: "Acme".to_owned(),
            iss: "spc-frontend001@spc-frontend".to_owned(),
            exp: 15_400,
            iat: 1_000,
        }
    }

    fn key() -> Key {
        Key::new(b"a key")
    }

    #[test]
    fn header_and_claims_are_those_on_the_wire_in_order() {
        let token = key().sign(&claims());
        let parts: Vec<_> = token.split('.').map(|p| decode(p).unwrap()).collect();
        assert_eq!(parts[0], br#"{"alg":"HS384"}"#);
        assert_eq!(
            String::from_utf8(parts[1].clone()).unwrap(),
            concat!(
                r#"{"aud":"/api/v1/authentication","esc.app":7,"api_key":"","esc.org":42,"esc.orgName":"Acme","#,
                r#""iss":"spc-frontend001@spc-frontend","exp":15400,"iat":1000}"#
            )
        );
        assert_eq!(parts[2].len(), 48);
    }

    /// Computed with Python's `hmac` and `hashlib`.
    #[test]
    fn the_signature_is_hmac_sha384() {
        let mac = key().hs384("header.payload").finalize().into_bytes();
        assert_eq!(encode(mac), "IFIG0-dFyPfbNTaLMPpAmuwyb7MmAum6ZJAmB2yd0BrA_7oV7u-AeY5xJhk5DCMC");
    }

    #[test]
    fn a_signed_token_is_good_until_its_exp() {
        let token = key().sign(&claims());
        assert_eq!(key().verify(&token, 15_399), Ok(claims()));
        let by = Duration::ZERO;
        assert_eq!(key().verify(&token, 15_400), Err(Refusal::Expired { by }));
        let by = Duration::from_secs(3_605);
        let refusal = key().verify(&token, 19_005).unwrap_err();
        assert_eq!(refusal, Refusal::Expired { by });
        assert_eq!(refusal.to_string(), "token is expired by 1h0m5s");
    }

    #[test]
    fn a_foreign_or_edited_token_is_refused() {
        let token = Key::new(b"another").sign(&claims());
        assert_eq!(key().verify(&token, 0), Err(Refusal::Signature));
        let good = key().sign(&claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let other = Claims { organisation: 43, ..claims() };
        let edited = format!("{}.{}.{signature}", encode(HEADER), encode(json(&other)));
        assert_eq!(key().verify(&edited, 0), Err(Refusal::Signature));
        let unsigned = format!("{signed}.");
        assert_eq!(key().verify(&unsigned, 0), Err(Refusal::Signature));
        let (_, payload) = signed.split_once('.').unwrap();
        let header = encode(r#"{"alg":"none"}"#);
        let none = format!("{header}.{payload}.{signature}");
        assert_eq!(key().verify(&none, 0), Err(Refusal::Signature));
    }

    #[test]
    fn a_malformed_token_is_refused_by_its_segments_first() {
        for text in ["", "None", "a.b", "a.b.c.d"] {
            assert_eq!(key().verify(text, 0), Err(Refusal::Segments), "{text}");
        }
        assert_eq!(key().verify("a.b.!", 0), Err(Refusal::Encoding));
    }
}
