//! What every failure looks like on the wire.

use super::fake::TAKES;
use super::{App, WORKSPACE, asking, told};
use std::time::Duration;
use std::{env, fs};
use token_broker::error::{Error, Reason};
use token_broker::grpc::error_table;
use token_broker::provider::Failure;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
const BEGIN: &str = "<!-- begin: written by the tests -->\n";
const END: &str = "<!-- end -->\n";

/// Written out once more, so that no change of a code goes unnoticed.
const CODES: [(Reason, Code); 21] = [
    (Reason::RequestInvalid, Code::InvalidArgument),
    (Reason::CallerUnauthenticated, Code::Unauthenticated),
    (Reason::CallerUnverifiable, Code::Unavailable),
    (Reason::CallerForbidden, Code::PermissionDenied),
    (Reason::WorkspaceUnknown, Code::NotFound),
    (Reason::WorkspaceFrozen, Code::FailedPrecondition),
    (Reason::CredentialRejected, Code::FailedPrecondition),
    (Reason::TenantMismatch, Code::FailedPrecondition),
    (Reason::LifetimeUnsatisfiable, Code::FailedPrecondition),
    (Reason::CallerThrottled, Code::ResourceExhausted),
    (Reason::TokenPending, Code::Unavailable),
    (Reason::UpstreamUnavailable, Code::Unavailable),
    (Reason::UpstreamThrottled, Code::Unavailable),
    (Reason::RenewalTooSoon, Code::Unavailable),
    (Reason::ReportThrottled, Code::ResourceExhausted),
    (Reason::TokenStillRejected, Code::Unavailable),
    (Reason::UpstreamMalformed, Code::Internal),
    (Reason::AuditUnavailable, Code::Unavailable),
    (Reason::Draining, Code::Unavailable),
    (Reason::Deadline, Code::DeadlineExceeded),
    (Reason::Bug, Code::Internal),
];

fn wanted(reason: Reason) -> Code {
    let row = CODES.iter().find(|(other, _)| *other == reason);
    row.unwrap_or_else(|| panic!("{reason:?} is not in the table of this test")).1
}

#[test]
fn every_reason_has_its_code_and_its_details() {
    for reason in Reason::ALL {
        let status = Status::from(Error::new(*reason));
        assert_eq!(told(&status), (wanted(*reason), reason.as_str().to_owned()));
        assert_eq!(status.message(), reason.message());
        assert!(status.get_details_retry_info().is_none(), "{reason:?}");
        assert!(status.get_details_bad_request().is_none(), "{reason:?}");
    }
}

#[test]
fn every_reason_that_may_pass_says_when_to_try_again() {
    let delay = Duration::from_millis(2500);
    let passing = Reason::ALL.iter().filter(|r| matches!(wanted(**r), Code::Unavailable | Code::ResourceExhausted));
    for reason in passing {
        let status = Status::from(Error::retry(*reason, delay));
        let info = status.get_details_retry_info().unwrap_or_else(|| panic!("no RetryInfo for {reason:?}"));
        assert_eq!(info.retry_delay, Some(delay), "{reason:?}");
    }
}

#[test]
fn reasons_differ() {
    let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_does_arrives_as_a_reason() {
    let after = Some(Duration::from_secs(60));
    let rows = [
        (Failure::Unreachable, Reason::UpstreamUnavailable),
        (Failure::Unavailable, Reason::UpstreamUnavailable),
        (Failure::Throttled { retry_after: after }, Reason::UpstreamThrottled),
        (Failure::Throttled { retry_after: None }, Reason::UpstreamThrottled),
        (Failure::LockedOut, Reason::UpstreamThrottled),
        (Failure::Rejected, Reason::CredentialRejected),
        (Failure::TenantMismatch, Reason::TenantMismatch),
        (Failure::Malformed, Reason::UpstreamMalformed),
    ];
    for (failure, reason) in rows {
        let app = App::new().await;
        app.provider.answers(Err(failure));
        // The one that waits for the exchange, and one that is answered at once by what it left behind.
        for takes in [TAKES, Duration::ZERO] {
            let (answer, took) = app.timed(None).await;
            let status = answer.unwrap_err();
            assert!(took >= takes && took < takes + Duration::from_secs(1), "{failure:?}: {took:?}");
            assert_eq!(told(&status), (wanted(reason), reason.as_str().to_owned()), "{failure:?}");
            let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry.is_some(), status.code() == Code::Unavailable, "{failure:?}: {retry:?}");
            if failure == (Failure::Throttled { retry_after: after }) {
                assert!(retry >= after, "{retry:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_workspace_says_so() {
    let app = App::new().await;
    let name = token_broker::token::WorkspaceName::parse(WORKSPACE).unwrap();
    assert!(app.engine.freeze(&name));
    let status = app.get(asking(WORKSPACE)).await.unwrap_err();
    assert_eq!(told(&status), (Code::FailedPrecondition, "WORKSPACE_FROZEN".to_owned()));
    assert_eq!(app.provider.calls(), 0);
}

/// `UPDATE_DOCS=1 cargo test --test it grpc::reasons` writes the table anew.
#[test]
fn the_documentation_holds_the_table() {
    let text = fs::read_to_string(TABLE).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("no begin mark in docs/errors.md");
    let (_, after) = rest.split_once(END).expect("no end mark in docs/errors.md");
    let fresh = format!("{before}{BEGIN}{}{END}{after}", error_table());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(TABLE, &fresh).unwrap();
    } else {
        assert_eq!(text, fresh, "docs/errors.md is out of date: UPDATE_DOCS=1 cargo test --test it grpc::reasons");
    }
    for reason in Reason::ALL {
        let explained = format!("`{}`", reason.as_str());
        let prose = before.contains(&explained) || after.contains(&explained);
        assert!(prose, "docs/errors.md does not say what to do about {explained}");
    }
}
