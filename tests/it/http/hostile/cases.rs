//! What a hostile upstream sends, case by case, and how the attempt must end.

use super::{Case, End, Over, Then};
use crate::listener::raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block, frame,
};
use token_broker::http::Cause;

const PUSH_PROMISE: u8 = 5;
const PRIORITY: u8 = 2;
/// A type that RFC 9113 leaves open: receivers drop it.
const UNKNOWN: u8 = 0xfa;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
/// What follows on it is a chunked body.
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// `printf '\0…' | gzip`, of which each piece of 13 bytes makes 2,064: the header, a block of the fixed code, a zero,
/// and then "258 times the last byte" for ever. 10 GB of zeros are 65 MB of it.
const GZIP: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x62, 0x18, 0x05];
const GZIP_PIECE: &[u8] = &[0xa3, 0x60, 0x14, 0x8c, 0x82, 0x51, 0x30, 0x0a, 0x46, 0xc1, 0x28, 0x18, 0x05];

fn case(name: &'static str, over: Over, first: &[u8], then: Then, end: End) -> Case {
    Case { name, over, first: first.to_vec(), then, end }
}

fn endless(piece: impl AsRef<[u8]>) -> Then {
    Then::Endless(piece.as_ref().to_vec())
}

fn http1(name: &'static str, first: impl AsRef<[u8]>, then: Then, end: End) -> Case {
    case(name, Over::Plain, first.as_ref(), then, end)
}

const TOO_LARGE_HEAD: End = End::NoAnswer(Cause::TooLarge);
const TOO_LARGE_BODY: End = End::Body(Cause::TooLarge);
const LATE_HEAD: End = End::NoAnswer(Cause::Timeout);
const LATE_BODY: End = End::Body(Cause::Timeout);

pub(super) fn all() -> Vec<Case> {
    [bodies(), heads(), chunks(), dribbles(), http2(), handshakes()].into_iter().flatten().collect()
}

fn bodies() -> Vec<Case> {
    let zeros = || endless([0; 16_384]);
    let sized = [OK, b"Content-Length: 10000000000\r\n\r\n"].concat();
    let gzip = |length: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n{length}\r\n");
        [head.as_bytes(), GZIP].concat()
    };
    let chunk = [b"4000\r\n", [0; 0x4000].as_slice(), b"\r\n"].concat();
    let small = gzip(&format!("Content-Length: {}\r\n", GZIP.len() + 4_000 * GZIP_PIECE.len()));
    let small = [small, GZIP_PIECE.repeat(4_000)].concat();
    let whole = [OK, b"Content-Length: 2\r\n\r\n{}"].concat();
    vec![
        http1("10 GB, announced", sized, zeros(), TOO_LARGE_BODY),
        http1("10 GB, not announced", [OK, b"\r\n"].concat(), zeros(), TOO_LARGE_BODY),
        http1("10 GB in chunks", CHUNKED, endless(chunk), TOO_LARGE_BODY),
        http1("10 GB in one chunk", [CHUNKED, b"2540be400\r\n"].concat(), zeros(), TOO_LARGE_BODY),
        http1("10 GB in chunks of a byte", CHUNKED, endless(b"1\r\n0\r\n".repeat(2_000)), TOO_LARGE_BODY),
        http1("a gzip bomb of 10 GB", gzip(""), endless(GZIP_PIECE.repeat(1_000)), TOO_LARGE_BODY),
        http1("a gzip bomb of 8 MB that fits", small, Then::Silence, End::Answer(GZIP.len() + 52_000)),
        http1("a whole answer, and 10 GB after it", whole, zeros(), End::Answer(2)),
    ]
}

fn heads() -> Vec<Case> {
    let many = || endless(b"X-More: of the same\r\n".repeat(500));
    let hints = [b"HTTP/1.1 103 Early Hints\r\n".as_slice(), &b"Link: </a>\r\n".repeat(90), b"\r\n"].concat();
    vec![
        http1("headers without end", OK, many(), TOO_LARGE_HEAD),
        http1("a header without end", [OK, b"X-More: "].concat(), endless([b'a'; 16_384]), TOO_LARGE_HEAD),
        http1("a header's name without end", OK, endless([b'a'; 16_384]), TOO_LARGE_HEAD),
        http1("a reason without end", b"HTTP/1.1 200 ", endless([b'a'; 16_384]), TOO_LARGE_HEAD),
        http1("empty lines without end", b"", endless(b"\r\n".repeat(5_000)), TOO_LARGE_HEAD),
        http1("100s without end", b"", endless(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(400)), LATE_HEAD),
        http1("103s without end", b"", endless(hints.repeat(10)), LATE_HEAD),
        http1("bytes that are no HTTP", b"", endless([0; 16_384]), End::NoAnswer(Cause::Garbled)),
    ]
}

fn chunks() -> Vec<Case> {
    let after = |text: &[u8]| [CHUNKED, text].concat();
    vec![
        http1("a chunk's extension without end", after(b"1;a="), endless([b'a'; 16_384]), TOO_LARGE_BODY),
        http1(
            "extensions on every chunk",
            CHUNKED,
            endless(b"1;aaaaaaaaaaaaaaaa\r\n0\r\n".repeat(400)),
            TOO_LARGE_BODY,
        ),
        http1("a chunk's size without end", CHUNKED, endless([b'0'; 16_384]), LATE_BODY),
        http1("blanks after a chunk's size without end", after(b"1"), endless([b' '; 16_384]), LATE_BODY),
        http1("trailers without end", after(b"0\r\n"), endless(b"X-More: of the same\r\n".repeat(500)), TOO_LARGE_BODY),
        http1("a trailer without end", after(b"0\r\nX-More: "), endless([b'a'; 16_384]), TOO_LARGE_BODY),
    ]
}

fn dribbles() -> Vec<Case> {
    let slow = |text: &[u8]| Then::Dribble(text.to_vec());
    vec![
        http1("silence", b"", Then::Silence, LATE_HEAD),
        http1("a byte at a time, of the status", b"", slow(OK), LATE_HEAD),
        http1("a byte at a time, of the headers", OK, slow(b"Content-Length: 2\r\n"), LATE_HEAD),
        http1(
            "a byte at a time, of the body",
            [OK, b"Content-Length: 99\r\n\r\n"].concat(),
            slow(b"{\"a\":1}"),
            LATE_BODY,
        ),
        http1("a byte at a time, of a chunk's size", CHUNKED, slow(b"0000000000"), LATE_BODY),
    ]
}

fn http2() -> Vec<Case> {
    let over = |name, first: Vec<u8>, then, end| case(name, Over::Http2, &first, then, end);
    let answer = || frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")]));
    let hint = || frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103"), ("link", &"a".repeat(8_000))]));
    let data = frame(DATA, 0, 1, &[0; 16_384]);
    let field = block(&[("x-more", &"a".repeat(16_000))]);
    let broken = || End::NoAnswer(Cause::Garbled);
    vec![
        over("HTTP/2: 10 GB", answer(), Then::Windowed(data), TOO_LARGE_BODY),
        over("HTTP/2: 10 GB past the window", answer(), endless(frame(DATA, 0, 1, &[0; 16_384])), TOO_LARGE_BODY),
        over(
            "HTTP/2: empty pieces without end",
            answer(),
            endless(frame(DATA, 0, 1, b"").repeat(1_000)),
            TOO_LARGE_BODY,
        ),
        over("HTTP/2: 103s without end", Vec::new(), endless(hint()), LATE_HEAD),
        over(
            "HTTP/2: headers without end",
            frame(HEADERS, 0, 1, &block(&[(":status", "200")])),
            endless(frame(CONTINUATION, 0, 1, &field)),
            TOO_LARGE_HEAD,
        ),
        over(
            "HTTP/2: headers of 32 KB",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &large_block()),
            Then::Silence,
            broken(),
        ),
        over(
            "HTTP/2: trailers without end",
            [answer(), frame(HEADERS, END_STREAM, 1, &block(&[("x-more", "a")]))].concat(),
            endless(frame(CONTINUATION, 0, 1, &field)),
            TOO_LARGE_BODY,
        ),
        over("HTTP/2: PINGs without end", Vec::new(), endless(frame(PING, 0, 0, &[0; 8]).repeat(500)), LATE_HEAD),
        over("HTTP/2: SETTINGS without end", Vec::new(), endless(frame(SETTINGS, 0, 0, &[]).repeat(500)), LATE_HEAD),
        over("HTTP/2: acknowledgements without end", Vec::new(), endless(frame(SETTINGS, ACK, 0, &[])), broken()),
        over("HTTP/2: frames that nobody knows", Vec::new(), endless(frame(UNKNOWN, 0, 1, &[0; 16_384])), LATE_HEAD),
        over(
            "HTTP/2: priorities without end",
            Vec::new(),
            endless(frame(PRIORITY, 0, 1, &[0; 5]).repeat(500)),
            LATE_HEAD,
        ),
        over(
            "HTTP/2: windows without end",
            Vec::new(),
            endless(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(500)),
            LATE_HEAD,
        ),
        over("HTTP/2: pushes", Vec::new(), endless(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), broken()),
        over("HTTP/2: farewells without end", Vec::new(), endless(goaway().repeat(100)), LATE_HEAD),
        over("HTTP/2: a frame of 16 MB", vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1], endless([0; 16_384]), broken()),
        over("HTTP/2: silence", Vec::new(), Then::Silence, LATE_HEAD),
        over("HTTP/2: a byte at a time", Vec::new(), Then::Dribble(answer()), LATE_HEAD),
    ]
}

/// More than the 16 KiB that are read of headers, in a frame of its own size: a table entry that is named many times
/// (RFC 7541 §6.1).
fn large_block() -> Vec<u8> {
    let mut fields = vec![0x88];
    // Literal with incremental indexing: x = 3,000 times a.
    fields.extend([0x40, 1, b'x', 127]);
    fields.extend([0xb9, 0x16]);
    fields.extend([b'a'; 3_000]);
    // The newest entry of the table, ten times.
    fields.extend([0xbe; 10]);
    fields
}

/// A GOAWAY that lets stream 1 go on.
fn goaway() -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0], [b'a'; 8_000].as_slice()].concat())
}

fn handshakes() -> Vec<Case> {
    // A record with the beginning of a ServerHello that claims 16 MB, and records with more of it.
    let hello = [&[0x16, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff], [0; 16_380].as_slice()].concat();
    let more = [&[0x16, 3, 3, 0x40, 0], [0; 16_384].as_slice()].concat();
    let tls = End::NoAnswer(Cause::Tls);
    vec![
        case("TLS: a hello of 16 MB", Over::Handshake, &hello, endless(more), tls),
        case("TLS: warnings without end", Over::Handshake, b"", endless([0x15, 3, 3, 0, 2, 1, 90].repeat(1_000)), tls),
        case("TLS: bytes that are no TLS", Over::Handshake, b"", endless([0; 16_384]), tls),
        case("TLS: silence", Over::Handshake, b"", Then::Silence, LATE_HEAD),
        case("TLS: a byte at a time", Over::Handshake, b"", Then::Dribble(hello), LATE_HEAD),
        case(
            "a proxy: headers without end",
            Over::Proxy,
            OK,
            endless(b"X-More: of the same\r\n".repeat(500)),
            End::NoAnswer(Cause::Connect),
        ),
        case(
            "a proxy: 100s without end",
            Over::Proxy,
            b"",
            endless(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(400)),
            End::NoAnswer(Cause::Connect),
        ),
        case("a proxy: silence", Over::Proxy, b"", Then::Silence, LATE_HEAD),
        case("a proxy: a byte at a time", Over::Proxy, b"", Then::Dribble(OK.to_vec()), LATE_HEAD),
    ]
}
