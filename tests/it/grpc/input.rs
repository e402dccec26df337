//! What callers may send: bad input is refused with the field's name, and costs the upstream nothing.

use super::{App, HOUR, WORKSPACE, asking, told, with_validity};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use std::convert::Infallible;
use std::time::Duration;
use token_broker::error::Reason;
use tonic::Code;
use tonic::body::Body;
use tonic_types::StatusExt as _;

const INVALID: (Code, &str) = (Code::InvalidArgument, "REQUEST_INVALID");

/// Refused as invalid, naming this field.
fn assert_invalid(status: &tonic::Status, field: &str, what: &str) {
    let (code, reason) = told(status);
    assert_eq!((code, reason.as_str()), INVALID, "{what}");
    let violations = status.get_details_bad_request().expect("no BadRequest").field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{what}");
    assert!(!violations[0].description.is_empty(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn names_that_are_none_are_refused_and_never_mended() {
    let app = App::new().await;
    let (long, very_long) = ("a".repeat(129), "a".repeat(10_000));
    let names = [
        ("empty", ""),
        ("129 characters", &long),
        ("10,000 characters", &very_long),
        ("upper case", "Fleet/europe"),
        ("a Cyrillic е", "fl\u{435}et/europe"),
        ("full-width letters", "\u{ff46}leet/europe"),
        ("a division slash", "fleet\u{2215}europe"),
        ("a zero-width space", "fleet/europe\u{200b}"),
        ("a combining accent", "fle\u{301}et/europe"),
        ("a NUL", "fleet/europe\0"),
        ("percent", "fleet%2feurope"),
        ("a space before", " fleet/europe"),
        ("a line feed after", "fleet/europe\n"),
        ("a leading slash", "/fleet/europe"),
        ("a trailing slash", "fleet/europe/"),
        ("a doubled slash", "fleet//europe"),
        ("a backslash", "fleet\\europe"),
        ("a star", "fleet/*"),
    ];
    for (what, name) in names {
        assert_invalid(&app.get(asking(name)).await.unwrap_err(), "workspace", what);
    }
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_longest_name_is_a_name() {
    let app = App::new().await;
    let status = app.get(asking(&"a".repeat(128))).await.unwrap_err();
    assert_eq!(told(&status), (Code::NotFound, "WORKSPACE_UNKNOWN".to_owned()));
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_min_validity_that_is_none_is_refused() {
    let app = App::new().await;
    let ten_years = 10 * 365 * 86_400;
    let validities = [
        ("negative", -1, 0),
        ("negative nanos", 0, -1),
        ("signs that differ", 1, -1),
        ("signs that differ the other way", -1, 1),
        ("a second of nanos", 0, 1_000_000_000),
        ("the least there is", i64::MIN, i32::MIN),
        ("more than ten years", ten_years, 1),
        ("the most there is", i64::MAX, 999_999_999),
    ];
    for (what, seconds, nanos) in validities {
        assert_invalid(&app.get(with_validity(seconds, nanos)).await.unwrap_err(), "min_validity", what);
    }
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_validity_than_the_upstream_gives_is_unsatisfiable() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let too_long = with_validity(3601, 0);
    for _ in 0..3 {
        let status = app.get(too_long.clone()).await.unwrap_err();
        assert_eq!(told(&status), (Code::FailedPrecondition, "LIFETIME_UNSATISFIABLE".to_owned()));
    }
    // Once, to learn what the upstream gives.
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_so_soon_after_the_last_says_when_to_come_back() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    app.get(asking(WORKSPACE)).await.unwrap();
    let status = app.get(with_validity(3599, 0)).await.unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, "RENEWAL_TOO_SOON".to_owned()));
    let delay = status.get_details_retry_info().expect("no RetryInfo").retry_delay.unwrap();
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(10), "{delay:?}");
    assert_eq!(app.provider.calls(), 1);
    tokio::time::advance(delay).await;
    let answer = app.get(with_validity(3595, 0)).await.unwrap();
    assert!(answer.valid_for.unwrap().seconds >= 3595);
    assert_eq!(app.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_workspace_is_not_found() {
    let app = App::new().await;
    let status = app.get(asking("fleet/asia")).await.unwrap_err();
    assert_eq!(told(&status), (Code::NotFound, "WORKSPACE_UNKNOWN".to_owned()));
    assert_eq!(status.message(), Reason::WorkspaceUnknown.message());
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_grant_is_told_the_same_of_every_name() {
    let app = App::of_a_stranger().await;
    let known = app.get(asking(WORKSPACE)).await.unwrap_err();
    let unknown = app.get(asking("fleet/asia")).await.unwrap_err();
    assert_eq!(told(&known), (Code::PermissionDenied, "CALLER_FORBIDDEN".to_owned()));
    assert_eq!(told(&known), told(&unknown));
    assert_eq!((known.message(), known.details()), (unknown.message(), unknown.details()));
    assert_eq!(app.provider.calls(), 0);
}

/// A newer client that asks for less than it would get must notice.
#[tokio::test(start_paused = true)]
async fn fields_that_are_not_known_are_refused_by_number() {
    let app = App::new().await;
    let mut message = asking(WORKSPACE).encode_to_vec();
    // Field 100, a string; field 101, a number.
    message.extend([0xa2, 0x06, 3, b'n', b'e', b'w', 0xa8, 0x06, 1]);
    let status = app.get_with(&message).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "request: holds field 100, which this broker does not know");
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_16_kib_is_refused() {
    let app = App::new().await;
    let fitting = asking(&"a".repeat(16 * 1024 - 3)).encode_to_vec();
    assert_eq!(fitting.len(), 16 * 1024);
    assert_eq!(app.get_with(&fitting).await.code(), Code::InvalidArgument);
    let over = asking(&"a".repeat(16 * 1024 - 2)).encode_to_vec();
    assert_eq!(app.get_with(&over).await.code(), Code::OutOfRange);
    // A prefix that promises four gigabytes is refused before they come.
    let promise =
        StreamBody::new(futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[
            0, 0xff, 0xff, 0xff, 0xff,
        ])))]));
    assert_eq!(app.raw(Body::new(promise)).await.code(), Code::OutOfRange);
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_in_an_error_and_nothing_else() {
    let app = App::new().await;
    let not_utf8 = [0x0a, 2, 0xff, 0xfe];
    let cut_short = [0x0a, 40, b'a'];
    let wrong_type = [0x08, 1];
    let deep = [0x13; 200];
    for garbage in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], &not_utf8, &cut_short, &wrong_type, &deep] {
        let status = app.get_with(garbage).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{garbage:?} {status:?}");
    }
    // Neither a whole prefix nor a known compression.
    for body in [&b""[..], b"\0\0", b"\0\0\0\0\x05ab", b"\x01\0\0\0\0", b"\x07\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"] {
        let status = app.raw(Body::new(http_body_util::Full::from(body))).await;
        assert_ne!(status.code(), Code::Ok, "{body:?}");
    }
    assert_eq!(app.provider.calls(), 0);
    // The connection has survived it all.
    app.get(asking(WORKSPACE)).await.unwrap();
}
