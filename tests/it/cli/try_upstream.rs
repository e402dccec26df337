//! `try-upstream` against a simulated upstream.

use super::{Files, SECRET, Upstream, WORKSPACE, run};
use token_broker::sandbox::{Fault, Scope};

async fn tried(upstream: &Upstream, workspace: &str) -> super::Done {
    let files = Files::for_upstream(upstream.address, "", "");
    let done = run(&["try-upstream", &files.config(), workspace]).await;
    assert!(!done.stdout.contains(SECRET) && !done.stderr.contains(SECRET), "the secret is shown");
    done
}

#[tokio::test]
async fn every_step_is_told_and_no_secret_is_shown() {
    let upstream = Upstream::start().await;
    let done = tried(&upstream, WORKSPACE).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let address = upstream.address;
    let expected = [
        format!("{WORKSPACE}: the flow application-token of emnify, upstream one at http://{address}/\n"),
        format!("1. login: POST http://{address}/api/v1/authenticate\n"),
        "   body     {\"application_token\":\"‹application_token›\"}\n".to_owned(),
        "   members  auth_token\n".to_owned(),
        "presented as authorization: Bearer …\n".to_owned(),
        "   outcome  a token for 14399 s\n".to_owned(),
    ];
    for part in expected {
        assert!(done.stdout.contains(&part), "{part}\nis not in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("eyJ"), "a token is shown");
    assert_eq!(upstream.control.counters().authenticate.total, 1);
}

#[tokio::test]
async fn a_failure_is_told_with_what_it_means() {
    let upstream = Upstream::start().await;
    upstream.control.set_fault(Scope::ALL, Fault::status(401));
    let done = tried(&upstream, WORKSPACE).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains("   answer   status 401"), "{}", done.stdout);
    assert!(done.stderr.contains("status 401") && done.stderr.contains("five minutes"), "{}", done.stderr);
}

#[tokio::test]
async fn an_unknown_workspace_asks_nobody() {
    let upstream = Upstream::start().await;
    let done = tried(&upstream, "fleet/asia").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""));
    assert_eq!(done.stderr, "token-broker: the configuration has no workspace of this name\n");
    assert_eq!(upstream.control.counters().authenticate.total, 0);
}
