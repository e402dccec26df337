//! Requests that tell of an identity which is not their channel's: none of them changes anybody's.
//!
//! They are sent frame by frame, since a client library would refuse to send many of them. What counts is by which names
//! the route was entered.

use super::{GOOD_TOKEN, Io, Served, bearer, forwarded, own_name, own_uid};
use crate::listener::PATIENCE;
use crate::listener::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame,
    next_frame,
};
use std::collections::HashSet;
use token_broker::grpc::Means;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

const XFCC: &str = "x-forwarded-client-cert";
const A: &str = "spiffe://prod.example/a";
const ONE: &str = "URI=spiffe://prod.example/a";
const OTHER: &str = "URI=spiffe://prod.example/b";
const LARGEST_FRAME: usize = 16 * 1024;

/// The fields of a request, and the trailers behind its body.
struct Sent {
    fields: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Sent {
    /// Behind the usual pseudo-fields.
    fn with(headers: &[(&str, &str)]) -> Self {
        let mut fields = owned(&[(":method", "POST"), (":scheme", "http"), (":path", "/who"), (":authority", "a")]);
        fields.extend(owned(headers));
        Self { fields, trailers: Vec::new() }
    }

    fn whole(fields: &[(&str, &str)]) -> Self {
        Self { fields: owned(fields), trailers: Vec::new() }
    }

    fn trailing(self, trailers: &[(&str, &str)]) -> Self {
        Self { trailers: owned(trailers), ..self }
    }

    fn and(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn frames(&self) -> Vec<u8> {
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let last = self.trailers.is_empty();
        bytes.extend(header_frames(&self.fields, last));
        if !last {
            bytes.extend(frame(DATA, 0, 1, b"body"));
            bytes.extend(header_frames(&self.trailers, true));
        }
        bytes
    }

    /// Sends it on a connection of its own, and waits until the call has ended in whatever way.
    async fn to(&self, served: &Served) {
        let mut io = served.connect().await;
        let exchange = async {
            // Who is thrown out in the middle of it has its answer too.
            drop(io.write_all(&self.frames()).await);
            ended(&mut io).await;
        };
        timeout(PATIENCE, exchange).await.expect("neither answered nor refused");
    }
}

fn header_frames(fields: &[(String, String)], last: bool) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let block = block(&fields);
    let pieces: Vec<&[u8]> = block.chunks(LARGEST_FRAME).collect();
    let end = if last { END_STREAM } else { 0 };
    let frames = pieces.iter().enumerate().map(|(position, piece)| {
        let closing = if position + 1 == pieces.len() { END_HEADERS } else { 0 };
        if position == 0 { frame(HEADERS, closing | end, 1, piece) } else { frame(CONTINUATION, closing, 1, piece) }
    });
    frames.collect::<Vec<_>>().concat()
}

async fn ended(io: &mut Box<dyn Io>) {
    while let Some(frame) = next_frame(io).await {
        let closes = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        if closes || matches!(frame.kind, RST_STREAM | GOAWAY) {
            return;
        }
    }
}

/// What tells of an identity where none is believed: refused, whoever sends it.
fn refused_everywhere() -> Vec<Sent> {
    let headers: [(&str, &str); 27] = [
        (XFCC, ONE),
        (XFCC, ""),
        (XFCC, " "),
        ("x_forwarded_client_cert", ONE),
        ("x-forwarded_client-cert", ONE),
        ("x.forwarded.client.cert", ONE),
        ("x-forwarded-client-cert-bin", "VVJJPXNwaWZmZTovL3Byb2QuZXhhbXBsZS9h"),
        ("X-Forwarded-Client-Cert", ONE),
        ("X-FORWARDED-CLIENT-CERT", ONE),
        ("x-forwarded-client-cert ", ONE),
        ("x-forwarded-client-cert\0", ONE),
        ("x-spiffe-id", A),
        ("x_spiffe_id", A),
        ("x-client-cert", "-----BEGIN CERTIFICATE-----"),
        ("client-cert", ":MIIB:"),
        ("ssl-client-cert", "-----BEGIN%20CERTIFICATE-----"),
        ("ssl-client-subject-dn", "CN=a"),
        ("x-ssl-client-cert", "a"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("x-forwarded-user", "root"),
        ("x-remote-user", "root"),
        ("remote_user", "root"),
        ("x-auth-request-user", "root"),
        ("x-authenticated-userid", "root"),
        ("l5d-client-id", "a.b.serviceaccount.identity.linkerd.cluster.local"),
        ("proxy-authorization", "Bearer good.token"),
        ("x-goog-authenticated-user-email", "a@b.example"),
    ];
    let mut all: Vec<Sent> = headers.iter().map(|header| Sent::with(&[*header])).collect();
    all.extend([
        Sent::with(&[(XFCC, ONE), (XFCC, OTHER)]),
        Sent::with(&[(XFCC, ONE), ("x-spiffe-id", A)]),
        Sent::with(&[("x-spiffe-id", A), ("x-request-id", "1")]),
        Sent::with(&[(XFCC, &"a".repeat(64 * 1024))]),
        Sent::with(&[(XFCC, &"a".repeat(6 * 1024))]),
        // Trailers that become metadata of the call.
        Sent::with(&[]).trailing(&[(XFCC, ONE)]),
        Sent::with(&[]).trailing(&[("x_forwarded_client_cert", ONE)]),
        Sent::with(&[]).trailing(&[("x-spiffe-id", A)]),
        Sent::with(&[]).trailing(&[("authorization", "Bearer good.token")]),
        Sent::with(&[("trailer", XFCC)]).trailing(&[(XFCC, ONE)]),
        // Against the protocol.
        Sent::with(&[(":x-forwarded-client-cert", ONE)]),
        Sent::with(&[("x-a", "b\r\nx-forwarded-client-cert: URI=spiffe://prod.example/a")]),
        Sent::with(&[(":authority", A)]),
        Sent::with(&[("connection", XFCC), (XFCC, ONE)]),
    ]);
    all
}

/// What tells of no identity that anybody has ever believed: taken for what the channel says.
fn means_nothing() -> Vec<Sent> {
    let authority = |authority: &'static str| {
        Sent::whole(&[(":method", "POST"), (":scheme", "http"), (":path", "/who"), (":authority", authority)])
    };
    vec![
        // Left aside.
        Sent::with(&[]).trailing(&[(":authority", A)]),
        authority("spiffe.prod.example"),
        authority("loopback"),
        authority("unix:0"),
        Sent::with(&[("host", "prod.example")]),
        Sent::with(&[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"), ("x-request-id", "1")]),
        Sent::with(&[("x-envoy-external-address", "127.0.0.1"), ("x-envoy-attempt-count", "1")]),
        Sent::with(&[("forwarded", "for=127.0.0.1;by=unix:0")]),
        Sent::with(&[("from", "root@prod.example"), ("cookie", "user=root")]),
        Sent::with(&[]).trailing(&[("x-request-id", "1")]),
    ]
}

/// What a proxy may send, and as whom that counts if it is believed.
fn forwarded_rows() -> Vec<(Sent, Option<&'static str>)> {
    let xfcc = |value: &str| Sent::with(&[(XFCC, value)]);
    let refused = [
        "",
        " ",
        ",",
        ";",
        "URI",
        "URI=",
        "URI=\"\"",
        "URI=spiffe://prod.example/a,URI=spiffe://prod.example/b",
        "URI=spiffe://prod.example/a,",
        ",URI=spiffe://prod.example/a",
        "URI=spiffe://prod.example/a;URI=spiffe://prod.example/b",
        "URI=spiffe://prod.example/a;uri=spiffe://prod.example/b",
        "DNS=a.example;DNS=b.example",
        "URI=https://prod.example/a;DNS=a.example",
        "URI=spiffe://PROD.example/a",
        "URI=spiffe://prod.example/a/../b",
        "URI=spiffe://prod.example/*",
        "URI=loopback",
        "URI=unix:0",
        "DNS=unix:0",
        "DNS=*.example",
        "Subject=\"CN=a\";By=spiffe://prod.example/a",
        "Subject=\"x\\\";URI=spiffe://prod.example/a",
        "Subject=\"x\" ;URI=spiffe://prod.example/a",
        "URI=\"spiffe://prod.example/a",
        "URI=\"spiffe://prod.example/a\"b",
        "Subject=\";URI=spiffe://prod.example/a\"",
        "Subject=\",\";,URI=spiffe://prod.example/a",
        " URI=spiffe://prod.example/a",
        "URI=spiffe://prod.example/a;",
    ];
    let mut rows: Vec<(Sent, Option<&str>)> = refused.iter().map(|value| (xfcc(value), None)).collect();
    let two_headers = |first: &str, second: &str| Sent::with(&[(XFCC, first), (XFCC, second)]);
    rows.extend([
        (Sent::with(&[]), None),
        (two_headers(ONE, OTHER), None),
        (two_headers(ONE, ONE), None),
        (two_headers("", ONE), None),
        (xfcc(ONE).and("x_forwarded_client_cert", OTHER), None),
        (xfcc(ONE).and("x-spiffe-id", "spiffe://prod.example/b"), None),
        (xfcc(ONE).and("authorization", &format!("Bearer {GOOD_TOKEN}")), None),
        (Sent::with(&[("authorization", &format!("Bearer {GOOD_TOKEN}"))]), None),
        (Sent::with(&[("x_forwarded_client_cert", ONE)]), None),
        (Sent::with(&[("X-Forwarded-Client-Cert", ONE)]), None),
        (xfcc(ONE).trailing(&[(XFCC, OTHER)]), None),
        (xfcc(ONE).trailing(&[("x-spiffe-id", A)]), None),
        (Sent::with(&[]).trailing(&[(XFCC, ONE)]), None),
        (xfcc(&format!("Subject=\"{}\";{ONE}", "a".repeat(64 * 1024))), None),
        // One and only one.
        (xfcc(ONE), Some(A)),
        (xfcc("By=spiffe://prod.example/b;Hash=00;Subject=\"CN=\\\"b\\\",O=b\";URI=spiffe://prod.example/a"), Some(A)),
        (xfcc("Hash=00;Subject=\";URI=spiffe://prod.example/b\";URI=spiffe://prod.example/a"), Some(A)),
        (xfcc("Hash=00;URI=spiffe://prod.example/a;DNS=b.example"), Some(A)),
        (xfcc(ONE).and("x-forwarded-for", "127.0.0.1"), Some(A)),
        (xfcc("Hash=00;URI=;DNS=a.example"), Some("dns:a.example")),
    ]);
    rows
}

fn shown(sent: &Sent) -> String {
    let fields = sent.fields.iter().skip(3).chain(&sent.trailers);
    let cut = |text: &str| text.chars().take(80).collect::<String>();
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {}; ", cut(value))).collect();
    fields.concat()
}

#[tokio::test]
async fn no_header_and_no_trailer_changes_who_somebody_is() {
    let token = format!("Bearer {GOOD_TOKEN}");
    let rows = [
        (Served::tcp(Means::Loopback).await, "loopback".to_owned(), None),
        (Served::unix(Means::Channel).await, own_name(), None),
        (Served::tcp(bearer()).await, "jwt:test:alice".to_owned(), Some(token)),
    ];
    for (served, name, token) in rows {
        let proven = |sent: Sent| match &token {
            Some(token) => sent.and("authorization", token),
            None => sent,
        };
        for sent in refused_everywhere().into_iter().map(proven) {
            sent.to(&served).await;
            assert_eq!(served.entered(), [] as [&str; 0], "{name}: {}", shown(&sent));
        }
        for sent in means_nothing().into_iter().map(proven) {
            sent.to(&served).await;
            assert_eq!(served.entered(), [name.as_str()], "{name}: {}", shown(&sent));
        }
    }
}

#[tokio::test]
async fn only_what_a_listed_proxy_says_without_a_doubt_counts() {
    let own = own_name();
    let listed = Served::unix(forwarded(&["spiffe://prod.example/edge", &own])).await;
    let stranger = format!("unix:{}", own_uid() + 1);
    let unlisted = Served::unix(forwarded(&["spiffe://prod.example/edge", &stranger])).await;
    // A port proves nobody, so that there is nobody to believe.
    let unproven = Served::tcp(forwarded(&["spiffe://prod.example/edge", "loopback", "unix:*"])).await;
    let (mut changed, rows) = (HashSet::new(), forwarded_rows());
    for (sent, name) in &rows {
        sent.to(&listed).await;
        let expected: Vec<&str> = name.iter().copied().collect();
        assert_eq!(listed.entered(), expected, "listed: {}", shown(sent));
        changed.extend(expected);
        for served in [&unlisted, &unproven] {
            sent.to(served).await;
            assert_eq!(served.entered(), [] as [&str; 0], "not listed: {}", shown(sent));
        }
    }
    for sent in refused_everywhere() {
        // Those that are Envoy's own header stand above, with what is in them.
        if sent.fields.iter().chain(&sent.trailers).any(|(name, _)| name == XFCC) {
            continue;
        }
        let sent = sent.and(XFCC, ONE);
        sent.to(&listed).await;
        assert_eq!(listed.entered(), [] as [&str; 0], "beside the proof: {}", shown(&sent));
    }
    assert_eq!(changed, HashSet::from([A, "dns:a.example"]));
    let count = rows.len() + refused_everywhere().len() + means_nothing().len();
    assert!(count >= 50, "{count}");
}

/// The status is the one that a caller can act on, and says nothing of why.
#[tokio::test]
async fn the_answer_is_unauthenticated() {
    let served = Served::tcp(Means::Loopback).await;
    for name in [XFCC, "x_forwarded_client_cert", "x-spiffe-id", "x-remote-user", "authorization"] {
        assert_eq!(served.ask(&[(name, ONE)]).await, Err(tonic::Code::Unauthenticated), "{name}");
    }
    assert_eq!(served.ask(&[("x-forwarded-for", "10.0.0.1")]).await, Ok("loopback".to_owned()));
}
