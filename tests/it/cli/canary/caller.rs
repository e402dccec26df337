//! A caller that shows everything that it is told: status, headers, messages, trailers.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

/// A stream that tells nothing for so long has told all; and a call, all that it will.
const QUIET: Duration = Duration::from_secs(5);
const SERVICE: &str = "tokenbroker.v1.TokenService";

pub(super) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

/// All that came of a call.
pub(super) struct Told {
    pub(super) code: Option<Code>,
    /// Headers and trailers, with the details of the status also decoded from their base64.
    pub(super) around: Vec<u8>,
    /// What an answer is for.
    pub(super) messages: Vec<Bytes>,
}

impl Caller {
    async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Option<Self> {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.ok()?;
        let mut running = JoinSet::new();
        // Its end is for the calls on it to notice.
        running.spawn(async move { drop(connection.await) });
        Some(Self { sender, _connection: running })
    }

    pub(super) async fn plain(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await.unwrap()
    }

    pub(super) async fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap()).await.unwrap()
    }

    /// Nothing where the broker wants none of it.
    pub(super) async fn tls(address: SocketAddr, config: rustls::ClientConfig) -> Option<Self> {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self::over(TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?).await
    }

    /// A call to its end.
    pub(super) async fn call(&mut self, method: &str, headers: &[(&str, &str)], message: &impl Message) -> Told {
        self.told(method, headers, message, usize::MAX).await
    }

    /// A stream up to this message, or to its end.
    pub(super) async fn stream(&mut self, method: &str, message: &impl Message, messages: usize) -> Told {
        self.told(method, &[], message, messages).await
    }

    async fn told(&mut self, method: &str, headers: &[(&str, &str)], message: &impl Message, messages: usize) -> Told {
        let message = message.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let path = if method.starts_with('/') { method.to_owned() } else { format!("/{SERVICE}/{method}") };
        let request = Request::post(format!("http://localhost{path}")).header("te", "trailers");
        let request = request.header("content-type", "application/grpc");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::from(body)).unwrap();
        self.send(request, messages).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, messages: usize) -> Told {
        let mut told = Told { code: None, around: Vec::new(), messages: Vec::new() };
        let answer = match timeout(QUIET, self.sender.send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                told.around = format!("{error:?}").into_bytes();
                return told;
            }
            Err(_) => return told,
        };
        let (head, mut body) = answer.into_parts();
        told.note(&head.headers);
        while told.messages.len() < messages
            && let Ok(Some(frame)) = timeout(QUIET, body.frame()).await
        {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => told.messages.push(data.slice(5.min(data.len())..)),
                Ok(Err(frame)) => told.note(frame.trailers_ref().unwrap()),
                Err(error) => told.around.extend(format!("{error:?}").into_bytes()),
            }
        }
        told
    }
}

impl Told {
    fn note(&mut self, headers: &http::HeaderMap) {
        for (name, value) in headers {
            self.around.extend_from_slice(name.as_str().as_bytes());
            self.around.extend_from_slice(b": ");
            self.around.extend_from_slice(value.as_bytes());
            self.around.push(b'\n');
        }
        if let Some(status) = tonic::Status::from_header_map(headers) {
            self.code = Some(status.code());
            self.around.extend_from_slice(status.message().as_bytes());
            self.around.push(b'\n');
            self.around.extend_from_slice(status.details());
        }
    }
}
