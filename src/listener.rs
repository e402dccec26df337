//! The accept loop, and the life of a connection.
//!
//! Promises: no phase of a connection lasts longer than its limit in [`Limits`]; no more connections than the cap; every
//! connection is asked to go (GOAWAY) at a jittered age and at the drain, and is cut after a grace. tonic's own server
//! is not used because it can promise none of this. Must not know what is served.
//!
//! One connection goes through: a permit → the transport's handshake (none yet: plaintext only; TLS takes the socket in
//! `admit` and hands on another stream) → the first-bytes deadline → hyper.

mod connection;
mod guard;
mod limits;

pub use connection::serve_io;
pub use limits::{Http2Limits, Limits};

use crate::supervisor::Supervisor;
use axum::Router;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Between two tries to accept while the system refuses, for instance because file descriptors ran out. Without it
/// the loop spins.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection: a request extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address that the connection came from.
    pub addr: SocketAddr,
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
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Binds at once, so that a conflict shows before anything is served.
    pub async fn bind(address: SocketAddr, protocol: Protocol, limits: Limits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let connections = Arc::new(Semaphore::new(limits.connection_cap()));
        Ok(Self { socket, address, protocol, limits: Arc::new(limits), connections })
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
        let mut refused = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = supervisor.draining() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, addr)) => {
                    refused = false;
                    let age = self.limits.jittered_age(random.f64());
                    self.admit(socket, Peer { addr }, age, &routes, &supervisor);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    // Once per outage: the same line ten times a second helps nobody.
                    if !std::mem::replace(&mut refused, true) {
                        tracing::error!(%error, listener = %self.address, "can't accept connections");
                    }
                    back_off(&supervisor).await;
                }
            }
        }
    }

    /// Starts the task of one connection, or closes it at once when the cap is reached.
    fn admit(&self, socket: TcpStream, peer: Peer, age: Duration, routes: &Router, supervisor: &Supervisor) {
        let Some(permit) = self.permit() else {
            // Closed rather than kept waiting, so that the peer can go to another replica now.
            tracing::debug!(peer = %peer.addr, listener = %self.address, "too many connections");
            return;
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
            drop(permit);
        });
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }
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
