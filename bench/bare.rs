//! The least that tonic can do: a server with one unary method that returns bytes made beforehand. `bench/wire.sh` sets
//! the broker's cached `GetToken` against it.
//!
//!     bare LISTEN BROKER WORKSPACE [CERTIFICATE KEY CLIENT_CA]
//!
//! asks the broker, in plain text, for the Workspace's token once and from then on returns the very same bytes to every
//! call. Requests are read as bytes and not looked at: no message is decoded, nothing is counted, nobody is asked who he
//! is. What tonic lets set about connections is set as in the broker's listener. With files, behind the broker's own
//! TLS: a handshake fails without a client certificate, and what it proves goes nowhere.

use futures_util::{Stream, TryStreamExt as _};
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::future::{Ready, ready};
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use token_broker::clock::Clock;
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::listener::Http2Limits;
use token_broker::revision::Revisions;
use token_broker::tls::{self, Clients, Files};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::client;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{self, NamedService, UnaryService};
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

const METHOD: &str = "/tokenbroker.v1.TokenService/GetToken";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, broker, workspace, files @ ..] = arguments.as_slice() else {
        return Err("usage: bare LISTEN BROKER WORKSPACE [CERTIFICATE KEY CLIENT_CA]".into());
    };
    let response = ask(broker, workspace).await?;
    let socket = TcpListener::bind(listen).await?;
    // For the script, which waits for this line.
    writeln!(io::stdout(), "bare: {} bytes on {}", response.len(), socket.local_addr()?)?;
    let limits = Http2Limits::default();
    let incoming = TcpIncoming::from(socket).with_nodelay(Some(true));
    let server = Server::builder()
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.max_frame_size)
        .http2_max_header_list_size(limits.max_header_list_size)
        .http2_max_pending_accept_reset_streams(Some(limits.max_pending_accept_reset_streams))
        .http2_keepalive_interval(Some(limits.keep_alive_interval))
        .http2_keepalive_timeout(Some(limits.keep_alive_timeout))
        .add_service(Bare(response));
    match files {
        [] => server.serve_with_incoming(incoming).await?,
        [certificate, key, client_ca] => {
            server.serve_with_incoming(secured(incoming, tls(certificate, key, client_ca)?)).await?;
        }
        _ => return Err("a certificate, a key and an authority, or nothing".into()),
    }
    Ok(())
}

fn tls(certificate: &str, key: &str, client_ca: &str) -> Result<tls::Server, tls::Error> {
    let (certificate, key, client_ca) = (certificate.into(), key.into(), Some(client_ca.into()));
    let clients = Clients::Required { trust_domains: Vec::new() };
    tls::Server::new(Files { certificate, key, client_ca, crl: None }, clients, Revisions::default(), Clock::system())
}

/// One handshake after the other: there are ten, before anything is measured.
fn secured(incoming: TcpIncoming, tls: tls::Server) -> impl Stream<Item = io::Result<Secured>> {
    incoming.and_then(move |socket| {
        let tls = tls.clone();
        async move { Ok(Secured(tls.accept(socket).await?.0)) }
    })
}

/// A connection, as tonic takes it.
struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Secured {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// The bytes of the broker's response, undecoded.
async fn ask(broker: &str, workspace: &str) -> Result<Bytes, Box<dyn Error>> {
    let channel = Endpoint::from_shared(broker.to_owned())?.connect().await?;
    let mut grpc = client::Grpc::new(channel);
    let request = GetTokenRequest { workspace: workspace.to_owned(), min_validity: None }.encode_to_vec();
    grpc.ready().await?;
    let answer = grpc.unary(Request::new(Bytes::from(request)), PathAndQuery::from_static(METHOD), Raw).await?;
    Ok(answer.into_inner())
}

/// The service: one method, one answer.
#[derive(Debug, Clone)]
struct Bare(Bytes);

impl NamedService for Bare {
    const NAME: &'static str = "tokenbroker.v1.TokenService";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("").into_http());
            }
            Ok(server::Grpc::new(Raw).unary(method, request).await)
        })
    }
}

impl UnaryService<Bytes> for Bare {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
