//! The audit of a real process: killed, with a full disk, with a pipe that nobody reads.

#![expect(clippy::print_stdout, reason = "figures, with --nocapture")]

use super::{Files, PATIENCE, Process, SECRET, Serving, Upstream, finish, token_broker};
use crate::grants::ALL_TO_LOOPBACK;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{GetTokenRequest, GetTokenResponse};
use token_broker::sandbox::Limits;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const WORKSPACES: usize = 400;

/// A broker with many Workspaces, so that there are many tokens, whose audit is this.
fn files(upstream: &Upstream, audit: &str) -> Files {
    upstream.control.set_limits(Limits { logins: 100_000, ..Limits::default() });
    let upstream = upstream.address;
    let mut text = format!(
        "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\ndrain_timeout = \"1s\"\n\
         {ALL_TO_LOOPBACK}\
         [audit]\n{audit}\n\
         [[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://{upstream}\"\nmax_concurrent = 64\n\
         budget = {{ logins = 100000, per = \"1s\" }}\n"
    );
    for n in 0..WORKSPACES {
        writeln!(
            text,
            "[[workspaces]]\nname = \"fleet/{n}\"\nupstream = \"one\"\norganisation = 1\n\
             credential = {{ application_token = {{ file = \"secret\" }} }}"
        )
        .unwrap();
    }
    let files = Files::new(&text);
    files.write("secret", SECRET);
    files
}

async fn channel(serving: &Serving) -> TokenServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(serving.grpc.clone()).unwrap();
    TokenServiceClient::new(endpoint.connect().await.unwrap())
}

async fn get(client: &mut TokenServiceClient<Channel>, n: usize) -> Result<GetTokenResponse, Status> {
    let request = GetTokenRequest { workspace: format!("fleet/{n}"), min_validity: None };
    let answer = timeout(PATIENCE, client.get_token(request)).await.expect("a call hung");
    answer.map(tonic::Response::into_inner)
}

fn is_unavailable(outcome: &Result<GetTokenResponse, Status>) -> bool {
    use tonic_types::StatusExt as _;
    outcome.as_ref().is_err_and(|status| {
        let reason = status.get_details_error_info().map(|info| info.reason);
        status.code() == Code::Unavailable && reason.as_deref() == Some("AUDIT_UNAVAILABLE")
    })
}

/// The Workspace and the fingerprint of each release.
fn released(text: &str) -> HashSet<(String, String)> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _cut)| whole);
    let lines = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let releases = lines.filter(|line| line["kind"] == "release");
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
    releases.map(|line| (field(&line, "workspace"), field(&line, "fingerprint"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_got_a_token_before_a_kill_is_in_the_file() {
    let upstream = Upstream::start().await;
    let files = files(&upstream, "sinks = [\"file\"]\nfile = \"audit.jsonl\"");
    let mut serving = Serving::start(&files, &[]).await;
    let received = Arc::new(Mutex::new(HashSet::new()));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (mut client, received) = (channel(&serving).await, Arc::clone(&received));
        callers.spawn(async move {
            for n in (caller..WORKSPACES).step_by(8).cycle() {
                let Ok(answer) = get(&mut client, n).await else { return };
                let token = answer.token.unwrap();
                received.lock().unwrap().insert((token.workspace, token.fingerprint));
            }
        });
    }
    let half = async {
        while received.lock().unwrap().len() < WORKSPACES / 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, half).await.expect("few tokens came");
    serving.process.signal("KILL").await;
    serving.process.ended().await;
    timeout(PATIENCE, callers.join_all()).await.expect("a caller goes on");
    let received = received.lock().unwrap();
    let text = fs::read_to_string(files.0.path().join("audit.jsonl")).unwrap();
    let recorded = released(&text);
    assert!(received.is_subset(&recorded), "{:?}", received.difference(&recorded));
    println!("{} received, {} recorded", received.len(), recorded.len());
}

#[tokio::test]
async fn a_full_disk_lets_nothing_out_and_readiness_says_so() {
    let upstream = Upstream::start().await;
    let files = files(&upstream, "sinks = [\"file\"]\nfile = \"/dev/full\"");
    let mut serving = Serving::start(&files, &[]).await;
    serving.process.logged("no audit sink works; no token leaves that was not recorded before").await;
    let mut client = channel(&serving).await;
    for n in 0..20 {
        assert!(is_unavailable(&get(&mut client, n).await));
    }
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "10", &format!("{}/readyz?verbose", serving.probe)]);
    let readyz = finish(curl).await.stdout;
    assert!(readyz.contains("not ready") && readyz.contains("audit: waiting"), "{readyz}");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_lets_nothing_more_out_until_somebody_does() {
    let upstream = Upstream::start().await;
    let files = files(&upstream, "sinks = [\"stdout\"]");
    let mut serving = Serving::start(&files, &[]).await;
    let mut client = channel(&serving).await;
    let mut received = HashSet::new();
    let mut refused = None;
    for n in 0..WORKSPACES {
        let begun = Instant::now();
        let answer = get(&mut client, n).await;
        if is_unavailable(&answer) {
            refused = Some((n, begun.elapsed()));
            break;
        }
        let token = answer.unwrap().token.unwrap();
        received.insert((token.workspace, token.fingerprint));
    }
    let (n, took) = refused.expect("the pipe never filled");
    assert!(get(&mut client, 0).await.is_ok(), "what was recorded goes on");
    let mut stdout = serving.process.stdout.take().unwrap();
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        text
    });
    let begun = Instant::now();
    while get(&mut client, n).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it never recovers");
    }
    println!("{n} tokens; refused after {took:?}; recovered after {:?}", begun.elapsed());
    serving.process.signal("TERM").await;
    serving.process.ended().await;
    let text = timeout(PATIENCE, reading.join_next()).await.unwrap().unwrap().unwrap();
    assert!(received.is_subset(&released(&text)));
    assert!(text.contains("\"kind\":\"sink_recovered\"") && text.contains("\"kind\":\"stop\""));
}

#[tokio::test]
async fn a_process_without_stdout_gives_no_token_and_says_why() {
    let upstream = Upstream::start().await;
    let files = files(&upstream, "");
    let mut command = token_broker(&["serve", "--config", &files.config()]);
    command.stdout(std::process::Stdio::null());
    let mut serving = Serving::over(Process::start(command)).await;
    let line = serving.process.logged("an audit sink failed; it is tried again").await;
    assert!(line["cause"].as_str().unwrap().contains("/dev/null"), "{line}");
    assert!(is_unavailable(&get(&mut channel(&serving).await, 1).await));
}
