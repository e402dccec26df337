//! `watch` against a running broker.

use super::{Files, PATIENCE, Process, Serving, Upstream, WORKSPACE, run, token_broker};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use token_broker::sandbox::{Fault, Scope};
use tokio::io::AsyncBufReadExt as _;
use tokio::time::timeout;

async fn set_up() -> (Upstream, Files, Serving) {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "[engine]\nmin_gap = \"100ms\"", "");
    let serving = Serving::start(&files, &[]).await;
    (upstream, files, serving)
}

/// `watch` as a process that goes on.
fn watching(endpoint: &str, rest: &[&str]) -> Process {
    Process::start(token_broker(&[&["watch", "--endpoint", endpoint], rest].concat()))
}

/// Its next line.
async fn line(process: &mut Process) -> String {
    let mut line = String::new();
    let stdout = process.stdout.as_mut().unwrap();
    timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("it says nothing").unwrap();
    assert!(line.ends_with('\n'), "it ended: {}", process.stderr());
    line.trim_end().to_owned()
}

/// Its next line that begins so.
async fn line_with(process: &mut Process, begin: &str) -> String {
    loop {
        let line = line(process).await;
        if line.starts_with(begin) {
            return line;
        }
    }
}

/// Replaces the token in hand.
async fn replace(serving: &Serving) -> String {
    let got: Value = serde_json::from_str(&serving.ask("get", &["--json", WORKSPACE]).await.stdout).unwrap();
    let fingerprint = got["fingerprint"].as_str().unwrap();
    let replacement = async {
        loop {
            let done = serving.ask("report", &["--fingerprint", fingerprint, "--status", "401", WORKSPACE]).await;
            if done.code == Some(0) {
                return done.stdout.trim().to_owned();
            }
        }
    };
    timeout(PATIENCE, replacement).await.expect("never replaced")
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn once_says_how_each_workspace_stands_and_not_the_token() {
    let (_upstream, _files, serving) = set_up().await;
    let done = serving.ask("watch", &["--once", WORKSPACE]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let got: Value = serde_json::from_str(&serving.ask("get", &["--json", WORKSPACE]).await.stdout).unwrap();
    let (fingerprint, end) = (got["fingerprint"].as_str().unwrap(), got["expires_at"].as_str().unwrap());
    let token = format!("{WORKSPACE} token fingerprint={fingerprint} expires_at={end}\n");
    let pending = format!("{WORKSPACE} withdrawn reason=TOKEN_PENDING\n");
    assert!(done.stdout == token || done.stdout == format!("{pending}{token}"), "{}", done.stdout);
    let done = serving.ask("watch", &["--once", WORKSPACE, "fleet/asia"]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains(&token) && done.stdout.contains("fleet/asia withdrawn reason=WORKSPACE_UNKNOWN\n"));
    assert_eq!(done.stderr, "token-broker: workspaces without a token: 1 of 2\n");
}

#[tokio::test]
async fn json_is_a_line_per_change_with_everything() {
    let (_upstream, _files, serving) = set_up().await;
    let got: Value = serde_json::from_str(&serving.ask("get", &["--json", WORKSPACE]).await.stdout).unwrap();
    let done = serving.ask("watch", &["--once", "--json", WORKSPACE, "fleet/asia"]).await;
    let lines: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["state"], &lines[0]["workspace"]), (&"token".into(), &WORKSPACE.into()));
    let keys = got.as_object().unwrap().keys().filter(|key| !matches!(key.as_str(), "source" | "valid_for_seconds"));
    for key in keys {
        assert_eq!(lines[0][key], got[key], "{key}");
    }
    let withdrawn = serde_json::json!({
        "workspace": "fleet/asia", "state": "withdrawn", "reason": "WORKSPACE_UNKNOWN", "retry_after_seconds": null
    });
    assert_eq!(lines[1], withdrawn);
}

#[tokio::test]
async fn the_file_holds_the_newest_token_alone_and_the_line_comes_after_it() {
    let (_upstream, _files, serving) = set_up().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let mut watch = watching(&serving.grpc, &[WORKSPACE, "--write-file", path.to_str().unwrap()]);
    let begin = format!("{WORKSPACE} token ");
    line_with(&mut watch, &begin).await;
    for _ in 0..3 {
        assert_eq!(fs::read_to_string(&path).unwrap(), serving.ask("get", &[WORKSPACE]).await.stdout.trim());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(names_in(directory.path()), ["token"]);
        let replacement = replace(&serving).await;
        line_with(&mut watch, &begin).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), replacement);
    }
    watch.signal("TERM").await;
    assert_eq!(watch.ended().await.code(), Some(0));
    assert!(path.exists(), "the token is good still");
    assert_eq!(watch.stderr(), "");
}

#[tokio::test]
async fn a_link_is_replaced_and_not_followed() {
    let (_upstream, _files, serving) = set_up().await;
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("token"), directory.path().join("target"));
    fs::write(&target, "untouched").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let done = serving.ask("watch", &["--once", WORKSPACE, "--write-file", path.to_str().unwrap()]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let (_upstream, _files, serving) = set_up().await;
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().join("nowhere/token"), directory.path().to_owned()] {
        let path = path.to_str().unwrap();
        let done = serving.ask("watch", &["--once", WORKSPACE, "--write-file", path]).await;
        assert_eq!(done.code, Some(1), "{path}");
        assert!(done.stderr.starts_with(&format!("token-broker: can't write {path}: ")), "{}", done.stderr);
    }
    assert!(names_in(directory.path()).is_empty(), "{:?}", names_in(directory.path()));
}

#[tokio::test]
async fn a_token_that_ends_without_a_successor_is_left_in_the_file_until_then() {
    let upstream = Upstream::with_life(Duration::from_secs(4)).await;
    let files = Files::for_upstream(upstream.address, "", "shortest_lifetime = \"1s\"");
    let serving = Serving::start(&files, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let mut watch = watching(&serving.grpc, &[WORKSPACE, "--write-file", path.to_str().unwrap()]);
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    upstream.control.set_fault(Scope::ALL, Fault::status(503));
    line_with(&mut watch, &format!("{WORKSPACE} withdrawn reason=UPSTREAM_")).await;
    let gone = async {
        while !watch.stderr().contains(": removed") {
            watch.lines.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, gone).await.expect("nothing was removed");
    assert!(!path.exists());
    upstream.control.clear();
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_token_that_ends_while_the_broker_is_away_is_removed() {
    let upstream = Upstream::with_life(Duration::from_secs(4)).await;
    let files = Files::for_upstream(upstream.address, "", "shortest_lifetime = \"1s\"");
    let mut serving = Serving::start(&files, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let mut watch = watching(&serving.grpc, &[WORKSPACE, "--write-file", path.to_str().unwrap()]);
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    serving.process.signal("KILL").await;
    serving.process.ended().await;
    let gone = async {
        while !watch.stderr().contains(": removed") {
            watch.lines.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, gone).await.expect("nothing was removed");
    assert!(!path.exists());
}

#[tokio::test]
async fn it_goes_on_with_the_next_broker() {
    let (_upstream, files, mut serving) = set_up().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let mut watch = watching(&serving.grpc, &[WORKSPACE, "--write-file", path.to_str().unwrap()]);
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    let first = fs::read_to_string(&path).unwrap();
    let address = serving.grpc.strip_prefix("http://").unwrap().to_owned();
    serving.process.signal("TERM").await;
    assert_eq!(serving.process.ended().await.code(), Some(0), "a stream holds up no drain");
    assert_eq!(fs::read_to_string(&path).unwrap(), first, "nobody says that it is over");
    let serving = Serving::start(&files, &[("TOKEN_BROKER__SERVER__GRPC_LISTEN", &address)]).await;
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    let second = fs::read_to_string(&path).unwrap();
    assert_ne!(second, first);
    assert_eq!(second, serving.ask("get", &[WORKSPACE]).await.stdout.trim());
    let said = watch.stderr();
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
    assert!(!said.contains(&first) && !said.contains(&second));
}

#[tokio::test]
async fn a_signal_ends_it_with_0() {
    let (_upstream, _files, serving) = set_up().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, signal) in [(&serving.grpc, "INT"), (&serving.grpc, "TERM"), (&format!("http://{nobody}"), "TERM")] {
        let mut watch = watching(endpoint, &[WORKSPACE]);
        if *endpoint == serving.grpc {
            line(&mut watch).await;
        } else {
            while !watch.stderr().contains("can't reach the broker") {
                timeout(PATIENCE, watch.lines.changed()).await.unwrap().unwrap();
            }
        }
        watch.signal(signal).await;
        assert_eq!(watch.ended().await.code(), Some(0), "{signal}");
    }
}

/// An init container would take code 0 for "the file is there".
#[tokio::test]
async fn once_does_not_end_with_0_before_all_is_said() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for signal in ["INT", "TERM"] {
        let mut watch = watching(&format!("http://{nobody}"), &["--once", "--timeout", "60s", WORKSPACE]);
        while !watch.stderr().contains("can't reach the broker") {
            timeout(PATIENCE, watch.lines.changed()).await.unwrap().unwrap();
        }
        watch.signal(signal).await;
        assert_eq!(watch.ended().await.code(), Some(1), "{signal}");
        assert!(watch.stderr().ends_with("token-broker: interrupted\n"), "{}", watch.stderr());
    }
    // Nobody reads the first of two lines.
    let (_upstream, _files, serving) = set_up().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = token_broker(&["watch", "--endpoint", &serving.grpc, "--once", WORKSPACE, "fleet/asia"]);
    command.stdout(writer);
    let mut watch = Process::start(command);
    assert_eq!(watch.ended().await.code(), Some(1));
    assert_eq!(watch.stderr(), "token-broker: interrupted\n");
}

#[tokio::test]
async fn what_a_killed_one_left_beside_the_file_is_removed() {
    let (_upstream, _files, serving) = set_up().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let foreign = [".other.1-0123456789abcdef", ".token.1-0123456789abcdef.d", ".token.backup"];
    for name in foreign.iter().chain(&[".token.1-0123456789abcdef", ".token.4194304-fedcba9876543210"]) {
        fs::write(directory.path().join(name), "a token").unwrap();
    }
    let done = serving.ask("watch", &["--once", WORKSPACE, "--write-file", path.to_str().unwrap()]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let mut names = names_in(directory.path());
    names.sort();
    assert_eq!(names, [&foreign[..], &["token"]].concat());
}

#[tokio::test]
async fn what_will_never_be_granted_ends_it_with_1() {
    let (_upstream, _files, serving) = set_up().await;
    for workspaces in [&["Fleet"][..], &[WORKSPACE, WORKSPACE]] {
        let done = serving.ask("watch", workspaces).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
        let at = workspaces.len() - 1;
        assert!(done.stderr.contains(&format!("(REQUEST_INVALID): workspaces[{at}]: ")), "{}", done.stderr);
    }
    let done = run(&["watch", "--endpoint", "ftp://127.0.0.1:7700", WORKSPACE]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
}

#[tokio::test]
async fn once_waits_no_longer_than_it_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let done = run(&["watch", "--endpoint", &format!("http://{nobody}"), "--once", "--timeout", "1s", WORKSPACE]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.ends_with("token-broker: no answer within 1s\n"), "{}", done.stderr);
}

/// The broker would end a stream by it, however well that goes.
#[tokio::test]
async fn the_time_for_an_answer_is_told_for_a_call_and_not_for_a_stream() {
    for (command, is_told) in [("get", true), ("watch", false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let _asking = Process::start(token_broker(&[command, "--endpoint", &endpoint, WORKSPACE]));
        let asked = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (request, _) = connection.accept().await.unwrap().unwrap();
            request
        };
        let request = timeout(PATIENCE, asked).await.expect("never asked");
        assert_eq!(request.headers().contains_key("grpc-timeout"), is_told, "{command}");
    }
}

#[tokio::test]
async fn it_ends_when_nobody_reads_any_more() {
    let (_upstream, _files, serving) = set_up().await;
    let mut watch = watching(&serving.grpc, &[WORKSPACE]);
    line_with(&mut watch, &format!("{WORKSPACE} token ")).await;
    drop(watch.stdout.take());
    // A process that another test starts at this moment still has the pipe until it has become its program, so that
    // one line may find a reader yet.
    let replacing = async {
        loop {
            replace(&serving).await;
        }
    };
    let ended = tokio::select! {
        ended = watch.ended() => ended,
        never = replacing => never,
    };
    assert_eq!(ended.code(), Some(0));
    assert_eq!(watch.stderr(), "");
}
