use super::*;
use crate::provider::recipe::{Condition, Constant, Holds, Rule};
use bytes::Bytes;
use proptest::prelude::*;

fn path(text: &str) -> Path {
    Path(text.split('.').map(str::to_owned).collect())
}

fn condition(name: &str, constant: Constant) -> Condition {
    Condition { path: path(name), holds: Holds::OneOf(vec![constant]) }
}

/// An envelope as Feishu has it, and rules for some failures.
fn answer() -> Answer {
    let text = |text: &str| Constant::Text(text.to_owned());
    let rule = |statuses: &[u16], when, class, says: Option<&str>| Rule {
        statuses: statuses.to_vec(),
        when,
        class,
        says: says.map(str::to_owned),
    };
    Answer {
        success: vec![200],
        when: vec![condition("code", Constant::Number(0))],
        failures: vec![
            rule(&[200], vec![condition("code", Constant::Number(10))], Class::Rejected, Some("the app is gone")),
            rule(&[200], vec![condition("code", Constant::Number(11))], Class::Throttled, None),
            rule(&[], vec![condition("error", text("slow_down"))], Class::Throttled, None),
            rule(&[403], Vec::new(), Class::LockedOut, None),
        ],
        token: Source::Path(path("data.token")),
        scheme: None,
        refresh_token: Some(path("data.refresh")),
        expiry: Vec::new(),
        extra_headers: Vec::new(),
        attributes: Vec::new(),
    }
}

fn response(status: u16, body: &str) -> Response {
    let head = Head { status, date: None, retry_after: Some(Duration::from_secs(7)) };
    Response { head, body: Bytes::from(body.to_owned()) }
}

#[test]
fn rules_come_before_the_status() {
    let throttled = Failure::Throttled { retry_after: Some(Duration::from_secs(7)) };
    let table = [
        (200, r#"{"code":10}"#, Failure::Rejected, "status 200: the app is gone"),
        (200, r#"{"code":11}"#, throttled, "status 200: too many requests"),
        (200, r#"{"code":"0"}"#, Failure::Malformed, "status 200: when is not met: code (text)"),
        (200, r#"{"code":0,"data":{}}"#, Failure::Malformed, "status 200: no data.token in the answer"),
        (
            200,
            "oops",
            Failure::Malformed,
            "status 200: 4 bytes that are not the documented JSON; for a body that is the token itself there is token = \
             { body = true }",
        ),
        (400, r#"{"error":"slow_down"}"#, throttled, "status 400: too many requests (slow_down)"),
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            Failure::Rejected,
            "status 400: the credential is refused (invalid_grant)",
        ),
        (401, r#"{"error":"hunter2"}"#, Failure::Rejected, "status 401: the credential is refused"),
        (403, "", Failure::LockedOut, "status 403: the account is locked for a while"),
        (429, "", throttled, "status 429: too many requests"),
        (503, "<html>", Failure::Unavailable, "status 503: the upstream can't answer now"),
        (302, "", Failure::Malformed, "status 302: redirects are not followed"),
        (201, "{}", Failure::Malformed, "status 201: not one of success = [200]"),
        (418, "", Failure::Malformed, "status 418: neither one of success = [200] nor named in failures"),
    ];
    let answer = answer();
    for (status, body, kind, detail) in table {
        let error = open(&answer, &response(status, body)).err().unwrap();
        assert_eq!((error.kind, error.detail.as_str()), (kind, detail), "{status} {body}");
    }
}

#[test]
fn a_success_is_opened() {
    let (answer, response) = (answer(), response(200, r#"{"code":0,"data":{"token":"t","refresh":"r"}}"#));
    let opened = open(&answer, &response).unwrap();
    assert_eq!(opened.token().unwrap().expose(), "t");
    assert_eq!(opened.grant().unwrap().expose(), "r");
}

#[test]
fn a_whole_body_may_be_the_token() {
    let answer =
        Answer { token: Source::Body, when: Vec::new(), failures: Vec::new(), refresh_token: None, ..answer() };
    let read = |body: &str| open(&answer, &response(200, body)).and_then(|opened| opened.token());
    assert_eq!(read(" \r\nabc.def\n").unwrap().expose(), "abc.def");
    for bad in ["", " \n", "{\"error\":1}", "\"abc\"", "[1]", "<html/>", "two words", "ä"] {
        assert_eq!(read(bad).unwrap_err().kind, Failure::Malformed, "{bad}");
    }
}

#[test]
fn a_status_stands_without_its_body() {
    let head = |status| Head { status, date: None, retry_after: None };
    let table = [
        (SendError::Body(head(403), Cause::Interrupted), Failure::LockedOut),
        (SendError::Body(head(401), Cause::TooLarge), Failure::Rejected),
        (SendError::Body(head(200), Cause::Interrupted), Failure::Unavailable),
        (SendError::Body(head(200), Cause::TooLarge), Failure::Malformed),
        (SendError::NoAnswer(Cause::Timeout), Failure::Unreachable),
        (SendError::NoAnswer(Cause::Garbled), Failure::Malformed),
    ];
    for (error, expected) in table {
        assert_eq!(unanswered(&answer(), &error).kind, expected, "{error}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in any::<Vec<u8>>(), json in r#"[\[\]{}":,0-9.eE+\-a-z \\]{0,60}"#, status in 100_u16..=999) {
        let answer = answer();
        let inner = format!(r#"{{"code":0,"data":{{"token":{json},"refresh":{json}}}}}"#);
        for body in [bytes, json.into_bytes(), inner.into_bytes()] {
            let mut response = response(status, "");
            response.body = Bytes::from(body);
            if let Ok(opened) = open(&answer, &response) {
                prop_assert_eq!(status, 200);
                let is_sound = |token: AccessToken| is_printable(token.expose()) && !token.expose().is_empty();
                prop_assert!(opened.token().map_or(true, is_sound));
                drop(opened.grant());
            }
        }
    }
}
