//! What is taken and what is refused, token by token.

use super::signer::{Signer, encode};
use super::stand::{AUDIENCE, ISSUER, Server, Stand, claims, now, with};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};
use token_broker::bearer::Refusal;

struct Keys {
    rsa: Signer,
    p256: Signer,
    p384: Signer,
    ed: Signer,
    /// For RS512 alone, by what its entry says.
    bound: Signer,
    /// Not among the published ones, and called like one of them.
    stranger: Signer,
}

impl Keys {
    fn new() -> Self {
        Self {
            rsa: Signer::rsa("rsa"),
            p256: Signer::p256("p256"),
            p384: Signer::p384("p384"),
            ed: Signer::ed25519("ed"),
            bound: Signer::rsa("bound"),
            stranger: Signer::rsa("rsa"),
        }
    }

    async fn stand(&self, server: &Server) -> Stand {
        let mut bound = self.bound.jwk();
        bound["alg"] = json!("RS512");
        let [rsa, p256, p384, ed] = [&self.rsa, &self.p256, &self.p384, &self.ed].map(Signer::jwk);
        let mut for_encryption = Signer::p256("enc").jwk();
        for_encryption["use"] = json!("enc");
        let oct = json!({ "kty": "oct", "k": "AAAA", "kid": "oct" });
        let set = json!({ "keys": [for_encryption, oct, rsa, p256, p384, ed, bound] });
        server.script.set("/keys", super::stand::Reply::ok(set.to_string()));
        let mut stand = Stand::new(vec![server.settings()]);
        stand.keys_come().await;
        stand
    }
}

/// The usual header with some others.
fn header(signer: &Signer, changed: &Value) -> Value {
    let mut all = signer.header();
    for (name, value) in changed.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

#[tokio::test]
async fn good_tokens_name_their_callers() {
    let (server, keys) = (Server::start().await, Keys::new());
    let stand = keys.stand(&server).await;
    let Keys { rsa, p256, p384, ed, bound, .. } = &keys;
    let kubernetes = with(&json!({
        "aud": ["https://kubernetes.default.svc", AUDIENCE],
        "sub": "system:serviceaccount:payments:billing",
        "jti": "b0a3",
        "kubernetes.io": { "namespace": "payments", "pod": { "name": "billing-0", "uid": "u" },
            "serviceaccount": { "name": "billing", "uid": "u" }, "warnafter": now() + 60 },
    }));
    let billing = "system:serviceaccount:payments:billing";
    let soon = f64::from(u32::try_from(now()).unwrap() + 600);
    let branch = "repo:o/r:ref:refs/heads/main";
    let no_kid = |algorithm: &str| json!({ "alg": algorithm });
    let table = [
        ("RS256", rsa.token(&claims()), "svc-1"),
        ("ES256", p256.token(&claims()), "svc-1"),
        ("ES384", p384.token(&claims()), "svc-1"),
        ("EdDSA", ed.token(&claims()), "svc-1"),
        ("PS256", rsa.signed(&header(rsa, &json!({ "alg": "PS256" })), &claims()), "svc-1"),
        ("PS512", rsa.signed(&header(rsa, &json!({ "alg": "PS512" })), &claims()), "svc-1"),
        ("RS512", bound.signed(&header(bound, &json!({ "alg": "RS512" })), &claims()), "svc-1"),
        ("Kubernetes", rsa.token(&kubernetes), billing),
        ("an access token", ed.signed(&header(ed, &json!({ "typ": "at+jwt" })), &claims()), "svc-1"),
        ("its long form", ed.signed(&header(ed, &json!({ "typ": "application/AT+JWT" })), &claims()), "svc-1"),
        ("no kid, one key fits", ed.signed(&no_kid("EdDSA"), &claims()), "svc-1"),
        ("no iat, no nbf", ed.token(&with(&json!({ "iat": null, "nbf": null }))), "svc-1"),
        ("a fraction", ed.token(&with(&json!({ "exp": soon + 0.75, "iat": 1.5 }))), "svc-1"),
        ("a clock ahead", ed.token(&with(&json!({ "iat": now() + 30, "nbf": now() + 30 }))), "svc-1"),
        ("x5t is no key", ed.signed(&header(ed, &json!({ "x5t": "AAAA" })), &claims()), "svc-1"),
        ("a path as subject", ed.token(&with(&json!({ "sub": branch }))), branch),
    ];
    for (name, token, subject) in &table {
        assert_eq!(stand.caller(token).await, Ok(format!("jwt:idp:{subject}")), "{name}");
    }
    let cut = stand.ask(&ed.token(&with(&json!({ "exp": soon + 0.75, "iat": 1.5 })))).await.unwrap();
    assert_eq!(cut.evidence.ends(), Some(UNIX_EPOCH + Duration::from_secs_f64(soon)), "cut off, not rounded");
    assert_eq!(stand.issuers.remembered(), table.len());
}

#[expect(clippy::too_many_lines, reason = "a table, and what it is made of")]
#[tokio::test]
async fn bad_tokens_are_refused_and_leave_nothing_behind() {
    let (server, keys) = (Server::start().await, Keys::new());
    let stand = keys.stand(&server).await;
    let Keys { rsa, ed, p256, bound, stranger, .. } = &keys;
    let good = ed.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    let other = |changed: Value| ed.token(&with(&changed));
    let headed = |changed: Value| ed.signed(&header(ed, &changed), &claims());
    let raw = |head: &str| ed.signed_raw(head, &claims().to_string());
    let claims_text = claims().to_string();
    let twice = format!("{{\"sub\":\"admin\",{}", claims_text.trim_start_matches('{'));
    let unsigned = |alg: &str| encode(json!({ "alg": alg }).to_string()) + "." + body + ".";
    let mut flipped = signature.to_owned().into_bytes();
    flipped[3] = if flipped[3] == b'A' { b'B' } else { b'A' };
    let flipped = format!("{signed}.{}", String::from_utf8(flipped).unwrap());
    let nested = [head, body, signature, "AAAA", "AAAA"].join(".");
    let padding = "=".repeat(4 - head.len() % 4);
    let long = "k".repeat(257);
    let mut table = vec![
        ("nothing", String::new(), "three parts"),
        ("two parts", signed.to_owned(), "three parts"),
        ("four parts", format!("{good}.AAAA"), "three parts"),
        ("a dot behind", format!("{good}."), "three parts"),
        ("a dot before", format!(".{good}"), "three parts"),
        ("a nested JWE", nested, "three parts"),
        ("no signature", format!("{signed}."), "no signature"),
        ("a signature without end", format!("{signed}.{}", "A".repeat(2_000)), "no signature"),
        ("too long", ed.token(&with(&json!({ "x": "x".repeat(8_192) }))), "longer than 8 KiB"),
        ("a blank behind", format!("{good} "), "does not hold"),
        ("a blank inside", format!("{head}. {body}.{signature}"), "not base64url"),
        ("a line end inside", format!("{head}\n.{body}.{signature}"), "not base64url"),
        ("padding", format!("{head}{padding}.{body}.{signature}"), "not base64url"),
        ("padding of the signature", format!("{good}=="), "does not hold"),
        ("the other alphabet", format!("{head}.{body}+/.{signature}"), "not base64url"),
        ("none", unsigned("none"), "no signature"),
        ("None with a signature", unsigned("None") + "AAAA", "public-key algorithm"),
        ("no algorithm", raw("{}"), "how it is signed"),
        ("a lower-case algorithm", raw(r#"{"alg":"eddsa"}"#), "public-key algorithm"),
        ("an algorithm that is no text", raw(r#"{"alg":["EdDSA"]}"#), "how it is signed"),
        ("two algorithms", raw(r#"{"alg":"EdDSA","alg":"none"}"#), "repeated"),
        ("a header that is no object", raw("[]"), "repeated"),
        ("claims twice", ed.signed_raw(&ed.header().to_string(), &twice), "repeated"),
        ("claims that are no object", ed.signed_raw(&ed.header().to_string(), "\"x\""), "repeated"),
        ("an algorithm of another kind of key", headed(json!({ "alg": "RS256" })), "not for the algorithm"),
        ("another curve", p256.signed(&header(p256, &json!({ "alg": "ES384" })), &claims()), "not for the algorithm"),
        ("not the algorithm of the key", bound.token(&claims()), "not for the algorithm"),
        ("another padding", rsa.signed_raw(&header(rsa, &json!({ "alg": "RS256" })).to_string(), "{}"), "who issued"),
        ("no kid, two keys fit", rsa.signed(&json!({ "alg": "RS512" }), &claims()), "more than one key"),
        ("a changed signature", flipped, "does not hold"),
        (
            "changed claims",
            format!("{head}.{}.{signature}", encode(with(&json!({ "sub": "x" })).to_string())),
            "does not hold",
        ),
        ("a stranger's key of a known name", stranger.token(&claims()), "does not hold"),
        (
            "another key of the issuer",
            rsa.signed(&json!({ "alg": "RS256", "kid": "ed" }), &claims()),
            "not for the algorithm",
        ),
        ("an encryption key", ed.signed(&json!({ "alg": "EdDSA", "kid": "enc" }), &claims()), "no key of the name"),
        ("a path as kid", headed(json!({ "kid": "../../dev/null" })), "no key of the name"),
        ("SQL as kid", headed(json!({ "kid": "ed' OR '1'='1" })), "no key of the name"),
        ("a kid in another case", headed(json!({ "kid": "ED" })), "no key of the name"),
        ("an empty kid", headed(json!({ "kid": "" })), "1 to 256 bytes"),
        ("a long kid", headed(json!({ "kid": long })), "1 to 256 bytes"),
        ("a kid that is no text", headed(json!({ "kid": 1 })), "1 to 256 bytes"),
        ("crit", headed(json!({ "crit": ["exp"], "exp": 1 })), "critical"),
        ("crit of b64", headed(json!({ "crit": ["b64"], "b64": false })), "critical"),
        ("jwk", stranger.signed(&header(stranger, &json!({ "jwk": stranger.jwk() })), &claims()), "key of its own"),
        ("jku", headed(json!({ "jku": "http://127.0.0.1:1/keys" })), "a place for its key"),
        ("x5u", headed(json!({ "x5u": "http://127.0.0.1:1/cert" })), "a place for its certificate"),
        ("x5c", headed(json!({ "x5c": ["AAAA"] })), "certificate of its own"),
        ("a token in a token", headed(json!({ "cty": "JWT" })), "another token"),
        ("compressed", headed(json!({ "zip": "DEF" })), "compressed"),
        ("a logout token", headed(json!({ "typ": "logout+jwt" })), "another type"),
        ("a proof", headed(json!({ "typ": "dpop+jwt" })), "another type"),
        ("a type that is no text", headed(json!({ "typ": 1 })), "another type"),
        ("no issuer", other(json!({ "iss": null })), "who issued"),
        ("another issuer", other(json!({ "iss": "https://evil.example" })), "not trusted"),
        ("a slash more", other(json!({ "iss": format!("{ISSUER}/") })), "not trusted"),
        ("an issuer in another case", other(json!({ "iss": ISSUER.to_uppercase() })), "not trusted"),
        ("issuers in an array", other(json!({ "iss": [ISSUER] })), "who issued"),
        ("no audience", other(json!({ "aud": null })), "whom it is for"),
        ("another audience", other(json!({ "aud": "other" })), "another audience"),
        ("two other audiences", other(json!({ "aud": ["other", "third"] })), "another audience"),
        ("no audience at all", other(json!({ "aud": [] })), "another audience"),
        ("part of an audience", other(json!({ "aud": "token-broker-2" })), "another audience"),
        ("an audience that is no text", other(json!({ "aud": [AUDIENCE, 1] })), "whom it is for"),
        ("no exp", other(json!({ "exp": null })), "when it expires"),
        ("expired", other(json!({ "exp": now() - 1 })), "has expired"),
        ("expires now", other(json!({ "exp": now() })), "has expired"),
        ("exp in milliseconds", other(json!({ "exp": (now() + 600) * 1_000 })), "400 days"),
        ("exp without end", other(json!({ "exp": 1e300 })), "out of range"),
        ("exp before 1970", other(json!({ "exp": -1 })), "out of range"),
        ("exp as a text", other(json!({ "exp": (now() + 600).to_string() })), "not a number"),
        ("not valid yet", other(json!({ "nbf": now() + 120 })), "not valid yet"),
        ("nbf as a text", other(json!({ "nbf": "0" })), "not a number"),
        ("issued in the future", other(json!({ "iat": now() + 120 })), "in the future"),
        ("no subject", other(json!({ "sub": null })), "whose it is"),
        ("an empty subject", other(json!({ "sub": "" })), "a caller's name"),
        ("a star as subject", other(json!({ "sub": "*" })), "a caller's name"),
        ("a blank in the subject", other(json!({ "sub": "a b" })), "a caller's name"),
        ("a line end in the subject", other(json!({ "sub": "a\nb" })), "a caller's name"),
        ("another script", other(json!({ "sub": "аdmin" })), "a caller's name"),
        ("a long subject", other(json!({ "sub": "s".repeat(256) })), "a caller's name"),
        ("a number as subject", other(json!({ "sub": 1 })), "whose it is"),
        ("bound to a key", other(json!({ "cnf": { "jkt": "x" } })), "bound to a key"),
    ];
    table.extend(rsa.confused(&claims()).into_iter().map(|token| ("a shared secret", token, "public-key algorithm")));
    for (name, token, why) in &table {
        match stand.ask(token).await {
            Err(Refusal::Invalid(said)) => assert!(said.contains(why), "{name}: {said}"),
            // A name that could be new, and the issuer was asked for another such a moment ago.
            Err(Refusal::Unavailable { .. }) if *why == "no key of the name" => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(stand.issuers.remembered(), 0);
    assert!(server.script.count() <= 2, "at the start, and once for all unknown names");
    assert!(stand.ask(&good).await.is_ok(), "what all the others were made of");
}
