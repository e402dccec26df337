//! Help, wrong usage, and configurations that are good or bad.

use super::{Files, manifest, run, token_broker};
use std::fs;
use std::net::TcpListener;

const COMMANDS: [&str; 11] =
    ["", "serve", "dev", "get", "watch", "report", "inspect", "check-config", "policy", "policy test", "healthcheck"];

/// `UPDATE_DOCS=1 cargo test --test it cli::usage` writes it anew.
#[tokio::test]
async fn help_is_as_it_was_read_last() {
    let mut parts = Vec::new();
    for command in COMMANDS {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let done = run(&arguments).await;
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{command}");
        parts.push(format!("$ token-broker {}\n{}", arguments.join(" "), done.stdout));
    }
    let text = parts.join("\n");
    let file = manifest().join("tests/it/cli/help.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let wanted = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, wanted, "read it, then: UPDATE_DOCS=1 cargo test --test it cli::usage");
}

#[tokio::test]
async fn the_version_is_that_of_the_package() {
    let done = run(&["--version"]).await;
    assert_eq!((done.code, done.stdout), (Some(0), format!("token-broker {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn wrong_usage_is_64_on_stderr() {
    let wrong: [&[&str]; 15] = [
        &[],
        &["frobnicate"],
        &["get"],
        &["get", "a", "b"],
        &["get", "a", "--min-validity", "soon"],
        &["get", "a", "--timeout", "-1s"],
        &["watch"],
        &["watch", "a", "b", "--write-file", "token"],
        &["report", "a"],
        &["report", "a", "--fingerprint", "f"],
        &["report", "a", "--fingerprint", "f", "--status", "200"],
        &["report", "a", "--fingerprint", "f", "--status", "500"],
        &["serve"],
        &["check-config"],
        &["dev", "--grpc-listen", "localhost"],
    ];
    for arguments in wrong {
        let done = run(arguments).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(!done.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_good_configuration_says_what_its_budget_carries() {
    let files = Files::for_upstream(([127, 0, 0, 1], 1).into(), "", "budget = { logins = 100, per = \"5m\" }");
    let done = run(&["check-config", &files.config()]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);
    for part in [
        "upstream one (emnify, http://127.0.0.1:1): Workspaces: 1",
        "budget: 100 logins per 5m",
        "cold start",
        ": ok\n",
    ] {
        assert!(done.stdout.contains(part), "{part:?} is not in\n{}", done.stdout);
    }
}

const BAD: &str = r#"
[server]
grpc_listen = "0.0.0.0:7700"
drain_timeuot = "10s"

[[upstreams]]
name = "one"
kind = "emnify"
url = "http://example.com"

[[workspaces]]
name = "Fleet"
upstream = "two"
credential = { application_token = "pasted-in-by-mistake" }
"#;

#[tokio::test]
async fn a_bad_configuration_is_64_and_all_of_its_problems() {
    let files = Files::new(BAD);
    let config = files.config();
    let commands: [&[&str]; 2] = [&["check-config", &config], &["serve", "--config", &config]];
    for arguments in commands {
        let done = run(arguments).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        for key in [
            "server.grpc_listen",
            "drain_timeuot",
            "upstreams[0].url",
            "workspaces[0].name",
            "workspaces[0].upstream",
            "credential",
        ] {
            assert!(done.stderr.contains(key), "{key} is not in\n{}", done.stderr);
        }
        assert!(!done.stderr.contains("pasted-in"), "{}", done.stderr);
        assert!(done.stderr.lines().all(|line| line.starts_with("token-broker: ")), "{}", done.stderr);
    }
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_64() {
    let done = run(&["check-config", "/nowhere/token-broker.toml"]).await;
    assert_eq!(done.code, Some(64));
    assert!(done.stderr.contains("/nowhere/token-broker.toml"), "{}", done.stderr);
}

#[tokio::test]
async fn plain_grpc_beyond_loopback_is_64() {
    let files = Files::new("[server]\ngrpc_listen = \"0.0.0.0:0\"\n");
    let done = run(&["serve", "--config", &files.config()]).await;
    assert_eq!(done.code, Some(64), "{}", done.stderr);
    assert!(done.stderr.contains("server.grpc_listen") && done.stderr.contains("loopback"), "{}", done.stderr);
}

#[tokio::test]
async fn a_taken_port_is_1_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["GRPC_LISTEN", "PROBE_LISTEN"] {
        let files = Files::for_upstream(([127, 0, 0, 1], 1).into(), "", "");
        let mut command = token_broker(&["serve", "--config", &files.config()]);
        command.env(format!("TOKEN_BROKER__SERVER__{key}"), address.to_string());
        let done = super::finish(command).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
        let last = done.stderr.lines().last().unwrap();
        assert!(last.starts_with(&format!("token-broker: can't listen on {address}: ")), "{last}");
    }
}
