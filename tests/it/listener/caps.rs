//! How many connections and streams there may be.

use super::raw::{
    DATA, END_HEADERS, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, call_to, error_code, frame, next_frame,
};
use super::{PATIENCE, SHORT, Served, serve};
use axum::Router;
use axum::body::Body;
use axum::routing::post;
use std::future::pending;
use std::ops::Range;
use token_broker::listener::{Limits, Protocol};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Whether a new connection is let in.
async fn lets_in(served: &Served, host: [u8; 4]) -> Option<Raw> {
    Raw::connect_from(host, served.address).await.greet(&[]).await
}

/// A place comes back once the server has seen the end of who had it.
async fn lets_in_again(served: &Served, host: [u8; 4]) -> Raw {
    let again = async {
        loop {
            if let Some(raw) = lets_in(served, host).await {
                return raw;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("the place never came back")
}

const ONE: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

#[tokio::test]
async fn connections_over_the_cap_are_closed_at_once() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let first = lets_in(&served, ONE).await.unwrap();
    let _second = lets_in(&served, OTHER).await.unwrap();
    for host in [ONE, OTHER, [127, 0, 0, 3]] {
        assert!(lets_in(&served, host).await.is_none(), "{host:?}");
    }
    assert_eq!(served.refused("max_connections"), 3);
    drop(first);
    lets_in_again(&served, [127, 0, 0, 3]).await;
}

#[tokio::test]
async fn one_peer_does_not_get_all_the_places() {
    let limits = Limits { max_connections_per_peer: 2, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let first = lets_in(&served, ONE).await.unwrap();
    let _second = lets_in(&served, ONE).await.unwrap();
    assert!(lets_in(&served, ONE).await.is_none());
    assert_eq!(served.refused("max_connections_per_peer"), 1);
    let _other = lets_in(&served, OTHER).await.expect("a place for another peer");
    drop(first);
    lets_in_again(&served, ONE).await;
}

#[tokio::test]
async fn one_peer_does_not_come_back_as_fast_as_it_can() {
    let limits = Limits { peer_connection_rate: 1, peer_connection_burst: 5, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let begun = Instant::now();
    let mut let_in = 0;
    for _ in 0..60 {
        let_in += u64::from(lets_in(&served, ONE).await.is_some());
    }
    // One more per second, however slow the machine is.
    assert!(let_in >= 5 && let_in <= 5 + begun.elapsed().as_secs() + 1, "{let_in}");
    assert_eq!(served.refused("peer_connection_rate"), 60 - let_in);
    let _other = lets_in(&served, OTHER).await.expect("another peer is not to blame");
}

/// Streams that never end, one frame each.
fn streams(numbers: Range<u32>) -> Vec<u8> {
    let headers = call_to("/held");
    numbers.flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &headers)).collect()
}

#[tokio::test]
async fn of_5000_parallel_streams_100_are_served() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let held = post(move || {
        called.send(()).unwrap();
        pending::<()>()
    });
    let served = serve(Protocol::Http2, Limits::default(), Router::new().route("/held", held)).await;
    let mut raw = Raw::greeted(served.address).await;
    raw.pour(&streams(0..100)).await.unwrap();
    for _ in 0..100 {
        timeout(PATIENCE, calls.recv()).await.expect("a call below the limit is not served");
    }
    let (mut reading, mut writing) = raw.0.into_split();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        // Fails where the server ends the connection before all is written, which it may.
        drop(writing.write_all(&streams(100..5000)).await);
        // Kept open, so that the end is the server's.
        pending::<()>().await;
    });
    let mut refused = 0;
    let sent_away = loop {
        let got = next_frame(&mut reading).await.expect("the connection ended without GOAWAY");
        match got.kind {
            RST_STREAM => {
                assert_eq!(error_code(&got.payload), REFUSED_STREAM);
                assert!(got.stream > 200, "{}", got.stream);
                refused += 1;
            }
            GOAWAY => break error_code(&got.payload[4..]),
            _ => {}
        }
    };
    // Refusals count as resets of our own making, and after 1,024 of those a peer is thrown out.
    assert_eq!(sent_away, ENHANCE_YOUR_CALM);
    assert!(refused <= 1024, "{refused}");
    assert!(calls.try_recv().is_err(), "a call above the limit was served");
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
    // The window of the connection is told as what is added to the 65,535 of the RFC.
    assert_eq!(raw.expect(WINDOW_UPDATE).await, (256 * 1024 - 65_535_u32).to_be_bytes());
}

/// A peer that sends more than its windows, to routes that read nothing of it.
async fn overfill(streams: u32, bytes_per_stream: usize) -> u32 {
    let held = post(|unread: Body| async move {
        pending::<()>().await;
        drop(unread);
    });
    let served = serve(Protocol::Http2, Limits::default(), Router::new().route("/held", held)).await;
    let mut raw = Raw::greeted(served.address).await;
    for n in 0..streams {
        let stream = 2 * n + 1;
        raw.send(HEADERS, END_HEADERS, stream, &call_to("/held")).await;
        let mut left = bytes_per_stream;
        while left > 0 {
            let now = left.min(16 * 1024);
            let data = frame(DATA, 0, stream, &vec![0; now]);
            if raw.pour(&data).await.is_err() {
                break;
            }
            left -= now;
        }
    }
    loop {
        let got = raw.frame().await.expect("it ended without a word");
        match got.kind {
            RST_STREAM => return error_code(&got.payload),
            GOAWAY => return error_code(&got.payload[4..]),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_a_peer_may_send_unread_is_bounded_per_stream_and_in_all() {
    assert_eq!(overfill(1, 64 * 1024 + 1).await, FLOW_CONTROL_ERROR, "one stream");
    assert_eq!(overfill(5, 60 * 1024).await, FLOW_CONTROL_ERROR, "the connection");
}

#[tokio::test]
async fn a_connection_that_ends_within_the_preface_gives_its_place_back() {
    let limits = Limits { max_connections: 1, first_bytes: SHORT, ..Limits::default() };
    let served = serve(Protocol::Http2, limits, Router::new()).await;
    let _silent = Raw::connect(served.address).await;
    lets_in_again(&served, ONE).await;
}
