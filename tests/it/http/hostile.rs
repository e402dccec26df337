//! Upstreams that send without end, or hardly at all. The bounded form runs with every `cargo test`, in this process
//! and with short deadlines; `TOKEN_BROKER_HOLDS=full` (`soak/hostile-upstream.sh`) gives each case a process of its
//! own and 10 GB to send, and judges times and memory.
//!
//! What counts is told by the other side: how many bytes the upstream got rid of before the client closed the
//! connection. That includes what lay in the system's buffers.

mod cases;

use super::{another_process, authority, issue, listen};
use crate::holds::{Form, report};
use crate::listener::raw::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, next_frame};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use token_broker::http::{Cause, Client, Options, Request, Response, SendError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsAcceptor;
use url::Url;
use zeroize::Zeroizing;

/// All that an upstream has to send, in the bounded form and in full.
const OFFERED: (u64, u64) = (12_000_000, 10_000_000_000);
/// What the client may take of it where a limit ends the attempt: the largest head, and the buffers of both sockets.
const TAKEN: u64 = 8 * MIB;
/// By how much the client's memory may grow.
const GROWTH: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;
/// Between two bytes of an upstream that dribbles.
const DRIBBLE: Duration = Duration::from_secs(10);
/// An upstream's patience with a client that does not close the connection.
const PATIENCE: Duration = Duration::from_secs(150);

// For the process that plays the client.
const URL: &str = "TOKEN_BROKER_TEST_URL";
const PROXY: &str = "TOKEN_BROKER_TEST_PROXY";
const ROOTS_FILE: &str = "TOKEN_BROKER_TEST_ROOTS_FILE";
const TIMEOUT_MS: &str = "TOKEN_BROKER_TEST_TIMEOUT_MS";

/// What an upstream does.
struct Case {
    name: &'static str,
    over: Over,
    /// Sent at once.
    first: Vec<u8>,
    then: Then,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// HTTP/1.1, once the request has come.
    Plain,
    /// HTTP/2 over TLS, once the request's headers have come.
    Http2,
    /// Instead of a TLS handshake.
    Handshake,
    /// HTTP/1.1, as the answer to a CONNECT.
    Proxy,
}

enum Then {
    /// This again and again, up to [`OFFERED`].
    Endless(Vec<u8>),
    /// The same, as far as the client's windows allow.
    Windowed(Vec<u8>),
    /// This, a byte every ten seconds.
    Dribble(Vec<u8>),
    Silence,
}

/// How the attempt must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NoAnswer(Cause),
    Body(Cause),
    /// A body of this many bytes.
    Answer(usize),
}

impl End {
    fn of(sent: Result<Response, SendError>) -> Self {
        match sent {
            Ok(answer) => Self::Answer(answer.body.len()),
            Err(SendError::NoAnswer(cause)) => Self::NoAnswer(cause),
            Err(SendError::Body(_, cause)) => Self::Body(cause),
        }
    }

    /// Whether the deadline is what ends the attempt.
    fn is_late(&self) -> bool {
        matches!(self, Self::NoAnswer(Cause::Timeout) | Self::Body(Cause::Timeout))
    }
}

/// A loopback server and how to reach it.
struct Upstream {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    roots: String,
    port: u16,
}

impl Upstream {
    async fn new() -> Self {
        let ours = authority();
        let (certificate, key) = issue(&ours, "localhost");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![certificate.der().clone()];
        let mut config = versions.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (listener, port) = listen().await;
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), roots: ours.pem(), port }
    }

    /// The URL to ask and the proxy to go through.
    fn reached_by(&self, over: Over) -> (String, Option<String>) {
        let port = self.port;
        match over {
            Over::Plain => (format!("http://localhost:{port}/"), None),
            Over::Http2 | Over::Handshake => (format!("https://localhost:{port}/"), None),
            Over::Proxy => ("https://cdn.emnify.net/".to_owned(), Some(format!("http://localhost:{port}/"))),
        }
    }

    /// Plays one case until the client has closed the connection, and says how many bytes went out.
    async fn play(&self, case: &Case) -> u64 {
        let (socket, _) = self.listener.accept().await.unwrap();
        timeout(PATIENCE, self.speak(case, socket)).await.expect("the client keeps the connection")
    }

    async fn speak(&self, case: &Case, mut socket: TcpStream) -> u64 {
        match case.over {
            Over::Plain => {
                until(&mut socket, b"}").await;
                pour(case, socket).await
            }
            Over::Proxy => {
                until(&mut socket, b"\r\n\r\n").await;
                pour(case, socket).await
            }
            Over::Handshake => pour(case, socket).await,
            Over::Http2 => {
                let mut socket = self.acceptor.accept(socket).await.unwrap();
                let mut preface = [0; PREFACE.len()];
                socket.read_exact(&mut preface).await.unwrap();
                // The client's own settings hold once they have been acknowledged.
                let hello = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
                socket.write_all(&hello).await.unwrap();
                while next_frame(&mut socket).await.unwrap().kind != HEADERS {}
                pour(case, socket).await
            }
        }
    }
}

/// Reads until what came ends so.
async fn until(socket: &mut TcpStream, end: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(end) {
        assert!(socket.read_buf(&mut request).await.unwrap() > 0, "the request was cut");
    }
}

/// Sends all of it, reading and forgetting what comes meanwhile, until the client has closed the connection.
async fn pour(case: &Case, socket: impl AsyncRead + AsyncWrite) -> u64 {
    let (mut from, mut to) = tokio::io::split(socket);
    let mut sent = 0;
    let closed = async {
        let mut ignored = vec![0; 65_536];
        while from.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let sending = async {
        // An error means that the client has closed the connection, which the other half sees as well.
        if send(case, &mut to, &mut sent).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = closed => {}
        () = sending => {}
    }
    sent
}

async fn send(case: &Case, to: &mut (impl AsyncWrite + Unpin), sent: &mut u64) -> io::Result<()> {
    let mut write = async |bytes: &[u8]| {
        to.write_all(bytes).await?;
        to.flush().await?;
        *sent += bytes.len() as u64;
        io::Result::Ok(*sent)
    };
    write(&case.first).await?;
    match &case.then {
        Then::Endless(piece) => {
            let offered = Form::of_process().pick(OFFERED.0, OFFERED.1);
            while write(piece).await? < offered {}
        }
        // As many pieces as fit the client's first window; it must not open it further.
        Then::Windowed(piece) => {
            for _ in 0..8 {
                write(piece).await?;
            }
        }
        Then::Dribble(bytes) => {
            let mut ticks = interval(DRIBBLE);
            for byte in bytes {
                ticks.tick().await;
                write(&[*byte]).await?;
            }
        }
        Then::Silence => {}
    }
    Ok(())
}

/// How long the client may take in the full form. Who dribbles gets a byte across while it waits.
fn full_timeout(case: &Case) -> Duration {
    Duration::from_secs(if matches!(case.then, Then::Dribble(_)) { 12 } else { 3 })
}

/// One case with the client in this process, and a short deadline where that is what ends it.
async fn bounded(upstream: &Upstream, case: &Case) -> (End, u64) {
    let limit = if case.end.is_late() { Duration::from_millis(200) } else { PATIENCE };
    let (url, proxy) = upstream.reached_by(case.over);
    let options = Options {
        timeout: limit,
        connect_timeout: limit,
        proxy: proxy.and_then(|proxy| Url::parse(&proxy).ok()),
        ca_pem: Some(upstream.roots.clone().into_bytes()),
        ..Options::default()
    };
    let client = Client::new(&options).unwrap();
    let asking = async { End::of(ask(&client, &url).await) };
    tokio::join!(asking, upstream.play(case))
}

async fn ask(client: &Client, url: &str) -> Result<Response, SendError> {
    let request = Request::post(Url::parse(url).unwrap())
        .with_body("application/json", Zeroizing::new(b"{\"secret\":\"hunter2\"}".to_vec()));
    client.send_by(request, client.deadline()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_upstream_keeps_or_fills_the_client() {
    if Form::of_process() == Form::Full {
        return in_full().await;
    }
    let upstream = Upstream::new().await;
    let mut wrong = Vec::new();
    for case in cases::all() {
        let (end, sent) = bounded(&upstream, &case).await;
        if end != case.end || (!case.end.is_late() && sent > TAKEN) {
            wrong.push(format!("{}: {end:?} after {sent} bytes, expected {:?}", case.name, case.end));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

async fn in_full() {
    let upstream = Upstream::new().await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    fs::write(roots.path(), &upstream.roots).unwrap();
    let mut wrong = Vec::new();
    report(
        "hostile upstreams",
        "| the upstream sends | the attempt ends with | after | memory grew by | bytes that left the upstream |",
    );
    for case in cases::all() {
        let child = client_process(&upstream, &case, roots.path());
        let (told, sent) = tokio::join!(told_by(child), upstream.play(&case));
        let Told { end, took, grew } = told;
        let line = format!("| {} | {end} | {took} ms | {} kB | {sent} |", case.name, grew / 1024);
        report("hostile upstreams", &line);
        let latest = full_timeout(&case).mul_f64(1.1).as_millis();
        // Without optimisation hyper's parser is what takes the time.
        let is_late = !cfg!(debug_assertions) && u128::from(took) > latest;
        if end != format!("{:?}", case.end) || is_late || grew > GROWTH || sent >= OFFERED.1 {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn client_process(upstream: &Upstream, case: &Case, roots: &Path) -> Command {
    let (url, proxy) = upstream.reached_by(case.over);
    let mut child = another_process("http::hostile::an_exchange_takes_little_memory");
    child.arg("--nocapture").env(URL, url).env(ROOTS_FILE, roots);
    child.env(TIMEOUT_MS, full_timeout(case).as_millis().to_string());
    if let Some(proxy) = proxy {
        child.env(PROXY, proxy);
    }
    child
}

/// What the process that played the client says of its attempt.
struct Told {
    end: String,
    took: u64,
    grew: u64,
}

async fn told_by(mut child: Command) -> Told {
    let output = timeout(PATIENCE, child.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("attempt: ")).unwrap_or_else(|| panic!("{text}")).1;
    let [end, took, grew] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
    Told { end: end.to_owned(), took: took.parse().unwrap(), grew: grew.parse().unwrap() }
}

/// Run once more, as a process of its own, for each case of the full form: against that case's upstream then, otherwise
/// against one that answers as it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_takes_little_memory() {
    // In the other process this also brings in the code and makes what is made once.
    honest_exchanges().await;
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let setting = |name| std::env::var(name).ok();
    let limit = Duration::from_millis(setting(TIMEOUT_MS).unwrap().parse().unwrap());
    let options = Options {
        timeout: limit,
        connect_timeout: limit,
        proxy: setting(PROXY).and_then(|proxy| Url::parse(&proxy).ok()),
        ca_pem: Some(fs::read(setting(ROOTS_FILE).unwrap()).unwrap()),
        ..Options::default()
    };
    let client = Client::new(&options).unwrap();
    let (before, started) = (Memory::now(), Instant::now());
    let end = End::of(ask(&client, &url).await);
    let took = started.elapsed().as_millis();
    report("attempt", format_args!("{end:?} | {took} | {}", before.growth()));
}

async fn honest_exchanges() {
    let upstream = Upstream::new().await;
    let http1 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let head = frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")]));
    let http2 = [head, frame(DATA, END_STREAM, 1, b"{}")].concat();
    for (over, first) in [(Over::Plain, http1), (Over::Http2, http2)] {
        let (then, expected) = (Then::Silence, first.len());
        let case = Case { name: "an answer as it should be", over, first, then, end: End::Answer(2) };
        let (end, sent) = bounded(&upstream, &case).await;
        assert_eq!((end, sent), (case.end, expected as u64));
    }
}

/// What the process has resident.
struct Memory(u64);

impl Memory {
    /// Forgets earlier peaks (`clear_refs` in proc(5)).
    fn now() -> Self {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        Self(of_status("VmRSS:"))
    }

    /// From then to the highest since.
    fn growth(&self) -> u64 {
        of_status("VmHWM:").saturating_sub(self.0)
    }
}

/// A line of `/proc/self/status`, in bytes.
fn of_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
