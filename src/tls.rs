//! TLS of a listener: what it shows, whom it lets in, and how both change while it runs.
//!
//! * **TLS 1.3 and 1.2** by rustls with aws-lc-rs; nothing older, no compression, no renegotiation, which rustls does
//!   not have. **ALPN**: `h2` must be offered and is all there is. A client that offers nothing is refused too: gRPC
//!   clients always offer it (RFC 9113 §3.2), and others have no business here.
//! * **No resumption and no 0-RTT.** A resumed session shows no certificate, so it would not meet today's authorities
//!   and revocation lists; and early data can be played back. So there are no tickets, and no session is kept.
//! * **Clients** show a certificate that chains to an authority of `client_ca_file`, is not revoked by `crl_file`, and
//!   names one caller (`identity::certificate`). What is wrong with it fails the handshake, before any request is
//!   read. An extended key usage must name client authentication; a certificate without one may be used for anything
//!   (RFC 5280 §4.2.1.12), and is taken. With a `crl_file`, every certificate of a chain must be covered by a list
//!   that is not past its `nextUpdate`: what can't be known to be unrevoked is refused.
//! * **Files are followed** by what the system says of them, through symbolic links. What is read anew counts as a
//!   whole or not at all: while the files can't be used, because one is cut off, has expired or does not belong to the
//!   others, what was read before stays in force. The log says which file and why, once; `tls_files_refused` and
//!   `/readyz?verbose` go on saying it.
//! * **Who was let in is judged again** whenever authorities or revocation lists change, or one of them ends
//!   ([`Evidence`](crate::identity::Evidence)).

mod evidence;
mod follow;
mod material;
mod metrics;
mod standing;
mod trust;

pub use metrics::{Counters, Metrics};
pub use standing::Certificate;

use crate::clock::Clock;
use crate::files;
use crate::identity::{Authenticated, TrustDomain};
use crate::readiness::Report;
use crate::revision::Revisions;
use crate::secret::MarkKey;
use crate::supervisor::Supervisor;
use arc_swap::{ArcSwap, ArcSwapOption};
use evidence::Trusted;
use material::{Maker, Material};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trust::Trust;

/// How often to look at the files: with it, a change counts within a second.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Files that change while they are read at the start are read again so often.
const TRIES_AT_START: u32 = 3;

/// The files of a listener.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, and behind it the intermediates that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub client_ca: Option<PathBuf>,
    /// What those authorities revoked: one list or several.
    pub crl: Option<PathBuf>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone)]
pub enum Clients {
    /// They are not asked for one.
    None,
    /// They must. SPIFFE IDs of other trust domains than these are refused; none listed: any are taken.
    Required {
        /// Whose.
        trust_domains: Vec<TrustDomain>,
    },
}

/// Which file can't be used, and why. Holds nothing of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    /// The file, where it is about one. Not in what is displayed: a secret that was put in its place would be.
    pub path: Option<PathBuf>,
    /// What is wrong, and where it does not go without saying what to do.
    pub problem: String,
}

/// One listener's TLS; clones share what is in force.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct Shared {
    maker: Maker,
    current: ArcSwap<Material>,
    /// `None`: clients are not asked.
    trusted: Option<Arc<Trusted>>,
    /// Why the files as they are now are not in force; `None`: they are.
    refused: ArcSwapOption<Error>,
    revisions: Revisions,
    clock: Clock,
    /// The files as they were read.
    read: Mutex<files::Files>,
    /// All readings by one key, so that what they found can be compared.
    key: MarkKey,
}

/// Where it is told how things stand.
#[derive(Debug, Default)]
struct Observer {
    listener: String,
    counters: Counters,
    report: Option<Report>,
}

impl Server {
    /// Reads the files at once. Blocks.
    pub fn new(files: Files, clients: Clients, revisions: Revisions, clock: Clock) -> Result<Self, Error> {
        let (maker, key) = (Maker::new(files, clients, clock.clone()), MarkKey::random());
        let (material, read) = read_at_start(&maker, &key)?;
        let trusted = material.trust.as_ref().map(|trust| Arc::new(Trusted::new(Arc::clone(trust))));
        let shared = Shared {
            maker,
            current: ArcSwap::from_pointee(material),
            trusted,
            refused: ArcSwapOption::empty(),
            revisions,
            clock,
            read: Mutex::new(read),
            key,
        };
        Ok(Self { shared: Arc::new(shared), observer: Arc::default() })
    }

    /// Under this name in the log and the metrics, and telling readiness. Before it is cloned.
    #[must_use = "what is given back is what tells"]
    pub fn observed(self, listener: &str, counters: Counters, report: Report) -> Self {
        let observer = Observer { listener: listener.to_owned(), counters, report: Some(report) };
        let this = Self { shared: self.shared, observer: Arc::new(observer) };
        this.tell();
        this
    }

    /// The handshake, and who it is that came: `None` where clients are not asked. Has no limit of time of its own; may
    /// be dropped at any point, and the connection with it.
    pub async fn accept<I>(&self, io: I) -> io::Result<(TlsStream<I>, Option<Authenticated>)>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let handshake = self.observer.counters.handshake();
        // Before the configuration: what changes in between is judged by once more.
        let generation = self.shared.trusted.as_ref().map(|trusted| trusted.generation());
        let config = Arc::clone(&self.shared.current.load().config);
        let accepted = TlsAcceptor::from(config).accept(io).await;
        let outcome = accepted.and_then(|stream| {
            let proven = self.authenticated(&stream, generation)?;
            Ok((stream, proven))
        });
        handshake.ended(outcome.as_ref().err());
        outcome.map_err(metrics::in_words)
    }

    fn authenticated<I>(&self, stream: &TlsStream<I>, generation: Option<u64>) -> io::Result<Option<Authenticated>> {
        let refused = |error| io::Error::new(ErrorKind::InvalidData, error);
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(material::H2) {
            return Err(refused(rustls::Error::NoApplicationProtocol));
        }
        let (Some(trusted), Some(generation)) = (&self.shared.trusted, generation) else { return Ok(None) };
        let chain = connection.peer_certificates().ok_or_else(|| refused(rustls::Error::NoCertificatesPresented))?;
        let proven = trusted.admit(chain, generation, self.shared.clock.now().wall);
        proven.map(Some).map_err(refused)
    }

    /// Takes up what changes in the files, until the drain: a critical task.
    pub async fn follow(self, interval: Duration, supervisor: Supervisor) {
        follow::follow(self, interval, supervisor).await;
    }

    /// What is in force.
    pub fn certificate(&self) -> Certificate {
        Certificate::of(&self.shared.current.load(), self.shared.refused.load_full())
    }

    /// Puts it in force, for handshakes first: who is let in from now on is judged by it.
    fn install(&self, material: Material) {
        let trust = material.trust.clone();
        self.shared.current.store(Arc::new(material));
        self.shared.refused.store(None);
        self.observer.counters.accepted();
        let moved = trust.is_some_and(|trust| self.trust(trust));
        let listener = &self.observer.listener;
        tracing::info!(listener, clients_judged_again = moved, "TLS files read again; they are in force");
    }

    /// Whether this is another one. Said to others only after it can be seen.
    fn trust(&self, trust: Arc<Trust>) -> bool {
        let Some(trusted) = self.shared.trusted.as_ref() else { return false };
        if Arc::ptr_eq(&trusted.trust(), &trust) {
            return false;
        }
        trusted.replace(trust);
        self.judge_again();
        true
    }

    /// Trusts what was read before as it counts now, and judges all by that: also who comes from now on, since whom the
    /// configuration in force lets in is judged by what is trusted too.
    fn without_what_ended(&self, now: SystemTime) {
        let Some(trusted) = &self.shared.trusted else { return };
        let before = trusted.trust();
        let trust = before.anew(self.shared.maker.provider(), now);
        if let Some(trust) = trust.filter(|trust| !trust.is_same_as(&before)) {
            trusted.replace(Arc::new(trust));
        }
        self.judge_again();
    }

    fn judge_again(&self) {
        if let Some(trusted) = &self.shared.trusted {
            trusted.judge_again();
            self.shared.revisions.moved();
        }
    }

    /// What was read before stays in force. The same problem is told and counted once.
    fn refuse(&self, error: Error) {
        if self.shared.refused.load().as_deref() == Some(&error) {
            return;
        }
        self.observer.counters.refused();
        let listener = &self.observer.listener;
        tracing::error!(listener, %error, "TLS files refused; what was read before stays in force");
        self.shared.refused.store(Some(Arc::new(error)));
    }

    /// Tells the metrics and readiness how things stand now.
    fn tell(&self) {
        self.certificate().tell(&self.observer, self.shared.clock.now().wall);
    }
}

/// What changes while it is read is read again.
fn read_at_start(maker: &Maker, key: &MarkKey) -> Result<(Material, files::Files), Error> {
    let mut tries = 1;
    loop {
        let mut read = files::Files::new(key.clone());
        let made = maker.make(&mut read, None);
        if tries == TRIES_AT_START || read.are_of_one_piece() {
            return made.map(|material| (material, read));
        }
        tries += 1;
    }
}

impl Error {
    fn new(key: &'static str, path: &Path, problem: &str) -> Self {
        Self { key, path: Some(path.to_owned()), problem: problem.to_owned() }
    }

    fn of_none(key: &'static str, problem: &str) -> Self {
        Self { key, path: None, problem: problem.to_owned() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for Error {}
