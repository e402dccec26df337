//! `serve` with hostile peers at its door. The bounded form runs with every `cargo test`; `TOKEN_BROKER_HOLDS=full` (the
//! scripts in `soak/`) makes it as large and long as `docs/measurements.md` says, and judges times too.

mod secured;

use super::{Files, PATIENCE, Process, Serving, finish, token_broker};
use crate::holds::{Form, report};
use crate::listener::honest_call;
use crate::listener::raw::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, Raw, SETTINGS, frame};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Any address without a listener: no token is asked for here.
const NO_UPSTREAM: ([u8; 4], u16) = ([127, 0, 0, 1], 1);
/// Between two tries of a peer that was refused: gRPC's first back-off.
const PERSISTENT: Duration = Duration::from_secs(1);
/// Between two looks.
const TICK: Duration = Duration::from_millis(100);
/// Of `/proc/PID/stat` (proc(5)): Linux counts a hundred a second on every architecture that we know.
const TICKS_PER_SECOND: u64 = 100;

struct Broker {
    serving: Serving,
    address: SocketAddr,
    pid: u32,
    _files: Files,
}

impl Broker {
    /// With this limit on open files, if any, and these lines in `[server]`.
    async fn start(open_files: Option<usize>, server: &str) -> Self {
        let files = Files::for_upstream(NO_UPSTREAM.into(), server, "");
        // A line per frame is not what is measured.
        let variables = [("TOKEN_BROKER__LOG__LEVEL", "info")];
        let mut command = match open_files {
            None => token_broker(&["serve", "--config", &files.config()]),
            Some(limit) => {
                let mut command = token_broker(&[]);
                let program = command.as_std().get_program().to_owned();
                command = limited(&command, limit);
                command.arg(program).args(["serve", "--config", &files.config()]);
                command
            }
        };
        command.envs(variables);
        let serving = Serving::over(Process::start(command)).await;
        let address = serving.grpc.trim_start_matches("http://").parse().unwrap();
        let pid = serving.process.child.id().unwrap();
        Self { serving, address, pid, _files: files }
    }

    fn memory(&self, name: &str) -> u64 {
        memory_of(self.pid, name)
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The name, in parentheses, may hold spaces. From there on, user and system time are the 12th and 13th.
        let after_name = stat.rsplit_once(") ").unwrap().1;
        after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// Changes the limit of the running process.
    async fn limit_files(&self, soft: usize) {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &self.pid.to_string(), &format!("--nofile={soft}:")]);
        assert!(timeout(PATIENCE, command.status()).await.unwrap().unwrap().success());
    }

    /// How long it takes until an honest caller is served.
    async fn recovers(&self) -> Duration {
        let begun = Instant::now();
        let served = async {
            while Raw::connect(self.address).await.greet(&[]).await.is_none() {
                sleep(Duration::from_millis(10)).await;
            }
            honest_call(self.address).await;
        };
        timeout(PATIENCE, served).await.expect("it does not recover");
        begun.elapsed()
    }

    /// How many connections its gRPC listener did not take for this reason, as its metrics say.
    async fn refused(&self, reason: &str) -> u64 {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "10", &format!("{}/metrics", self.serving.probe)]);
        let text = finish(command).await.stdout;
        let name = format!("token_broker_connections_refused_total{{listener=\"grpc\",reason=\"{reason}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    async fn ends(mut self) -> Duration {
        let begun = Instant::now();
        self.serving.process.signal("TERM").await;
        assert_eq!(self.serving.process.ended().await.code(), Some(0), "{}", self.serving.process.stderr());
        begun.elapsed()
    }
}

/// A line of `/proc/PID/status` in bytes.
fn memory_of(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The same process under `prlimit`, whose process it becomes.
fn limited(command: &Command, open_files: usize) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={open_files}:{open_files}"));
    limited.env_clear().envs(command.as_std().get_envs().filter_map(|(key, value)| Some((key, value?))));
    limited.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    limited.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    limited
}

#[tokio::test]
async fn errors_that_are_never_read_fill_no_memory() {
    let form = Form::of_process();
    let broker = Broker::start(None, "").await;
    honest_call(broker.address).await;
    let before = broker.memory("VmRSS");
    let begun = Instant::now();
    let (mut connections, mut streams, mut most) = (0_u64, 0_u64, before);
    while form.pick(connections < 20, begun.elapsed() < Duration::from_secs(10)) {
        connections += 1;
        // From an address of its own: the rate of a peer must not cost the honest caller its place.
        let Some(mut raw) = Raw::connect_from([127, 0, 0, 9], broker.address).await.greet(&[]).await else {
            continue;
        };
        for thousand in 0_u32.. {
            let malformed = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &[0x83]);
            let bytes: Vec<u8> = (1000 * thousand..1000 * (thousand + 1)).flat_map(malformed).collect();
            if raw.pour(&bytes).await.is_err() || form.pick(streams > 5_000_000, begun.elapsed() > 2 * PATIENCE) {
                break;
            }
            streams += 1000;
            most = most.max(broker.memory("VmRSS"));
        }
    }
    let grown = most - before;
    report(
        "errors that are never read",
        format!("{connections} connections, {streams} streams, RSS +{} KiB", grown / 1024),
    );
    assert!(grown <= 64 << 20, "{grown}");
    honest_call(broker.address).await;
}

/// A peer that comes back whenever it is refused, and stays for as long as it is not.
async fn persist(address: SocketAddr, host: [u8; 4]) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((host, 0))).unwrap();
        // Refused, reset, timed out: all of that is what it is here for.
        if let Ok(mut stream) = socket.connect(address).await
            && stream.write_all(PREFACE).await.is_ok()
            && stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_ok()
        {
            drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
        }
        sleep(PERSISTENT).await;
    }
}

#[tokio::test]
async fn more_connections_than_files_cost_little_and_the_end_of_them_is_the_end_of_it() {
    let form = Form::of_process();
    let count = form.pick(450_u16, 2000);
    let broker = Broker::start(Some(512), "").await;
    honest_call(broker.address).await;
    let mut siege = JoinSet::new();
    for n in 0..count {
        let [high, low] = n.to_be_bytes();
        siege.spawn(persist(broker.address, [127, 1, high, low.max(1)]));
    }
    // What the cap leaves of 512 when the probe listener has its 64: see `listener::fit`.
    let full = async {
        while broker.open_files() < 320 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, full).await.expect("it never filled up");
    let begun = (Instant::now(), broker.cpu_ticks());
    let mut most = 0;
    for _ in 0..form.pick(5, 100) {
        sleep(TICK).await;
        most = most.max(broker.open_files());
    }
    let ticks = broker.cpu_ticks() - begun.1;
    let share =
        100.0 * Duration::from_millis(1000 * ticks / TICKS_PER_SECOND).as_secs_f64() / begun.0.elapsed().as_secs_f64();
    assert!(most <= 320 + 60, "{most} files are open");
    siege.shutdown().await;
    let recovery = broker.recovers().await;
    report(
        "512 files",
        format!("{count} peers, at most {most} files open, {share:.1} % of a core, served again after {recovery:?}"),
    );
    assert!(form == Form::Bounded || share <= 20.0, "{share} % of a core");
    form.check_time("recovery", recovery, Duration::from_secs(1));
}

/// Something else in the process, or a limit that is lowered, takes the descriptors that the cap counted on.
#[tokio::test]
async fn without_descriptors_it_tries_again_ten_times_a_second() {
    let form = Form::of_process();
    let mut broker = Broker::start(None, "").await;
    let before = broker.open_files();
    broker.limit_files(before).await;
    let mut waiting = JoinSet::new();
    let begun = Instant::now();
    for n in 0..form.pick(10_u16, 2000) {
        let [high, low] = n.to_be_bytes();
        waiting.spawn(persist(broker.address, [127, 1, high, low.max(1)]));
    }
    broker.serving.process.logged("can't accept connections").await;
    let (measured, ticks) = (Instant::now(), broker.cpu_ticks());
    sleep(form.pick(Duration::from_millis(500), Duration::from_secs(10))).await;
    let ticks = broker.cpu_ticks() - ticks;
    let share =
        100.0 * Duration::from_millis(1000 * ticks / TICKS_PER_SECOND).as_secs_f64() / measured.elapsed().as_secs_f64();
    waiting.shutdown().await;
    let freed = Instant::now();
    broker.limit_files(4096).await;
    broker.recovers().await;
    let recovery = freed.elapsed();
    broker.serving.process.logged("accepts connections again").await;
    let log = broker.serving.process.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let outages: Vec<u64> = lines.filter_map(|line| line["failures"].as_u64()).collect();
    let failures: u64 = outages.iter().sum();
    let tries = u64::try_from(begun.elapsed().as_millis()).unwrap() / 100 + 1;
    let counted = broker.refused("file_descriptors").await;
    assert!(counted >= failures, "{counted} are counted of {failures}");
    report(
        "no descriptor left",
        format!("{failures} failed accepts, {share:.1} % of a core, served again after {recovery:?}"),
    );
    assert!((1..=tries).contains(&failures), "{failures} failures, where {tries} were due");
    assert!(form == Form::Bounded || share <= 20.0, "{share} % of a core");
    form.check_time("recovery", recovery, Duration::from_secs(1));
    assert_eq!(log.matches("can't accept connections").count(), outages.len(), "once per outage");
}

#[tokio::test]
async fn peers_that_just_stay_do_not_hold_up_the_end() {
    let form = Form::of_process();
    let broker = Broker::start(None, "drain_timeout = \"10s\"").await;
    let (mut silent, mut begun, mut greeted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..50 {
        silent.push(Raw::connect(broker.address).await);
        let mut raw = Raw::connect(broker.address).await;
        raw.0.write_all(b"PRI * HT").await.unwrap();
        begun.push(raw);
        greeted.push(Raw::greeted(broker.address).await);
    }
    let took = broker.ends().await;
    report("150 peers that just stay", format!("exit after {took:?}"));
    // Idle, they are cut long before the drain's deadline. A loaded machine gets that deadline twice.
    assert!(took <= 2 * Duration::from_secs(10), "{took:?}");
    form.check_time("the end", took, Duration::from_secs(10));
    for raw in &mut greeted {
        raw.expect(GOAWAY).await;
    }
}

/// Nor do those with a call that they never finish: they are cut at the drain's deadline.
#[tokio::test]
async fn peers_that_never_finish_their_calls_are_cut_at_the_deadline_of_the_drain() {
    let broker = Broker::start(None, "drain_timeout = \"1s\"").await;
    let mut peers = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::greeted(broker.address).await;
        let call = crate::listener::raw::call_to("/tokenbroker.v1.TokenService/GetToken");
        raw.send(HEADERS, END_HEADERS, 1, &call).await;
        peers.push(raw);
    }
    let took = broker.ends().await;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
}
