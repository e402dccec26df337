//! A broker as its own process, and the simulated upstream that it asks.

use super::secs;
use crate::grants::ALL_TO_LOOPBACK;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;
use token_broker::clock::Clock;
use token_broker::sandbox::{Control, Limits, Organisation, Sandbox, Settings};
use tokio::sync::oneshot;

/// What a stand is made of.
#[derive(Default)]
pub(super) struct Setup {
    /// One Workspace per life of its tokens: [`workspace`] 1, 2, ….
    pub(super) lifetimes: Vec<Duration>,
    /// Further lines of the upstream's section.
    pub(super) upstream: &'static str,
    /// The environment of the broker.
    pub(super) environment: Vec<(&'static str, String)>,
    /// The documented limits of the upstream, unless given.
    pub(super) limits: Limits,
}

/// A broker and its upstream; both end with it.
pub(super) struct Stand {
    pub(super) control: Control,
    pub(super) address: SocketAddr,
    broker: Broker,
    _upstream: Upstream,
    _files: TempDir,
}

struct Broker {
    process: Child,
    log: Option<JoinHandle<()>>,
}

/// The sandbox in a thread of its own, so that the load does not delay its answers.
struct Upstream {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The name of the Workspace of this organisation.
pub(super) fn workspace(organisation: u64) -> String {
    format!("holds/{organisation}")
}

impl Stand {
    pub(super) async fn start(setup: Setup) -> Self {
        let (upstream, address, control) = Upstream::start(&setup).await;
        let files = tempfile::tempdir().unwrap();
        write_private(&files.path().join("secrets.toml"), &secrets(&setup));
        let config = files.path().join("broker.toml");
        write_private(&config, &configuration(&setup, address));
        let (broker, address) = Broker::start(&config, setup.environment);
        Self { control, address, broker, _upstream: upstream, _files: files }
    }

    /// What the broker holds in memory, in KiB (proc(5), `VmRSS`).
    pub(super) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.broker.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The logins of an organisation so far.
    pub(super) fn logins(&self, organisation: u64) -> u64 {
        self.control.counters().authenticate_by_organisation.get(&organisation).map_or(0, |calls| calls.total)
    }
}

fn organisations(setup: &Setup) -> impl Iterator<Item = (u64, Duration)> {
    (1..).zip(setup.lifetimes.iter().copied())
}

fn secret(organisation: u64) -> String {
    format!("application-token-{organisation}")
}

fn secrets(setup: &Setup) -> String {
    let mut text = String::new();
    for (id, _) in organisations(setup) {
        writeln!(text, "{:?} = {:?}", workspace(id), secret(id)).unwrap();
    }
    text
}

fn configuration(setup: &Setup, upstream: SocketAddr) -> String {
    let mut text = format!(
        "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\nlevel = \"info\"\n\
         {ALL_TO_LOOPBACK}\
         [audit]\nsinks = [\"file\"]\nfile = \"audit.jsonl\"\n\
         [[upstreams]]\nname = \"sandbox\"\nkind = \"emnify\"\nurl = \"http://{upstream}\"\n{}\n",
        setup.upstream
    );
    for (id, _) in organisations(setup) {
        let name = workspace(id);
        writeln!(
            text,
            "[[workspaces]]\nname = {name:?}\nupstream = \"sandbox\"\norganisation = {id}\n\
             credential = {{ application_token = {{ file = \"secrets.toml\", key = {name:?} }} }}"
        )
        .unwrap();
    }
    text
}

fn write_private(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

// === impl Upstream ===

impl Upstream {
    async fn start(setup: &Setup) -> (Self, SocketAddr, Control) {
        let organisations =
            organisations(setup).map(|(id, life)| Organisation::new(id, format!("Holds {id}"), secret(id), life));
        let settings = Settings { organisations: organisations.collect(), limits: setup.limits, ..Settings::default() };
        let (started, waiting) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
                let sandbox = Sandbox::bind(loopback, settings, Clock::system()).await.unwrap();
                started.send((sandbox.addr(), sandbox.handle())).unwrap();
                // An error means that the stand is gone: that stops it too.
                sandbox.run(async move { drop(stopped.await) }).await;
            });
        });
        let (address, control) = waiting.await.unwrap();
        (Self { stop: Some(stop), thread: Some(thread) }, address, control)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

// === impl Broker ===

impl Broker {
    fn start(config: &Path, environment: Vec<(&'static str, String)>) -> (Self, SocketAddr) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_token-broker"))
            .args(["serve", "--config"])
            .arg(config)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = serving(&mut log);
        // Read on, so that the broker never waits for a full pipe.
        let log = thread::spawn(move || drop(std::io::copy(&mut log, &mut std::io::sink())));
        (Self { process, log: Some(log) }, address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(self.log.take().map(JoinHandle::join));
    }
}

/// Reads the log up to the line that names the address.
fn serving(log: &mut BufReader<ChildStderr>) -> SocketAddr {
    let mut all = String::new();
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if said["message"] == "serving" {
            return said["grpc"].as_str().unwrap().parse().unwrap();
        }
        all += &std::mem::take(&mut line);
    }
    panic!("the broker does not serve:\n{all}");
}

/// Limits that are in nobody's way.
pub(super) fn generous() -> Limits {
    Limits { logins: 100_000, window: secs(300), ..Limits::default() }
}
