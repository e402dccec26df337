//! What `ReportRejectedToken` answers.

use super::fake::{EXTRA, VALUE};
use super::{App, WORKSPACE, asking, told};
use prost::Message as _;
use std::time::Duration;
use token_broker::grpc::pb::{ReportRejectedTokenRequest, ReportRejectedTokenResponse, TokenSource};
use tokio::task::JoinSet;
use tokio::time::advance;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

const REPORT: &str = "/tokenbroker.v1.TokenService/ReportRejectedToken";
/// Of no token at all.
const UNSEEN: &str = "MuKcNVrA5JdLBEuiqcxaYQ";
/// Longer than the least time between exchanges that callers force.
const GAP: Duration = Duration::from_secs(11);

fn reporting(fingerprint: &str, upstream_status: i32) -> ReportRejectedTokenRequest {
    ReportRejectedTokenRequest { workspace: WORKSPACE.to_owned(), fingerprint: fingerprint.to_owned(), upstream_status }
}

async fn report(app: &App, request: ReportRejectedTokenRequest) -> Result<ReportRejectedTokenResponse, Status> {
    app.client().report_rejected_token(request).await.map(tonic::Response::into_inner)
}

/// The fingerprint of the token in hand, which is old enough to be reported.
async fn reportable(app: &App) -> String {
    let token = app.get(asking(WORKSPACE)).await.unwrap().token.unwrap();
    advance(GAP).await;
    token.fingerprint
}

#[tokio::test(start_paused = true)]
async fn the_replacement_comes_and_to_those_who_are_late_from_memory() {
    let app = App::new().await;
    let rejected = reportable(&app).await;
    let answer = report(&app, reporting(&rejected, 401)).await.unwrap();
    assert_eq!(answer.source(), TokenSource::Exchanged);
    assert_eq!(answer.token.as_ref().unwrap().value, format!("{VALUE}2"));
    let late = report(&app, reporting(&rejected, 401)).await.unwrap();
    assert_eq!((late.source(), &late.token), (TokenSource::Cache, &answer.token));
    let get = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!((late.token, late.valid_for), (get.token, get.valid_for), "the token of GetToken, every field");
    assert_eq!(app.provider.calls(), 2);
    let shown = format!("{answer:?} {answer:#?}");
    assert!(!shown.contains(VALUE) && !shown.contains(EXTRA), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_report_share_one_exchange() {
    let app = App::new().await;
    let rejected = reportable(&app).await;
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let (mut client, request) = (app.client(), reporting(&rejected, 401));
        crowd.spawn(async move { client.report_rejected_token(request).await.unwrap().into_inner() });
    }
    for answer in crowd.join_all().await {
        assert_eq!(answer.token.unwrap().value, format!("{VALUE}2"));
    }
    assert_eq!(app.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_report_is_refused_with_its_field() {
    let app = App::new().await;
    let rejected = reportable(&app).await;
    let too_long = "A".repeat(23);
    let rows = [
        (reporting("", 401), "fingerprint"),
        (reporting(&"A".repeat(21), 401), "fingerprint"),
        (reporting(&too_long, 401), "fingerprint"),
        (reporting(&format!("{}=", "A".repeat(21)), 401), "fingerprint"),
        (reporting("MuKcNVrA5JdLBEuiqcxaY/", 401), "fingerprint"),
        (reporting("MuKcNVrA5JdLBEuiqcxaYR", 401), "fingerprint"),
        (reporting(&rejected, 0), "upstream_status"),
        (reporting(&rejected, -401), "upstream_status"),
        (reporting(&rejected, 200), "upstream_status"),
        (reporting(&rejected, 399), "upstream_status"),
        (reporting(&rejected, 429), "upstream_status"),
        (reporting(&rejected, 500), "upstream_status"),
        (ReportRejectedTokenRequest { workspace: "Fleet".to_owned(), ..reporting(&rejected, 401) }, "workspace"),
    ];
    for (request, field) in rows {
        let what = format!("{request:?}");
        let status = report(&app, request).await.unwrap_err();
        assert_eq!(told(&status), (Code::InvalidArgument, "REQUEST_INVALID".to_owned()), "{what}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), [field], "{what}");
    }
    let mut message = reporting(&rejected, 401).encode_to_vec();
    // Field 100, a string.
    message.extend([0xa2, 0x06, 3, b'n', b'e', b'w']);
    let status = app.call_with(REPORT, &message).await;
    assert_eq!(status.message(), "request: holds field 100, which this broker does not know");
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_status_of_a_rejection_will_do() {
    let app = App::new().await;
    app.get(asking(WORKSPACE)).await.unwrap();
    for upstream_status in [400, 401, 403, 404, 428, 430, 499] {
        assert!(report(&app, reporting(UNSEEN, upstream_status)).await.is_ok(), "{upstream_status}");
    }
    assert_eq!(app.provider.calls(), 1, "another token than the current one: nothing to do");
}

#[tokio::test(start_paused = true)]
async fn a_report_too_soon_says_when_to_come_back() {
    let app = App::new().await;
    let fresh = app.get(asking(WORKSPACE)).await.unwrap().token.unwrap().fingerprint;
    let status = report(&app, reporting(&fresh, 401)).await.unwrap_err();
    assert_eq!(told(&status), (Code::ResourceExhausted, "REPORT_THROTTLED".to_owned()));
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    advance(delay).await;
    assert!(report(&app, reporting(&fresh, 401)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_said_to_be_the_same() {
    let app = App::new().await;
    let rejected = reportable(&app).await;
    app.provider.repeats(1);
    let status = report(&app, reporting(&rejected, 401)).await.unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, "TOKEN_STILL_REJECTED".to_owned()));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(app.get(asking(WORKSPACE)).await.unwrap().token.unwrap().fingerprint, rejected, "never withdrawn");
}

#[tokio::test(start_paused = true)]
async fn unknown_and_forbidden_are_told_as_of_any_call() {
    let app = App::new().await;
    let unknown = ReportRejectedTokenRequest { workspace: "fleet/asia".to_owned(), ..reporting(UNSEEN, 401) };
    let status = report(&app, unknown.clone()).await.unwrap_err();
    assert_eq!(told(&status), (Code::NotFound, "WORKSPACE_UNKNOWN".to_owned()));
    let app = App::of_a_stranger().await;
    for request in [unknown, reporting(UNSEEN, 401)] {
        let status = report(&app, request).await.unwrap_err();
        assert_eq!(told(&status), (Code::PermissionDenied, "CALLER_FORBIDDEN".to_owned()));
    }
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reporter_waits_at_most_its_deadline() {
    let app = App::new().await;
    let rejected = reportable(&app).await;
    app.provider.hangs();
    let mut request = Request::new(reporting(&rejected, 401));
    request.metadata_mut().insert("grpc-timeout", "3S".parse().unwrap());
    let status = app.client().report_rejected_token(request).await.unwrap_err();
    assert_eq!(told(&status), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
    assert_eq!(app.get(asking(WORKSPACE)).await.unwrap().token.unwrap().fingerprint, rejected);
}
