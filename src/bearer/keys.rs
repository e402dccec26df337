//! The public keys of an issuer (RFC 7517), and which of them a token is to be verified with. Pure.
//!
//! A set is taken as a whole or not at all; in a set that is taken, a key that is of no use here (for encryption, of a
//! strange kind, too short, with its private half published) is left out. Symmetric keys are of no use here, and no
//! algorithm that takes one has a name in this module: what an issuer publishes can't become a shared secret.

use crate::jwt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most keys that a set may list, of whatever kind.
pub const MOST_KEYS: usize = 64;

/// The longest `kid`, in bytes, of a key or of a token.
pub(super) const LONGEST_KID: usize = 256;

/// The smallest and the largest RSA modulus, in bytes.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// A way to sign that a caller's token may use. There is none with a shared secret, and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 using SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 using SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 using SHA-512.
    Rs512,
    /// RSASSA-PSS using SHA-256.
    Ps256,
    /// RSASSA-PSS using SHA-384.
    Ps384,
    /// RSASSA-PSS using SHA-512.
    Ps512,
    /// ECDSA using P-256 and SHA-256.
    Es256,
    /// ECDSA using P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// What a key can sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// One public key.
pub(super) struct Key {
    kid: Option<String>,
    /// The one algorithm that it is for, if it says so.
    only: Option<Algorithm>,
    kind: Kind,
    public: DecodingKey,
    thumbprint: [u8; 32],
    /// Goes when the issuer no longer publishes it, and never comes back.
    trusted: AtomicBool,
}

/// The keys of an issuer that are of use.
#[derive(Debug)]
pub struct KeySet(Vec<Arc<Key>>);

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not a JSON object, or one with two members of one name.
    #[error("is not a JSON object without repeated members")]
    Json,
    /// No `keys`.
    #[error("has no array named \"keys\"")]
    Keys,
    /// More than [`MOST_KEYS`].
    #[error("lists more than 64 keys")]
    TooMany,
    /// Nothing in it verifies a token.
    #[error("holds no key that could verify a token")]
    Nothing,
}

/// Why no key of a set is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// None has this `kid`.
    Unknown,
    /// None that it could mean signs with this algorithm.
    Algorithm,
    /// More than one could be meant.
    Ambiguous,
}

// === impl Algorithm ===

impl Algorithm {
    /// All of them, by the names of RFC 7518 and RFC 8037.
    pub const ALL: [(&'static str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The algorithm of this name, in this very spelling.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    fn kind(self) -> Kind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Kind::Rsa,
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::EdDsa => Kind::Ed25519,
        }
    }

    fn verifier(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Rs512 => jsonwebtoken::Algorithm::RS512,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Ps384 => jsonwebtoken::Algorithm::PS384,
            Self::Ps512 => jsonwebtoken::Algorithm::PS512,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

// === impl KeySet ===

impl KeySet {
    /// Reads a set.
    pub fn parse(json: &[u8]) -> Result<Self, Unusable> {
        let set = jwt::unique_object(json).or(Err(Unusable::Json))?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(Unusable::Keys)?;
        if listed.len() > MOST_KEYS {
            return Err(Unusable::TooMany);
        }
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(listed.len());
        for key in listed.iter().filter_map(Value::as_object).filter_map(Key::read) {
            if !keys.iter().any(|known| known.is(&key)) {
                keys.push(Arc::new(key));
            }
        }
        if keys.is_empty() { Err(Unusable::Nothing) } else { Ok(Self(keys)) }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, which no set that was read is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same set with what is still in it taken from `old`, so that what those keys verified still counts.
    #[must_use]
    pub(super) fn continuing(self, old: &Self) -> Self {
        let kept = |key: Arc<Key>| old.0.iter().find(|known| known.is(&key)).map_or(key, Arc::clone);
        Self(self.0.into_iter().map(kept).collect())
    }

    /// A set of the same keys, none of which has verified anything yet.
    #[must_use]
    pub(super) fn anew(&self) -> Self {
        Self(self.0.iter().map(|key| Arc::new(key.anew())).collect())
    }

    /// The keys that are not in `next`: the very ones, not their like.
    pub(super) fn gone_in<'k>(&'k self, next: &'k Self) -> impl Iterator<Item = &'k Arc<Key>> {
        self.0.iter().filter(|key| !next.0.iter().any(|other| Arc::ptr_eq(key, other)))
    }

    /// No key of it counts any longer.
    pub fn distrust(&self) {
        for key in &self.0 {
            key.distrust();
        }
    }

    /// The one key that a token with this header is verified with. A token without a `kid` needs no key but one that
    /// could be meant.
    pub(super) fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Arc<Key>, Unfit> {
        let named = || self.0.iter().filter(|key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)));
        let mut fitting = named().filter(|key| key.signs_with(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(Unfit::Ambiguous),
            (None, _) if named().next().is_none() => Err(Unfit::Unknown),
            (None, _) => Err(Unfit::Algorithm),
        }
    }
}

// === impl Key ===

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).map(|value| value.as_str()).unwrap_or_default();
        let is_for_signing = jwk.get("use").is_none_or(is_to_sign_tokens);
        let verifies = jwk.get("key_ops").is_none_or(|ops| ops.as_array().is_some_and(|ops| verify_is_in(ops)));
        // A private half that is published is nobody's any longer.
        if !is_for_signing || !verifies || jwk.contains_key("d") || jwk.contains_key("k") {
            return None;
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().filter(|kid| (1..=LONGEST_KID).contains(&kid.len()))?.to_owned()),
        };
        let only = match jwk.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::parse(name.as_str()?)?),
        };
        let (family, public, thumbprint) = match (text("kty")?, text("crv")) {
            ("RSA", _) => rsa(text("n")?, text("e")?)?,
            ("EC", Some("P-256")) => ec((Kind::P256, "P-256", 32), text("x")?, text("y")?)?,
            ("EC", Some("P-384")) => ec((Kind::P384, "P-384", 48), text("x")?, text("y")?)?,
            ("OKP", Some("Ed25519")) => ed25519(text("x")?)?,
            _ => return None,
        };
        let fits = only.is_none_or(|algorithm| algorithm.kind() == family);
        fits.then_some(Self { kid, only, kind: family, public, thumbprint, trusted: AtomicBool::new(true) })
    }

    fn is(&self, other: &Self) -> bool {
        (self.thumbprint, &self.kid, self.only) == (other.thumbprint, &other.kid, other.only)
    }

    fn anew(&self) -> Self {
        let Self { kid, only, kind, public, thumbprint, trusted: _ } = self;
        let (kid, public) = (kid.clone(), public.clone());
        Self { kid, only: *only, kind: *kind, public, thumbprint: *thumbprint, trusted: AtomicBool::new(true) }
    }

    fn signs_with(&self, algorithm: Algorithm) -> bool {
        algorithm.kind() == self.kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether the issuer still publishes it.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// It no longer counts.
    pub(super) fn distrust(&self) {
        self.trusted.store(false, Ordering::Release);
    }

    /// Whether this key made this signature (base64url) of this text.
    pub(super) fn verifies(&self, signed: &str, signature: &str, algorithm: Algorithm) -> bool {
        let verified = jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.public, algorithm.verifier());
        self.signs_with(algorithm) && verified.unwrap_or(false)
    }
}

/// Public, and long: the thumbprint (RFC 7638) is enough to tell it by.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kind", &self.kind)
            .field("only", &self.only)
            .field("thumbprint", &URL_SAFE_NO_PAD.encode(self.thumbprint))
            .finish_non_exhaustive()
    }
}

/// `sig` by RFC 7517 §4.2; in the bundle of a SPIFFE trust domain, `jwt-svid` (SPIFFE Trust Domain and Bundle §4.2.2),
/// which also lists its X.509 authorities: those sign no tokens.
fn is_to_sign_tokens(purpose: &Value) -> bool {
    purpose == "sig" || purpose == "jwt-svid"
}

fn verify_is_in(operations: &[Value]) -> bool {
    operations.iter().any(|operation| operation == "verify")
}

fn rsa(n: &str, e: &str) -> Option<(Kind, DecodingKey, [u8; 32])> {
    let (n, e) = (number(n)?, number(e)?);
    let plausible = RSA_MODULUS.contains(&n.len()) && e.len() <= 5 && e.last()? % 2 == 1 && e.as_slice() != [1];
    let members = [("e", encode(&e)), ("kty", "RSA".to_owned()), ("n", encode(&n))];
    plausible.then(|| (Kind::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), thumbprint(&members)))
}

fn ec((kind, curve, length): (Kind, &str, usize), x: &str, y: &str) -> Option<(Kind, DecodingKey, [u8; 32])> {
    let (x, y) = (coordinate(x, length)?, coordinate(y, length)?);
    let public = DecodingKey::from_ec_components(&x, &y).ok()?;
    let members = [("crv", curve.to_owned()), ("kty", "EC".to_owned()), ("x", x), ("y", y)];
    Some((kind, public, thumbprint(&members)))
}

fn ed25519(x: &str) -> Option<(Kind, DecodingKey, [u8; 32])> {
    let x = coordinate(x, 32)?;
    let public = DecodingKey::from_ed_components(&x).ok()?;
    let members = [("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)];
    Some((Kind::Ed25519, public, thumbprint(&members)))
}

/// A big-endian number; zeros before it, which RFC 7518 §6.3.1 forbids and some issuers write, are dropped.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

/// The text itself, if it is a coordinate of this length in bytes.
fn coordinate(text: &str, length: usize) -> Option<String> {
    URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == length).map(|_| text.to_owned())
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 7638: the members in the order of their names, without a blank. None needs escaping.
fn thumbprint(members: &[(&str, String)]) -> [u8; 32] {
    let written: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    Sha256::digest(format!("{{{}}}", written.join(","))).into()
}

#[cfg(test)]
mod tests;
