//! `dev`: every command that it prints works as printed.

use super::{Done, PATIENCE, Process, finish, manifest, token_broker};
use std::env;
use std::process::Stdio;
use tokio::io::AsyncBufReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

const ANY: &str = "127.0.0.1:0";

struct Dev {
    /// Ends it when dropped.
    _process: Process,
    /// Up to the last line, which says how to end it.
    welcome: String,
}

impl Dev {
    async fn start() -> Self {
        let listen = ["--grpc-listen", ANY, "--probe-listen", ANY, "--sandbox-listen", ANY];
        let mut command = token_broker(&[&["dev"][..], &listen].concat());
        command.current_dir(manifest());
        let mut process = Process::start(command);
        let mut welcome = String::new();
        let stdout = process.stdout.as_mut().unwrap();
        while !welcome.contains("Ctrl-C ends it.") {
            let read = timeout(PATIENCE, stdout.read_line(&mut welcome)).await.expect("it says nothing more").unwrap();
            assert!(read > 0, "it ended: {welcome}");
        }
        Self { _process: process, welcome }
    }

    /// The commands to copy, in their order.
    fn commands(&self) -> Vec<String> {
        let (_, rest) = self.welcome.split_once("\nTry").expect("nothing to try");
        let indented = rest.lines().filter_map(|line| line.strip_prefix("  "));
        indented.filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// The address that is printed behind this word.
    fn address(&self, word: &str) -> &str {
        let line = self.welcome.lines().find_map(|line| line.trim_start().strip_prefix(word));
        let (_, rest) = line.unwrap_or_else(|| panic!("no {word} in {}", self.welcome)).split_once("http://").unwrap();
        rest.split([' ', '/']).next().unwrap()
    }
}

/// As a person would, in the directory that `dev` was started in.
async fn sh(command: &str) -> Done {
    let tools = manifest().join("target/tools");
    let path = env::join_paths(env::split_paths(&env::var_os("PATH").unwrap_or_default()).chain([tools])).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(manifest()).env_clear().env("PATH", path);
    shell.stdin(Stdio::null()).kill_on_drop(true);
    finish(shell).await
}

/// What its output must hold.
fn expected(command: &str) -> &'static [&'static str] {
    let rows: [(&str, &[&str]); 14] = [
        (" demo/emnify-switched", &["1. login: POST", "2. switch: POST", "presented as authorization: Bearer …"]),
        (" demo/described", &["members  result: object, result.access_token: text", "3600"]),
        (" policy test ", &["allowed by grants[0] (line ", "the configuration has a Workspace of this name"]),
        ("/_control/faults", &[]),
        ("/_control/reset", &[]),
        ("/metrics", &["token_broker_rpc_calls_total", "token_broker_exchanges_total"]),
        ("/api/v1/endpoint", &["HTTP/1.1 200 OK", "Device 1"]),
        (" watch ", &["demo/emnify token fingerprint=", "demo/emnify-short token fingerprint="]),
        (" report ", &["eyJ"]),
        ("grpcurl ", &["\"fingerprint\"", "\"validFor\""]),
        (" inspect ", &["\"esc.org\": 1", "\"exp\""]),
        (" healthcheck ", &["serving"]),
        (" --json", &["\"fingerprint\"", "\"header_name\": \"authorization\""]),
        (" get ", &["eyJ"]),
    ];
    let row = rows.iter().find(|(part, _)| command.contains(part));
    row.unwrap_or_else(|| panic!("a command that this test does not know: {command}")).1
}

fn lacks_grpcurl() -> bool {
    let there = manifest().join("target/tools/grpcurl").exists();
    assert!(there || env::var_os("CI").is_none(), "test.sh installs target/tools/grpcurl, and it is not there");
    !there
}

#[tokio::test]
async fn every_printed_command_works_as_printed() {
    let dev = Dev::start().await;
    let commands = dev.commands();
    assert!(commands.len() >= 13, "{}", dev.welcome);
    let upstream = dev.address("upstream").to_owned();
    for command in commands {
        if command.starts_with("grpcurl ") && lacks_grpcurl() {
            continue;
        }
        let done = sh(&command).await;
        assert_eq!(done.code, Some(0), "{command}\n{}\n{}", done.stdout, done.stderr);
        for part in expected(&command) {
            assert!(done.stdout.contains(part), "{part:?} is not in the output of {command}:\n{}", done.stdout);
        }
        let status = sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' http://{upstream}/api/v1/endpoint")).await;
        if command.contains("/_control/faults") {
            assert_eq!(status.stdout, "503", "nothing broke");
        } else if command.contains("/_control/reset") {
            assert_eq!(status.stdout, "401", "nothing was mended");
        }
    }
}

/// The commands of the page, each with what its output must hold, if the line after it says so.
fn examples(page: &str) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match (line.strip_prefix("# → "), found.last_mut()) {
                (Some(part), Some(last)) => last.1 = Some(part.to_owned()),
                (Some(_), None) => panic!("an output without a command"),
                (None, _) if line.starts_with('#') => {}
                (None, _) => found.push((line.to_owned(), None)),
            }
        }
    }
    found
}

#[tokio::test]
async fn every_example_of_the_sandbox_page_works_as_it_stands() {
    let page = std::fs::read_to_string(manifest().join("docs/sandbox.md")).unwrap();
    let routes = std::fs::read_to_string(manifest().join("src/sandbox/control/routes.rs")).unwrap();
    let routes: Vec<&str> = routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")).collect();
    let examples = examples(&page);
    assert!(routes.len() >= 10, "{routes:?}");
    for route in routes {
        let path = format!("/_control{}", route.split('"').next().unwrap());
        assert!(examples.iter().any(|(command, _)| command.ends_with(&path)), "no example of {path}");
    }
    let dev = Dev::start().await;
    let upstream = dev.address("upstream");
    for (command, part) in examples {
        let done = sh(&command.replace("127.0.0.1:7702", upstream)).await;
        assert_eq!(done.code, Some(0), "{command}\n{}\n{}", done.stdout, done.stderr);
        let part = part.unwrap_or_default();
        assert!(done.stdout.contains(&part), "{part:?} is not in the output of {command}:\n{}", done.stdout);
        assert!(!part.is_empty() || done.stdout.is_empty(), "{command} says more than the page:\n{}", done.stdout);
    }
}

#[tokio::test]
async fn every_workspace_that_is_printed_is_there() {
    let dev = Dev::start().await;
    let (_, rest) = dev.welcome.split_once("Workspaces:\n").unwrap();
    let names =
        rest.lines().take_while(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert_eq!(names.len(), 10);
    let endpoint = format!("http://{}", dev.address("gRPC"));
    for name in names {
        let done = super::run(&["get", "--endpoint", &endpoint, &name]).await;
        if name == "demo/emnify-revoked" {
            assert_eq!(done.code, Some(1));
            assert!(done.stderr.contains("(CREDENTIAL_REJECTED)"), "{}", done.stderr);
        } else {
            assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
        }
    }
}

#[tokio::test]
async fn it_ends_with_0_and_leaves_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let listen = ["--grpc-listen", ANY, "--probe-listen", ANY, "--sandbox-listen", ANY];
    let mut command = token_broker(&[&["dev"][..], &listen].concat());
    command.env("TMPDIR", directory.path());
    let mut process = Process::start(command);
    let mut line = String::new();
    while !line.contains("Ctrl-C") {
        line.clear();
        let stdout = process.stdout.as_mut().unwrap();
        assert!(timeout(PATIENCE, stdout.read_line(&mut line)).await.unwrap().unwrap() > 0, "{}", process.stderr());
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    // Signals are taken over before anything is logged.
    while !process.stderr().contains("serving") {
        timeout(PATIENCE, process.lines.changed()).await.unwrap().unwrap();
    }
    process.signal("INT").await;
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn grpcurl_calls_every_method_through_reflection() {
    if lacks_grpcurl() {
        return;
    }
    let dev = Dev::start().await;
    let grpc = dev.address("gRPC");
    let listed = sh(&format!("grpcurl -plaintext {grpc} list tokenbroker.v1.TokenService")).await;
    let methods = ["GetToken", "ReportRejectedToken", "WatchTokens"];
    let full = methods.map(|method| format!("tokenbroker.v1.TokenService.{method}"));
    assert_eq!(listed.stdout.split_whitespace().collect::<Vec<_>>(), full, "a method that this test does not call");
    let report = r#"{"workspace":"demo/emnify","fingerprint":"AAAAAAAAAAAAAAAAAAAAAA","upstream_status":401}"#;
    // A stream goes on until the caller has had enough: 68 is grpcurl's 64 with DEADLINE_EXCEEDED.
    let calls = [
        ("tokenbroker.v1.TokenService/GetToken", r#"{"workspace":"demo/emnify"}"#, 0, "\"fingerprint\""),
        ("tokenbroker.v1.TokenService/ReportRejectedToken", report, 0, "\"fingerprint\""),
        ("tokenbroker.v1.TokenService/WatchTokens", r#"{"workspaces":["demo/emnify"]}"#, 68, "\"fingerprint\""),
        ("grpc.health.v1.Health/Check", r#"{"service":"workspace/demo/emnify"}"#, 0, "\"SERVING\""),
        ("grpc.health.v1.Health/Watch", r#"{"service":"tokenbroker.v1.TokenService"}"#, 68, "\"SERVING\""),
    ];
    for (method, request, code, part) in calls {
        let limit = if code == 0 { 30 } else { 5 };
        let done = sh(&format!("grpcurl -plaintext -max-time {limit} -d '{request}' {grpc} {method}")).await;
        assert_eq!(done.code, Some(code), "{method}\n{}\n{}", done.stdout, done.stderr);
        assert!(done.stdout.contains(part), "{method}\n{}\n{}", done.stdout, done.stderr);
    }
    // The details of a failure are shown by name. 64 and the number of the code is how grpcurl ends then.
    let failures = [
        (r#"{"workspace":"Fleet"}"#, 64 + 3, "google.rpc.BadRequest", "REQUEST_INVALID"),
        (r#"{"workspace":"demo/emnify-revoked"}"#, 64 + 9, "google.rpc.ErrorInfo", "CREDENTIAL_REJECTED"),
    ];
    for (request, code, detail, reason) in failures {
        let method = "tokenbroker.v1.TokenService/GetToken";
        let done = sh(&format!("grpcurl -plaintext -max-time 30 -d '{request}' {grpc} {method}")).await;
        assert_eq!(done.code, Some(code), "{request}\n{}\n{}", done.stdout, done.stderr);
        let shown = done.stderr;
        assert!(shown.contains(detail) && shown.contains(&format!("\"reason\": \"{reason}\"")), "{request}\n{shown}");
    }
}
