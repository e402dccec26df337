//! One connection, from its first byte to its end.

use super::guard::Guarded;
use super::limits::{Http2Limits, Limits};
use super::pace::Pace;
use super::preface::{self, Spoken};
use super::{Peer, Protocol};
use crate::limits::Line;
use crate::supervisor::Supervisor;
use crate::tls;
use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

/// A connection that is about to be served.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) protocol: Protocol,
    pub(super) limits: Arc<Limits>,
    pub(super) age: Duration,
    pub(super) routes: Router,
    pub(super) supervisor: Supervisor,
}

/// Serves HTTP/2 on a stream that is already there, in the same way as a listener does, until it ends. For tests that
/// need no port; such a connection has exactly [`Limits::max_age`].
pub async fn serve_io<I>(io: I, peer: Peer, limits: Limits, routes: Router, supervisor: Supervisor)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection {
        peer,
        protocol: Protocol::Http2,
        age: limits.max_age,
        limits: Arc::new(limits),
        routes,
        supervisor,
    };
    connection.serve(io).await;
}

impl Connection {
    /// Serves behind TLS: only a peer whose handshake succeeds in time gets any further.
    pub(super) async fn secure<I>(mut self, io: I, tls: &tls::Server)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = timeout(self.limits.handshake, tls.accept(io));
        let done = tokio::select! {
            done = handshake => done,
            () = self.supervisor.draining() => return,
        };
        match done {
            Ok(Ok((io, identity))) => {
                self.peer.identity = identity;
                self.serve(io).await;
            }
            Ok(Err(error)) => tracing::debug!(peer = %self.peer.addr, %error, "the handshake failed"),
            Err(_elapsed) => tracing::debug!(peer = %self.peer.addr, "cut: the handshake did not end in time"),
        }
    }

    /// Serves until the peer goes, or was asked to go and did, or is cut.
    pub(super) async fn serve<I>(self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let within = self.limits.first_bytes;
        match self.protocol {
            Protocol::Http2 => self.speak(Spoken::Http2, Some((preface::HTTP2.len(), within)), io).await,
            Protocol::Either => {
                let read = tokio::select! {
                    read = timeout(within, preface::read(io)) => read,
                    () = self.supervisor.draining() => return,
                };
                match read {
                    Ok(Ok((spoken, io))) => self.speak(spoken, None, io).await,
                    Ok(Err(error)) => tracing::debug!(peer = %self.peer.addr, %error, "the connection failed"),
                    Err(_elapsed) => {
                        tracing::debug!(peer = %self.peer.addr, "cut: the first bytes did not come in time");
                    }
                }
            }
        }
    }

    /// `first`: how many bytes have to come first, and within which time.
    async fn speak<I>(self, spoken: Spoken, first: Option<(usize, Duration)>, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // What belongs to this connection ends with it, whoever ends it.
        let (scoped, _guard) = self.supervisor.scope();
        let limits = &self.limits;
        let going = CancellationToken::new();
        let (routes, peer, line) = (self.routes.clone(), self.peer.clone(), Line::default());
        let requests = Requests { routes, peer, going: Going(going.clone()), line: line.clone() };
        let pace = (spoken == Spoken::Http2).then(|| Pace::new(&limits.http2, Instant::now()));
        let io = TokioIo::new(Guarded::new(io, first, line, limits.write_stall).paced(pace));
        match spoken {
            Spoken::Http2 => {
                let streams = Streams { owner: scoped, calls: Calls::default() };
                let connection = http2(&limits.http2, streams.clone()).serve_connection(io, requests);
                self.live(connection, going, quiet(&streams.calls, limits.idle_grace)).await;
            }
            Spoken::Http1 => {
                let connection = http1(limits).serve_connection(io, requests);
                // hyper ends an idle one itself, and only it knows whether a body is still on its way.
                self.live(connection, going, pending()).await;
            }
        }
    }

    /// `idle` ends when there is nothing to wait for any more; it begins when the connection is asked to go.
    async fn live<C>(&self, connection: C, going: CancellationToken, idle: impl Future<Output = ()> + Send)
    where
        C: GracefulConnection<Error = hyper::Error> + Send,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return self.note(ended),
            () = sleep(self.age) => {}
            () = self.supervisor.draining() => {}
        }
        connection.as_mut().graceful_shutdown();
        going.cancel();
        let cut = tokio::select! {
            ended = connection => return self.note(ended),
            () = sleep(self.limits.grace) => "its calls did not end in time",
            () = idle => "it has no call, and did not go",
        };
        tracing::debug!(peer = %self.peer.addr, "cut: {cut}");
    }

    /// Errors of a connection are the peer's affair: worth a line only to whoever looks for them.
    fn note(&self, ended: Result<(), hyper::Error>) {
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer.addr, %error, "the connection failed");
        }
    }
}

/// The calls of a connection.
#[derive(Debug, Clone, Default)]
struct Calls {
    under_way: TaskTracker,
    begun: Arc<AtomicUsize>,
}

/// Waits until there is no call, and none comes for a while.
async fn quiet(calls: &Calls, a_while: Duration) {
    calls.under_way.close();
    loop {
        calls.under_way.wait().await;
        let begun = calls.begun.load(Ordering::Relaxed);
        sleep(a_while).await;
        if calls.under_way.is_empty() && calls.begun.load(Ordering::Relaxed) == begun {
            return;
        }
    }
}

/// Runs the streams of an HTTP/2 connection, and knows how many there are: a stream may outlast its call's head.
#[derive(Clone)]
struct Streams {
    owner: Supervisor,
    calls: Calls,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.calls.begun.fetch_add(1, Ordering::Relaxed);
        self.owner.execute(self.calls.under_way.track_future(stream));
    }
}

/// Says when the connection of a request was asked to go, at its age or at the drain: an extension of every request. A
/// stream that goes on after that is cut with the connection, [`Limits::grace`] later, so it had better end by itself.
#[derive(Debug, Clone)]
pub struct Going(CancellationToken);

impl Going {
    /// Waits until the connection was asked to go.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }
}

/// Hands the requests of one connection to the routes, with the peer, [`Going`] and its [`Line`] as extensions.
#[derive(Clone)]
struct Requests {
    routes: Router,
    peer: Peer,
    going: Going,
    line: Line,
}

impl HyperService<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.going.clone());
        request.extensions_mut().insert(self.line.clone());
        // A router is always ready, so nobody has to ask it.
        self.routes.clone().call(request)
    }
}

fn http2(limits: &Http2Limits, executor: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_size)
        .header_table_size(limits.header_table_size)
        .max_frame_size(limits.max_frame_size)
        .adaptive_window(false)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.max_send_buffer)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        .max_local_error_reset_streams(limits.max_local_error_reset_streams)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout)
        // gRPC has no use for it.
        .auto_date_header(false);
    builder
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(limits.http1_headers)
        .max_buf_size(limits.http1_buffer)
        .keep_alive(true)
        .half_close(false);
    builder
}
