//! A request as it is written down: what matters of it, and nothing that differs from run to run.
//!
//! * The request line without the version; the address of the server is `{server}`.
//! * The headers in lower case and in order, without `host`, `user-agent` and `content-length`. What Basic hides is
//!   shown: `Basic (user:password)`.
//! * JSON with its members in order.
//! * A JWT that the broker signed is checked and replaced by its header and claims: `<jwt {…} {…}>`. `iat` is told
//!   against the time of the request (to ten seconds), `exp` against `iat` or that time, `jti` only by being there.

use super::keys;
use super::server::head_length;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::time::SystemTime;

const LEFT_OUT: [&str; 3] = ["host", "user-agent", "content-length"];

/// What was sent to this server at about this time. A JWT that stands in `known` was not signed by the broker.
pub(super) fn shown(request: &[u8], server: &str, at: SystemTime, known: &str) -> String {
    let length = head_length(request).unwrap();
    let head = String::from_utf8(request[..length].to_vec()).unwrap();
    let body = String::from_utf8(request[length..].to_vec()).expect("a body that is no text");
    let mut lines = head.lines();
    let line = lines.next().unwrap();
    let line = line.strip_suffix(" HTTP/1.1").unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value));
    let headers = headers.filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    let mut headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {}\n", without_basic(value))).collect();
    headers.sort();
    let mut shown = format!("{line}\n{}", headers.concat());
    if !body.is_empty() {
        let json = serde_json::from_str::<Value>(&body);
        // Parsed and written again: the members are in order then.
        let body = json.map_or(body, |json| json.to_string());
        writeln!(shown, "\n{body}").unwrap();
    }
    let encoded = server.replace(':', "%3A").replace('/', "%2F");
    with_jwts_shown(&shown, at, known).replace(server, "{server}").replace(&encoded, "{server}")
}

fn without_basic(value: &str) -> String {
    let Some(encoded) = value.strip_prefix("Basic ") else { return value.to_owned() };
    format!("Basic ({})", String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap())
}

fn with_jwts_shown(text: &str, at: SystemTime, known: &str) -> String {
    let is_of_jwt = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut shown = String::new();
    let mut rest = text;
    while let Some(from) = rest.find(is_of_jwt) {
        let (before, after) = rest.split_at(from);
        let (word, next) = after.split_at(after.find(|c| !is_of_jwt(c)).unwrap_or(after.len()));
        shown += before;
        match keys::decoded(word).filter(|_| !known.contains(word)) {
            Some((header, claims)) => {
                assert!(keys::signed(word), "a signature is wrong");
                write!(shown, "<jwt {header} {}>", timeless(claims, at)).unwrap();
            }
            None => shown += word,
        }
        rest = next;
    }
    shown += rest;
    shown
}

fn timeless(claims: Value, at: SystemTime) -> Value {
    let Value::Object(mut claims) = claims else { panic!("claims are an object") };
    let now = i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let exp = number(&claims, "exp");
    let iat = number(&claims, "iat");
    if let Some(iat) = iat {
        claims.insert("iat".to_owned(), since("now", about(iat - now)).into());
    }
    if let Some(exp) = exp {
        let shown = iat.map_or_else(|| since("now", about(exp - now)), |iat| since("iat", exp - iat));
        claims.insert("exp".to_owned(), shown.into());
    }
    if claims.get("jti").and_then(Value::as_str).is_some_and(|jti| jti.len() >= 16) {
        claims.insert("jti".to_owned(), "<jti>".into());
    }
    Value::Object(claims)
}

fn number(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    claims.get(name).map(|value| value.as_i64().expect("a date in whole seconds"))
}

/// To ten seconds: a test may be slow.
fn about(seconds: i64) -> i64 {
    (seconds + 5).div_euclid(10) * 10
}

fn since(from: &str, seconds: i64) -> String {
    if seconds == 0 { from.to_owned() } else { format!("{from}{seconds:+}") }
}
