//! TLS of a listener: who is let in, who is not, and what happens when files change. Authorities and certificates are
//! made by openssl.

mod accepted;
mod openssl;
pub(crate) mod pki;
mod readiness;
mod refused;
mod rotation;
mod start;

use pki::{Authority, Identity, Pki};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use token_broker::clock::Clock;
use token_broker::identity::{Authenticated, TrustDomain};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::Metrics;
use token_broker::tls::{self, Clients, Files, Server};
use tokio::io::{AsyncReadExt as _, duplex};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const ID: &str = "spiffe://prod.example/ns/payments/sa/api";
const URI: &str = "URI:spiffe://prod.example/ns/payments/sa/api";

/// A listener's files, and the authorities behind them.
struct World {
    pki: Pki,
    servers: Authority,
    callers: Authority,
    shown: Identity,
    metrics: Metrics,
    readiness: Readiness,
    revisions: Revisions,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self::at(Clock::system())
    }

    /// Where it is as late as this clock says.
    fn at(clock: Clock) -> Self {
        let pki = Pki::new();
        let (servers, callers) = (pki.root("servers"), pki.root("callers"));
        let shown = servers.server("broker");
        let metrics = Metrics::new(&clock);
        let this = Self {
            pki,
            servers,
            callers,
            shown,
            metrics,
            readiness: Readiness::new(),
            revisions: Revisions::default(),
            clock,
        };
        fs::create_dir(this.live("")).unwrap();
        this.show(&this.shown);
        this.trust(&[&this.callers]);
        this
    }

    /// Where the listener looks.
    fn live(&self, name: &str) -> PathBuf {
        self.pki.path("live").join(name)
    }

    fn show(&self, identity: &Identity) {
        fs::write(self.live("tls.crt"), identity.pem()).unwrap();
        fs::write(self.live("tls.key"), identity.key_pem()).unwrap();
    }

    fn trust(&self, authorities: &[&Authority]) {
        let bundle: String = authorities.iter().map(|authority| authority.pem()).collect();
        fs::write(self.live("ca.crt"), bundle).unwrap();
    }

    fn files(&self) -> Files {
        let crl = self.live("crl.pem");
        Files {
            certificate: self.live("tls.crt"),
            key: self.live("tls.key"),
            client_ca: Some(self.live("ca.crt")),
            crl: crl.exists().then_some(crl),
        }
    }

    fn try_server(&self) -> Result<Server, tls::Error> {
        let clients = Clients::Required { trust_domains: vec![TrustDomain::parse("prod.example").unwrap()] };
        let server = Server::new(self.files(), clients, self.revisions.clone(), self.clock.clone())?;
        let counters = self.metrics.register(tls::Metrics::register).of("mesh");
        Ok(server.observed("mesh", counters, self.readiness.report("tls mesh")))
    }

    fn server(&self) -> Server {
        self.try_server().unwrap()
    }

    /// A listener that follows its files closely.
    fn followed(&self, supervisor: &Supervisor) -> Server {
        let server = self.server();
        let follow = server.clone().follow(Duration::from_millis(10), supervisor.clone());
        supervisor.spawn_critical("tls", follow);
        server
    }

    /// What a client of this identity does, by default.
    fn client(&self, identity: &Identity) -> ClientConfig {
        client(&self.servers, &[&TLS13, &TLS12], Some(identity))
    }

    fn now(&self) -> SystemTime {
        self.clock.now().wall
    }

    async fn shake(&self, server: &Server, identity: &Identity) -> Result<Authenticated, String> {
        shake(server, self.client(identity)).await
    }

    /// The value of a counter.
    fn counted(&self, line: &str) -> Option<usize> {
        self.told(line).map(|told| told.to_string().parse().unwrap())
    }

    /// The value of a metric, as it is told.
    fn told(&self, line: &str) -> Option<f64> {
        let text = self.metrics.encode().unwrap();
        let value = text.lines().find_map(|told| told.strip_prefix("token_broker_")?.strip_prefix(line))?;
        Some(value.trim().parse().unwrap())
    }
}

/// Shows what it is given, whether it fits or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

pub(crate) fn client(
    servers: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&Identity>,
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in chain(&servers.certificate()) {
        roots.add(root).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
            let key = provider.key_provider.load_private_key(key).unwrap();
            let shown = CertifiedKey::new(chain(&identity.certificate), key);
            builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(shown))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A handshake in memory: what the broker makes of it.
async fn shake(server: &Server, config: ClientConfig) -> Result<Authenticated, String> {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from("broker").unwrap();
    let client = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
        // What the broker thinks of the certificate comes after the client's part in the handshake.
        stream.read(&mut [0]).await
    };
    let broker = async {
        let (_stream, proven) = server.accept(far).await.map_err(|error| error.to_string())?;
        proven.ok_or_else(|| "nobody".to_owned())
    };
    let (_said, outcome) = tokio::join!(client, broker);
    outcome
}

/// For what must happen: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Handshakes of a good client, one after another, until it is so: none of them may fail.
async fn until(world: &World, server: &Server, good: &Identity, what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let waiting = async {
        while !is_so() {
            world.shake(server, good).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}
