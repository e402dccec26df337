//! What can be read in the memory of a running broker, by root and by who runs as the same user.
//!
//! The long-lived secrets of its Workspaces rest sealed, and what an exchange leaves is zeroed when it is freed. Read as
//! root, page by page, as a debugger would; only root can, so that elsewhere only that is shown.

mod scan;

use super::spellings::{encodings, occurrences};
use super::{Files, PATIENCE, Process, Serving, Upstream, token_broker};
use crate::grants::ALL_TO_LOOPBACK;
use scan::Memory;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use std::{fs, process};
use token_broker::sandbox::Organisation;
use tokio::time::{Instant, sleep};

/// No other text looks like these, whole or encoded; some of their characters are written in other ways in a URL.
const DELETED: &str = "cAnArY/+deleted=94d1f7e2 b6c05a38&4f7c11";
const KEPT: &str = "cAnArY/+kept=5e0b73a9 1d2f88c4&0a91e6";
/// In the configuration, and no secret: what a look must find.
const PUBLIC: &str = "proof/that-texts-of-this-process-are-found";
const WORKSPACES: usize = 1_000;
/// Nobody in particular.
const UID: u32 = 54_321;
/// Until connections that have ended are gone.
const QUIET: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(250);

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Many Workspaces with the one secret, and one with the other.
fn config(upstream: &Upstream, deleted: usize) -> String {
    let mut text = format!(
        "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\nreload_interval = \"20ms\"\n\
         [log]\nlevel = \"trace\"\n\
         {ALL_TO_LOOPBACK}\
         [audit]\nsinks = [\"file\"]\nfile = \"audit.jsonl\"\n\
         [[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://{}\"\nmax_concurrent = 16\n\
         budget = {{ logins = 100000 }}\n",
        upstream.address
    );
    let workspaces = (0..deleted).map(|n| (format!("t/{n}"), 2, "secret")).chain([(PUBLIC.to_owned(), 3, "kept")]);
    for (name, organisation, file) in workspaces {
        let workspace = format!(
            "[[workspaces]]\nname = \"{name}\"\nupstream = \"one\"\norganisation = {organisation}\nkeep_warm = \"always\"\n\
             credential = {{ application_token = {{ file = \"{file}\" }} }}\n"
        );
        text.push_str(&workspace);
    }
    text
}

/// How often a secret is there in any spelling, once it does not become less any more.
async fn copies(pid: u32, secret: &str) -> usize {
    let until = Instant::now() + QUIET;
    loop {
        let found = Memory::of(pid).count(&encodings(secret));
        if found == 0 || Instant::now() >= until {
            return found;
        }
        sleep(TICK).await;
    }
}

async fn start() -> (Upstream, Files, Serving) {
    let upstream = Upstream::start().await;
    let mut limits = upstream.control.limits();
    limits.logins = 100_000;
    upstream.control.set_limits(limits);
    let lifetime = Duration::from_secs(14_400);
    upstream.control.add_organisation(Organisation::new(2, "Two", DELETED, lifetime));
    upstream.control.add_organisation(Organisation::new(3, "Three", KEPT, lifetime));
    let files = Files::new(&config(&upstream, WORKSPACES));
    files.write("secret", DELETED);
    files.write("kept", KEPT);
    let serving = Serving::start(&files, &[]).await;
    let exchanges = upstream.control.authenticate_calls_reach(WORKSPACES as u64 + 1);
    tokio::time::timeout(2 * PATIENCE, exchanges).await.unwrap_or_else(|_| {
        let log = serving.process.stderr();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        panic!("it made no 1,001 exchanges: {:?} {last:#?}", upstream.control.counters())
    });
    (upstream, files, serving)
}

#[tokio::test]
async fn no_secret_can_be_read_while_its_workspace_lives_or_after() {
    if !is_root() {
        return;
    }
    let (upstream, files, mut serving) = start().await;
    let token = serving.ask("get", &[PUBLIC]).await;
    assert_eq!(token.code, Some(0), "{}", token.stderr);
    let pid = serving.process.child.id().unwrap();
    for secret in [DELETED, KEPT] {
        assert_eq!(copies(pid, secret).await, 0, "readable copies of a secret in use");
    }
    // What shows that the look sees anything: a name, and a token that is published.
    let memory = Memory::of(pid);
    assert!(memory.count(&[PUBLIC.as_bytes().to_vec()]) > 0);
    assert!(memory.count(&[token.stdout.trim().as_bytes().to_vec()]) > 0);
    // Most of the Workspaces go, which needs an operator.
    files.write("token-broker.toml", &config(&upstream, 0));
    serving.process.signal("HUP").await;
    serving.process.logged("configuration accepted").await;
    for secret in [DELETED, KEPT] {
        assert_eq!(copies(pid, secret).await, 0, "readable copies of a secret after its Workspace was deleted");
    }
    assert!(Memory::of(pid).count(&[PUBLIC.as_bytes().to_vec()]) > 0);
    let log = serving.process.stderr();
    assert!(log.contains("\"DEBUG\""), "debugging was asked for");
    for encoded in [DELETED, KEPT].iter().flat_map(|secret| encodings(secret)) {
        assert_eq!(occurrences(log.as_bytes(), &encoded), 0, "the log holds a secret");
    }
}

/// The key that all of this rests on is in memory that not even root reads, or the log says so.
#[tokio::test]
async fn the_key_is_out_of_sight_and_the_process_is_hardened() {
    let upstream = Upstream::start().await;
    let serving = Serving::start(&Files::for_upstream(upstream.address, "", ""), &[]).await;
    let pid = serving.process.child.id().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let warned = serving.process.stderr().contains("less well guarded");
    if !is_root() {
        // Not dumpable: also what is one's own can't be looked at.
        assert!(fs::read(format!("/proc/{pid}/environ")).is_err());
        return;
    }
    let memory = Memory::of(pid);
    assert_eq!(memory.secret_pages().is_some(), !warned, "{}", serving.process.stderr());
    assert_ne!(memory.secret_pages(), Some(true), "root reads the memory of the key");
}

/// Runs as this user; its output, or what it says of its failure.
async fn as_user(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).uid(UID).gid(UID).env("LC_ALL", "C").stdin(process::Stdio::null());
    let output = command.output().await.unwrap();
    assert_eq!(output.status.signal(), None);
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn who_runs_as_the_same_user_can_not_look_into_it() {
    if !is_root() {
        return;
    }
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "", "");
    // Where the other user gets to: the program itself may be in a directory of root's.
    let program = files.0.path().join("token-broker");
    fs::copy(env!("CARGO_BIN_EXE_token-broker"), &program).unwrap();
    for path in [files.0.path(), &files.0.path().join("secret"), &files.0.path().join("token-broker.toml")] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
    let mut command = token_broker(&["serve", "--config", &files.config()]);
    let mut other = tokio::process::Command::new(&program);
    other.args(command.as_std().get_args()).env_clear().uid(UID).gid(UID);
    other
        .stdin(process::Stdio::null())
        .stdout(process::Stdio::piped())
        .stderr(process::Stdio::piped())
        .kill_on_drop(true);
    command = other;
    let serving = Serving::over(Process::start(command)).await;
    let mut plain = tokio::process::Command::new("sleep");
    let plain = plain.arg("600").uid(UID).gid(UID).kill_on_drop(true).spawn().unwrap();
    let of = |pid: Option<u32>, what: &str| format!("/proc/{}/{what}", pid.unwrap());
    let (broker, plain) = (serving.process.child.id(), (plain.id(), plain));
    assert_eq!(as_user("cat", &[&of(plain.0, "environ")]).await, Ok(()), "what is not hardened can be looked at");
    for what in ["environ", "mem", "maps", "auxv"] {
        let refused = as_user("head", &["-c", "1", &of(broker, what)]).await;
        assert!(refused.as_ref().is_err_and(|text| text.contains("Permission denied")), "{what}: {refused:?}");
    }
    drop(plain);
}
