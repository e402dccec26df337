//! The accept loop, and the life of a connection.
//!
//! Promises: no phase of a connection lasts longer than its limit in [`Limits`]; no more connections than the caps, in
//! all and per peer; every connection is asked to go (GOAWAY) at a jittered age and at the drain, and is cut after a
//! grace. tonic's own server is not used because it can promise none of this. Must not know what is served.
//!
//! One connection goes through: a place → the transport's handshake (none yet: plaintext only; TLS takes the socket in
//! `admit` and hands on another stream) → the first-bytes deadline → hyper. `docs/limits.md` lists what ends a peer
//! that exceeds a limit.

mod admission;
mod connection;
mod descriptors;
mod guard;
mod limits;
mod metrics;

pub use connection::{Going, serve_io};
pub use descriptors::fit;
pub use limits::{Http2Limits, Limits};
pub use metrics::{Metrics, Refused};

use crate::identity::Authenticated;
use crate::supervisor::Supervisor;
use admission::Admission;
use axum::Router;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

/// Between two tries to accept while the system refuses, for instance because file descriptors ran out. Without it
/// the loop spins.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Connections that the system holds until they are accepted; `net.core.somaxconn` may cut it. Where it is full, a peer
/// that comes has to repeat itself, a second later at the earliest.
const BACKLOG: u32 = 4096;

/// Who is at the other end of a connection: a request extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address that the connection came from.
    pub addr: SocketAddr,
    /// What the channel itself proves: a client certificate, the peer of a Unix socket. `None`: nothing.
    pub identity: Option<Authenticated>,
}

/// What is spoken on a listener. There is no guessing: a peer that speaks the other one is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
    /// HTTP/1.1: the probes.
    Http1,
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    protocol: Protocol,
    limits: Arc<Limits>,
    admission: Admission,
    refused: Refused,
}

impl Listener {
    /// Binds at once, so that a conflict shows before anything is served.
    #[expect(clippy::unused_async, reason = "so that it runs within a runtime, which the socket needs")]
    pub async fn bind(address: SocketAddr, protocol: Protocol, limits: Limits) -> io::Result<Self> {
        let socket = listen(address)?;
        let address = socket.local_addr()?;
        let admission = Admission::new(&limits);
        Ok(Self { socket, address, protocol, limits: Arc::new(limits), admission, refused: Refused::default() })
    }

    /// The same, and what it does not take is counted here.
    #[must_use]
    pub fn counting(self, refused: Refused) -> Self {
        Self { refused, ..self }
    }

    /// The address that was bound: with port 0, the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the drain. Connections are tasks of the supervisor; `seed` spreads their ages.
    pub async fn run(self, routes: Router, supervisor: Supervisor, seed: u64) {
        // Works the routes out once instead of per connection.
        let routes = routes.with_state(());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut outage = Outage::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = supervisor.draining() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, addr)) => {
                    outage.ended(self.address);
                    let age = self.limits.jittered_age(random.f64());
                    self.admit(socket, Peer { addr, identity: None }, age, &routes, &supervisor);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.refused.not_accepted(&error);
                    outage.goes_on(&error, self.address);
                    back_off(&supervisor).await;
                }
            }
        }
    }

    /// Starts the task of one connection, or closes it at once when the cap is reached.
    fn admit(&self, socket: TcpStream, peer: Peer, age: Duration, routes: &Router, supervisor: &Supervisor) {
        let place = match self.admission.admit(peer.addr.ip(), Instant::now()) {
            Ok(place) => place,
            Err(refusal) => {
                // Closed rather than kept waiting, so that the peer can go to another replica now.
                self.refused.refused(refusal);
                tracing::debug!(peer = %peer.addr, listener = %self.address, "refused: {}", refusal.as_str());
                return;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, peer = %peer.addr, "can't set TCP_NODELAY");
        }
        let connection = connection::Connection {
            peer,
            protocol: self.protocol,
            limits: Arc::clone(&self.limits),
            age,
            routes: routes.clone(),
            supervisor: supervisor.clone(),
        };
        supervisor.spawn("connection", async move {
            connection.serve(socket).await;
            drop(place);
        });
    }
}

/// A time in which the system lets nothing be accepted.
#[derive(Debug, Default)]
struct Outage {
    failures: u64,
}

impl Outage {
    /// Logs once per outage: the same line ten times a second helps nobody.
    fn goes_on(&mut self, error: &io::Error, listener: SocketAddr) {
        if self.failures == 0 {
            tracing::error!(%error, %listener, "can't accept connections");
        }
        self.failures += 1;
    }

    fn ended(&mut self, listener: SocketAddr) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::info!(failures, %listener, "accepts connections again");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the connections of the process before it have timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Errors of a connection that was gone before it was accepted. A back-off here would let a peer slow the others down.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn back_off(supervisor: &Supervisor) {
    tokio::select! {
        () = supervisor.draining() => {}
        () = sleep(ACCEPT_BACK_OFF) => {}
    }
}
