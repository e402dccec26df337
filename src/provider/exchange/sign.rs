//! Signs the JWTs that prove possession of a private key (RFC 7523 §3).
//!
//! A first signature, when the Workspace is made, shows that the key fits its algorithm. It rests sealed and is opened
//! for each signature. What is wrong with a key is said by the name of its field; nothing of it is quoted.

use super::given::{Env, Given};
use super::write::{Filled, fill_json, to_json};
use super::{Error, write};
use crate::provider::recipe::{Algorithm, Assertion, NO_ALGORITHM};
use crate::secret::Sealed;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::sign;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Of an RSA key of 8192 bits, in base64url, and the dots.
const LONGEST_SIGNATURE: usize = 1368;

/// A private key and what it signs with.
pub(super) struct Signer {
    key: Arc<Sealed>,
    algorithm: Algorithm,
}

impl Signer {
    pub(super) fn new(assertion: &Assertion, env: &Env<'_>, key: &Arc<Sealed>) -> Result<Self, Error> {
        let named = assertion.algorithm.expand(env).ok().flatten();
        let Some(algorithm) = named.and_then(|name| Algorithm::named(&name)) else {
            let name = assertion.algorithm.fields().next().map_or("algorithm", |(name, _)| name);
            return Err(Error::Value { name: name.to_owned(), why: NO_ALGORITHM });
        };
        let bad = |why| Error::Value { name: assertion.key.clone(), why };
        let Ok(pem) = key.open(env.given.owner.as_str(), &assertion.key) else {
            return Err(bad("could not be opened"));
        };
        if Self::fits(pem.expose(), algorithm) {
            Ok(Self { key: Arc::clone(key), algorithm })
        } else {
            Err(bad(misfit(pem.expose(), algorithm)))
        }
    }

    /// A first signature shows it.
    fn fits(pem: &str, algorithm: Algorithm) -> bool {
        Self::signature(pem, algorithm, b"").is_some()
    }

    fn signature(pem: &str, algorithm: Algorithm, message: &[u8]) -> Option<String> {
        let pem = pem.as_bytes();
        let key = match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => EncodingKey::from_rsa_pem(pem),
            Algorithm::Es256 | Algorithm::Es384 => EncodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(pem),
        };
        sign(message, &key.ok()?, algorithm.into()).ok()
    }

    /// The JWT for this request, at this Unix time.
    pub(super) fn sign(
        &self,
        assertion: &Assertion,
        env: &Env<'_>,
        now: i64,
    ) -> Result<Zeroizing<String>, write::Error> {
        let mut jwt = self.unsigned(assertion, env, now)?;
        let signature = self.opened_signature(env.given, assertion, jwt.as_bytes())?;
        jwt.push('.');
        jwt.push_str(&signature);
        Ok(jwt)
    }

    /// The same before it is signed, with room for the signature.
    pub(super) fn unsigned(
        &self,
        assertion: &Assertion,
        env: &Env<'_>,
        now: i64,
    ) -> Result<Zeroizing<String>, write::Error> {
        let header = part(&Filled::Object(self.header(assertion, env)?))?;
        let claims = part(&Filled::Object(claims(assertion, env, now)?))?;
        let mut jwt = Zeroizing::new(String::with_capacity(header.len() + claims.len() + LONGEST_SIGNATURE));
        jwt.push_str(&header);
        jwt.push('.');
        jwt.push_str(&claims);
        Ok(jwt)
    }

    fn header<'a>(&self, assertion: &'a Assertion, env: &Env<'_>) -> Result<Vec<(&'a str, Filled<'a>)>, write::Error> {
        let name = Zeroizing::new(self.algorithm.as_str().to_owned());
        let mut header = vec![("alg", Filled::Text(name))];
        if !assertion.header.iter().any(|(name, _)| name == "typ") {
            header.push(("typ", Filled::Text(Zeroizing::new("JWT".to_owned()))));
        }
        for (name, template) in &assertion.header {
            header.extend(template.expand(env)?.map(|text| (name.as_str(), Filled::Text(text))));
        }
        Ok(header)
    }

    fn opened_signature(
        &self,
        given: &Given,
        assertion: &Assertion,
        message: &[u8],
    ) -> Result<Zeroizing<String>, write::Error> {
        let pem = self.key.open(given.owner.as_str(), &assertion.key)?;
        Self::signature(pem.expose(), self.algorithm, message).map(Zeroizing::new).ok_or(write::Error::Signature)
    }
}

/// Why a key does not fit an algorithm: it is one for another, or of a form that is not read.
fn misfit(pem: &str, algorithm: Algorithm) -> &'static str {
    if pem.contains("-----BEGIN EC PRIVATE KEY-----") {
        return "is an EC key in SEC1 form; openssl pkcs8 -topk8 -nocrypt makes the PKCS#8 form of it";
    }
    let others = [
        (Algorithm::Rs256, "is an RSA key, which takes an algorithm such as RS256"),
        (Algorithm::Es256, "is a P-256 key, which takes the algorithm ES256"),
        (Algorithm::Es384, "is a P-384 key, which takes the algorithm ES384"),
        (Algorithm::EdDsa, "is an Ed25519 key, which takes the algorithm EdDSA"),
    ];
    let fitting = others.into_iter().find(|(other, _)| Signer::fits(pem, *other));
    fitting.map_or_else(|| needed(algorithm), |(_, what)| what)
}

fn needed(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => "is no RSA private key in PEM form, of 2048 bits or more",
        Algorithm::Es256 => "is no P-256 private key in PKCS#8 PEM form",
        Algorithm::Es384 => "is no P-384 private key in PKCS#8 PEM form",
        Algorithm::EdDsa => "is no Ed25519 private key in PKCS#8 PEM form",
    }
}

fn claims<'a>(assertion: &'a Assertion, env: &Env<'_>, now: i64) -> Result<Vec<(&'a str, Filled<'a>)>, write::Error> {
    let mut claims = Vec::with_capacity(assertion.claims.len() + 3);
    for (name, value) in &assertion.claims {
        claims.extend(fill_json(value, env)?.map(|value| (name.as_str(), value)));
    }
    let seconds = |of: std::time::Duration| i64::try_from(of.as_secs()).unwrap_or(i64::MAX);
    claims.push(("exp", Filled::Number(now.saturating_add(seconds(assertion.lifetime)).into())));
    if assertion.issued_at {
        claims.push(("iat", Filled::Number(now.saturating_sub(seconds(assertion.backdate)).into())));
    }
    if assertion.id {
        claims.push(("jti", Filled::Text(Zeroizing::new(random_id()?))));
    }
    Ok(claims)
}

/// 128 bits from the system's random numbers.
fn random_id() -> Result<String, write::Error> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).or(Err(write::Error::Signature))?;
    Ok(URL_SAFE_NO_PAD.encode(id))
}

/// A part of a JWT: base64url of JSON, in buffers of the right size.
fn part(value: &Filled<'_>) -> Result<Zeroizing<String>, write::Error> {
    let json = to_json(value)?;
    let length = base64::encoded_len(json.len(), false).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(length));
    URL_SAFE_NO_PAD.encode_string(&*json, &mut text);
    Ok(text)
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Rs384 => Self::RS384,
            Algorithm::Rs512 => Self::RS512,
            Algorithm::Ps256 => Self::PS256,
            Algorithm::Ps384 => Self::PS384,
            Algorithm::Ps512 => Self::PS512,
            Algorithm::Es256 => Self::ES256,
            Algorithm::Es384 => Self::ES384,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests;
