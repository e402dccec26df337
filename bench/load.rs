//! The load of `bench/wire.sh`: unary calls over HTTP/2 that are all the same, as fast as the server answers, with so
//! little of their own that the server is what is measured.
//!
//!     load ADDRESS CALLS CONNECTIONS STREAMS WORKSPACE [CLIENT_CERTIFICATE KEY CA]
//!
//! With certificates, TLS 1.3 with client authentication. Prints the calls, the seconds and the bytes of all answers.
//! Frames are counted and headers are not decoded: how the calls ended stands in the server's counters.

use futures_util::future::try_join_all;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use std::env;
use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use token_broker::grpc::pb::GetTokenRequest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const METHOD: &str = "/tokenbroker.v1.TokenService/GetToken";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

// Kinds of frames and flags: RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Failed = Box<dyn Error + Send + Sync>;

/// What each connection does.
#[derive(Debug, Clone)]
struct Plan {
    calls: usize,
    streams: usize,
    /// The header block of the first call, which fills the server's table, and of all others, which refer to it.
    first: Bytes,
    next: Bytes,
    request: Bytes,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    calls: usize,
    bytes: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, calls, connections, streams, workspace, files @ ..] = arguments.as_slice() else {
        return Err("usage: load ADDRESS CALLS CONNECTIONS STREAMS WORKSPACE [CLIENT_CERTIFICATE KEY CA]".into());
    };
    let tls = match files {
        [] => None,
        [certificate, key, ca] => Some(connector(certificate, key, ca)?),
        _ => return Err("a certificate, a key and an authority, or nothing".into()),
    };
    let (calls, connections, streams): (usize, usize, usize) = (calls.parse()?, connections.parse()?, streams.parse()?);
    let plan = Plan::new(workspace, streams, tls.is_some());
    let mut opened = Vec::new();
    for n in 0..connections {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let plan = Plan { calls: (calls + n) / connections, ..plan.clone() };
        opened.push((plan, secured(socket, tls.as_ref()).await?));
    }
    // What the handshakes take is no part of it.
    let begun = Instant::now();
    let done = try_join_all(opened.into_iter().map(|(plan, io)| call(plan, io))).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let all = done
        .iter()
        .fold(Done::default(), |all, one| Done { calls: all.calls + one.calls, bytes: all.bytes + one.bytes });
    writeln!(std::io::stdout(), "{} calls in {seconds:.6} s, {} bytes", all.calls, all.bytes)?;
    Ok(())
}

fn connector(certificate: &str, key: &str, ca: &str) -> Result<TlsConnector, Failed> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(ca)? {
        roots.add(authority?)?;
    }
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Either kind of a connection.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Io for I {}

async fn secured(socket: TcpStream, tls: Option<&TlsConnector>) -> Result<Box<dyn Io>, Failed> {
    Ok(match tls {
        None => Box::new(socket),
        Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, socket).await?),
    })
}

/// All calls of one connection.
async fn call(plan: Plan, mut io: Box<dyn Io>) -> Result<Done, Failed> {
    let (mut read, mut write) = (BytesMut::with_capacity(64 << 10), BytesMut::with_capacity(64 << 10));
    write.put_slice(PREFACE);
    // As much as there can be, so that nothing has to be said about it again: per stream (setting 4), and in all.
    frame(&mut write, SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frame(&mut write, WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    let (mut sent, mut done) = (0, Done::default());
    while sent < plan.streams.min(plan.calls) {
        plan.send(&mut write, &mut sent)?;
    }
    while done.calls < plan.calls {
        if !write.is_empty() {
            io.write_all_buf(&mut write).await?;
            io.flush().await?;
        }
        if io.read_buf(&mut read).await? == 0 {
            return Err("the server closed the connection".into());
        }
        while let Some((kind, flags, payload)) = next(&mut read) {
            match kind {
                SETTINGS if flags & ACK == 0 => frame(&mut write, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut write, PING, ACK, 0, &payload),
                RST_STREAM | GOAWAY => return Err("the server gave up a call".into()),
                DATA => done.bytes += payload.len(),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                done.calls += 1;
                if sent < plan.calls {
                    plan.send(&mut write, &mut sent)?;
                }
            }
        }
        read.reserve(64 << 10);
    }
    Ok(done)
}

/// The first frame of what was read, if it is all there.
fn next(read: &mut BytesMut) -> Option<(u8, u8, BytesMut)> {
    let mut head = read.get(..HEAD)?;
    let length = usize::try_from(head.get_uint(3)).ok()?;
    let (kind, flags) = (head.get_u8(), head.get_u8());
    if read.len() < HEAD + length {
        return None;
    }
    read.advance(HEAD);
    Some((kind, flags, read.split_to(length)))
}

fn frame(write: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    write.put_uint(u64::try_from(payload.len()).unwrap_or_default(), 3);
    write.put_slice(&[kind, flags]);
    write.put_u32(stream);
    write.put_slice(payload);
}

// === impl Plan ===

impl Plan {
    fn new(workspace: &str, streams: usize, secure: bool) -> Self {
        let message = GetTokenRequest { workspace: workspace.to_owned(), min_validity: None }.encode_to_vec();
        let mut request = vec![0];
        request.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
        request.extend(message);
        // HPACK (RFC 7541): `:method: POST` and the scheme from the static table, the path said each time, as nghttp2
        // does, and four headers that go into the server's table: the last one is there as number 62.
        let mut always = vec![0x83, if secure { 0x87 } else { 0x86 }, 0x04];
        text(&mut always, METHOD);
        let (mut first, mut next) = (always.clone(), always);
        first.push(0x41);
        text(&mut first, "localhost");
        first.push(0x5f);
        text(&mut first, "application/grpc");
        for (name, value) in [("te", "trailers"), ("user-agent", "grpc-load/1.0")] {
            first.push(0x40);
            text(&mut first, name);
            text(&mut first, value);
        }
        next.extend([65, 64, 63, 62].map(|index| 0x80 | index));
        Self { calls: 0, streams, first: first.into(), next: next.into(), request: request.into() }
    }

    fn send(&self, write: &mut BytesMut, sent: &mut usize) -> Result<(), Failed> {
        let stream = u32::try_from(2 * *sent + 1)?;
        let headers = if *sent == 0 { &self.first } else { &self.next };
        frame(write, HEADERS, END_HEADERS, stream, headers);
        frame(write, DATA, END_STREAM, stream, &self.request);
        *sent += 1;
        Ok(())
    }
}

/// A text as it is. All here are shorter than 127 bytes, whose length takes one.
fn text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).unwrap_or_default());
    block.extend(text.as_bytes());
}
