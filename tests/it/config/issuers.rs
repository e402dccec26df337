//! `[[issuers]]`, key by key.

use std::path::Path;
use std::time::Duration;
use token_broker::bearer::{Algorithm, Place};
use token_broker::config::{Config, Environment};

fn parse(text: &str) -> Result<Config, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    Config::parse(text, directory, &Environment::default()).map_err(|problems| problems.to_string())
}

/// The keys of one issuer that is right, the last of which may be said again in another way.
fn issuer(more: &str) -> String {
    let defaults =
        [("name", "\"cluster\""), ("issuer", "\"https://idp.example/tenant\""), ("audiences", "[\"token-broker\"]")];
    let given = |key: &str| more.lines().any(|line| line.split('=').next().is_some_and(|name| name.trim() == key));
    let kept = defaults.iter().filter(|(key, _)| !given(key)).map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[issuers]]\n{}{more}\n", kept.collect::<String>())
}

#[test]
fn what_is_left_out_is_safe() {
    let config = parse(&issuer("")).unwrap();
    let settings = &config.issuers[0].settings;
    assert_eq!(settings.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    let Place::Discovery(url) = &settings.place else { panic!("{settings:?}") };
    assert_eq!(url.as_str(), "https://idp.example/tenant/.well-known/openid-configuration");
    assert_eq!(settings.refresh_interval, Duration::from_secs(300));
    assert_eq!(settings.keys_outlive, Duration::from_secs(86_400));
    assert!(settings.token_file.is_none() && settings.http.allow_private.is_empty());
    let slash = parse(&issuer("issuer = \"https://idp.example/\"")).unwrap();
    let Place::Discovery(url) = &slash.issuers[0].settings.place else { panic!() };
    assert_eq!(url.as_str(), "https://idp.example/.well-known/openid-configuration");
}

#[test]
fn an_issuer_need_not_be_a_url_where_its_keys_are_known() {
    let keys = "issuer = \"kubernetes/serviceaccount\"\njwks_url = \"https://a.example/openid/v1/jwks\"";
    let config = parse(&issuer(keys)).unwrap();
    let Place::Url(url) = &config.issuers[0].settings.place else { panic!() };
    assert_eq!(url.as_str(), "https://a.example/openid/v1/jwks", "no slash is put behind it");
}

#[test]
fn each_mistake_names_its_key_and_quotes_nothing() {
    let table = [
        ("name = \"Cluster\"", "issuers[0].name"),
        ("name = \"\"", "issuers[0].name"),
        ("issuer = \"\"", "issuers[0].issuer"),
        ("issuer = \"s3cret with blanks\"", "issuers[0].issuer"),
        ("issuer = \"s3cret\"", "set jwks_url or jwks_file"),
        ("issuer = \"http://s3cret.example\"", "must be https"),
        ("issuer = \"https://a.example/?s3cret\"", "query"),
        ("audiences = []", "for nobody"),
        ("audiences = \"s3cret\"", "issuers[0].audiences"),
        ("audiences = [\"\"]", "issuers[0].audiences[0]"),
        ("algorithms = []", "must not be empty"),
        ("algorithms = [\"HS256\"]", "a secret that the issuer and the broker share"),
        ("algorithms = [\"none\"]", "issuers[0].algorithms[0]"),
        ("algorithms = [\"ES256\", \"s3cret\"]", "issuers[0].algorithms[1]"),
        ("jwks_url = \"http://s3cret.example/\"", "must be https"),
        ("jwks_url = \"https://169.254.169.254/s3cret\"", "issuers[0].jwks_url"),
        ("jwks_url = \"https://a.example\"\njwks_file = \"s3cret\"", "only one of"),
        ("jwks_file = \"s3cret\"", "can't be read"),
        ("jwks_file = \"Cargo.toml\"", "not a JSON object"),
        ("token_file = \"s3cret\"", "needs ca_file"),
        ("jwks_url = \"http://localhost/\"\ntoken_file = \"s3cret\"", "works only with https"),
        ("refresh_interval = \"s3cret\"", "issuers[0].refresh_interval"),
        ("refresh_interval = \"1h\"\nkeys_outlive = \"90m\"", "twice refresh_interval"),
        ("jwks_uri = \"s3cret\"", "did you mean jwks_url"),
    ];
    for (more, expected) in table {
        let problems = parse(&issuer(more)).expect_err(more);
        assert!(problems.contains(expected), "{more}: {problems}");
        assert!(!problems.contains("s3cret"), "{more}: {problems}");
    }
    for missing in ["name", "issuer", "audiences"] {
        let text = issuer("").lines().filter(|line| !line.starts_with(missing)).collect::<Vec<_>>().join("\n");
        let problems = parse(&text).expect_err(missing);
        assert!(problems.contains(&format!("issuers[0].{missing}")), "{missing}: {problems}");
    }
}

#[test]
fn no_name_and_no_iss_stands_twice() {
    let both = issuer("") + &issuer("");
    let problems = parse(&both).unwrap_err();
    assert!(problems.contains("issuers[1].name") && problems.contains("issuers[1].issuer"), "{problems}");
}

#[test]
fn a_listener_names_issuers_that_there_are() {
    let listener = "[[listeners]]\nname = \"pods\"\naddress = \"127.0.0.1:0\"\ncallers = \"bearer\"\n";
    let naming = format!("{listener}issuers = [\"other\"]\n{}", issuer(""));
    assert!(parse(&naming).unwrap_err().contains("listeners.pods.issuers"));
    assert!(parse(&format!("{listener}issuers = [\"cluster\"]\n{}", issuer(""))).is_ok());
}
