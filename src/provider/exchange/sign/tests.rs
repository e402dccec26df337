use super::super::Fields;
use super::super::given::Opened;
use super::*;
use crate::provider::recipe::template::Template;
use crate::provider::recipe::{Answer, Body, Field, Json, Method, Presence, Presented, Recipe, Request, Source, Step};
use crate::secret::LongLivedSecret;
use crate::token::WorkspaceName;
use jsonwebtoken::{DecodingKey, Validation};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

const NOW: i64 = 1_800_000_000;

fn t(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn assertion() -> Assertion {
    Assertion {
        key: "key".to_owned(),
        algorithm: t("{algorithm}"),
        header: vec![("kid".to_owned(), t("{id}")), ("x5t".to_owned(), t("{none?}"))],
        claims: vec![("iss".to_owned(), Json::Text(t("{id}"))), ("aud".to_owned(), Json::Text(t("{endpoint}")))],
        lifetime: Duration::from_secs(300),
        backdate: Duration::from_secs(60),
        issued_at: true,
        id: true,
    }
}

fn recipe() -> Recipe {
    let field = |name: &str| Field { name: name.to_owned(), presence: Presence::Optional };
    let answer = Answer {
        success: vec![200],
        when: Vec::new(),
        failures: Vec::new(),
        token: Source::Body,
        scheme: None,
        refresh_token: None,
        expiry: Vec::new(),
        extra_headers: Vec::new(),
        attributes: Vec::new(),
    };
    let request = Request {
        method: Method::Post,
        path: t(""),
        query: Vec::new(),
        headers: Vec::new(),
        basic: None,
        body: Body::Empty,
        assertion: Some(assertion()),
        extra: false,
    };
    Recipe {
        secrets: vec![field("key")],
        parameters: ["algorithm", "id", "none"].map(field).to_vec(),
        login: Step { request, answer },
        refresh: None,
        switch: None,
        presentation: Presented { header: "authorization".to_owned(), scheme: String::new() },
        tenant: None,
        needs_store: false,
    }
}

fn given(recipe: &Recipe, algorithm: &str) -> Given {
    let parameters = [("algorithm", algorithm), ("id", "me")];
    let fields = Fields {
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Fields::default()
    };
    Given::new(recipe, WorkspaceName::parse("t").unwrap(), fields, &["key"]).unwrap().0
}

fn made(pem: &str, algorithm: &str) -> Result<Signer, Error> {
    let recipe = recipe();
    let given = given(&recipe, algorithm);
    let key = Arc::new(Sealed::new(&LongLivedSecret::new(pem), "t", "key"));
    Signer::new(&assertion(), &Env::new(&recipe, &given, &Opened::default()), &key)
}

fn signed(signer: &Signer) -> Zeroizing<String> {
    let recipe = recipe();
    let given = given(&recipe, "");
    let opened = Opened::default();
    let env = Env { endpoint: "https://api.example/token", ..Env::new(&recipe, &given, &opened) };
    signer.sign(&assertion(), &env, NOW).unwrap()
}

fn verified(jwt: &str, key: &DecodingKey, algorithm: jsonwebtoken::Algorithm) -> (jsonwebtoken::Header, Value) {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&["https://api.example/token"]);
    validation.validate_exp = false;
    let data = jsonwebtoken::decode(jwt, key, &validation).unwrap();
    (data.header, data.claims)
}

fn pair(of: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(of).unwrap()
}

type Public = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;

#[test]
fn the_public_key_verifies_what_was_signed() {
    let table: [(&[&str], KeyPair, Public); 4] = [
        (&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], pair(&PKCS_RSA_SHA256), DecodingKey::from_rsa_pem),
        (&["ES256"], pair(&PKCS_ECDSA_P256_SHA256), DecodingKey::from_ec_pem),
        (&["ES384"], pair(&PKCS_ECDSA_P384_SHA384), DecodingKey::from_ec_pem),
        (&["EdDSA"], pair(&PKCS_ED25519), DecodingKey::from_ed_pem),
    ];
    for (algorithms, pair, public) in table {
        let public = public(pair.public_key_pem().as_bytes()).unwrap();
        for name in algorithms {
            let signer = made(&pair.serialize_pem(), name).unwrap();
            let (header, claims) = verified(&signed(&signer), &public, Algorithm::named(name).unwrap().into());
            assert_eq!((header.typ.as_deref(), header.kid.as_deref(), header.x5t), (Some("JWT"), Some("me"), None));
            assert_eq!(claims["iss"], "me");
            assert_eq!((claims["exp"].as_i64(), claims["iat"].as_i64()), (Some(NOW + 300), Some(NOW - 60)));
            assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
        }
    }
}

#[test]
fn no_two_assertions_are_the_same() {
    let signer = made(&pair(&PKCS_ED25519).serialize_pem(), "EdDSA").unwrap();
    let all: HashSet<String> = (0..100).map(|_| signed(&signer).to_string()).collect();
    assert_eq!(all.len(), 100);
}

#[test]
fn a_key_that_does_not_fit_is_named_and_not_quoted() {
    let (p256, p384) = (pair(&PKCS_ECDSA_P256_SHA256).serialize_pem(), pair(&PKCS_ECDSA_P384_SHA384).serialize_pem());
    let (ed, rsa) = (pair(&PKCS_ED25519).serialize_pem(), pair(&PKCS_RSA_SHA256).serialize_pem());
    let table = [
        ("", "RS256", "is no RSA private key in PEM form, of 2048 bits or more"),
        ("hunter2", "ES256", "is no P-256 private key in PKCS#8 PEM form"),
        (
            "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
            "EdDSA",
            "is no Ed25519 private key in PKCS#8 PEM form",
        ),
        (p256.as_str(), "RS256", "is a P-256 key, which takes the algorithm ES256"),
        (p256.as_str(), "ES384", "is a P-256 key, which takes the algorithm ES256"),
        (p384.as_str(), "ES256", "is a P-384 key, which takes the algorithm ES384"),
        (ed.as_str(), "ES256", "is an Ed25519 key, which takes the algorithm EdDSA"),
        (rsa.as_str(), "EdDSA", "is an RSA key, which takes an algorithm such as RS256"),
        (
            "-----BEGIN EC PRIVATE KEY-----\naHVudGVyMg==\n-----END EC PRIVATE KEY-----\n",
            "ES256",
            "is an EC key in SEC1 form; openssl pkcs8 -topk8 -nocrypt makes the PKCS#8 form of it",
        ),
    ];
    for (pem, algorithm, expected) in table {
        let error = made(pem, algorithm).err().unwrap();
        assert_eq!(error, Error::Value { name: "key".to_owned(), why: expected });
    }
    for unknown in ["HS256", "none", "", "rs256"] {
        let error = made(&ed, unknown).err().unwrap();
        assert_eq!(error.to_string(), format!("algorithm {NO_ALGORITHM}"));
    }
}
