//! Keys that are made for the tests, since none lies in the repository, and JWTs.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::Value;
use std::sync::LazyLock;

static RSA: LazyLock<String> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());
static P256: LazyLock<String> =
    LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());

/// A secret of a case: as it stands there, or a key of this kind.
pub(super) fn secret(text: &str) -> String {
    match text {
        "generated:rsa" => RSA.clone(),
        "generated:p256" => P256.clone(),
        other => other.to_owned(),
    }
}

/// Whether a JWT was signed with one of the keys.
pub(super) fn signed(jwt: &str) -> bool {
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verify = |algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm, pem: &str| {
        let key = KeyPair::from_pem(pem).unwrap();
        let key = rcgen::PublicKeyData::der_bytes(&key).to_vec();
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, key);
        key.verify(message.as_bytes(), &signature).is_ok()
    };
    match header(jwt).as_deref() {
        Some("RS256") => verify(&aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256, &RSA),
        Some("PS256") => verify(&aws_lc_rs::signature::RSA_PSS_2048_8192_SHA256, &RSA),
        Some("ES256") => verify(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, &P256),
        _ => false,
    }
}

fn header(jwt: &str) -> Option<String> {
    let (header, _) = decoded(jwt)?;
    Some(header.get("alg")?.as_str()?.to_owned())
}

/// Header and claims of what is a JWT.
pub(super) fn decoded(text: &str) -> Option<(Value, Value)> {
    let parts: Vec<_> = text.split('.').collect();
    let [header, claims, _] = parts.as_slice() else { return None };
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    Some((read(header)?, read(claims)?)).filter(|(header, claims)| header.is_object() && claims.is_object())
}

/// A JWT without a signature, ending in its last dot.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}
