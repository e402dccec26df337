//! Callers: gRPC over connections of its own, without a deadline of the client's, so that what is measured is the
//! broker's; and what is made of their answers.

use super::{millis, secs};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{GetTokenRequest, GetTokenResponse, Token, TokenSource};
use token_broker::jwt;
use token_broker::sandbox::Control;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Calls at once on one connection: the listener's cap.
const STREAMS: usize = 100;
/// A caller that has no answer so long after its deadline gives up, and fails the test.
const OVERDUE: Duration = secs(20);

/// Connections to one broker.
pub(super) struct Fleet {
    clients: Vec<TokenServiceClient<Wire>>,
    judge: Judge,
    _connections: JoinSet<hyper::Result<()>>,
}

/// One connection. tonic's own channel would enforce the deadline at the client's side.
#[derive(Clone)]
pub(super) struct Wire(SendRequest<Body>);

/// One who asks for the token of one Workspace.
#[derive(Clone)]
pub(super) struct Caller {
    client: TokenServiceClient<Wire>,
    judge: Judge,
    workspace: Arc<str>,
    deadline: Duration,
}

/// Whether a token is over by the upstream's clock. Each is read once, or the reading would be what is measured.
#[derive(Clone)]
struct Judge {
    control: Control,
    ends: Arc<Mutex<HashMap<String, SystemTime>>>,
}

/// What came of one call.
pub(super) struct Answer {
    pub(super) sent: Instant,
    pub(super) at: Instant,
    pub(super) result: Result<Good, Refusal>,
}

pub(super) struct Good {
    pub(super) fingerprint: String,
    pub(super) source: TokenSource,
    pub(super) valid_for: Duration,
    /// Over already by the upstream's clock when it arrived.
    pub(super) expired: bool,
}

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) reason: String,
    pub(super) retry_after: Option<Duration>,
}

// === impl Fleet ===

impl Fleet {
    /// As many connections as so many callers at once need, and at least `least`.
    pub(super) async fn connect(address: SocketAddr, control: &Control, callers: usize, least: usize) -> Self {
        Self::connect_with(http2::Builder::new(TokioExecutor::new()), address, control, (callers, least)).await
    }

    /// The same, taking so many bytes of each answer before it has read them.
    pub(super) async fn connect_narrow(address: SocketAddr, control: &Control, callers: usize, window: u32) -> Self {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        Self::connect_with(builder, address, control, (callers, 1)).await
    }

    async fn connect_with(
        builder: http2::Builder<TokioExecutor>,
        address: SocketAddr,
        control: &Control,
        (callers, least): (usize, usize),
    ) -> Self {
        let (mut clients, mut connections) = (Vec::new(), JoinSet::new());
        let origin: http::Uri = format!("http://{address}").parse().unwrap();
        for _ in 0..callers.div_ceil(STREAMS).max(least) {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            connections.spawn(connection);
            clients.push(TokenServiceClient::with_origin(Wire(send), origin.clone()));
        }
        Self { clients, judge: Judge::new(control), _connections: connections }
    }

    /// The nth caller; they take the connections in turn.
    pub(super) fn caller(&self, nth: usize, workspace: &str, deadline: Duration) -> Caller {
        let client = self.clients[nth % self.clients.len()].clone();
        Caller { client, judge: self.judge.clone(), workspace: workspace.into(), deadline }
    }

    /// The connection of the nth caller.
    pub(super) fn client(&self, nth: usize) -> TokenServiceClient<Wire> {
        self.clients[nth % self.clients.len()].clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.clients.len()
    }
}

// === impl Wire ===

impl tower::Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Self::Response>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

// === impl Caller ===

impl Caller {
    /// One call. Panics when the broker lets the deadline pass by far.
    pub(super) async fn call(&mut self) -> Answer {
        let mut request = Request::new(GetTokenRequest { workspace: self.workspace.to_string(), min_validity: None });
        request.set_timeout(self.deadline);
        let sent = Instant::now();
        let answer = timeout(self.deadline + OVERDUE, self.client.get_token(request)).await;
        let at = Instant::now();
        let result = match answer.expect("no answer long after the deadline") {
            Ok(response) => Ok(Good::read(response.into_inner(), &self.judge)),
            Err(status) => Err(Refusal::read(&status)),
        };
        Answer { sent, at, result }
    }

    /// Calls at this pace until told to stop.
    pub(super) async fn keep_calling(mut self, pace: Duration, stop: watch::Receiver<bool>) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !*stop.borrow() {
            let answer = self.call().await;
            let rest = pace.saturating_sub(answer.at - answer.sent);
            answers.push(answer);
            sleep(rest).await;
        }
        answers
    }

    /// Calls until `end`, after each refusal when the broker says so. A refusal without a word on that is followed by
    /// the next call at once.
    pub(super) async fn call_as_told(mut self, end: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        while Instant::now() < end {
            let answer = self.call().await;
            let wait = match &answer.result {
                Ok(_) => millis(100),
                Err(refusal) => refusal.retry_after.unwrap_or_default(),
            };
            answers.push(answer);
            sleep(wait).await;
        }
        answers
    }
}

// === impl Judge ===

impl Judge {
    fn new(control: &Control) -> Self {
        Self { control: control.clone(), ends: Arc::default() }
    }

    fn is_expired(&self, token: &Token) -> bool {
        let end = {
            let mut ends = self.ends.lock().unwrap();
            *ends.entry(token.fingerprint.clone()).or_insert_with(|| {
                let exp = jwt::claims(&token.value).unwrap().exp.unwrap();
                UNIX_EPOCH + Duration::from_secs(exp.cast_unsigned())
            })
        };
        end <= self.control.now()
    }
}

// === impl Good, Refusal, Answer ===

impl Good {
    fn read(response: GetTokenResponse, judge: &Judge) -> Self {
        let source = response.source();
        let valid_for = response.valid_for.and_then(|left| left.try_into().ok()).unwrap();
        let token = response.token.unwrap();
        let expired = judge.is_expired(&token);
        Self { fingerprint: token.fingerprint, source, valid_for, expired }
    }
}

impl Refusal {
    pub(super) fn read(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        Self {
            code: status.code(),
            reason: reason.unwrap_or_else(|| format!("{:?} without a reason", status.code())),
            retry_after: retry,
        }
    }
}

impl Answer {
    pub(super) fn took(&self) -> Duration {
        self.at - self.sent
    }

    pub(super) fn is_expired(&self) -> bool {
        self.result.as_ref().is_ok_and(|good| good.expired)
    }
}

/// Durations, to be told by their percentiles.
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }

    /// The least that so many percent do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", ms(50), ms(99), ms(100))
    }
}

/// How often each reason was given.
pub(super) fn reasons<'a>(refusals: impl Iterator<Item = &'a Refusal>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for refusal in refusals {
        *counts.entry(refusal.reason.as_str()).or_insert(0_u32) += 1;
    }
    let texts: Vec<_> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.join(", ")
}
