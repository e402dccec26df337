//! The same over TLS: floods by somebody with a good certificate, and peers that stay in each phase of a connection,
//! while good callers come and call.

use super::memory_of;
use crate::cli::doors::{Doors, Revocations, channel, dial, get};
use crate::cli::{PATIENCE, WORKSPACE};
use crate::holds::{Form, report};
use crate::listener::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    call_to, frame,
};
use rustls::ClientConfig;
use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, copy, sink, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";
/// Hosts of the machine that do no good, so that their share of connections is not that of good callers.
const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const STALLER: [u8; 4] = [127, 0, 0, 3];
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const MOST_GROWTH: u64 = 64 << 20;
/// For whoever stays in a phase.
const GONE: Duration = Duration::from_secs(15);

/// What a flood is made of.
struct Flood {
    what: &'static str,
    /// Written first, once.
    begins: Vec<u8>,
    /// Written then, again and again; streams are numbered on.
    unit: fn(u32) -> Vec<u8>,
    /// Whether it takes what it is answered.
    reads: bool,
}

fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn called_off(stream: u32) -> Vec<u8> {
    let call = frame(HEADERS, END_HEADERS, stream, &call_to(GET_TOKEN));
    [call, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
}

/// `:method: POST` and no more, which the broker has to reset.
fn broken(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x83])
}

/// It asks for a reset by growing the window of a stream by nothing.
fn made_to_reset(stream: u32) -> Vec<u8> {
    let call = frame(HEADERS, END_HEADERS, stream, &call_to(GET_TOKEN));
    [call, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
}

fn floods() -> Vec<Flood> {
    let flood = |what, unit, reads| Flood { what, begins: greeting(), unit, reads };
    let endless = [greeting(), frame(HEADERS, 0, 1, &call_to(GET_TOKEN))].concat();
    let piece = |_| frame(CONTINUATION, 0, 1, &block(&[("a", "b")]));
    vec![
        flood("rapid reset", called_off, true),
        flood("rapid reset, unread", called_off, false),
        flood("broken streams, unread", broken, false),
        flood("made to reset, unread", made_to_reset, false),
        Flood { what: "CONTINUATION without end", begins: endless, unit: piece, reads: true },
        flood("SETTINGS", |_| frame(SETTINGS, 0, 0, &[]), true),
        flood("SETTINGS, unread", |_| frame(SETTINGS, 0, 0, &[]), false),
        flood("PING", |_| frame(PING, 0, 0, &[0; 8]), true),
        flood("PING, unread", |_| frame(PING, 0, 0, &[0; 8]), false),
    ]
}

/// On one connection after another, as fast as it goes. How many it took, and how many frames or pairs of them.
async fn flood(address: SocketAddr, config: Arc<ClientConfig>, flood: Arc<Flood>, told: Arc<Mutex<(u64, u64)>>) {
    loop {
        let Ok(stream) = dial(address, Arc::clone(&config), Some(ATTACKER)).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        told.lock().unwrap().0 += 1;
        let (mut reading, mut writing) = split(stream);
        let mut taking = JoinSet::new();
        if flood.reads {
            taking.spawn(async move { copy(&mut reading, &mut sink()).await.unwrap_or_default() });
        } else {
            taking.spawn(async move {
                let _kept = reading;
                std::future::pending().await
            });
        }
        if writing.write_all(&flood.begins).await.is_err() {
            continue;
        }
        for batch in 0_u32.. {
            let units: Vec<u8> = (0..500).flat_map(|n| (flood.unit)(2 * (500 * batch + n) + 1)).collect();
            if writing.write_all(&units).await.is_err() || batch > 1_000_000 {
                break;
            }
            told.lock().unwrap().1 += 500;
        }
    }
}

/// Good callers.
struct Good {
    seen: Arc<Mutex<Seen>>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl Seen {
    fn note(&mut self, begun: Instant, outcome: Result<(), String>) {
        self.took.push(begun.elapsed());
        self.failed.extend(outcome.err());
    }
}

impl Good {
    /// Some who stay, and one who comes anew each time.
    fn start(doors: &Doors) -> Self {
        let (seen, mut running) = (Arc::<Mutex<Seen>>::default(), JoinSet::new());
        let (address, config) = (doors.mesh, doors.client(Some(&doors.good())));
        for stays in [true, true, true, false] {
            let (seen, config) = (Arc::clone(&seen), config.clone());
            running.spawn(async move {
                let mut kept = None;
                loop {
                    let begun = Instant::now();
                    let outcome = async {
                        let channel = match kept.take() {
                            Some(channel) => channel,
                            None => channel(address, config.clone(), None).await?,
                        };
                        kept = stays.then(|| channel.clone());
                        get(channel, WORKSPACE, &[]).await.map(drop).map_err(|status| format!("{status:?}"))
                    };
                    let outcome = outcome.await;
                    seen.lock().unwrap().note(begun, outcome);
                    sleep(Duration::from_millis(if stays { 5 } else { 50 })).await;
                }
            });
        }
        Self { seen, running }
    }

    /// How they fared since they were last asked: how many calls, the slowest but one in a hundred, and the slowest.
    fn fared(&self) -> String {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(seen.failed.is_empty(), "{:#?}", seen.failed);
        seen.took.sort_unstable();
        let last = seen.took.len().checked_sub(1).expect("no good call in all the time");
        format!("{} good calls, 0 failed, p99 {:?}, max {:?}", last + 1, seen.took[last * 99 / 100], seen.took[last])
    }

    async fn ends(mut self) -> String {
        self.running.shutdown().await;
        self.fared()
    }
}

fn pid(doors: &Doors) -> u32 {
    doors.serving.process.child.id().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_behind_tls_harm_nobody() {
    let form = Form::of_process();
    let lasts = form.pick(Duration::from_millis(700), Duration::from_secs(10));
    let doors = Doors::with(Revocations::None, "").await;
    let attacker = Arc::new(doors.client(Some(&doors.callers.caller("attacker", crate::cli::doors::URI))));
    let mut good = Good::start(&doors);
    sleep(lasts).await;
    report("TLS, no flood", good.fared());
    let before = memory_of(pid(&doors), "VmRSS");
    for one in floods() {
        let (what, told) = (one.what, Arc::<Mutex<(u64, u64)>>::default());
        let one = Arc::new(one);
        let mut attack = JoinSet::new();
        for _ in 0..2 {
            attack.spawn(flood(doors.mesh, Arc::clone(&attacker), Arc::clone(&one), Arc::clone(&told)));
        }
        let (begun, mut most) = (Instant::now(), 0);
        while begun.elapsed() < lasts || good.seen.lock().unwrap().took.is_empty() {
            sleep(Duration::from_millis(20)).await;
            most = most.max(memory_of(pid(&doors), "VmRSS"));
        }
        attack.shutdown().await;
        let (connections, units) = *told.lock().unwrap();
        let grown = most.saturating_sub(before);
        let figures = format!("{connections} connections, {units} units, RSS +{} KiB, {}", grown / 1024, good.fared());
        report(&format!("TLS, {what}"), figures);
        assert!(grown <= MOST_GROWTH, "{what}: {grown}");
    }
    good.running.shutdown().await;
}

/// Who stays in a phase: its socket, and what keeps that open.
struct Stalled {
    what: &'static str,
    port: u16,
    begun: Instant,
    _kept: Box<dyn Any + Send>,
}

async fn plain(doors: &Doors, what: &'static str, bytes: &[u8]) -> Stalled {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((STALLER, 0))).unwrap();
    let mut stream = socket.connect(doors.mesh).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    Stalled { what, port, begun: Instant::now(), _kept: Box::new(stream) }
}

async fn let_in(doors: &Doors, config: &Arc<ClientConfig>, bytes: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = dial(doors.mesh, Arc::clone(config), Some(STALLER)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

fn stalled(what: &'static str, stream: TlsStream<TcpStream>) -> Stalled {
    let port = stream.get_ref().0.local_addr().unwrap().port();
    Stalled { what, port, begun: Instant::now(), _kept: Box::new(stream) }
}

/// One in each phase.
async fn in_each_phase(doors: &Doors, config: &Arc<ClientConfig>) -> Vec<Stalled> {
    // The head of a record; the first bytes of a ClientHello of 512.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut all = vec![
        plain(doors, "handshake: nothing", b"").await,
        plain(doors, "handshake: a record's head", &hello[..4]).await,
        plain(doors, "handshake: half a hello", hello).await,
    ];
    // A record of 16 KiB that never ends.
    let record = b"\x17\x03\x03\x40\x00abc";
    for (what, first) in [("record, before the preface", vec![]), ("record, after the preface", greeting())] {
        let mut stream = let_in(doors, config, &first).await;
        stream.get_mut().0.write_all(record).await.unwrap();
        all.push(stalled(what, stream));
    }
    let with = |more: &[u8]| [&greeting()[..], more].concat();
    let headers = call_to(GET_TOKEN);
    let most = (u32::MAX / 2).to_be_bytes();
    let wide = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[&[0, 4][..], &most].concat()),
        frame(WINDOW_UPDATE, 0, 0, &(u32::MAX / 2 - 65_535).to_be_bytes()),
    ]
    .concat();
    let message = [&[0, 0, 0, 0, 14, 0x0a, 12][..], WORKSPACE.as_bytes()].concat();
    let calls = (0..100).flat_map(|n| {
        [frame(HEADERS, END_HEADERS, 2 * n + 1, &headers), frame(DATA, END_STREAM, 2 * n + 1, &message)].concat()
    });
    let phases = [
        ("preface: nothing", vec![]),
        ("preface: half of it", PREFACE[..12].to_vec()),
        ("after the preface", greeting()),
        ("a frame's head", with(&[0, 0x40, 0, HEADERS, END_HEADERS, 0, 0, 0, 1])),
        ("headers", with(&frame(HEADERS, 0, 1, &headers))),
        ("no body", with(&frame(HEADERS, END_HEADERS, 1, &headers))),
        ("half a body", with(&[frame(HEADERS, END_HEADERS, 1, &headers), frame(DATA, 0, 1, &message[..9])].concat())),
        ("answers, unread", wide.into_iter().chain(calls).collect()),
    ];
    for (what, bytes) in phases {
        all.push(stalled(what, let_in(doors, config, &bytes).await));
    }
    all
}

/// Asks on and on, and takes no answer; it stalls once nothing more is taken from it.
async fn asks_and_never_reads(doors: &Doors, config: &Arc<ClientConfig>) -> Stalled {
    let mut stream = let_in(doors, config, &greeting()).await;
    let pings: Vec<u8> = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let full = async {
        while timeout(Duration::from_secs(1), stream.write_all(&pings)).await.is_ok_and(|done| done.is_ok()) {}
    };
    timeout(PATIENCE, full).await.expect("it takes all of it");
    stalled("PINGs, answers unread", stream)
}

/// The peers' ports of the connections that the broker still has: established, as Linux counts (proc(5)).
fn connected(address: SocketAddr) -> Vec<u16> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!(":{:04X}", address.port());
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let live = rows.filter(|row| row[1].ends_with(&own) && row[3] == "01");
    live.map(|row| u16::from_str_radix(row[2].rsplit_once(':').unwrap().1, 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_in_a_phase_is_gone_in_time() {
    let form = Form::of_process();
    let doors = Doors::with(Revocations::None, "").await;
    let config = Arc::new(doors.client(Some(&doors.callers.caller("staller", crate::cli::doors::URI))));
    let good = Good::start(&doors);
    get(doors.mesh_channel(&doors.good()).await, WORKSPACE, &[]).await.unwrap();
    let before = memory_of(pid(&doors), "VmRSS");
    let mut all = Vec::new();
    for _ in 0..form.pick(2, 50) {
        all.extend(in_each_phase(&doors, &config).await);
    }
    all.push(asks_and_never_reads(&doors, &config).await);
    let (count, mut slowest, mut most) = (all.len(), BTreeMap::<&str, Duration>::new(), 0);
    let gone = async {
        while !all.is_empty() {
            sleep(Duration::from_millis(50)).await;
            most = most.max(memory_of(pid(&doors), "VmRSS"));
            let there = connected(doors.mesh);
            all.retain(|stalled| {
                let stays = there.contains(&stalled.port);
                if !stays {
                    let slowest = slowest.entry(stalled.what).or_default();
                    *slowest = (*slowest).max(stalled.begun.elapsed());
                }
                stays
            });
        }
    };
    let ended = timeout(2 * PATIENCE, gone).await;
    assert!(ended.is_ok(), "still there: {:?}", all.iter().map(|stalled| stalled.what).collect::<Vec<_>>());
    let grown = most.saturating_sub(before);
    report("TLS, stalled", format!("{count} connections, RSS +{} KiB, {}", grown / 1024, good.ends().await));
    for (what, took) in slowest {
        report("TLS, stalled", format!("{what}: gone after {took:?}"));
        form.check_time(what, took, GONE);
    }
    assert!(grown <= MOST_GROWTH, "{grown}");
}
