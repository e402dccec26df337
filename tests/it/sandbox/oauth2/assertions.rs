//! Signed assertions (RFC 7523), to authenticate a client and as a grant.

use super::{CREDENTIALS, RESOURCE, Running, SECRET, assert_refused, claims, granted, seconds, text_at, with_clients};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, SignatureAlgorithm};
use reqwest::Response;
use serde_json::{Value, json};
use token_broker::sandbox::{Client, Grant, Method, Refresh};

const ASSERTION_TYPE: (&str, &str) =
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
const JWT_BEARER: (&str, &str) = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
const ISSUER: &str = "https://sandbox.example/oauth2";
const ID: &str = "key-client";

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn p256() -> KeyPair {
    key(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn client(key: &KeyPair) -> Client {
    Client::new(ID).scopes(&["read", "write"]).key(&key.public_key_pem()).unwrap()
}

/// With a client that has this key.
async fn start(key: &KeyPair) -> Running {
    with_clients([client(key)], Refresh::Kept).await
}

fn sign(key: &KeyPair, algorithm: Algorithm, claims: &Value) -> String {
    let pem = key.serialize_pem();
    let key = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    encode(&Header::new(algorithm), claims, &key.unwrap()).unwrap()
}

/// Claims that are good now.
fn good(sandbox: &Running, jti: &str) -> Value {
    let now = seconds(sandbox.control.now());
    json!({ "iss": ID, "sub": ID, "aud": sandbox.url(super::TOKEN), "iat": now, "exp": now + 60, "jti": jti })
}

/// The same with one claim changed, or left out where it is null.
fn but(mut claims: Value, name: &str, value: Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    members.remove(name);
    if !value.is_null() {
        members.insert(name.to_owned(), value);
    }
    claims
}

async fn authenticate(sandbox: &Running, assertion: &str) -> Response {
    let fields = [CREDENTIALS, ASSERTION_TYPE, ("client_assertion", assertion)];
    sandbox.token_request(&fields).send().await.unwrap()
}

async fn bear(sandbox: &Running, assertion: &str, more: &[(&str, &str)]) -> Response {
    let fields = [JWT_BEARER, ("assertion", assertion)];
    sandbox.token_request(&[&fields, more].concat()).send().await.unwrap()
}

#[tokio::test]
async fn a_client_proves_itself_with_any_of_four_algorithms() {
    for (kind, algorithm) in [
        (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
        (&rcgen::PKCS_RSA_SHA256, Algorithm::PS256),
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
    ] {
        let key = key(kind);
        let sandbox = start(&key).await;
        let body = granted(authenticate(&sandbox, &sign(&key, algorithm, &good(&sandbox, "1"))).await).await;
        let jwt = text_at(&body, "access_token");
        assert_eq!(claims(&jwt)["sub"], ID, "{algorithm:?}");
        assert_eq!(sandbox.get(RESOURCE, &jwt).await.status(), 200);
    }
}

#[tokio::test]
async fn the_audience_is_the_token_url_or_the_issuer() {
    let key = p256();
    let sandbox = start(&key).await;
    for (jti, aud, taken) in [
        ("1", json!(ISSUER), true),
        ("2", json!(["https://other.example", ISSUER]), true),
        ("3", json!("https://other.example"), false),
        ("4", json!(sandbox.url("/oauth2")), false),
        ("5", Value::Null, false),
    ] {
        let claims = but(good(&sandbox, jti), "aud", aud.clone());
        let response = authenticate(&sandbox, &sign(&key, Algorithm::ES256, &claims)).await;
        assert_eq!(response.status() == 200, taken, "{aud}");
    }
}

#[tokio::test]
async fn claims_that_are_wrong_are_refused() {
    let key = p256();
    let sandbox = start(&key).await;
    let now = seconds(sandbox.control.now());
    for (name, value) in [
        ("iss", json!("nobody")),
        ("iss", json!("sandbox-client")),
        ("sub", json!("somebody else")),
        ("sub", Value::Null),
        ("exp", json!(now)),
        ("exp", json!(now + 3_700)),
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("nbf", json!(now + 120)),
        ("iat", json!(now + 120)),
        ("jti", Value::Null),
    ] {
        let claims = but(good(&sandbox, "1"), name, value.clone());
        let response = authenticate(&sandbox, &sign(&key, Algorithm::ES256, &claims)).await;
        assert_refused(response, "invalid_client").await;
    }
    let hour = but(good(&sandbox, "1"), "exp", json!(now + 3_590));
    granted(authenticate(&sandbox, &sign(&key, Algorithm::ES256, &hour)).await).await;
}

#[tokio::test]
async fn an_assertion_is_taken_once() {
    let key = p256();
    let sandbox = start(&key).await;
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "once"));
    granted(authenticate(&sandbox, &assertion).await).await;
    assert_refused(authenticate(&sandbox, &assertion).await, "invalid_client").await;
    let other = sign(&key, Algorithm::ES256, &good(&sandbox, "another"));
    granted(authenticate(&sandbox, &other).await).await;
}

#[tokio::test]
async fn the_sandboxs_clock_judges_an_assertion() {
    let key = p256();
    let sandbox = start(&key).await;
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "1"));
    sandbox.pass(61);
    assert_refused(authenticate(&sandbox, &assertion).await, "invalid_client").await;
    granted(authenticate(&sandbox, &sign(&key, Algorithm::ES256, &good(&sandbox, "2"))).await).await;
}

#[tokio::test]
async fn a_signature_must_be_of_the_clients_own_key() {
    let (own, foreign, rsa) = (p256(), p256(), key(&rcgen::PKCS_RSA_SHA256));
    let sandbox = start(&own).await;
    let claims = good(&sandbox, "1");
    let signed = sign(&own, Algorithm::ES256, &claims);
    let (head, _) = signed.rsplit_once('.').unwrap();
    let public = own.public_key_pem();
    let by_text = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(public.as_bytes()));
    for forged in [
        sign(&foreign, Algorithm::ES256, &claims),
        sign(&rsa, Algorithm::RS256, &claims),
        by_text.unwrap(),
        format!("{head}."),
        "a.b.c".to_owned(),
        "nonsense".to_owned(),
    ] {
        assert_refused(authenticate(&sandbox, &forged).await, "invalid_client").await;
    }
    granted(authenticate(&sandbox, &signed).await).await;
}

#[tokio::test]
async fn a_client_may_have_several_keys() {
    let (old, new) = (key(&rcgen::PKCS_ED25519), p256());
    let sandbox = with_clients([client(&old).key(&new.public_key_pem()).unwrap()], Refresh::Kept).await;
    granted(authenticate(&sandbox, &sign(&old, Algorithm::EdDSA, &good(&sandbox, "1"))).await).await;
    granted(authenticate(&sandbox, &sign(&new, Algorithm::ES256, &good(&sandbox, "2"))).await).await;
}

#[tokio::test]
async fn the_parameters_around_an_assertion_must_fit() {
    let key = p256();
    let sandbox = start(&key).await;
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "1"));
    let ask =
        async |fields: &[(&str, &str)]| sandbox.token_request(&[&[CREDENTIALS], fields].concat()).send().await.unwrap();
    let assertion = ("client_assertion", assertion.as_str());
    assert_refused(ask(&[assertion]).await, "invalid_request").await;
    assert_refused(ask(&[ASSERTION_TYPE]).await, "invalid_request").await;
    assert_refused(ask(&[assertion, ("client_assertion_type", "urn:x")]).await, "invalid_client").await;
    assert_refused(ask(&[assertion, ASSERTION_TYPE, ("client_id", "other")]).await, "invalid_client").await;
    assert_refused(ask(&[assertion, ASSERTION_TYPE, ("client_secret", SECRET)]).await, "invalid_request").await;
    granted(ask(&[assertion, ASSERTION_TYPE, ("client_id", ID)]).await).await;
}

#[tokio::test]
async fn a_client_that_may_not_use_its_key_is_refused() {
    let key = p256();
    let by_secret = client(&key).secret("s").methods(&[Method::Basic]);
    let sandbox = with_clients([by_secret], Refresh::Kept).await;
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "1"));
    assert_refused(authenticate(&sandbox, &assertion).await, "invalid_client").await;
}

#[tokio::test]
async fn keys_are_registered_while_the_sandbox_runs() {
    let key = p256();
    let sandbox = Running::start().await;
    let new = json!({ "id": ID, "public_key": key.public_key_pem() });
    assert_eq!(sandbox.send("/_control/client", &new).await.status(), 204);
    granted(authenticate(&sandbox, &sign(&key, Algorithm::ES256, &good(&sandbox, "1"))).await).await;
    assert!(Client::new(ID).key(&key.serialize_pem()).is_err(), "a private key is none to register");
}

#[tokio::test]
async fn as_a_grant_an_assertion_needs_no_client_authentication() {
    let key = key(&rcgen::PKCS_RSA_SHA256);
    let sandbox = start(&key).await;
    let claims_of = but(but(good(&sandbox, "1"), "sub", json!("somebody")), "jti", Value::Null);
    let assertion = sign(&key, Algorithm::RS256, &claims_of);
    for _ in 0..2 {
        let body = granted(bear(&sandbox, &assertion, &[]).await).await;
        assert!(body.get("refresh_token").is_none());
        let said = claims(&text_at(&body, "access_token"));
        assert_eq!((&said["sub"], &said["client_id"]), (&json!("somebody"), &json!(ID)));
    }
}

#[tokio::test]
async fn as_a_grant_it_may_carry_the_scope() {
    let key = p256();
    let sandbox = start(&key).await;
    let scoped = |jti| but(good(&sandbox, jti), "scope", json!("read"));
    let body = granted(bear(&sandbox, &sign(&key, Algorithm::ES256, &scoped("1")), &[]).await).await;
    assert_eq!(body["scope"], "read");
    let asked = [("scope", "write")];
    let body = granted(bear(&sandbox, &sign(&key, Algorithm::ES256, &scoped("2")), &asked).await).await;
    assert_eq!(body["scope"], "write");
    let foreign = but(good(&sandbox, "3"), "scope", json!("admin"));
    assert_refused(bear(&sandbox, &sign(&key, Algorithm::ES256, &foreign), &[]).await, "invalid_scope").await;
}

#[tokio::test]
async fn as_a_grant_what_is_wrong_with_it_is_an_invalid_grant() {
    let (own, foreign) = (p256(), p256());
    let sandbox = start(&own).await;
    let now = seconds(sandbox.control.now());
    for (name, value) in
        [("iss", json!("nobody")), ("aud", json!("x")), ("exp", json!(now)), ("exp", json!(now + 3_700))]
    {
        let claims = but(good(&sandbox, "1"), name, value);
        let response = bear(&sandbox, &sign(&own, Algorithm::ES256, &claims), &[]).await;
        assert_refused(response, "invalid_grant").await;
    }
    let forged = sign(&foreign, Algorithm::ES256, &good(&sandbox, "1"));
    assert_refused(bear(&sandbox, &forged, &[]).await, "invalid_grant").await;
    assert_refused(bear(&sandbox, "nonsense", &[]).await, "invalid_grant").await;
    assert_refused(bear(&sandbox, "", &[]).await, "invalid_request").await;
    let twice = sign(&own, Algorithm::ES256, &good(&sandbox, "2"));
    granted(bear(&sandbox, &twice, &[]).await).await;
    assert_refused(bear(&sandbox, &twice, &[]).await, "invalid_grant").await;
}

#[tokio::test]
async fn as_a_grant_it_is_for_its_signer_alone() {
    let key = p256();
    let sandbox = start(&key).await;
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "1"));
    let fields = [JWT_BEARER, ("assertion", assertion.as_str())];
    assert_refused(sandbox.token(&fields).await, "invalid_grant").await;
    assert_refused(bear(&sandbox, &assertion, &[("client_id", "other")]).await, "invalid_client").await;
    granted(bear(&sandbox, &assertion, &[("client_id", ID)]).await).await;
    sandbox.control.add_client(client(&key).grants(&[Grant::ClientCredentials]));
    let assertion = sign(&key, Algorithm::ES256, &good(&sandbox, "2"));
    assert_refused(bear(&sandbox, &assertion, &[]).await, "unauthorized_client").await;
}
