//! Flows whose client signs a JWT (RFC 7523), with keys made for the test.

use super::{Broker, Upstream, claims, config, reason, with};
use rcgen::{KeyPair, SignatureAlgorithm};
use serde_json::json;
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::sandbox::{Client, Expiry, Method, Refresh, Route, Settings};

/// The ways to sign, by the names of RFC 7518 and RFC 8037.
const ALGORITHMS: [(&str, &SignatureAlgorithm); 4] = [
    ("RS256", &rcgen::PKCS_RSA_SHA256),
    ("PS256", &rcgen::PKCS_RSA_SHA256),
    ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
    ("EdDSA", &rcgen::PKCS_ED25519),
];

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// A server that knows the client `signer` by this key alone. Its tokens live so shortly that some renewals take less
/// time than an assertion may live: the broker dates them by the machine's clock, which stands meanwhile.
fn knowing(key: &KeyPair) -> Settings {
    let signer = Client::new("signer").methods(&[Method::PrivateKeyJwt]).scopes(&["read", "write"]);
    let signer = signer.lifetime(Duration::from_secs(60), Expiry::Said);
    with(vec![signer.key(&key.public_key_pem()).unwrap()], Refresh::Kept)
}

fn by(upstream: &Upstream, flow: &str, parameters: &str, key: &KeyPair) -> Broker {
    let pem = key.serialize_pem();
    let secrets = [("private_key", pem.as_str()), ("key_id", "the-id-of-the-key")];
    Broker::start(upstream, &config(flow, parameters, "", &secrets), &secrets)
}

/// The server takes no `jti` twice.
#[tokio::test(start_paused = true)]
async fn a_client_signs_for_itself_and_never_the_same_twice() {
    for (name, algorithm) in ALGORITHMS {
        let key = key(algorithm);
        let upstream = Upstream::start(knowing(&key)).await;
        let parameters = format!("client_id = \"signer\", algorithm = \"{name}\", audience = \"api\"");
        let broker = by(&upstream, "private-key-jwt", &parameters, &key);
        let said = claims(&broker.get("one").await.unwrap());
        assert_eq!((&said["sub"], &said["aud"]), (&json!("signer"), &json!("api")), "{name}");
        for _ in 0..4 {
            assert_eq!(broker.renewed("one").await.outcome, "token", "{name}");
        }
        assert_eq!(upstream.control.counters().of(Route::Oauth2Token).with_status(200), 5, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_audience_of_an_assertion_may_be_the_issuer() {
    let key = key(&rcgen::PKCS_ED25519);
    let upstream = Upstream::start(knowing(&key)).await;
    let common = "client_id = \"signer\", algorithm = \"EdDSA\"";
    for (audience, taken) in [("https://sandbox.example/oauth2", true), ("https://elsewhere.example", false)] {
        let parameters = format!("{common}, assertion_audience = \"{audience}\"");
        let broker = by(&upstream, "private-key-jwt", &parameters, &key);
        assert_eq!(broker.get("one").await.is_ok(), taken, "{audience}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_server_does_not_know_is_refused_once() {
    let (known, own) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let upstream = Upstream::start(knowing(&known)).await;
    let parameters = "client_id = \"signer\", algorithm = \"ES256\"";
    let broker = by(&upstream, "private-key-jwt", parameters, &own);
    for _ in 0..3 {
        assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
    }
    let [only] = broker.exchanges().try_into().unwrap();
    assert!(only.detail.contains("invalid_client"), "{}", only.detail);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_a_grant() {
    for (name, algorithm) in ALGORITHMS {
        let key = key(algorithm);
        let upstream = Upstream::start(knowing(&key)).await;
        let parameters = format!("issuer = \"signer\", subject = \"somebody\", algorithm = \"{name}\"");
        let broker = by(&upstream, "jwt-bearer", &format!("{parameters}, scope = \"read\""), &key);
        let said = claims(&broker.get("one").await.unwrap());
        assert_eq!((&said["sub"], &said["client_id"]), (&json!("somebody"), &json!("signer")), "{name}");
        assert_eq!(said["scope"], "read");
        for _ in 0..2 {
            assert_eq!(broker.renewed("one").await.outcome, "token", "{name}");
        }
        // As Google wants it.
        let within = by(&upstream, "jwt-bearer", &format!("{parameters}, assertion_scope = \"write\""), &key);
        assert_eq!(claims(&within.get("one").await.unwrap())["scope"], "write");
        assert_eq!(upstream.control.counters().of(Route::Oauth2Token).with_status(200), 4, "{name}");
    }
}
