//! The limits of a connection, seen by a peer that speaks raw frames.

use axum::{Extension, Router, routing::get};
use std::net::SocketAddr;
use std::time::Duration;
use token_broker::listener::{Http2Limits, Limits, Listener, Peer, Protocol};
use token_broker::supervisor::{Ended, Supervisor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// A limit that a test lets pass.
const SHORT: Duration = Duration::from_millis(200);

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

/// A peer that speaks HTTP/2 frame by frame, and answers nothing by itself.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn greeted(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame, or nothing once the connection has ended.
    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        timeout(PATIENCE, self.0.read_exact(&mut head)).await.unwrap().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], payload })
    }

    /// The next frame of this kind.
    async fn expect(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let frame = self.frame().await.expect("the connection has ended");
            if frame.kind == kind {
                return frame.payload;
            }
        }
    }

    async fn ended(&mut self) {
        while self.frame().await.is_some() {}
    }
}

struct Served {
    address: SocketAddr,
    supervisor: Supervisor,
}

async fn serve(protocol: Protocol, limits: Limits, routes: Router) -> Served {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, protocol, limits).await.unwrap();
    let address = listener.local_addr();
    let supervisor = Supervisor::new();
    supervisor.spawn_critical("listener", listener.run(routes, supervisor.clone(), 1));
    Served { address, supervisor }
}

/// Asserts that it took this long, give or take what a busy machine adds.
fn assert_took(begun: Instant, at_least: Duration) {
    let took = begun.elapsed();
    assert!(took >= at_least && took < at_least + PATIENCE / 2, "{took:?}");
}

#[tokio::test]
async fn a_silent_peer_is_cut_at_the_preface_deadline() {
    let limits = Limits { first_bytes: SHORT, ..Limits::default() };
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let served = serve(protocol, limits.clone(), Router::new()).await;
        let begun = Instant::now();
        let mut raw = Raw::connect(served.address).await;
        raw.ended().await;
        assert_took(begun, SHORT);
    }
}

#[tokio::test]
async fn an_unfinished_header_block_ends_with_the_keep_alive() {
    let http2 = Http2Limits { keep_alive_interval: SHORT, keep_alive_timeout: SHORT, ..Http2Limits::default() };
    let limits = Limits { http2, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let mut raw = Raw::greeted(served.address).await;
    // `:method: POST` by its static index, and no END_HEADERS.
    raw.send(HEADERS, 0, 1, &[0x83]).await;
    let begun = Instant::now();
    raw.ended().await;
    assert_took(begun, SHORT);
}

#[tokio::test]
async fn a_peer_that_breaks_stream_after_stream_is_sent_away() {
    let http2 = Http2Limits { max_local_error_reset_streams: 10, ..Http2Limits::default() };
    let limits = Limits { http2, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let mut raw = Raw::greeted(served.address).await;
    for n in 0..12 {
        // END_STREAM and END_HEADERS, and no `:path`.
        raw.send(HEADERS, 0x5, 2 * n + 1, &[0x83]).await;
    }
    let goaway = raw.expect(GOAWAY).await;
    assert_eq!(goaway[4..8], [0, 0, 0, 11], "ENHANCE_YOUR_CALM");
}

#[tokio::test]
async fn the_settings_say_every_limit() {
    let served = serve(Protocol::Http2, Limits::default(), Router::new()).await;
    let mut raw = Raw::greeted(served.address).await;
    let settings = raw.expect(SETTINGS).await;
    let mut told: Vec<(u16, u32)> = settings
        .chunks(6)
        .map(|s| {
            let id = u16::from_be_bytes([s[0], s[1]]);
            (id, u32::from_be_bytes([s[2], s[3], s[4], s[5]]))
        })
        .collect();
    told.sort_unstable();
    // RFC 9113 §6.5.2: table size, concurrent streams, initial window, frame size, header list.
    let want = [(1, 4096), (3, 100), (4, 65_536), (5, 16_384), (6, 8192)];
    assert_eq!(told, want);
}

#[tokio::test]
async fn the_drain_ends_an_idle_connection() {
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let limits = Limits { grace: SHORT, ..Limits::default() };
        let served = serve(protocol, limits, Router::new()).await;
        let mut raw = match protocol {
            Protocol::Http2 => Raw::greeted(served.address).await,
            Protocol::Http1 => Raw::connect(served.address).await,
        };
        if protocol == Protocol::Http2 {
            raw.expect(SETTINGS).await;
        }
        let begun = Instant::now();
        let drain = served.supervisor.shutdown(PATIENCE);
        let (ended, ()) = tokio::join!(drain, raw.ended());
        assert_eq!(ended, Ended::Clean);
        assert!(begun.elapsed() < PATIENCE / 2);
        let refused = TcpStream::connect(served.address).await;
        assert!(refused.is_err(), "the port is still open");
    }
}

#[tokio::test]
async fn the_drain_lets_a_call_finish() {
    let (entered, mut entries) = mpsc::channel(1);
    let (release, released) = oneshot::channel::<()>();
    let released = std::sync::Arc::new(tokio::sync::Mutex::new(Some(released)));
    let slow = get(move || async move {
        entered.send(()).await.unwrap();
        let released = released.lock().await.take().unwrap();
        released.await.unwrap();
        "done"
    });
    let served = serve(Protocol::Http1, Limits::default(), Router::new().route("/slow", slow)).await;
    let mut raw = Raw::connect(served.address).await;
    raw.0.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    entries.recv().await.unwrap();
    let finish = async {
        served.supervisor.draining().await;
        release.send(()).unwrap();
        let mut answer = String::new();
        raw.0.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (ended, answer) = tokio::join!(served.supervisor.shutdown(PATIENCE), finish);
    assert!(answer.ends_with("done"), "{answer}");
    assert_eq!(ended, Ended::Clean);
}

#[tokio::test]
async fn connections_over_the_cap_are_closed_at_once() {
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let mut first = Raw::greeted(served.address).await;
    first.expect(SETTINGS).await;
    let mut second = Raw::connect(served.address).await;
    second.ended().await;
    drop(first);
    // The permit comes back once the server has seen the end of the first.
    let again = async {
        loop {
            let mut raw = Raw::connect(served.address).await;
            let preface = raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            if preface.await.is_ok() && raw.frame().await.is_some() {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn at_its_age_a_connection_is_asked_to_go_and_then_cut() {
    let limits = Limits { max_age: SHORT, grace: SHORT, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let begun = Instant::now();
    let mut raw = Raw::greeted(served.address).await;
    let goaway = raw.expect(GOAWAY).await;
    assert_took(begun, SHORT.mul_f64(0.9));
    assert_eq!(goaway[4..8], [0; 4], "NO_ERROR");
    let asked = Instant::now();
    // Ignores the GOAWAY and the PING that comes with it.
    raw.ended().await;
    assert_took(asked, SHORT / 2);
}

#[tokio::test]
async fn a_request_knows_its_peer() {
    let tell = |Extension(peer): Extension<Peer>| async move { peer.addr.to_string() };
    let routes = Router::new().route("/peer", get(tell));
    let served = serve(Protocol::Http1, Limits::default(), routes).await;
    let mut raw = Raw::connect(served.address).await;
    let request = b"GET /peer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    raw.0.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = raw.0.read_to_string(&mut answer);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    let own = raw.0.local_addr().unwrap().to_string();
    assert!(answer.ends_with(&own), "{own} is not in {answer}");
}

#[tokio::test]
async fn http1_header_limits_hold() {
    let limits = Limits { header_read: SHORT, ..Limits::default() };
    let served = serve(Protocol::Http1, limits, Router::new()).await;
    let many = "a: b\r\n".repeat(65);
    let long = format!("a: {}\r\n", "b".repeat(9000));
    for headers in [many, long] {
        let mut raw = Raw::connect(served.address).await;
        let request = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        raw.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, raw.0.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    let begun = Instant::now();
    let mut raw = Raw::connect(served.address).await;
    raw.0.write_all(b"GET / HTTP/1.1\r\na").await.unwrap();
    raw.ended().await;
    assert_took(begun, SHORT);
}

#[tokio::test(start_paused = true)]
async fn grpc_works_in_memory_on_paused_time() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("x", tonic_health::ServingStatus::NotServing).await;
    let routes = tonic::service::Routes::new(health).into_axum_router();
    let supervisor = Supervisor::new();
    let channel = super::in_memory(routes, &supervisor).await;
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "x".to_owned() };
    let status = health.check(request).await.unwrap().into_inner().status;
    assert_eq!(status, 2, "NOT_SERVING");
    assert_eq!(supervisor.shutdown(PATIENCE).await, Ended::Clean);
}
