//! Peers that break the protocol, or abuse it. Each gets the answer that RFC 9113 has for it, none reaches a handler with
//! it, and an honest caller is served afterwards.

use super::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
    HEADERS, PING, PROTOCOL_ERROR, RST_STREAM, Raw, SETTINGS, STATUS_431, STATUS_431_AGAIN, WINDOW_UPDATE, block,
    call_to, error_code, frame, literal,
};
use super::{PATIENCE, SHORT, Served, honest_call, serve_broker};
use axum::Router;
use token_broker::listener::{Http2Limits, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const CANCEL: [u8; 4] = [0, 0, 0, 8];

async fn broker(http2: Http2Limits) -> Served {
    serve_broker(Limits { http2, ..Limits::default() }, Router::new()).await
}

/// What a peer that writes all of this is sent away with.
async fn sent_away_for(served: &Served, bytes: &[u8]) -> u32 {
    let mut raw = Raw::greeted(served.address).await;
    // It may be sent away before it has written all.
    drop(raw.pour(bytes).await);
    let code = raw.sent_away().await;
    raw.ended().await;
    code
}

fn repeated(count: u32, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|n| one(2 * n + 1)).collect()
}

/// A stream without `:path`, which the server has to reset.
fn broken(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x83])
}

/// A call that is called off at once.
fn called_off(stream: u32) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call_to(CHECK));
    bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    bytes
}

#[tokio::test]
async fn a_peer_that_breaks_stream_after_stream_is_sent_away() {
    let ten = Http2Limits { max_local_error_reset_streams: 10, ..Http2Limits::default() };
    let served = broker(ten).await;
    assert_eq!(sent_away_for(&served, &repeated(12, broken)).await, ENHANCE_YOUR_CALM);
    honest_call(served.address).await;
    let served = broker(Http2Limits::default()).await;
    assert_eq!(sent_away_for(&served, &repeated(1100, broken)).await, ENHANCE_YOUR_CALM);
    honest_call(served.address).await;
}

/// The answers to its errors are what it leaves unread.
#[tokio::test]
async fn a_peer_that_breaks_streams_and_reads_nothing_is_cut_and_not_kept_in_memory() {
    let served = broker(Http2Limits::default()).await;
    let mut raw = Raw::greeted(served.address).await;
    let begin = repeated(1000, broken);
    raw.pour(&begin).await.unwrap();
    let mut frames = 1000;
    let end = async {
        loop {
            let more = (frames..frames + 1000).flat_map(|n| broken(2 * n + 1)).collect::<Vec<_>>();
            if raw.pour(&more).await.is_err() {
                return frames;
            }
            frames += 1000;
        }
    };
    // What the sockets hold counts too: 10 bytes a frame.
    assert!(timeout(PATIENCE, end).await.expect("it goes on") < 2_000_000);
    honest_call(served.address).await;
}

#[tokio::test]
async fn calls_that_are_called_off_at_once_are_sent_away() {
    let five = Http2Limits { max_pending_accept_reset_streams: 5, ..Http2Limits::default() };
    for (http2, calls) in [(five, 10), (Http2Limits::default(), 100)] {
        let served = broker(http2).await;
        assert_eq!(sent_away_for(&served, &repeated(calls, called_off)).await, ENHANCE_YOUR_CALM);
        honest_call(served.address).await;
    }
}

#[tokio::test]
async fn a_header_block_in_many_pieces_is_sent_away() {
    let served = broker(Http2Limits::default()).await;
    let field = block(&[("a", "b")]);
    for piece in [&[][..], &field] {
        let mut bytes = frame(HEADERS, 0, 1, &call_to(CHECK));
        bytes.extend((0..100).flat_map(|_| frame(CONTINUATION, 0, 1, piece)));
        assert_eq!(sent_away_for(&served, &bytes).await, ENHANCE_YOUR_CALM, "{} bytes", piece.len());
    }
    honest_call(served.address).await;
}

/// Metadata of this many bytes, in as many frames as it takes.
fn call_with_metadata(stream: u32, bytes: usize) -> Vec<u8> {
    let mut headers = call_to(CHECK);
    headers.extend(block(&[("x", &"v".repeat(bytes))]));
    let pieces: Vec<&[u8]> = headers.chunks(16 * 1024).collect();
    let last = pieces.len() - 1;
    let piece = |(n, piece): (usize, &&[u8])| {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        let flags = if n == last { END_HEADERS } else { 0 } | if n == 0 { END_STREAM } else { 0 };
        frame(kind, flags, stream, piece)
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

#[tokio::test]
async fn metadata_over_8_kib_is_refused_and_far_over_it_sent_away() {
    let served = broker(Http2Limits::default()).await;
    for bytes in [8 * 1024, 17_000, 30_000] {
        let mut raw = Raw::greeted(served.address).await;
        raw.pour(&call_with_metadata(1, bytes)).await.unwrap();
        assert_eq!(raw.expect(HEADERS).await, STATUS_431, "{bytes}");
        // The connection has survived it, and what fits is served.
        raw.pour(&call_with_metadata(3, 7 * 1024)).await.unwrap();
        let answer = raw.expect(HEADERS).await;
        assert!(answer != STATUS_431 && answer != STATUS_431_AGAIN, "{answer:?}");
    }
    assert_eq!(sent_away_for(&served, &call_with_metadata(1, 200_000)).await, ENHANCE_YOUR_CALM);
    honest_call(served.address).await;
}

#[tokio::test]
async fn a_small_block_that_unpacks_to_a_large_one_is_refused_as_a_large_one() {
    let served = broker(Http2Limits::default()).await;
    // A field of 4,000 bytes goes into the table of 4,096 (RFC 7541 §6.2.1), and is then named by its index, 62.
    let bomb = |names: usize| {
        let mut headers = call_to(CHECK);
        headers.push(0x40);
        literal(&mut headers, "x");
        literal(&mut headers, &"v".repeat(4000));
        headers.extend(vec![0xbe; names]);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers)
    };
    let mut raw = Raw::greeted(served.address).await;
    raw.pour(&bomb(4)).await.unwrap();
    assert_eq!(raw.expect(HEADERS).await, STATUS_431);
    assert_eq!(sent_away_for(&served, &bomb(10_000)).await, ENHANCE_YOUR_CALM);
    honest_call(served.address).await;
}

#[tokio::test]
async fn data_in_many_tiny_pieces_is_sent_away() {
    let served = broker(Http2Limits::default()).await;
    for piece in [&[][..], &[0]] {
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &call_to("/tokenbroker.v1.TokenService/GetToken"));
        // A message of 16 KiB is announced, so that the handler waits for it.
        bytes.extend(frame(DATA, 0, 1, &[0, 0, 0, 0x40, 0]));
        bytes.extend((0..10_000).flat_map(|_| frame(DATA, 0, 1, piece)));
        assert_eq!(sent_away_for(&served, &bytes).await, ENHANCE_YOUR_CALM, "{} bytes", piece.len());
    }
    honest_call(served.address).await;
}

#[tokio::test]
async fn what_is_against_the_protocol_is_named_as_such() {
    let served = broker(Http2Limits::default()).await;
    let most = (u32::MAX / 2).to_be_bytes();
    let settings = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    // Where the library says PROTOCOL_ERROR, RFC 9113 sometimes has a narrower code; the connection ends alike.
    let rows = [
        ("a window beyond 2³¹ − 1", frame(WINDOW_UPDATE, 0, 0, &most), FLOW_CONTROL_ERROR),
        ("a window grown by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a frame over 16 KiB", frame(DATA, 0, 1, &vec![0; 16 * 1024 + 1]), FRAME_SIZE_ERROR),
        ("data on no stream", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("data on an idle stream", frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        ("an even stream", frame(HEADERS, END_HEADERS, 2, &call_to(CHECK)), PROTOCOL_ERROR),
        ("a window of 4 GiB", frame(SETTINGS, 0, 0, &settings(4, u32::MAX)), PROTOCOL_ERROR),
        ("frames of 1 byte", frame(SETTINGS, 0, 0, &settings(5, 1)), PROTOCOL_ERROR),
        ("a PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), PROTOCOL_ERROR),
        ("a push", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("a block that is no HPACK", frame(HEADERS, END_HEADERS, 1, &[0x80]), PROTOCOL_ERROR),
    ];
    for (what, bytes, code) in rows {
        assert_eq!(sent_away_for(&served, &bytes).await, code, "{what}");
    }
    honest_call(served.address).await;
}

#[tokio::test]
async fn a_stream_window_that_overflows_ends_that_stream_alone() {
    let served = broker(Http2Limits::default()).await;
    let mut raw = Raw::greeted(served.address).await;
    raw.send(HEADERS, END_HEADERS, 1, &call_to(CHECK)).await;
    raw.send(WINDOW_UPDATE, 0, 1, &(u32::MAX / 2).to_be_bytes()).await;
    assert_eq!(error_code(&raw.expect(RST_STREAM).await), FLOW_CONTROL_ERROR);
    raw.send(PING, 0, 0, &[7; 8]).await;
    assert_eq!(raw.expect(PING).await, [7; 8]);
    honest_call(served.address).await;
}

/// Each asks for an answer. Who reads none is no longer read from, and then cut.
#[tokio::test]
async fn a_flood_of_pings_or_settings_by_who_reads_nothing_is_cut() {
    let http2 = Http2Limits { control_frames_per_second: u32::MAX, ..Http2Limits::default() };
    let limits = Limits { write_stall: SHORT, http2, ..Limits::default() };
    let served = serve_broker(limits, Router::new()).await;
    for one in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut raw = Raw::greeted(served.address).await;
        let many: Vec<u8> = one.repeat(10_000);
        let flood = async { while raw.pour(&many).await.is_ok() {} };
        timeout(3 * PATIENCE, flood).await.expect("it goes on");
        honest_call(served.address).await;
    }
}

/// Who reads the answers is slowed down, and cut when it does not stop.
#[tokio::test]
async fn a_flood_of_frames_that_are_no_calls_is_slowed_down_and_then_cut() {
    let http2 = Http2Limits { control_frames_patience: 2 * SHORT, ..Http2Limits::default() };
    let served = broker(http2).await;
    let grow = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    for one in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), grow] {
        let raw = Raw::greeted(served.address).await;
        let (mut reading, mut writing) = raw.0.into_split();
        let (begun, many) = (Instant::now(), one.repeat(1000));
        let mut sent = 0.0;
        let flood = async {
            while writing.write_all(&many).await.is_ok() {
                sent += 1000.0;
            }
        };
        let mut answers = Vec::new();
        let both = async { tokio::join!(reading.read_to_end(&mut answers), flood) };
        // By an end or by a reset: both are ends.
        let _ended = timeout(3 * PATIENCE, both).await.expect("it goes on");
        // What has come at most: what is allowed, what one read brings beyond it, and what the sockets hold.
        let in_sockets = 8.0 * f64::from(1 << 20) / f64::from(u32::try_from(one.len()).unwrap());
        assert!(sent <= 2000.0 + 1000.0 * begun.elapsed().as_secs_f64() + 2000.0 + in_sockets, "{sent}");
        let answered = f64::from(u32::try_from(answers.len() / 17).unwrap());
        assert!(answered <= 6000.0 + 1000.0 * begun.elapsed().as_secs_f64(), "{answered}");
        honest_call(served.address).await;
    }
}

#[tokio::test]
async fn who_speaks_something_else_is_let_go() {
    let served = broker(Http2Limits::default()).await;
    let http1 = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(100));
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 100]].concat();
    for hello in [http1.as_bytes(), &tls] {
        let mut raw = Raw::connect(served.address).await;
        raw.pour(hello).await.unwrap();
        let mut answer = Vec::new();
        // By an end or by a reset: both are ends.
        drop(timeout(PATIENCE, raw.0.read_to_end(&mut answer)).await.expect("it is kept"));
        // At most the server's own settings and a GOAWAY.
        assert!(
            answer.len() < 200 && (answer.is_empty() || answer[3] == SETTINGS || answer[3] == GOAWAY),
            "{answer:?}"
        );
    }
    honest_call(served.address).await;
}
