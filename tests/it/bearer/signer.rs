//! Keys of issuers, and tokens signed with them: also such as no library would sign.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) struct Signer {
    pub(crate) kid: String,
    key: Key,
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn rsa(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), key: Key::P256(key) }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), key: Key::P384(key) }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    /// The public half, as an issuer publishes it.
    pub(crate) fn jwk(&self) -> Value {
        let point = |curve: &str, public: &[u8]| {
            let (x, y) = public[1..].split_at((public.len() - 1) / 2);
            json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
        };
        let mut jwk = match &self.key {
            Key::Rsa(key) => {
                let public = key.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            Key::P256(key) => point("P-256", key.public_key().as_ref()),
            Key::P384(key) => point("P-384", key.public_key().as_ref()),
            Key::Ed25519(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key()) }),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// What this key is normally used with.
    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.key {
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "JWT" })
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signed(&self.header(), claims)
    }

    /// Signed as the header says, or as this key can.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        self.signed_raw(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn signed_raw(&self, header: &str, claims: &str) -> String {
        let said = serde_json::from_str::<Value>(header).unwrap_or_default();
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(signed.as_bytes(), said["alg"].as_str().unwrap_or_default());
        format!("{signed}.{}", encode(signature))
    }

    pub(crate) fn sign(&self, message: &[u8], algorithm: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    "PS512" => &RSA_PSS_SHA512,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Key::P256(key) | Key::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The confusion of old: the public key, which everybody has, taken for a shared secret.
    pub(crate) fn confused(&self, claims: &Value) -> Vec<String> {
        let Key::Rsa(key) = &self.key else { panic!("an RSA key") };
        let der = key.public_key().as_der().unwrap();
        let jwk = self.jwk();
        let secrets = [der.as_ref().to_vec(), jwk["n"].as_str().unwrap().as_bytes().to_vec(), Vec::new()];
        let header = json!({ "alg": "HS256", "kid": self.kid });
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let sign = |secret: Vec<u8>| {
            let mut mac = hmac::Hmac::<Sha256>::new_from_slice(&secret).unwrap();
            mac.update(signed.as_bytes());
            format!("{signed}.{}", encode(mac.finalize().into_bytes()))
        };
        secrets.map(sign).to_vec()
    }
}
