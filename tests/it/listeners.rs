//! Listeners with each of their means, over real sockets: who is let in as whom, and who is not let in at all.

mod configured;
mod kinds;
mod probe;
mod smuggled;
mod unix;

use crate::listener::PATIENCE;
use axum::body::Bytes;
use axum::extract::Extension;
use axum::routing::post;
use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use token_broker::audit::Audit;
use token_broker::clock::Clock;
use token_broker::error::{Error, Reason};
use token_broker::grpc::{Means, authenticated};
use token_broker::identity::{Authenticated, Bearer, Caller, Channel};
use token_broker::listener::{Address, Limits, Listener, Protocol};
use token_broker::policy::CallerPattern;
use token_broker::supervisor::Supervisor;
use token_broker::tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

const GOOD_TOKEN: &str = "good.token";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A listener with one route, `/who`, that notes by which names it was entered.
struct Served {
    address: Address,
    entered: Arc<Mutex<Vec<String>>>,
    supervisor: Supervisor,
    _directory: Option<TempDir>,
}

impl Served {
    async fn tcp(means: Means) -> Self {
        Self::at(Address::Tcp(crate::listener::ANY), means, None, Limits::default()).await
    }

    async fn unix(means: Means) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix { path: directory.path().join("broker.sock"), mode: 0o600 };
        let served = Self::at(address, means, None, Limits::default()).await;
        Self { _directory: Some(directory), ..served }
    }

    async fn at(address: Address, means: Means, tls: Option<tls::Server>, limits: Limits) -> Self {
        let entered = Arc::new(Mutex::new(Vec::new()));
        let note = {
            let entered = Arc::clone(&entered);
            async move |Extension(proven): Extension<Authenticated>, _body: Bytes| {
                let name = proven.caller.as_str().to_owned();
                entered.lock().unwrap().push(name.clone());
                name
            }
        };
        let routes = authenticated(Router::new().route("/who", post(note)), means, Clock::system(), Audit::none());
        let mut listener = Listener::bind(address, Protocol::Http2, limits).await.unwrap();
        if let Some(tls) = tls {
            listener = listener.secured(tls);
        }
        let (address, supervisor) = (listener.address().clone(), Supervisor::new());
        supervisor.spawn_critical("listener", listener.run(routes, supervisor.clone(), 1));
        Self { address, entered, supervisor, _directory: None }
    }

    fn tcp_address(&self) -> SocketAddr {
        match &self.address {
            Address::Tcp(address) => *address,
            Address::Unix { .. } => panic!("it is on a Unix socket"),
        }
    }

    async fn connect(&self) -> Box<dyn Io> {
        match &self.address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Address::Unix { path, .. } => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    /// By which names the route was entered since this was asked last.
    fn entered(&self) -> Vec<String> {
        std::mem::take(&mut *self.entered.lock().unwrap())
    }

    /// Asks on a connection of its own.
    async fn ask(&self, headers: &[(&str, &str)]) -> Result<String, Code> {
        Client::over(self.connect().await).await.ask(headers).await
    }
}

/// A caller that keeps to HTTP/2 and to nothing else.
struct Client {
    sender: SendRequest<Body>,
    _connection: JoinSet<()>,
}

impl Client {
    async fn over(io: impl Io + 'static) -> Self {
        Self::try_over(io).await.expect("no connection")
    }

    async fn try_over(io: impl Io + 'static) -> Option<Self> {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.ok()?;
        let mut running = JoinSet::new();
        // Its end is for the calls on it to notice.
        running.spawn(async move { drop(connection.await) });
        Some(Self { sender, _connection: running })
    }

    /// The caller's name, as the broker has it, or the status.
    async fn ask(&mut self, headers: &[(&str, &str)]) -> Result<String, Code> {
        self.try_ask(headers).await.expect("no answer")
    }

    async fn try_ask(&mut self, headers: &[(&str, &str)]) -> Option<Result<String, Code>> {
        let mut request = Request::post("http://a/who").header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let call = async {
            let answer = self.sender.send_request(request.body(Body::empty()).unwrap()).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(match status(&head.headers) {
                Some(code) => Err(code),
                None => Ok(String::from_utf8(body.to_vec()).unwrap()),
            })
        };
        timeout(PATIENCE, call).await.expect("it hung")
    }
}

fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// Knows one token.
#[derive(Debug)]
struct OneToken;

impl Bearer for OneToken {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Error>> {
        Box::pin(async move {
            let good = Authenticated { caller: Caller::bearer("test", "alice").unwrap(), evidence: Arc::new(Channel) };
            if token == GOOD_TOKEN { Ok(good) } else { Err(Error::new(Reason::CallerUnauthenticated)) }
        })
    }
}

fn bearer() -> Means {
    Means::Bearer(Arc::new(OneToken))
}

/// Believes these proxies.
fn forwarded(proxies: &[&str]) -> Means {
    let proxies = proxies.iter().map(|pattern| CallerPattern::parse(pattern).unwrap()).collect();
    Means::ForwardedCertificate { proxies, trust_domains: Vec::new() }
}

/// The user that runs the tests.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

fn own_name() -> String {
    format!("unix:{}", own_uid())
}

fn unix_path(address: &Address) -> PathBuf {
    match address {
        Address::Unix { path, .. } => path.clone(),
        Address::Tcp(_) => panic!("it is on a TCP port"),
    }
}
