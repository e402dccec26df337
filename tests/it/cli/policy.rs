//! `policy test`.

use super::{Done, Files, run};

/// Lines are counted from here.
const GRANTS: &str = "[[grants]]
caller = \"spiffe://prod.example/ns/fleet/sa/*\"
workspaces = [\"fleet/**\"]
actions = [\"get\", \"watch\"]
[[grants]]
caller = \"dns:monitor.example\"
workspaces = [\"**\"]
actions = [\"health\"]
[[upstreams]]
name = \"one\"
kind = \"emnify\"
[[workspaces]]
name = \"fleet/europe\"
upstream = \"one\"
credential = { application_token = { file = \"secret\" } }
";

async fn test(files: &Files, caller: &str, workspace: &str, action: &str) -> Done {
    let config = files.config();
    let request = ["--config", &config, "--caller", caller, "--workspace", workspace, "--action", action];
    run(&[&["policy", "test"][..], &request].concat()).await
}

const API: &str = "spiffe://prod.example/ns/fleet/sa/api";
const THERE: &str = "the configuration has a Workspace of this name\n";

#[tokio::test]
async fn a_request_that_is_allowed_is_told_its_grant() {
    let files = Files::new(GRANTS);
    let done = test(&files, API, "fleet/europe", "get").await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        done.stdout,
        format!(
            "allowed by grants[0] (line 1): caller = \"spiffe://prod.example/ns/fleet/sa/*\", \
             workspaces = [\"fleet/**\"], actions = [\"get\", \"watch\"]\n{THERE}"
        )
    );
    let done = test(&files, "dns:monitor.example", "fleet/eurpoe", "health").await;
    assert_eq!(done.code, Some(0));
    assert!(done.stdout.starts_with("allowed by grants[1] (line 5): "), "{}", done.stdout);
    assert!(done.stdout.ends_with("no Workspace of this name; did you mean fleet/europe?\n"), "{}", done.stdout);
}

#[tokio::test]
async fn a_request_that_is_denied_is_told_what_comes_nearest() {
    let files = Files::new(GRANTS);
    let rows = [
        (API, "fleet/europe", "report", "grants[0]", "not for report"),
        (API, "billing/reports", "get", "grants[0]", "not for this Workspace"),
        ("spiffe://prod.example/ns/billing/sa/api", "fleet/europe", "get", "grants[0]", "not for this caller"),
        ("unix:0", "fleet/europe", "health", "grants[1]", "not for this caller"),
        (API, "billing/reports", "report", "grants[0]", "not for this Workspace, nor for report"),
    ];
    for (caller, workspace, action, grant, why) in rows {
        let done = test(&files, caller, workspace, action).await;
        assert_eq!((done.code, done.stderr.as_str()), (Some(1), ""), "{caller} {workspace} {action}");
        let lines: Vec<_> = done.stdout.lines().collect();
        assert_eq!(lines[0], "denied: no grant allows it; the nearest are");
        assert!(lines[1].starts_with(&format!("  {grant} (line ")), "{}", done.stdout);
        assert!(lines.iter().any(|line| line.ends_with(&format!("]: {why}"))), "{why}: {}", done.stdout);
    }
    let done = test(&files, "unix:0", "fleet/europe", "report").await;
    assert_eq!(done.code, Some(1));
    let why = "denied: no grant is for this caller, nor for this action with this Workspace\n";
    assert_eq!(done.stdout, format!("{why}{THERE}"));
    files.write("token-broker.toml", "");
    let done = test(&files, "unix:0", "a", "get").await;
    let gone = "the configuration has no Workspace of this name\n";
    assert_eq!((done.code, done.stdout), (Some(1), format!("denied: there are no grants\n{gone}")));
}

#[tokio::test]
async fn what_can_be_no_request_is_wrong_usage() {
    let files = Files::new(GRANTS);
    let rows = [
        ("prod.example", "fleet/europe", "get", "must be loopback, or begin with"),
        ("spiffe://prod.example/ns/*", "fleet/europe", "get", "must have a path of segments"),
        (API, "Fleet", "get", "may only hold a-z"),
        (API, "fleet/europe", "admin", "expected get, watch, report or health"),
    ];
    for (caller, workspace, action, why) in rows {
        let done = test(&files, caller, workspace, action).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""));
        assert!(done.stderr.contains(why), "{}", done.stderr);
    }
    files.write("token-broker.toml", "[[grants]]\n");
    let done = test(&files, API, "fleet/europe", "get").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""));
    assert!(done.stderr.contains("grants[0].caller (line 1): is missing"), "{}", done.stderr);
}
