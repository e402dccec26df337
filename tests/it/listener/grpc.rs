//! What hostile gRPC comes to over a real socket: the status, and that the connection lives on.

use super::{PATIENCE, honest_call, serve_broker};
use axum::Router;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use token_broker::listener::Limits;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::{Code, Status};

const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";
/// `workspace: "a"`, with its prefix.
const ASKS_FOR_A: &[u8] = &[0, 0, 0, 0, 3, 0x0a, 1, b'a'];

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn body(pieces: impl Stream<Item = Bytes> + Send + 'static) -> AnyBody {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

fn whole(bytes: &'static [u8]) -> AnyBody {
    body(stream::iter([Bytes::from_static(bytes)]))
}

/// One connection of a caller that keeps none of gRPC's rules by itself.
struct Caller {
    sender: SendRequest<AnyBody>,
    _connection: JoinSet<()>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
        let mut running = JoinSet::new();
        // Its end is for the calls on it to notice.
        running.spawn(async move { drop(connection.await) });
        Self { sender, _connection: running }
    }

    async fn call(&mut self, headers: &[(&'static str, &str)], body: AnyBody) -> Code {
        let mut request = Request::post(format!("http://a{GET_TOKEN}")).header("te", "trailers");
        request = request.header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let call = async {
            let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
            let trailers = body.collect().await.unwrap().trailers().cloned();
            let status = Status::from_header_map(&head.headers);
            status.or_else(|| trailers.as_ref().and_then(Status::from_header_map)).expect("no grpc-status")
        };
        timeout(PATIENCE, call).await.expect("the call hung").code()
    }
}

#[tokio::test]
async fn a_hostile_grpc_timeout_counts_as_none_or_as_its_clamp() {
    let served = serve_broker(Limits::default(), Router::new()).await;
    let mut caller = Caller::connect(served.address).await;
    let long = "9".repeat(4000);
    for hostile in
        ["-1S", "99999999H", "100000000H", "", " ", "S", "1", "1e9S", "0x1S", "\u{661}S", "1S,2S", "NaNS", &long]
    {
        let code = caller.call(&[("grpc-timeout", hostile)], whole(ASKS_FOR_A)).await;
        assert_eq!(code, Code::NotFound, "{hostile:?}");
    }
    // There is no time left, so either is true.
    let code = caller.call(&[("grpc-timeout", "0n")], whole(ASKS_FOR_A)).await;
    assert!(matches!(code, Code::NotFound | Code::DeadlineExceeded), "{code:?}");
    honest_call(served.address).await;
}

#[tokio::test]
async fn of_two_timeouts_the_first_counts() {
    let served = serve_broker(Limits::default(), Router::new()).await;
    let mut caller = Caller::connect(served.address).await;
    let twice = [("grpc-timeout", "100m"), ("grpc-timeout", "99999999H")];
    assert_eq!(caller.call(&twice, body(stream::pending())).await, Code::DeadlineExceeded);
}

/// Also while bytes keep coming: 16 KiB at one byte a tick would take minutes.
#[tokio::test]
async fn a_body_that_never_comes_or_dribbles_ends_at_the_deadline() {
    let served = serve_broker(Limits::default(), Router::new()).await;
    let mut caller = Caller::connect(served.address).await;
    let ticks = stream::unfold(interval(Duration::from_millis(10)), |mut ticks| async move {
        ticks.tick().await;
        Some((Bytes::from_static(&[0x0a]), ticks))
    });
    let begins = stream::iter([Bytes::from_static(&[0, 0, 0, 0x40, 0])]);
    for slow in [body(stream::pending()), body(begins.chain(ticks))] {
        assert_eq!(caller.call(&[("grpc-timeout", "300m")], slow).await, Code::DeadlineExceeded);
    }
    assert_eq!(caller.call(&[], whole(ASKS_FOR_A)).await, Code::NotFound);
}

#[tokio::test]
async fn messages_that_are_too_large_or_packed_are_refused() {
    let served = serve_broker(Limits::default(), Router::new()).await;
    let mut caller = Caller::connect(served.address).await;
    // 64 MiB, 16 KiB and one byte; both refused before the message comes.
    for prefix in [&[0, 4, 0, 0, 0], &[0, 0, 0, 0x40, 1]] {
        let promise = body(stream::iter([Bytes::from_static(prefix)]).chain(stream::pending()));
        assert_eq!(caller.call(&[], promise).await, Code::OutOfRange, "{prefix:?}");
    }
    let packed = &[1, 0, 0, 0, 3, 0x0a, 1, b'a'];
    assert_eq!(caller.call(&[], whole(packed)).await, Code::Internal, "no grpc-encoding");
    for encoding in ["gzip", "zstd", "deflate", "bzip2"] {
        assert_eq!(caller.call(&[("grpc-encoding", encoding)], whole(packed)).await, Code::Unimplemented, "{encoding}");
    }
    let two: &[u8] = &[0, 0, 0, 0, 3, 0x0a, 1, b'a', 0, 0, 0, 0, 3, 0x0a, 1, b'a'];
    let code = caller.call(&[], whole(two)).await;
    assert!(matches!(code, Code::NotFound | Code::Internal | Code::InvalidArgument), "{code:?}");
    assert_eq!(caller.call(&[], whole(ASKS_FOR_A)).await, Code::NotFound);
    honest_call(served.address).await;
}

#[tokio::test]
async fn what_is_no_grpc_call_gets_an_answer_too() {
    let served = serve_broker(Limits::default(), Router::new()).await;
    let caller = Caller::connect(served.address).await;
    let rows = [
        ("GET", GET_TOKEN, "application/grpc"),
        ("POST", GET_TOKEN, "application/json"),
        ("POST", "/nothing/Here", "application/grpc"),
        ("POST", "/", "text/plain"),
        ("OPTIONS", "*", "application/grpc"),
    ];
    for (method, path, content_type) in rows {
        let uri = if path == "*" { "http://a/".to_owned() } else { format!("http://a{path}") };
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type);
        let request = request.body(whole(ASKS_FOR_A)).unwrap();
        let mut sender = caller.sender.clone();
        let answer = timeout(PATIENCE, async {
            sender.ready().await.unwrap();
            sender.send_request(request).await.unwrap()
        });
        let answer = answer.await.expect("it hung");
        assert!(answer.status().is_client_error() || answer.headers().contains_key("grpc-status"), "{method} {path}");
    }
    honest_call(served.address).await;
}
