//! A broker's real routes behind whatever a client has to get through: TLS, a Unix socket, a bearer token.

use super::super::{ANY_PORT, Done, PATIENCE, WORKSPACE, finish, token_broker};
use crate::grants::all_to_loopback;
use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::fs;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use token_broker::broker::Broker;
use token_broker::clock::Clock;
use token_broker::engine::{self, Engine};
use token_broker::grpc::{self, Means, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::listener::{Limits, Peer, PeerAddress, serve_io};
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use token_broker::token::{Presentation, WorkspaceName};
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// `{"alg":"none"}`, `{"sub":"one"}` and a signature.
pub(super) const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJvbmUifQ.c2lnbmF0dXJl";
/// What every bearer token of a test begins with.
pub(super) const BEARER: &str = "a-bearer-that-nobody-may-see-";
pub(super) const V12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(super) const V13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The broker, and the files of its clients.
pub(super) struct Stand {
    directory: TempDir,
    broker: Arc<Guarded>,
    supervisor: Supervisor,
}

/// The routes, open to whoever shows the bearer that is asked for.
struct Guarded {
    open: axum::Router,
    closed: axum::Router,
    asked: watch::Sender<Option<String>>,
    /// What came as `authorization`, call by call.
    shown: watch::Sender<Vec<Option<String>>>,
}

/// A listener; everything on it is cut when it is dropped.
pub(super) struct Front {
    pub(super) endpoint: String,
    serving: JoinSet<()>,
}

impl Stand {
    pub(super) fn new() -> Self {
        let (clock, supervisor) = (Clock::system(), Supervisor::new());
        let metrics = Metrics::new(&clock);
        let engine = engine(&clock, &supervisor, &metrics);
        let counted = metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS));
        let (judge, readiness) = (Rule { max_unhealthy: 1.0 }, Readiness::new());
        let routes = |means| {
            let parts = Parts {
                broker: Broker::new(engine.clone(), all_to_loopback(), Revisions::default()),
                clock: clock.clone(),
                readiness: readiness.clone(),
                overall: engine.judge(judge),
                supervisor: supervisor.clone(),
                metrics: counted.clone(),
                request_ids: RequestIds::new(1),
                reflection: Reflection::Off,
            };
            grpc::routes(parts, means)
        };
        let (open, closed) = (routes(Means::Loopback), routes(Means::Channel));
        let (asked, shown) = (watch::Sender::new(None), watch::Sender::new(Vec::new()));
        let broker = Arc::new(Guarded { open, closed, asked, shown });
        Self { directory: tempfile::tempdir().unwrap(), broker, supervisor }
    }

    /// From now on only this bearer is let in.
    pub(super) fn asks_for(&self, bearer: &str) {
        self.broker.asked.send_replace(Some(format!("Bearer {bearer}")));
    }

    /// What was shown with each call so far.
    pub(super) fn shown(&self) -> Vec<Option<String>> {
        self.broker.shown.borrow().clone()
    }

    /// Waits until this bearer is shown.
    pub(super) async fn is_shown(&self, bearer: &str) {
        let wanted = Some(format!("Bearer {bearer}"));
        let mut shown = self.broker.shown.subscribe();
        let found = timeout(PATIENCE, shown.wait_for(|shown| shown.contains(&wanted))).await;
        drop(found.unwrap_or_else(|_| panic!("it was never shown")).unwrap());
    }

    /// Waits for this many calls in all.
    pub(super) async fn is_called(&self, times: usize) {
        let mut shown = self.broker.shown.subscribe();
        let found = timeout(PATIENCE, shown.wait_for(|shown| shown.len() >= times)).await;
        drop(found.unwrap_or_else(|_| panic!("it was never called")).unwrap());
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file; its path.
    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The files of a certificate and its key.
    pub(super) fn write_pair(&self, name: &str, pair: &Pair) -> [String; 2] {
        [self.write(&format!("{name}.pem"), &pair.certificate), self.write(&format!("{name}.key"), &pair.key)]
    }

    fn serve(&self) -> impl Fn(Box<dyn Io>) -> BoxFuture<'static, ()> + Clone + use<> {
        let (broker, supervisor) = (Arc::clone(&self.broker), self.supervisor.clone());
        let routes = axum::Router::new().fallback_service(tower::service_fn(move |request| {
            let broker = Arc::clone(&broker);
            async move { broker.answer(request).await }
        }));
        move |io| {
            let peer = Peer {
                addr: PeerAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))),
                identity: None,
                listener: "grpc".into(),
            };
            serve_io(io, peer, Limits::default(), routes.clone(), supervisor.clone()).boxed()
        }
    }

    pub(super) async fn plain(&self) -> Front {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (mut serving, serve) = (JoinSet::new(), self.serve());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(Box::new(socket)));
            }
        });
        Front { endpoint, serving }
    }

    pub(super) fn unix(&self, name: &str) -> Front {
        let path = self.path(name);
        let listener = UnixListener::bind(&path).unwrap();
        let (mut serving, serve) = (JoinSet::new(), self.serve());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(Box::new(socket)));
            }
        });
        Front { endpoint: format!("unix:{}", path.display()), serving }
    }

    pub(super) async fn tls(&self, config: ServerConfig) -> Front {
        self.tls_on(TcpListener::bind(ANY_PORT).await.unwrap(), config)
    }

    pub(super) fn tls_on(&self, listener: TcpListener, config: ServerConfig) -> Front {
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (mut serving, serve) = (JoinSet::new(), self.serve());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, serve) = (acceptor.clone(), serve.clone());
                connections.spawn(async move {
                    match acceptor.accept(socket).into_fallible().await {
                        Ok(stream) => serve(Box::new(stream)).await,
                        // Closed with something unread, TCP would take the alert back.
                        Err((_refused, mut socket)) => drop(socket.read_to_end(&mut Vec::new()).await),
                    }
                });
            }
        });
        Front { endpoint, serving }
    }

    /// `command --endpoint … rest`. Nothing that is said of it may hold a secret of its own.
    pub(super) async fn ask(&self, front: &str, rest: &[&str]) -> Done {
        let (command, rest) = rest.split_first().unwrap();
        let mut process = token_broker(&[&[*command, "--endpoint", front], rest].concat());
        process.env("RUST_LOG", "trace");
        let done = finish(process).await;
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(!said.contains(BEARER) && !said.contains("PRIVATE KEY"), "{said}");
        for file in fs::read_dir(self.directory.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "key") {
                let key = fs::read_to_string(path).unwrap();
                assert!(key.lines().all(|line| line.is_empty() || !said.contains(line)), "{said}");
            }
        }
        done
    }

    /// `get` of the Workspace there is.
    pub(super) async fn get(&self, front: &str, rest: &[&str]) -> Done {
        self.ask(front, &[&["get", WORKSPACE], rest].concat()).await
    }
}

impl Front {
    /// Nobody is there any more, and every connection is cut.
    pub(super) async fn ends(mut self) {
        self.serving.shutdown().await;
    }
}

impl Guarded {
    async fn answer(
        &self,
        mut request: http::Request<Body>,
    ) -> Result<axum::response::Response, std::convert::Infallible> {
        // The routes behind take no bearer, and would refuse one.
        let shown = request.headers_mut().remove("authorization").map(|value| value.to_str().unwrap().to_owned());
        let is_let_in = self.asked.borrow().as_ref().is_none_or(|asked| shown.as_ref() == Some(asked));
        self.shown.send_modify(|all| all.push(shown));
        let routes = if is_let_in { &self.open } else { &self.closed };
        routes.clone().oneshot(request).await
    }
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Gives the same token always.
#[derive(Debug)]
struct Same;

impl Provider for Same {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let fetched = Fetched {
            value: AccessToken::new(JWT),
            presentation: Presentation::bearer(),
            lifetime: Duration::from_secs(4 * 3600),
        };
        std::future::ready(Ok(fetched)).boxed()
    }
}

fn engine(clock: &Clock, supervisor: &Supervisor, metrics: &Metrics) -> Engine {
    let settings = engine::Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::from_secs(10),
        max_waiters: 100,
        max_workspaces: 10,
        max_watches: 1_000,
        seed: 1,
    };
    let counted = metrics.register(engine::Metrics::register);
    let engine = Engine::new(clock.clone(), supervisor.clone(), settings, counted);
    let upstream = UpstreamName::parse("fake").unwrap();
    let limits = engine::Limits {
        max_concurrent: NonZeroUsize::MIN,
        budget: Budget { logins: NonZeroU32::new(1000).unwrap(), per: Duration::from_secs(300) },
        renew_at: 0.5,
        timeout: Duration::from_secs(300),
    };
    engine.add_upstream(upstream.clone(), limits);
    let name = WorkspaceName::parse(WORKSPACE).unwrap();
    let provider = Arc::new(Same);
    engine.put(engine::Workspace { name, upstream, keep_warm: KeepWarm::WhileUsed, provider }).unwrap();
    engine
}

// === Certificates ===

/// An authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// From when to when a certificate counts, in years.
pub(super) const NOW: (i32, i32) = (2020, 2090);
pub(super) const PAST: (i32, i32) = (2020, 2021);
pub(super) const FUTURE: (i32, i32) = (2080, 2090);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name or address.
    pub(super) fn issue(&self, name: &str, (from, to): (i32, i32)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        }];
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// A server with this certificate.
    pub(super) fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(Authority(clients)) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![chain], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}
