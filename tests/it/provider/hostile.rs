//! What an upstream may answer in malice or in error, and what is made of it, by a recipe with every part of an answer.

use super::observed::{PATIENT, captured};
use super::recipes::{answer, exchange, fields, json, path, post, user};
use super::script::{Act, script};
use crate::logs::Capture;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use token_broker::provider::Provider as _;
use token_broker::provider::recipe::{Answer, Expiry, Format, Recipe, Refresh, Step, Unit};

const DATE: &str = "Date: Tue, 14 Nov 2023 22:13:20 GMT";
const NOW: i64 = 1_700_000_000;

/// Every source of a lifetime that an answer can hold, none of them required.
fn recipe() -> Recipe {
    let expiry = vec![
        Expiry::Jwt { required: false },
        Expiry::Relative(path("expires_in"), Unit::Seconds),
        Expiry::Absolute(path("expires_at"), Format::Rfc3339),
    ];
    let all = Answer {
        success: vec![200, 201],
        scheme: Some(path("token_type")),
        refresh_token: Some(path("refresh_token")),
        expiry,
        extra_headers: vec![("x-second".to_owned(), path("second"))],
        attributes: vec![("instance_url".to_owned(), path("instance_url"))],
        ..answer("access_token")
    };
    let request = post("/refresh", json(&[("refresh", "{refresh_token}")]));
    let refresh = Refresh { step: Step { request, answer: all.clone() }, single_use: true };
    Recipe { login: Step { answer: all, ..user().login }, refresh: Some(refresh), ..user() }
}

fn jwt(header: &str, claims: &str) -> String {
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// A whole answer with this body.
fn with(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{DATE}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A success whose token is this, with these further members.
fn token(value: &str, more: &str) -> Vec<u8> {
    with("200 OK", format!(r#"{{"access_token":"{value}","second":"s"{more}}}"#).as_bytes())
}

fn opaque(more: &str) -> Vec<u8> {
    token("secret-token", more)
}

fn signed(claims: &str) -> Vec<u8> {
    token(&jwt(r#"{"alg":"RS256"}"#, claims), "")
}

type Case = (&'static str, Vec<u8>, Result<u64, &'static str>);

fn lifetimes() -> Vec<Case> {
    let year = 365 * 86_400;
    let decade = 10 * 365 * 86_400;
    vec![
        ("no lifetime", opaque(""), Err("malformed")),
        ("null lifetime", opaque(r#","expires_in":null"#), Err("malformed")),
        ("a lifetime", opaque(r#","expires_in":3600"#), Ok(3600)),
        ("a text", opaque(r#","expires_in":"3600""#), Ok(3600)),
        ("a fraction", opaque(r#","expires_in":3599.9"#), Ok(3599)),
        ("zero", opaque(r#","expires_in":0"#), Err("malformed")),
        ("negative", opaque(r#","expires_in":-3600"#), Err("malformed")),
        ("negative fraction", opaque(r#","expires_in":-0.1"#), Err("malformed")),
        ("implausibly short", opaque(r#","expires_in":29"#), Err("malformed")),
        ("huge", opaque(r#","expires_in":1438315200000"#), Ok(2 * year)),
        ("larger than any number", opaque(r#","expires_in":1e400"#), Err("malformed")),
        ("as large as a float", opaque(r#","expires_in":1e300"#), Ok(2 * year)),
        ("a sentence", opaque(r#","expires_in":"an hour""#), Err("malformed")),
        ("a boolean", opaque(r#","expires_in":true"#), Err("malformed")),
        ("an end", opaque(r#","expires_at":"2023-11-14T23:13:20Z""#), Ok(3599)),
        ("an end with an offset", opaque(r#","expires_at":"2023-11-15T00:13:20+01:00""#), Ok(3599)),
        ("a past end", opaque(r#","expires_at":"2023-11-14T22:13:19Z""#), Err("malformed")),
        ("no end", opaque(r#","expires_at":"tomorrow""#), Err("malformed")),
        ("the earliest", opaque(r#","expires_in":3000,"expires_at":"2023-11-14T23:13:20Z""#), Ok(3000)),
        ("exp", signed(&format!(r#"{{"iat":{NOW},"exp":{}}}"#, NOW + 3600)), Ok(3599)),
        ("exp alone", signed(&format!(r#"{{"exp":{}}}"#, NOW + 3600)), Ok(3599)),
        ("past exp", signed(&format!(r#"{{"iat":{},"exp":{NOW}}}"#, NOW - 3600)), Err("malformed")),
        ("ten years", signed(&format!(r#"{{"iat":{NOW},"exp":{}}}"#, NOW + decade)), Ok(2 * year)),
        ("exp before iat", signed(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW + 90, NOW + 60)), Err("malformed")),
        ("exp as a text", signed(r#"{"exp":"1800000000"}"#), Err("malformed")),
        ("no claims", signed("{}"), Err("malformed")),
    ]
}

fn tokens() -> Vec<Case> {
    let good = r#","expires_in":3600"#;
    let none = jwt(r#"{"alg":"None"}"#, r#"{"exp":1800000000}"#);
    let megabyte = jwt(r#"{"alg":"RS256"}"#, &" ".repeat(1_000_000));
    let at_limit = "a".repeat(8 * 1024);
    let attribute = |length| opaque(&format!(r#","expires_in":3600,"instance_url":"{}""#, "a".repeat(length)));
    vec![
        ("an attribute of 4 KiB", attribute(4096), Ok(3600)),
        ("an attribute of more", attribute(4097), Err("malformed")),
        ("unsigned", token(&none, good), Err("malformed")),
        ("a megabyte", token(&megabyte, good), Err("malformed")),
        ("8 KiB", token(&at_limit, good), Ok(3600)),
        ("more than 8 KiB", token(&format!("{at_limit}a"), good), Err("malformed")),
        ("empty token", token("", good), Err("malformed")),
        ("a line break", token("secret\\r\\nset-cookie: x", good), Err("malformed")),
        ("escaped NUL", token("secret\\u0000", good), Err("malformed")),
        ("NUL", token("secret\0", good), Err("malformed")),
        ("a blank", token("secret token", good), Err("malformed")),
        ("beyond ASCII", token("sécret", good), Err("malformed")),
        ("a JWT of nonsense", token("a.b.c", good), Ok(3600)),
        ("a number", with("200 OK", br#"{"access_token":7,"expires_in":3600}"#), Err("malformed")),
        ("an object", with("200 OK", br#"{"access_token":{},"expires_in":3600}"#), Err("malformed")),
        ("the right scheme", opaque(r#","expires_in":3600,"token_type":"bEARER""#), Ok(3600)),
        ("null scheme", opaque(r#","expires_in":3600,"token_type":null"#), Ok(3600)),
        ("another scheme", opaque(r#","expires_in":3600,"token_type":"mac""#), Err("malformed")),
        ("no scheme", opaque(r#","expires_in":3600,"token_type":1"#), Err("malformed")),
        ("an attribute of two lines", opaque(r#","expires_in":3600,"instance_url":"a\nb""#), Err("malformed")),
        ("an attribute that is none", opaque(r#","expires_in":3600,"instance_url":[]"#), Err("malformed")),
        ("a header is missing", with("200 OK", br#"{"access_token":"a","expires_in":3600}"#), Err("malformed")),
        ("an odd refresh token", opaque(r#","expires_in":3600,"refresh_token":{}"#), Ok(3600)),
    ]
}

fn bodies() -> Vec<Case> {
    let good = r#"{"access_token":"secret-token","second":"s","expires_in":3600}"#;
    let raw = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{DATE}\r\n{headers}\r\n\r\n{body}").into_bytes();
    let lying = |length: usize| raw(&format!("Content-Length: {length}"), good);
    let chunked = |body: &str| raw("Transfer-Encoding: chunked", body);
    let chunk = format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    vec![
        ("empty", with("200 OK", b""), Err("malformed")),
        ("HTML", with("200 OK", b"<html>secret</html>"), Err("malformed")),
        ("an error", with("200 OK", br#"{"error":"invalid_client"}"#), Err("malformed")),
        ("an array", with("200 OK", br#"["secret-token"]"#), Err("malformed")),
        ("null", with("200 OK", b"null"), Err("malformed")),
        ("a member twice", opaque(r#","expires_in":3600,"access_token":"other""#), Err("malformed")),
        ("another member twice", opaque(r#","expires_in":3600,"x":1,"\u0078":2"#), Err("malformed")),
        ("too deep", opaque(&format!(r#","expires_in":3600,"x":{}"#, "[".repeat(60_000))), Err("malformed")),
        ("deep beyond the limit", with("200 OK", "[".repeat(100_000).as_bytes()), Err("malformed")),
        ("not UTF-8", with("200 OK", b"{\"access_token\":\"\xff\xfe\",\"expires_in\":3600}"), Err("malformed")),
        ("two documents", with("200 OK", format!("{good}{good}").as_bytes()), Err("malformed")),
        ("created", with("201 Created", good.as_bytes()), Ok(3600)),
        ("accepted", with("202 Accepted", good.as_bytes()), Err("malformed")),
        ("refused, with a token", with("401 Unauthorized", good.as_bytes()), Err("rejected")),
        (
            "wrong content type",
            raw(&format!("Content-Type: text/html\r\nContent-Length: {}", good.len()), good),
            Ok(3600),
        ),
        ("no content type, no length", raw("Connection: close", good), Ok(3600)),
        ("a length that is too large", lying(good.len() + 10), Err("unavailable")),
        ("a length that is too small", lying(good.len() - 10), Err("malformed")),
        ("a length that is none", raw("Content-Length: ten", good), Err("malformed")),
        ("chunked", chunked(&chunk), Ok(3600)),
        ("a chunk of no length", chunked(&format!("zz\r\n{good}\r\n0\r\n\r\n")), Err("unavailable")),
        ("chunks without an end", chunked(&format!("{:x}\r\n{good}\r\n", good.len())), Err("unavailable")),
    ]
}

#[tokio::test]
async fn hostile_answers_are_judged_and_stay_inside() {
    for (name, bytes, expected) in [lifetimes(), tokens(), bodies()].into_iter().flatten() {
        let script = script(&[Act::Raw(bytes)]).await;
        let exchange =
            exchange(&script.url, PATIENT, recipe(), fields(&[("username", "u"), ("password", "hunter2")], &[]));
        let capture = Capture::default();
        let logs = captured(&capture);
        let result = exchange.exchange().await;
        drop(logs);
        let shown = format!("{result:?} {}", capture.text());
        assert!(!shown.contains("hunter2") && !shown.contains("secret-token"), "{name}: {shown}");
        let detail = result.as_ref().err().map(ToString::to_string);
        let result = result.map(|fetched| fetched.lifetime.as_secs()).map_err(|error| error.kind.as_str());
        assert_eq!(result, expected, "{name}: {detail:?}");
    }
}
