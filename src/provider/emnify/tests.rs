use super::*;
use crate::http::Options;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

const TERMS: Terms = Terms {
    bounds: Bounds { shortest: Duration::from_secs(30), longest: Duration::from_secs(2 * 365 * 86_400) },
    organisation: Some(42),
};
const HEAD: Head = Head { status: 200, date: Some(1_000), retry_after: None };

fn judged(head: Head, body: impl Into<Bytes>) -> Result<Fetched, FetchError> {
    let body = body.into();
    judge(&Response { head, body }, TERMS)
}

fn failure(status: u16, body: &str) -> Failure {
    judged(Head { status, ..HEAD }, body.to_owned()).unwrap_err().kind
}

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "HS384"})), part(claims))
}

fn granted(claims: &Value) -> Result<Fetched, FetchError> {
    judged(HEAD, json!({ "auth_token": jwt(claims) }).to_string())
}

#[test]
fn the_status_of_a_refusal_decides() {
    let table = [
        (400, Failure::Rejected),
        (401, Failure::Rejected),
        (403, Failure::Rejected),
        (422, Failure::Rejected),
        (404, Failure::Unavailable),
        (408, Failure::Unavailable),
        (429, Failure::Throttled { retry_after: None }),
        (500, Failure::Unavailable),
        (502, Failure::Unavailable),
        (503, Failure::Unavailable),
        (599, Failure::Unavailable),
        (201, Failure::Malformed),
        (204, Failure::Malformed),
        (301, Failure::Malformed),
        (302, Failure::Malformed),
        (304, Failure::Malformed),
        (307, Failure::Malformed),
        (308, Failure::Malformed),
        (402, Failure::Malformed),
        (405, Failure::Malformed),
        (409, Failure::Malformed),
        (418, Failure::Malformed),
        (600, Failure::Malformed),
        (999, Failure::Malformed),
    ];
    let good = json!({ "auth_token": jwt(&json!({"iat": 1_000, "exp": 15_400, "esc.org": 42})) });
    for (status, expected) in table {
        for body in ["", "{}", "<html>", "null", &good.to_string()] {
            assert_eq!(failure(status, body), expected, "{status} {body}");
        }
    }
}

#[test]
fn a_lockout_is_told_from_a_refusal() {
    let table = [
        (r#"{"error_code":1105,"error_token":"TooManyRequests","message":"x"}"#, Failure::LockedOut),
        (r#"{"error_code":1105}"#, Failure::LockedOut),
        (r#"{"error_token":"TooManyRequests","error_code":null}"#, Failure::LockedOut),
        (r#"{"error_code":"odd","error_token":"TooManyRequests","more":[1]}"#, Failure::LockedOut),
        (r#"{"error_code":1101,"error_token":"InvalidCredentials"}"#, Failure::Rejected),
        (r#"{"message":"token contains an invalid number of segments"}"#, Failure::Rejected),
        (r#"{"message":"TooManyRequests"}"#, Failure::Rejected),
        (r#""TooManyRequests""#, Failure::Rejected),
        ("TooManyRequests", Failure::Rejected),
    ];
    for (body, expected) in table {
        assert_eq!(failure(401, body), expected, "{body}");
    }
    let lockout = r#"{"error_code":1105}"#;
    assert_eq!(failure(403, lockout), Failure::Rejected, "only a 401 is a lockout");
    assert_eq!(failure(429, lockout), Failure::Throttled { retry_after: None });
}

#[test]
fn retry_after_is_passed_on() {
    let wait = Some(Duration::from_secs(30));
    let head = Head { status: 429, retry_after: wait, ..HEAD };
    let kind = judged(head, "").unwrap_err().kind;
    assert_eq!(kind, Failure::Throttled { retry_after: wait });
}

#[test]
fn a_success_brings_the_token_and_its_life() {
    for (exp, life) in [(15_400, 14_399), (605_800, 604_799)] {
        let claims = json!({"esc.org": 42, "iat": 1_000, "exp": exp});
        let fetched = granted(&claims).unwrap();
        assert_eq!(fetched.value.expose(), jwt(&claims));
        assert_eq!(fetched.lifetime, Duration::from_secs(life));
        assert_eq!(fetched.presentation.header_name, "authorization");
    }
}

#[test]
fn extra_members_and_nulls_are_ignored() {
    let claims = json!({"esc.org": 42, "iat": 1_000, "exp": 15_400});
    let body = json!({"auth_token": jwt(&claims), "refresh_token": null, "mfa_token": null, "x": [{}]});
    assert!(judged(HEAD, body.to_string()).is_ok());
}

#[test]
fn a_success_that_is_none_is_malformed() {
    let long = format!(r#"{{"auth_token":"{}"}}"#, "a".repeat(MAX_TOKEN + 1));
    let table = [
        "",
        "null",
        "[]",
        "{}",
        "\"token\"",
        "<html>",
        "{",
        r#"{"auth_token":null}"#,
        r#"{"auth_token":""}"#,
        r#"{"auth_token":7}"#,
        r#"{"auth_token":["a.b.c"]}"#,
        r#"{"auth_token":"a","auth_token":"b"}"#,
        r#"{"auth_token":"opaque"}"#,
        r#"{"auth_token":"a.b.c"}"#,
        r#"{"auth_token":"e30.e30.x y"}"#,
        r#"{"auth_token":"e30.e30.x\r\nset-cookie: a"}"#,
        r#"{"auth_token":"e30.e30.ü"}"#,
        r#"{"auth_token":"","mfa_token":"x"}"#,
        r#"{"error_code":1101,"error_token":"InvalidCredentials"}"#,
        &long,
    ];
    for body in table {
        assert_eq!(failure(200, body), Failure::Malformed, "{body}");
    }
}

#[test]
fn a_second_factor_is_a_rejection() {
    assert_eq!(failure(200, r#"{"mfa_token":"a.b.c"}"#), Failure::Rejected);
    assert_eq!(failure(200, r#"{"mfa_token":"x","auth_token":null}"#), Failure::Rejected);
}

#[test]
fn another_organisation_or_none_is_a_mismatch() {
    for org in [json!(41), json!("42"), json!(null), json!(-42), json!(42.5), json!([42])] {
        let claims = json!({"esc.org": org, "iat": 1_000, "exp": 15_400});
        assert_eq!(granted(&claims).unwrap_err().kind, Failure::TenantMismatch, "{org}");
    }
    let nested = json!({"esc": {"org": 42}, "iat": 1_000, "exp": 15_400});
    assert_eq!(granted(&nested).unwrap_err().kind, Failure::TenantMismatch);
}

#[test]
fn without_an_organisation_any_is_taken() {
    let body = json!({ "auth_token": jwt(&json!({"iat": 1_000, "exp": 15_400})) }).to_string();
    let terms = Terms { organisation: None, ..TERMS };
    let response = Response { head: HEAD, body: body.into() };
    assert!(judge(&response, terms).is_ok());
}

#[test]
fn an_implausible_life_is_malformed() {
    let table = [
        json!({"esc.org": 42}),
        json!({"esc.org": 42, "iat": 1_000}),
        json!({"esc.org": 42, "iat": 1_000, "exp": "15400"}),
        json!({"esc.org": 42, "iat": 1_000, "exp": 1_000}),
        json!({"esc.org": 42, "iat": 1_000, "exp": 1_029}),
        json!({"esc.org": 42, "iat": 15_400, "exp": 1_000}),
        json!({"esc.org": 42, "iat": 0, "exp": 900}),
    ];
    for claims in table {
        assert_eq!(granted(&claims).unwrap_err().kind, Failure::Malformed, "{claims}");
    }
}

#[test]
fn what_was_cut_off_is_judged_by_its_status() {
    let body = |status, cause| SendError::Body(Head { status, ..HEAD }, cause);
    let table = [
        (SendError::NoAnswer(Cause::Refused), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Unresolved), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Connect), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Tls), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Timeout), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Interrupted), Failure::Unreachable),
        (SendError::NoAnswer(Cause::TooLarge), Failure::Malformed),
        (SendError::NoAnswer(Cause::Garbled), Failure::Malformed),
        (body(200, Cause::Timeout), Failure::Unavailable),
        (body(200, Cause::Interrupted), Failure::Unavailable),
        (body(200, Cause::Garbled), Failure::Unavailable),
        (body(200, Cause::TooLarge), Failure::Malformed),
        (body(401, Cause::Interrupted), Failure::Rejected),
        (body(429, Cause::TooLarge), Failure::Throttled { retry_after: None }),
        (body(503, Cause::Timeout), Failure::Unavailable),
    ];
    for (error, expected) in table {
        assert_eq!(unanswered(&error).kind, expected, "{error}");
    }
}

#[test]
fn a_base_url_may_have_a_path_and_a_slash() {
    let table = [
        ("https://cdn.emnify.net", "https://cdn.emnify.net/api/v1/authenticate"),
        ("https://cdn.emnify.net/", "https://cdn.emnify.net/api/v1/authenticate"),
        ("https://gw.example/emnify", "https://gw.example/emnify/api/v1/authenticate"),
        ("https://gw.example/emnify/", "https://gw.example/emnify/api/v1/authenticate"),
    ];
    for (base, endpoint) in table {
        assert_eq!(made(base, "secret").unwrap().endpoint.as_str(), endpoint);
    }
}

fn made(base: &str, secret: &str) -> Result<ApplicationToken, Error> {
    let client = Arc::new(Client::new(&Options::default()).unwrap());
    let secret = LongLivedSecret::new(secret);
    ApplicationToken::new(client, &Url::parse(base).unwrap(), TERMS.bounds, None, secret)
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let base = "https://cdn.emnify.net";
    let table = [
        ("http://cdn.emnify.net", "secret", Error::Base(UrlError::Url(Objection::Plaintext))),
        ("https://a@cdn.emnify.net", "secret", Error::Base(UrlError::Url(Objection::UserInfo))),
        ("data:text", "secret", Error::Base(UrlError::Url(Objection::Scheme))),
        (base, "", Error::SecretEmpty),
        (base, "secret\n", Error::SecretCharacter),
        (base, "two words", Error::SecretCharacter),
        (base, &"a".repeat(MAX_SECRET + 1), Error::SecretTooLong),
    ];
    for (base, secret, expected) in table {
        assert_eq!(made(base, secret).unwrap_err(), expected, "{base}");
    }
}

#[test]
fn the_body_is_one_allocation_and_debug_shows_no_secret() {
    let secret = "\"\\".repeat(1000);
    let body = body(&secret).unwrap();
    assert_eq!(body.capacity(), 2 * secret.len() + 64, "it never grew");
    let sent: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(sent, json!({ "application_token": secret }));
    let provider = made("https://cdn.emnify.net", "hunter2").unwrap();
    assert!(!format!("{provider:?}").contains("hunter2"));
}

proptest! {
    /// Any body at any status is judged, never a panic, and its text never gets out.
    #[test]
    fn hostile_bodies_stay_inside(status in 100..=999_u16, text in "[a-zA-Z{}\":,\\[\\]]{8,64}") {
        let shapes = [
            text.clone(),
            json!({ "auth_token": text, "error_token": text, "message": text }).to_string(),
            json!({ "auth_token": jwt(&json!({"exp": text, "esc.org": text, text.clone(): 1})) }).to_string(),
        ];
        for body in shapes {
            let error = judged(Head { status, ..HEAD }, body).unwrap_err();
            let shown = format!("{error:?} {error}");
            prop_assert!(!shown.contains(&text));
        }
    }
}
