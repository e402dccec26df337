//! No phase of a connection lasts: for each, a peer that stays in it, and what ends that peer.

use super::raw::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, Raw, SETTINGS, WINDOW_UPDATE, call_to};
use super::{ANY, PATIENCE, SHORT, Served, assert_took, pouring, serve};
use axum::Router;
use std::time::Duration;
use token_broker::listener::{Http2Limits, Limits, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_silent_peer_is_cut_at_the_preface_deadline() {
    let limits = Limits { first_bytes: SHORT, ..Limits::default() };
    for protocol in [Protocol::Http2, Protocol::Either] {
        let served = serve(protocol, limits.clone(), Router::new()).await;
        let begun = Instant::now();
        let mut raw = Raw::connect(served.address).await;
        raw.ended().await;
        assert_took(begun, SHORT);
    }
}

#[tokio::test]
async fn a_preface_that_stops_before_its_end_is_cut_at_the_same_deadline() {
    let limits = Limits { first_bytes: SHORT, ..Limits::default() };
    for protocol in [Protocol::Http2, Protocol::Either] {
        let served = serve(protocol, limits.clone(), Router::new()).await;
        let begun = Instant::now();
        let mut raw = Raw::connect(served.address).await;
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r").await.unwrap();
        raw.ended().await;
        assert_took(begun, SHORT);
    }
}

/// A listener on which only the keep-alive is short.
async fn impatient() -> Served {
    let http2 = Http2Limits { keep_alive_interval: SHORT, keep_alive_timeout: SHORT, ..Http2Limits::default() };
    serve(Protocol::Http2, Limits { http2, ..Limits::default() }, Router::new()).await
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_cut() {
    let served = impatient().await;
    let mut raw = Raw::greeted(served.address).await;
    let begun = Instant::now();
    raw.expect(PING).await;
    raw.ended().await;
    assert_took(begun, SHORT);
}

#[tokio::test]
async fn an_unfinished_header_block_ends_with_the_keep_alive() {
    let served = impatient().await;
    let mut raw = Raw::greeted(served.address).await;
    // `:method: POST` by its static index, and no END_HEADERS.
    raw.send(HEADERS, 0, 1, &[0x83]).await;
    raw.send(CONTINUATION, 0, 1, &[0x86]).await;
    let begun = Instant::now();
    raw.ended().await;
    assert_took(begun, SHORT);
}

#[tokio::test]
async fn a_frame_that_dribbles_ends_with_the_keep_alive() {
    let served = impatient().await;
    let raw = Raw::greeted(served.address).await;
    let (mut reading, mut writing) = raw.0.into_split();
    // 16,384 bytes are announced.
    writing.write_all(&[0, 0x40, 0, HEADERS, END_HEADERS, 0, 0, 0, 1]).await.unwrap();
    let begun = Instant::now();
    let dribble = async {
        while writing.write_all(&[0x83]).await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let mut rest = Vec::new();
    let both = async { tokio::join!(reading.read_to_end(&mut rest), dribble) };
    // By an end or by a reset: both are ends.
    let _ended = timeout(PATIENCE, both).await.expect("it goes on");
    assert_took(begun, SHORT);
}

/// It answers nothing, the route without end goes on, and the peer's window is as large as windows get.
#[tokio::test]
async fn a_peer_that_leaves_its_answers_unread_is_cut() {
    let limits = Limits { write_stall: SHORT, ..Limits::default() };
    let (route, mut poured) = pouring();
    let served = serve(Protocol::Http2, limits, Router::new().route("/pour", route)).await;
    let most = u32::MAX / 2;
    let mut raw = Raw::connect(served.address).await.greet(&[(4, most)]).await.unwrap();
    raw.send(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()).await;
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &call_to("/pour")).await;
    poured.ended().await;
}

/// It takes whatever comes and answers every PING, so that no deadline of a wait ends it.
#[tokio::test]
async fn a_peer_that_opens_no_window_is_cut_after_its_age_and_the_grace() {
    let http2 = Http2Limits { keep_alive_interval: SHORT / 4, ..Http2Limits::default() };
    let limits = Limits { max_age: 2 * SHORT, grace: SHORT, http2, ..Limits::default() };
    let (route, mut poured) = pouring();
    let served = serve(Protocol::Http2, limits, Router::new().route("/pour", route)).await;
    let begun = Instant::now();
    let mut raw = Raw::connect(served.address).await.greet(&[(4, 0)]).await.unwrap();
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &call_to("/pour")).await;
    poured.entered().await;
    let kinds = raw.answer_pings().await;
    assert_took(begun, (2 * SHORT).mul_f64(0.9) + SHORT);
    assert!(kinds.contains(&HEADERS), "the answer began: {kinds:?}");
    poured.ended().await;
}

#[tokio::test]
async fn a_peer_that_closes_its_half_is_let_go() {
    let served = serve(Protocol::Http2, Limits::default(), Router::new()).await;
    let mut raw = Raw::greeted(served.address).await;
    raw.expect(SETTINGS).await;
    raw.0.shutdown().await.unwrap();
    raw.ended().await;
}

#[tokio::test]
async fn http1_header_limits_hold() {
    let limits = Limits { header_read: SHORT, ..Limits::default() };
    let served = serve(Protocol::Either, limits, Router::new()).await;
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
    // The wait for the next request on a connection that is kept.
    let mut raw = Raw::connect(served.address).await;
    raw.0.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answers = Vec::new();
    let read = timeout(PATIENCE, raw.0.read_to_end(&mut answers)).await;
    assert!(read.is_ok_and(|read| read.is_ok()), "it is kept for ever");
    assert!(answers.starts_with(b"HTTP/1.1 404"));
}

/// What the broker holds of an answer that is not taken is bounded: hyper's own bound is 400 KiB.
#[tokio::test]
async fn little_of_an_answer_waits_to_be_written() {
    let (route, mut poured) = pouring();
    let routes = Router::new().route("/pour", route);
    let (client, server) = tokio::io::duplex(1024);
    let supervisor = token_broker::supervisor::Supervisor::new();
    let peer = token_broker::listener::Peer { addr: ANY.into(), identity: None, listener: "grpc".into() };
    let serving = token_broker::listener::serve_io(server, peer, Limits::default(), routes, supervisor.clone());
    supervisor.spawn("connection", serving);
    let most = u32::MAX / 2;
    let mut greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    greeting.extend(super::raw::frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    greeting.extend(super::raw::frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()));
    greeting.extend(super::raw::frame(HEADERS, END_HEADERS | END_STREAM, 1, &call_to("/pour")));
    let (_reading, mut writing) = tokio::io::split(client);
    timeout(PATIENCE, writing.write_all(&greeting)).await.unwrap().unwrap();
    poured.entered().await;
    let bytes = poured.stops(Duration::from_millis(300)).await;
    let most = 2 * Http2Limits::default().max_send_buffer;
    assert!((1..=most).contains(&bytes), "{bytes}");
}
