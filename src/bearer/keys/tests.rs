use super::*;
use serde_json::json;

fn ed25519(kid: Option<&str>, seed: u8) -> Value {
    let mut jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&[seed; 32]) });
    if let Some(kid) = kid {
        jwk["kid"] = json!(kid);
    }
    jwk
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
}

fn set(keys: &[Value]) -> Result<KeySet, Unusable> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// How many of these a set would hold beside one that is of use.
fn used(jwk: Value) -> usize {
    set(&[ed25519(Some("good"), 1), jwk]).unwrap().len() - 1
}

#[test]
fn what_is_of_no_use_is_left_out() {
    let with = |name: &str, value: Value| {
        let mut jwk = ed25519(Some("k"), 2);
        jwk[name] = value;
        jwk
    };
    let long = vec![0xff; 256];
    let point =
        |x: usize, y: usize| json!({ "kty": "EC", "crv": "P-256", "x": encode(&vec![1; x]), "y": encode(&vec![1; y]) });
    for good in [
        with("use", json!("sig")),
        with("use", json!("jwt-svid")),
        with("key_ops", json!(["verify"])),
        with("alg", json!("EdDSA")),
        with("x5c", json!(["AAAA"])),
        rsa(&long, &[1, 0, 1]),
        rsa(&[&[0], long.as_slice()].concat(), &[0, 1, 0, 1]),
        rsa(&vec![0xff; 1024], &[3]),
        point(32, 32),
    ] {
        assert_eq!(used(good.clone()), 1, "{good}");
    }
    for bad in [
        with("use", json!("enc")),
        with("use", json!("x509-svid")),
        with("use", json!(1)),
        with("key_ops", json!(["encrypt"])),
        with("key_ops", json!("verify")),
        with("alg", json!("HS256")),
        with("alg", json!("RS256")),
        with("alg", json!("none")),
        with("kid", json!(1)),
        with("kid", json!("")),
        with("kid", json!("k".repeat(LONGEST_KID + 1))),
        with("d", json!("AAAA")),
        with("x", json!(encode(&[1; 31]))),
        with("x", json!("!")),
        with("crv", json!("Ed448")),
        with("crv", json!("X25519")),
        with("kty", json!("oct")),
        with("kty", json!(1)),
        json!({ "kty": "oct", "k": "AAAA" }),
        rsa(&long[1..], &[1, 0, 1]),
        rsa(&vec![0xff; 1025], &[1, 0, 1]),
        rsa(&long, &[1]),
        rsa(&long, &[2]),
        rsa(&long, &[]),
        point(31, 32),
        point(32, 33),
        json!({ "kty": "EC", "crv": "secp256k1", "x": encode(&[1; 32]), "y": encode(&[1; 32]) }),
        json!(null),
    ] {
        assert_eq!(used(bad.clone()), 0, "{bad}");
    }
}

#[test]
fn a_set_is_taken_as_a_whole_or_not_at_all() {
    let of = |count: u8| (0..count).map(|seed| ed25519(None, seed)).collect::<Vec<_>>();
    assert_eq!(set(&of(64)).map(|set| set.len()).ok(), Some(64));
    assert_eq!(set(&of(65)).err(), Some(Unusable::TooMany));
    assert_eq!(set(&[]).err(), Some(Unusable::Nothing));
    assert_eq!(KeySet::parse(b"{}").err(), Some(Unusable::Keys));
    assert_eq!(KeySet::parse(b"{\"keys\":[],\"keys\":[]}").err(), Some(Unusable::Json));
    assert_eq!(set(&[ed25519(None, 1), ed25519(None, 1)]).map(|set| set.len()).ok(), Some(1), "one and the same");
}

#[test]
fn a_key_is_chosen_only_if_no_other_could_be_meant() {
    let mut bound = rsa(&[0xff; 256], &[3]);
    bound["alg"] = json!("RS512");
    bound["kid"] = json!("shared");
    let set = set(&[ed25519(Some("shared"), 1), bound, ed25519(Some("b"), 2), ed25519(Some("b"), 3)]).unwrap();
    let chosen = |kid, algorithm| set.select(kid, algorithm).map(|key| key.kind);
    assert_eq!(chosen(Some("shared"), Algorithm::EdDsa), Ok(Kind::Ed25519));
    assert_eq!(chosen(Some("shared"), Algorithm::Rs512), Ok(Kind::Rsa));
    assert_eq!(chosen(Some("shared"), Algorithm::Rs256), Err(Unfit::Algorithm));
    assert_eq!(chosen(Some("b"), Algorithm::EdDsa), Err(Unfit::Ambiguous));
    assert_eq!(chosen(Some("c"), Algorithm::EdDsa), Err(Unfit::Unknown));
    assert_eq!(chosen(None, Algorithm::EdDsa), Err(Unfit::Ambiguous));
    assert_eq!(chosen(None, Algorithm::Rs512), Ok(Kind::Rsa));
    assert_eq!(chosen(None, Algorithm::Es256), Err(Unfit::Algorithm));
}

/// The example of RFC 8037 §A.3.
#[test]
fn thumbprints_are_those_of_the_standard() {
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let set = set(&[jwk]).unwrap();
    let shown = format!("{set:?}");
    assert!(shown.contains("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"), "{shown}");
}

#[test]
fn what_stays_stays_the_very_same() {
    let old = set(&[ed25519(Some("a"), 1), ed25519(Some("b"), 2)]).unwrap();
    let renamed = set(&[ed25519(Some("a"), 1), ed25519(Some("c"), 2)]).unwrap().continuing(&old);
    let gone: Vec<_> = old.gone_in(&renamed).filter_map(|key| key.kid.as_deref()).collect();
    assert_eq!(gone, ["b"], "a name is part of a key");
    old.distrust();
    assert!(!renamed.select(Some("a"), Algorithm::EdDsa).unwrap().is_trusted());
    assert!(renamed.anew().select(Some("a"), Algorithm::EdDsa).unwrap().is_trusted());
}
