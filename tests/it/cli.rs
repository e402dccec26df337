//! The binary as a person meets it: real processes, real ports, simulated upstreams.

mod access;
mod ask;
mod audit;
mod besieged;
#[cfg(target_os = "linux")]
mod canary;
mod dev;
mod doors;
mod ended;
#[cfg(target_os = "linux")]
mod memory;
mod policy;
mod refused;
mod reload;
mod rotation;
mod serve;
mod spellings;
mod try_upstream;
mod usage;
mod watch;

use crate::grants::ALL_TO_LOOPBACK;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs};
use tempfile::TempDir;
use token_broker::clock::Clock;
use token_broker::sandbox::{Control, Organisation, Sandbox, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch::{self as latest, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// The long-lived secret of the Workspace that the broker of a test has.
const SECRET: &str = "an-application-token-that-nobody-may-see";
const WORKSPACE: &str = "fleet/europe";
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How a command ended.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The binary, with nothing of this process's environment but the search path.
fn token_broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-broker"));
    command.args(arguments).env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Done {
    finish(token_broker(arguments)).await
}

async fn run_with_input(arguments: &[&str], input: &str) -> Done {
    let mut child = token_broker(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    done(timeout(PATIENCE, child.wait_with_output()).await.expect("it hung").unwrap())
}

async fn finish(mut command: Command) -> Done {
    done(timeout(PATIENCE, command.output()).await.unwrap_or_else(|_| panic!("it hung: {command:?}")).unwrap())
}

fn done(output: std::process::Output) -> Done {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A simulated upstream in this process, ended with it.
struct Upstream {
    address: SocketAddr,
    control: Control,
    _serving: JoinSet<()>,
}

impl Upstream {
    async fn start() -> Self {
        Self::with_life(Duration::from_secs(14_400)).await
    }

    /// Its tokens live so long.
    async fn with_life(lifetime: Duration) -> Self {
        let organisation = Organisation::new(1, "One", SECRET, lifetime);
        let settings = Settings { organisations: vec![organisation], ..Settings::default() };
        let sandbox = Sandbox::bind(ANY_PORT, settings, Clock::system()).await.unwrap();
        let (address, control) = (sandbox.addr(), sandbox.handle());
        let mut serving = JoinSet::new();
        serving.spawn(sandbox.run(std::future::pending()));
        Self { address, control, _serving: serving }
    }

    /// Waits for the exchange that hangs.
    async fn is_asked(&self) {
        timeout(PATIENCE, self.control.authenticate_calls_reach(1)).await.expect("no exchange came");
    }
}

/// A configuration file with its secret beside it.
struct Files(TempDir);

impl Files {
    fn new(config: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("secret", SECRET);
        files.write("token-broker.toml", config);
        files
    }

    /// A broker on any ports with one Workspace at this upstream. `server` goes into the section of that name, and
    /// `upstream` into the upstream's.
    fn for_upstream(address: SocketAddr, server: &str, upstream: &str) -> Self {
        Self::new(&format!(
            "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\n{server}\n\
             [log]\nlevel = \"trace\"\n\
             {ALL_TO_LOOPBACK}\
             [audit]\nsinks = [\"file\"]\nfile = \"audit.jsonl\"\n\
             [[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://{address}\"\n{upstream}\n\
             [[workspaces]]\nname = \"{WORKSPACE}\"\nupstream = \"one\"\norganisation = 1\n\
             credential = {{ application_token = {{ file = \"secret\" }} }}\n"
        ))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn config(&self) -> String {
        self.0.path().join("token-broker.toml").to_str().unwrap().to_owned()
    }
}

/// A process that goes on until it is told to end. All it writes is read, so that it never waits for a full pipe.
struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    /// How many lines of stderr have come; closed at its end.
    lines: Receiver<usize>,
    stdout: Option<BufReader<ChildStdout>>,
    _reading: JoinSet<()>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        Self::of(command.spawn().unwrap())
    }

    fn of(mut child: Child) -> Self {
        let (stderr, stdout) = (child.stderr.take().unwrap(), child.stdout.take().map(BufReader::new));
        let text = Arc::new(Mutex::new(String::new()));
        let (count, lines) = latest::channel(0);
        let mut reading = JoinSet::new();
        reading.spawn(collect(stderr, Arc::clone(&text), count));
        Self { child, stderr: text, lines, stdout, _reading: reading }
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// The first line of the log with this message.
    async fn logged(&mut self, message: &str) -> serde_json::Value {
        let search = async {
            loop {
                let found = self.stderr().lines().find_map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).ok()?;
                    (line["message"] == message).then_some(line)
                });
                if let Some(line) = found {
                    return line;
                }
                let more = self.lines.changed().await;
                assert!(more.is_ok(), "it ended without {message:?}: {}", self.stderr());
            }
        };
        timeout(PATIENCE, search).await.expect("it was never logged")
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it has ended already");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("kill -{name} {pid}")]);
        assert_eq!(finish(command).await.code, Some(0));
    }

    /// Waits for its end, and for the last of what it wrote.
    async fn ended(&mut self) -> ExitStatus {
        let stderr = Arc::clone(&self.stderr);
        let end = async {
            let status = self.child.wait().await.unwrap();
            while self.lines.changed().await.is_ok() {}
            status
        };
        let ended = timeout(PATIENCE, end).await;
        ended.unwrap_or_else(|_| panic!("it goes on: {}", stderr.lock().unwrap()))
    }
}

async fn collect(from: impl AsyncRead + Unpin, into: Arc<Mutex<String>>, count: Sender<usize>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = into.lock().unwrap();
        text.push_str(&line);
        text.push('\n');
        count.send_modify(|count| *count += 1);
    }
}

/// `serve`, once it serves.
struct Serving {
    process: Process,
    grpc: String,
    probe: String,
}

impl Serving {
    async fn start(files: &Files, variables: &[(&str, &str)]) -> Self {
        let mut command = token_broker(&["serve", "--config", &files.config()]);
        command.envs(variables.iter().copied());
        Self::over(Process::start(command)).await
    }

    async fn over(mut process: Process) -> Self {
        let line = process.logged("serving").await;
        let url = |key: &str| format!("http://{}", line[key].as_str().unwrap());
        Self { grpc: url("grpc"), probe: url("probes"), process }
    }

    /// `command --endpoint … rest`.
    async fn ask(&self, command: &str, rest: &[&str]) -> Done {
        let mut arguments = vec![command, "--endpoint", &self.grpc];
        arguments.extend(rest);
        run(&arguments).await
    }
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
