//! `try-upstream` against a simulated upstream.

use super::{ANY_PORT, Files, SECRET, Upstream, WORKSPACE, run};
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::sandbox::{Fault, Organisation, Sandbox, Scope, Settings, User};
use tokio::task::JoinSet;

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
        format!("{WORKSPACE}: the flow application-token of emnify, upstream one at http://{address}\n"),
        format!("1. login: POST http://{address}/api/v1/authenticate\n"),
        "   body     {\"application_token\":\"‹application_token›\"}\n".to_owned(),
        "   members  auth_token: text\n".to_owned(),
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
    assert_eq!(done.code, Some(64));
    assert_eq!(done.stderr, "token-broker: the configuration has no workspace of this name\n");
    let near = tried(&upstream, "fleet/europ").await;
    assert_eq!(
        near.stderr,
        "token-broker: the configuration has no workspace of this name; did you mean fleet/europe?\n"
    );
    assert_eq!(upstream.control.counters().authenticate.total, 0);
}

#[tokio::test]
async fn a_refresh_is_tried_where_it_is_asked_for() {
    let upstream = Upstream::start().await;
    let user = User {
        username: "reports@one.example".to_owned(),
        // Of "hunter2".
        password_sha1: "f3bbbd66a63d4bf1747940578ec3d0103530e21d".to_owned(),
        organisation: 1,
        workspaces: Vec::new(),
        code: None,
        trusted_devices: Vec::new(),
    };
    let organisation = Organisation::new(1, "One", SECRET, Duration::from_secs(14_400));
    let settings = Settings { organisations: vec![organisation], users: vec![user], ..Settings::default() };
    let sandbox = Sandbox::bind(ANY_PORT, settings, Clock::system()).await.unwrap();
    let files = Files::for_upstream(upstream.address, "", "");
    let of_user = Files::new(&format!(
        "[[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://{}\"\n\
         [[workspaces]]\nname = \"{WORKSPACE}\"\nupstream = \"one\"\nflow = \"user\"\n\
         credential = {{ username = {{ file = \"user\" }}, password = {{ file = \"password\" }} }}\n",
        sandbox.addr()
    ));
    of_user.write("user", "reports@one.example");
    of_user.write("password", "hunter2");
    let mut serving = JoinSet::new();
    serving.spawn(sandbox.run(std::future::pending()));
    let done = run(&["try-upstream", "--refresh", &of_user.config(), WORKSPACE]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);
    for part in ["\n1. login: ", "\n2. refresh: ", "\"‹refresh_token›\""] {
        assert!(done.stdout.contains(part), "{part}\nis not in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("hunter2") && !done.stdout.contains("eyJ"), "a secret is shown");
    // An application token has none.
    let done = run(&["try-upstream", "--refresh", &files.config(), WORKSPACE]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("nothing to refresh with"), "{}", done.stderr);
}
