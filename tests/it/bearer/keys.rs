//! Where keys come from, and what becomes of what they verified when they change, hang, vanish or come as nonsense.

use super::signer::Signer;
use super::stand::{AUDIENCE, ISSUER, Reply, Server, Stand, claims, settings, wall, with};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use token_broker::bearer::{Place, Refusal, Rule, Settings};

fn is_invalid<T>(answer: &Result<T, Refusal>) -> bool {
    matches!(answer, Err(Refusal::Invalid(_)))
}

#[tokio::test]
async fn a_new_key_counts_at_once_and_one_that_is_gone_takes_all_with_it() {
    let server = Server::start().await;
    let (old, new) = (Signer::p256("2025"), Signer::ed25519("2026"));
    let mut stand = Stand::with(&server, &[&old]).await;
    let by_old = stand.ask(&old.token(&claims())).await.unwrap();
    assert!(by_old.evidence.holds(wall()) && stand.issuers.remembered() == 1);
    stand.moved.mark_unchanged();

    server.script.set("/keys", Reply::keys(&[&new]));
    assert_eq!(stand.caller(&new.token(&claims())).await, Ok("jwt:idp:svc-1".to_owned()));
    assert_eq!(server.script.count(), 2, "one look more, for the sake of the new key");
    assert!(stand.moved.has_changed().unwrap(), "who holds on to the old is told");
    assert!(!by_old.evidence.holds(wall()));
    assert_eq!(stand.issuers.remembered(), 1, "the old one is forgotten");
    let again = stand.ask(&old.token(&claims())).await;
    assert!(again.is_err(), "{again:?}");
    assert!(stand.metric("issuer_keys{issuer=\"idp\"} 1"));
    assert!(stand.metric("issuer_key_fetches_total{issuer=\"idp\",outcome=\"ok\"} 2"));
}

#[tokio::test]
async fn keys_that_stay_keep_what_they_verified() {
    let server = Server::start().await;
    let (stays, comes) = (Signer::p256("a"), Signer::p256("b"));
    let stand = Stand::with(&server, &[&stays]).await;
    let held = stand.ask(&stays.token(&claims())).await.unwrap();
    server.script.set("/keys", Reply::keys(&[&comes, &stays]));
    stand.ask(&comes.token(&claims())).await.unwrap();
    assert!(held.evidence.holds(wall()));
    assert!(!held.evidence.holds(wall() + Duration::from_secs(700)), "not beyond exp");
}

/// Another key under the name of the old one is another key.
#[tokio::test]
async fn a_name_that_is_used_again_vouches_for_nothing() {
    let server = Server::start().await;
    let (first, second) = (Signer::p256("k"), Signer::p256("k"));
    let stand = Stand::with(&server, &[&first]).await;
    let held = stand.ask(&first.token(&claims())).await.unwrap();
    assert!(is_invalid(&stand.ask(&second.token(&claims())).await), "the name is known, so nobody looks");
    server.script.set("/keys", Reply::keys(&[&second]));
    // Any unknown name makes the keys be looked at.
    assert!(stand.ask(&Signer::p256("other").token(&claims())).await.is_err());
    assert!(!held.evidence.holds(wall()));
    assert!(stand.ask(&second.token(&claims())).await.is_ok());
    assert!(is_invalid(&stand.ask(&first.token(&claims())).await));
}

#[tokio::test]
async fn before_there_are_keys_nobody_is_called_wrong() {
    let (server, signer) = (Server::start().await, Signer::p256("k"));
    server.script.set("/keys", Reply { hangs: true, ..Reply::ok("") });
    let stand = Stand::new(vec![server.settings()]);
    let answer = stand.ask(&signer.token(&claims())).await;
    assert!(matches!(answer, Err(Refusal::Unavailable { retry_after }) if !retry_after.is_zero()), "{answer:?}");
    // What is wrong whatever the keys are is called so.
    assert!(is_invalid(&stand.ask(&signer.token(&with(&json!({ "aud": "other" })))).await));
    assert!(stand.metric("bearer_tokens_total{outcome=\"unavailable\"} 1"));
}

/// One answer after the other, each of which is no set of keys. The good ones stay.
#[tokio::test]
async fn nothing_bad_takes_the_place_of_good_keys() {
    let signer = Signer::p256("k");
    let many: Vec<_> = (0..10_000).map(|n| json!({ "kty": "oct", "kid": n.to_string() })).collect();
    let sixty_five: Vec<_> = (0..65).map(|n| json!({ "kty": "oct", "kid": n.to_string() })).collect();
    let elsewhere = ("location", "http://127.0.0.1:1/keys".to_owned());
    let mut private = signer.jwk();
    private["d"] = json!("AAAA");
    let private = json!({ "keys": [private] }).to_string();
    let good = String::from_utf8(Reply::keys(&[&signer]).body).unwrap();
    let twice = format!("{{\"keys\":[],{}", good.trim_start_matches('{'));
    let table = [
        ("an outage", Reply::status(503), "status"),
        ("forbidden", Reply::status(403), "status"),
        ("a redirect", Reply { status: 302, headers: vec![elsewhere], ..Reply::ok("") }, "status"),
        ("nothing", Reply::status(204), "status"),
        ("an empty body", Reply::ok(""), "unusable"),
        (
            "a page",
            Reply { headers: vec![("content-type", "text/html".to_owned())], ..Reply::ok("<html>") },
            "unusable",
        ),
        ("garbage", Reply::ok([0xff; 64]), "unusable"),
        ("an array", Reply::ok("[]"), "unusable"),
        ("no keys", Reply::ok("{}"), "unusable"),
        ("keys that are no array", Reply::ok(r#"{"keys":{}}"#), "unusable"),
        ("none", Reply::ok(r#"{"keys":[]}"#), "unusable"),
        ("none of use", Reply::ok(r#"{"keys":[{"kty":"oct","k":"AAAA"},1,{}]}"#), "unusable"),
        ("a private one", Reply::ok(private), "unusable"),
        ("keys twice", Reply::ok(twice), "unusable"),
        ("sixty-five", Reply::ok(json!({ "keys": sixty_five }).to_string()), "unusable"),
        ("ten thousand", Reply::ok(json!({ "keys": many }).to_string()), "no_answer"),
        ("without end", Reply::ok(vec![b' '; 4 * 1024 * 1024]), "no_answer"),
    ];
    for (name, reply, outcome) in table {
        let server = Server::start().await;
        let stand = Stand::with(&server, &[&signer]).await;
        let held = stand.ask(&signer.token(&claims())).await.unwrap();
        server.script.set("/keys", reply);
        let unknown = stand.ask(&Signer::p256("new").token(&claims())).await;
        assert!(matches!(unknown, Err(Refusal::Unavailable { .. })), "{name}: nobody can tell: {unknown:?}");
        assert_eq!(server.script.count(), 2, "{name}");
        assert!(stand.metric(&format!("issuer_key_fetches_total{{issuer=\"idp\",outcome=\"{outcome}\"}} 1")), "{name}");
        assert!(held.evidence.holds(wall()), "{name}");
        let fresh = with(&json!({ "jti": name }));
        assert!(stand.ask(&signer.token(&fresh)).await.is_ok(), "{name}");
    }
}

fn discovered(server: &Server) -> Settings {
    let rule = Rule { name: Arc::from("idp"), issuer: ISSUER.to_owned(), audiences: vec![AUDIENCE.to_owned()] };
    Settings { rule, ..settings(Place::Discovery(server.url("/.well-known/openid-configuration"))) }
}

#[tokio::test]
async fn discovery_leads_to_the_keys_with_a_query_too() {
    let (server, signer) = (Server::start().await, Signer::rsa("k"));
    let document = json!({ "issuer": ISSUER, "jwks_uri": server.url("/jwks?tenant=a").as_str(), "more": [1] });
    server.script.set("/.well-known/openid-configuration", Reply::ok(document.to_string()));
    server.script.set("/jwks?tenant=a", Reply::keys(&[&signer]));
    let mut stand = Stand::new(vec![discovered(&server)]);
    stand.keys_come().await;
    assert!(stand.ask(&signer.token(&claims())).await.is_ok());
}

/// The first document is bad; what it led to would have been good.
#[tokio::test]
async fn a_document_that_leads_astray_is_not_followed() {
    let signer = Signer::p256("k");
    let server = Server::start().await;
    let keys = server.url("/jwks").to_string();
    let table = [
        json!({ "issuer": "https://evil.example", "jwks_uri": keys }),
        json!({ "issuer": format!("{ISSUER}/"), "jwks_uri": keys }),
        json!({ "jwks_uri": keys }),
        json!({ "issuer": ISSUER }),
        json!({ "issuer": ISSUER, "jwks_uri": "/jwks" }),
        json!({ "issuer": ISSUER, "jwks_uri": "http://169.254.169.254/jwks" }),
        json!({ "issuer": ISSUER, "jwks_uri": "https://10.0.0.1/jwks" }),
        json!({ "issuer": ISSUER, "jwks_uri": "http://idp.example/jwks" }),
        json!({ "issuer": ISSUER, "jwks_uri": "https://user@idp.example/jwks" }),
        json!({ "issuer": ISSUER, "jwks_uri": "file:///etc/passwd" }),
        json!([ISSUER]),
    ];
    for document in table {
        let server = Server::start().await;
        server.script.set("/.well-known/openid-configuration", Reply::ok(document.to_string()));
        server.script.set("/jwks", Reply::keys(&[&signer]));
        let stand = Stand::new(vec![discovered(&server)]);
        let line = "issuer_key_fetches_total{issuer=\"idp\",outcome=\"discovery\"} 1";
        while !stand.metric(line) {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.script.count(), 1, "{document}");
        let answer = stand.ask(&signer.token(&claims())).await;
        assert!(matches!(answer, Err(Refusal::Unavailable { .. })), "{document}: {answer:?}");
    }
}

/// As Kubernetes does it: its own token is asked for, and is another one after a while.
#[tokio::test]
async fn the_brokers_own_token_is_shown_and_read_anew() {
    let (server, old, new) = (Server::start().await, Signer::p256("a"), Signer::p256("b"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    server.script.set("/keys", Reply::keys(&[&old]));
    let mut stand = Stand::new(vec![Settings { token_file: Some(file.clone()), ..server.settings() }]);
    stand.keys_come().await;
    std::fs::write(&file, "second").unwrap();
    server.script.set("/keys", Reply::keys(&[&new]));
    assert!(stand.ask(&new.token(&claims())).await.is_ok());
    let shown: Vec<_> = server.script.seen.lock().unwrap().iter().filter_map(|(_, shown)| shown.clone()).collect();
    assert_eq!(shown, ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn keys_in_a_file_are_followed_like_any_others() {
    let (old, new) = (Signer::p256("a"), Signer::p256("b"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, Reply::keys(&[&old]).body).unwrap();
    let mut stand = Stand::new(vec![settings(Place::File(file.clone()))]);
    stand.keys_come().await;
    let held = stand.ask(&old.token(&claims())).await.unwrap();
    std::fs::write(&file, Reply::keys(&[&new]).body).unwrap();
    assert!(stand.ask(&new.token(&claims())).await.is_ok());
    assert!(!held.evidence.holds(wall()));
}

#[tokio::test]
async fn an_issuer_that_is_configured_anew_loses_what_it_verified_and_keeps_its_keys() {
    let (server, signer) = (Server::start().await, Signer::p256("k"));
    let mut stand = Stand::with(&server, &[&signer]).await;
    let held = stand.ask(&signer.token(&claims())).await.unwrap();
    stand.moved.mark_unchanged();
    server.script.set("/keys", Reply { hangs: true, ..Reply::ok("") });
    let audiences = vec!["another".to_owned()];
    let rule = Rule { name: Arc::from("idp"), issuer: ISSUER.to_owned(), audiences };
    stand.install(vec![Settings { rule, ..server.settings() }]);
    assert!(stand.moved.has_changed().unwrap() && !held.evidence.holds(wall()));
    assert_eq!(stand.issuers.remembered(), 0);
    assert!(is_invalid(&stand.ask(&signer.token(&claims())).await), "the audience is another");
    let aimed = signer.token(&with(&json!({ "aud": "another" })));
    let held = stand.ask(&aimed).await.expect("by the keys that were there");
    stand.issuers.install(Vec::new(), &["idp".to_owned()]);
    assert!(!held.evidence.holds(wall()) && is_invalid(&stand.ask(&aimed).await), "gone");
    assert!(!stand.metrics.encode().unwrap().contains("issuer_keys{"), "no gauge of who is gone");
}

#[tokio::test]
async fn a_listener_takes_its_own_issuers_only() {
    let (server, signer) = (Server::start().await, Signer::p256("k"));
    let stand = Stand::with(&server, &[&signer]).await;
    let token = signer.token(&claims());
    let others = stand.issuers.accepting(Some(vec!["other".to_owned()]));
    let mine = stand.issuers.accepting(Some(vec!["idp".to_owned()]));
    assert!(is_invalid(&others.judge(&token).await));
    assert!(mine.judge(&token).await.is_ok());
    assert!(is_invalid(&others.judge(&token).await), "that another listener remembers it is nothing to it");
}
