//! The accept loop, and the life of a connection.
//!
//! Promises: no phase of a connection lasts longer than its limit in [`Limits`]; no more connections than the caps, in
//! all and per peer; every connection is asked to go (GOAWAY) at a jittered age and at the drain, and is cut after a
//! grace. tonic's own server is not used because it can promise none of this. Must not know what is served.
//!
//! One connection goes through: a place → its task → TLS, where the listener has it, within a deadline of its own →
//! the first-bytes deadline → hyper. Who the channel proves its peer to be is worked out once per connection.
//! `docs/limits.md` lists what ends a peer that exceeds a limit.

mod admission;
mod connection;
mod descriptors;
mod guard;
mod limits;
mod metrics;
mod pace;
mod preface;
mod socket;

pub use connection::{Going, serve_io};
pub use descriptors::fit;
pub use limits::{Http2Limits, Limits};
pub use metrics::{Metrics, Refused};
pub use socket::Address;

use crate::identity::Authenticated;
use crate::supervisor::Supervisor;
use crate::tls;
use admission::Admission;
use axum::Router;
use socket::{Accepted, Socket};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two tries to accept while the system refuses, for instance because file descriptors ran out. Without it
/// the loop spins.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection: a request extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection came from.
    pub addr: PeerAddress,
    /// What the channel itself proves: a client certificate, the peer of a Unix socket. `None`: nothing.
    pub identity: Option<Authenticated>,
    /// The name of the listener that it came to.
    pub listener: Arc<str>,
}

/// Where a connection came from, as the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A process on this machine, run by this user.
    Unix {
        /// The user's number when it connected.
        uid: u32,
    },
}

/// What is spoken on a listener. A peer that speaks anything else is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
    /// HTTP/1.1, or HTTP/2 with prior knowledge, told apart by the preface: the probes.
    Either,
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    socket: Socket,
    address: Address,
    protocol: Protocol,
    tls: Option<tls::Server>,
    limits: Arc<Limits>,
    admission: Admission,
    refused: Refused,
}

impl Listener {
    /// Binds at once, so that a conflict shows before anything is served.
    pub async fn bind(address: Address, protocol: Protocol, limits: Limits) -> io::Result<Self> {
        let (socket, address) = Socket::bind(address).await?;
        let admission = Admission::new(&limits);
        let (limits, refused) = (Arc::new(limits), Refused::default());
        Ok(Self { name: Arc::from("-"), socket, address, protocol, tls: None, limits, admission, refused })
    }

    /// The same under a name, and what it does not take is counted here.
    #[must_use]
    pub fn counting(self, name: &str, refused: Refused) -> Self {
        Self { name: Arc::from(name), refused, ..self }
    }

    /// The same, and every connection begins with this TLS.
    #[must_use]
    pub fn secured(self, tls: tls::Server) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The address that was bound: with port 0, the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The same where it is a TCP port.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Tcp(address) => Some(address),
            Address::Unix { .. } => None,
        }
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
                    outage.ended(&self.name);
                    let age = self.limits.jittered_age(random.f64());
                    self.admit(socket, addr, age, &routes, &supervisor);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.refused.not_accepted(&error);
                    outage.goes_on(&error, &self.name);
                    back_off(&supervisor).await;
                }
            }
        }
    }

    /// Starts the task of one connection, or closes it at once when the cap is reached.
    fn admit(&self, socket: Accepted, addr: PeerAddress, age: Duration, routes: &Router, supervisor: &Supervisor) {
        let place = match self.admission.admit(addr, Instant::now()) {
            Ok(place) => place,
            Err(refusal) => {
                // Closed rather than kept waiting, so that the peer can go to another replica now.
                self.refused.refused(refusal);
                tracing::debug!(peer = %addr, listener = %self.name, "refused: {}", refusal.as_str());
                return;
            }
        };
        if let Accepted::Tcp(socket) = &socket
            && let Err(error) = socket.set_nodelay(true)
        {
            tracing::debug!(%error, peer = %addr, "can't set TCP_NODELAY");
        }
        let connection = connection::Connection {
            peer: Peer { addr, identity: addr.proves(), listener: Arc::clone(&self.name) },
            protocol: self.protocol,
            limits: Arc::clone(&self.limits),
            age,
            routes: routes.clone(),
            supervisor: supervisor.clone(),
        };
        let tls = self.tls.clone();
        supervisor.spawn("connection", async move {
            match (socket, tls) {
                (Accepted::Tcp(socket), Some(tls)) => connection.secure(socket, &tls).await,
                (Accepted::Tcp(socket), None) => connection.serve(socket).await,
                (Accepted::Unix(socket), _) => connection.serve(socket).await,
            }
            drop(place);
        });
    }
}

impl PeerAddress {
    /// The IP address, where there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }

    /// The same with its port.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// What an address proves by itself.
    fn proves(self) -> Option<Authenticated> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { uid } => Some(Authenticated::unix(uid)),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { uid } => write!(f, "unix:{uid}"),
        }
    }
}

/// A time in which the system lets nothing be accepted.
#[derive(Debug, Default)]
struct Outage {
    failures: u64,
}

impl Outage {
    /// Logs once per outage: the same line ten times a second helps nobody.
    fn goes_on(&mut self, error: &io::Error, listener: &str) {
        if self.failures == 0 {
            tracing::error!(%error, listener, "can't accept connections");
        }
        self.failures += 1;
    }

    fn ended(&mut self, listener: &str) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::info!(failures, listener, "accepts connections again");
        }
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
