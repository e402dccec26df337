//! Each means lets in whom it is for, and refuses the proofs of the others; TLS, from the handshake on.

use super::{Client, GOOD_TOKEN, Served, bearer, forwarded, own_name};
use crate::listener::PATIENCE;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, string,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use token_broker::audit::Audit;
use token_broker::clock::Clock;
use token_broker::grpc::Means;
use token_broker::listener::{Address, Limits};
use token_broker::revision::Revisions;
use token_broker::tls::{Clients, Files, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

const A: &str = "spiffe://prod.example/ns/a/sa/a";
const EDGE: &str = "spiffe://prod.example/ns/edge/sa/envoy";
const UNAUTHENTICATED: Result<String, Code> = Err(Code::Unauthenticated);

/// One authority for everybody, and the files of a listener.
struct Pki {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Shown {
    chain: String,
    key: String,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { directory: tempfile::tempdir().unwrap(), authority };
        let server = pki.issue(SanType::DnsName("broker".try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth);
        pki.write("tls.crt", &server.chain);
        pki.write("tls.key", &server.key);
        pki.write("ca.crt", &pki.authority.pem());
        pki
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn issue(&self, name: SanType, usage: ExtendedKeyUsagePurpose) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(name);
        params.extended_key_usages.push(usage);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Shown { chain: certificate.pem(), key: key.serialize_pem() }
    }

    fn caller(&self, id: &str) -> Shown {
        let id = string::Ia5String::try_from(id).unwrap();
        self.issue(SanType::URI(id), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn server(&self, clients: Clients) -> Server {
        let file = |name| self.directory.path().join(name);
        let client_ca = matches!(clients, Clients::Required { .. }).then(|| file("ca.crt"));
        let files = Files { certificate: file("tls.crt"), key: file("tls.key"), client_ca, crl: None };
        Server::new(files, clients, Revisions::default(), Clock::system()).unwrap()
    }

    async fn serve(&self, means: Means, clients: Clients) -> Served {
        self.serve_within(means, clients, Limits::default()).await
    }

    async fn serve_within(&self, means: Means, clients: Clients, limits: Limits) -> Served {
        Served::at(Address::Tcp(crate::listener::ANY), means, Some(self.server(clients)), limits).await
    }

    fn client(&self, shown: Option<&Shown>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(Shown { chain, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// What a caller is told who shows this; `None` if it is not let in.
    async fn ask(
        &self,
        served: &Served,
        shown: Option<&Shown>,
        headers: &[(&str, &str)],
    ) -> Option<Result<String, Code>> {
        let socket = TcpStream::connect(served.tcp_address()).await.unwrap();
        let name = ServerName::try_from("broker").unwrap();
        let io = timeout(PATIENCE, self.client(shown).connect(name, socket)).await.unwrap().ok()?;
        Client::try_over(io).await?.try_ask(headers).await
    }
}

fn required() -> Clients {
    Clients::Required { trust_domains: Vec::new() }
}

#[tokio::test]
async fn a_certificate_says_who_calls() {
    let pki = Pki::new();
    let served = pki.serve(Means::Channel, required()).await;
    assert_eq!(pki.ask(&served, Some(&pki.caller(A)), &[]).await, Some(Ok(A.to_owned())));
    assert_eq!(pki.ask(&served, None, &[]).await, None, "no certificate");
    let other = Pki::new();
    assert_eq!(pki.ask(&served, Some(&other.caller(A)), &[]).await, None, "another authority");
    let token = [("authorization", "Bearer good.token")];
    assert_eq!(pki.ask(&served, Some(&pki.caller(A)), &token).await, Some(UNAUTHENTICATED), "two proofs");
    assert_eq!(served.entered(), [A]);
}

#[tokio::test]
async fn an_envoy_that_is_listed_is_believed_and_any_other_is_not() {
    let pki = Pki::new();
    let served = pki.serve(forwarded(&[EDGE]), required()).await;
    let header = format!("By={EDGE};Hash=00;Subject=\"\";URI={A}");
    let header = [("x-forwarded-client-cert", header.as_str())];
    assert_eq!(pki.ask(&served, Some(&pki.caller(EDGE)), &header).await, Some(Ok(A.to_owned())));
    assert_eq!(pki.ask(&served, Some(&pki.caller(A)), &header).await, Some(UNAUTHENTICATED), "not listed");
    assert_eq!(pki.ask(&served, Some(&pki.caller(EDGE)), &[]).await, Some(UNAUTHENTICATED), "for nobody");
    assert_eq!(served.entered(), [A]);
}

#[tokio::test]
async fn a_bearer_shows_its_token_with_each_request() {
    let pki = Pki::new();
    let behind_tls = pki.serve(bearer(), Clients::None).await;
    let alice = || Ok("jwt:test:alice".to_owned());
    assert_eq!(pki.ask(&behind_tls, None, &[("authorization", "Bearer good.token")]).await, Some(alice()));
    let plain = Served::tcp(bearer()).await;
    let mut client = Client::over(plain.connect().await).await;
    for good in ["Bearer good.token", "bearer good.token"] {
        assert_eq!(client.ask(&[("authorization", good)]).await, alice(), "{good}");
    }
    assert_eq!(plain.entered().len(), 2);
    let bad = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  good.token",
        "Bearer good.token ",
        "Bearer good.token,Bearer good.token",
        "Bearer good.token good.token",
        "Basic good.token",
        "good.token",
        "Bearer bad",
        "Bearer \"good.token\"",
    ];
    for value in bad {
        assert_eq!(client.ask(&[("authorization", value)]).await, UNAUTHENTICATED, "{value:?}");
    }
    assert_eq!(client.ask(&[]).await, UNAUTHENTICATED, "the one before it proves nothing");
    let twice = [("authorization", "Bearer good.token"), ("authorization", "Bearer good.token")];
    assert_eq!(client.ask(&twice).await, UNAUTHENTICATED);
    assert_eq!(plain.entered(), [] as [&str; 0]);
}

#[tokio::test]
async fn the_token_is_seen_by_no_handler() {
    use axum::routing::post;
    let show = post(async |headers: http::HeaderMap| format!("{headers:?}"));
    let routes = axum::Router::new().route("/who", show);
    let routes = token_broker::grpc::authenticated(routes, bearer(), Clock::system(), Audit::none());
    let any = Address::Tcp(crate::listener::ANY);
    let bound = token_broker::listener::Listener::bind(any, token_broker::listener::Protocol::Http2, Limits::default());
    let listener = bound.await.unwrap();
    let (address, supervisor) = (listener.local_addr().unwrap(), token_broker::supervisor::Supervisor::new());
    supervisor.spawn_critical("listener", listener.run(routes, supervisor.clone(), 1));
    let mut client = Client::over(TcpStream::connect(address).await.unwrap()).await;
    let token = format!("Bearer {GOOD_TOKEN}");
    let seen = client.ask(&[("authorization", &token), ("x-other", "seen")]).await.unwrap();
    assert!(seen.contains("seen") && !seen.contains(GOOD_TOKEN), "{seen}");
}

/// Two of each other's kind, side by side: what counts on one counts for nothing on the other.
#[tokio::test]
async fn listeners_side_by_side_refuse_the_proofs_of_each_other() {
    let (local, users, tokens) =
        tokio::join!(Served::tcp(Means::Loopback), Served::unix(Means::Channel), Served::tcp(bearer()));
    let (edge, token) = (Served::unix(forwarded(&[&own_name()])).await, format!("Bearer {GOOD_TOKEN}"));
    let header = format!("URI={A}");
    let proofs: [&[(&str, &str)]; 3] = [&[], &[("authorization", &token)], &[("x-forwarded-client-cert", &header)]];
    let rows = [
        (&local, [Ok("loopback".to_owned()), UNAUTHENTICATED, UNAUTHENTICATED]),
        (&users, [Ok(own_name()), UNAUTHENTICATED, UNAUTHENTICATED]),
        (&tokens, [UNAUTHENTICATED, Ok("jwt:test:alice".to_owned()), UNAUTHENTICATED]),
        (&edge, [UNAUTHENTICATED, UNAUTHENTICATED, Ok(A.to_owned())]),
    ];
    for (served, expected) in rows {
        for (proof, expected) in proofs.iter().zip(expected) {
            assert_eq!(served.ask(proof).await, expected, "{:?} {proof:?}", served.address);
        }
        assert_eq!(served.entered().len(), 1);
    }
}

#[tokio::test]
async fn a_unix_socket_is_not_loopback_and_a_port_proves_nobody() {
    assert_eq!(Served::unix(Means::Loopback).await.ask(&[]).await, UNAUTHENTICATED);
    assert_eq!(Served::tcp(Means::Channel).await.ask(&[]).await, UNAUTHENTICATED);
}

/// Whoever stays in the handshake, at its start or within it, is gone in time; nobody waits for them.
#[tokio::test]
async fn stalled_handshakes_are_cut() {
    let pki = Pki::new();
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let served = pki.serve_within(Means::Channel, required(), limits).await;
    let begun = tokio::time::Instant::now();
    let mut stalled = tokio::task::JoinSet::new();
    // Nothing; the head of a record; the first bytes of a ClientHello of 512.
    let starts: [&[u8]; 3] = [b"", b"\x16\x03\x01\x02", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];
    for start in starts {
        let mut socket = TcpStream::connect(served.tcp_address()).await.unwrap();
        socket.write_all(start).await.unwrap();
        stalled.spawn(async move {
            let mut rest = Vec::new();
            // An end or a reset: either is one.
            drop(timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it is kept for ever"));
        });
    }
    assert_eq!(pki.ask(&served, Some(&pki.caller(A)), &[]).await, Some(Ok(A.to_owned())), "meanwhile");
    drop(stalled.join_all().await);
    assert!(begun.elapsed() >= Duration::from_millis(300), "cut before its time");
}

#[tokio::test]
async fn plaintext_on_a_port_with_tls_is_no_call() {
    let pki = Pki::new();
    let served = pki.serve(Means::Channel, required()).await;
    let answer = match Client::try_over(TcpStream::connect(served.tcp_address()).await.unwrap()).await {
        Some(mut client) => client.try_ask(&[]).await,
        None => None,
    };
    assert_eq!((answer, served.entered()), (None, Vec::new()));
}
