//! Good certificates: accepted, each as exactly the caller that it names.

use super::pki::{ED25519, P256, P384, RSA, Spec, client};
use super::{ID, URI, World, shake};
use rustls::version::{TLS12, TLS13};
use std::time::{Duration, UNIX_EPOCH};

/// The last second of 2099.
const END: Duration = Duration::from_secs(4_102_444_799);

#[tokio::test]
async fn each_kind_of_key_and_both_versions() {
    let world = World::new();
    let server = world.server();
    for (name, key) in [("p256", P256), ("p384", P384), ("rsa", RSA), ("ed25519", ED25519)] {
        let identity = world.callers.issue(name, &Spec { key, extensions: &client(URI), ..Spec::default() });
        for version in [&TLS13, &TLS12] {
            let config = super::client(&world.servers, &[version], Some(&identity));
            let proven = shake(&server, config).await;
            assert_eq!(proven.unwrap().caller.as_str(), ID, "{name} {version:?}");
        }
    }
}

#[tokio::test]
async fn each_way_to_be_named() {
    let world = World::new();
    let server = world.server();
    let below = world.pki.below("below", &world.callers);
    let hosts = "DNS:api.payments.example,IP:10.0.0.1,email:ops@payments.example";
    let both = format!("DNS:*.example,DNS:API,{URI}");
    for (name, identity, expected) in [
        ("uri", world.callers.caller("uri", URI), ID),
        ("host", world.callers.caller("host", "DNS:api.payments.example"), "dns:api.payments.example"),
        ("host and what names nobody", world.callers.caller("hosts", hosts), "dns:api.payments.example"),
        ("uri and hosts", world.callers.caller("both", &both), ID),
        ("below", below.caller("leaf", URI).with(&below), ID),
        ("with the root", world.callers.caller("rooted", URI).with(&world.callers), ID),
    ] {
        let proven = world.shake(&server, &identity).await;
        assert_eq!(proven.unwrap().caller.as_str(), expected, "{name}");
    }
}

#[tokio::test]
async fn without_any_usage_a_certificate_may_be_used_for_all() {
    let world = World::new();
    let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName={URI}");
    let identity = world.callers.issue("bare", &Spec { extensions: &extensions, ..Spec::default() });
    let proven = world.shake(&world.server(), &identity).await.unwrap();
    assert_eq!(proven.caller.as_str(), ID);
}

#[tokio::test]
async fn evidence_ends_with_whatever_of_the_chain_ends_first() {
    let world = World::new();
    let server = world.server();
    let long = world.callers.caller("long", URI);
    let evidence = world.shake(&server, &long).await.unwrap().evidence;
    assert_eq!(evidence.ends(), Some(UNIX_EPOCH + END));
    assert!(evidence.holds(UNIX_EPOCH + END) && !evidence.holds(UNIX_EPOCH + END + Duration::from_secs(1)));

    // 2096-01-01, and the authority above goes on until 2099.
    let extensions = client(URI);
    let spec = Spec { extensions: &extensions, end: "20960101000000Z", ..Spec::default() };
    let short = world.callers.issue("short", &spec);
    let evidence = world.shake(&server, &short).await.unwrap().evidence;
    assert_eq!(evidence.ends(), Some(UNIX_EPOCH + Duration::from_secs(3_976_214_400)));
}
