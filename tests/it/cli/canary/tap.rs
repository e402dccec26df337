//! TLS in front of an upstream that has none, which keeps what goes by: the tokens in it are secrets too.

use super::scanner::Secret;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Whose certificates both sides show.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn server(&self) -> Pair {
        self.issue(SanType::DnsName("localhost".try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(super) fn client(&self, id: &str) -> Pair {
        self.issue(SanType::URI(id.try_into().unwrap()), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, name: SanType, purpose: ExtendedKeyUsagePurpose) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![purpose];
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// What a caller connects with, and what it shows.
    pub(super) fn caller(&self, own: Option<&Pair>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.key()).unwrap(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider);
        // The issuer's keys are asked for without a certificate.
        let clients = clients.allow_unauthenticated().build().unwrap();
        let pair = self.server();
        let config = builder.with_client_cert_verifier(clients).with_single_cert(pair.chain(), pair.key()).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Pair {
    fn chain(&self) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        vec![rustls::pki_types::CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// What passed, each way of each connection for itself: the end of one is not the beginning of another.
type Passed = Arc<Mutex<Vec<Vec<u8>>>>;

pub(super) struct Tap {
    pub(super) address: SocketAddr,
    passed: Passed,
    /// Who showed a certificate.
    _serving: JoinSet<()>,
}

impl Tap {
    pub(super) async fn before(upstream: SocketAddr, authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, passed) = (listener.local_addr().unwrap(), Passed::default());
        let (mut serving, kept, acceptor) = (JoinSet::new(), Arc::clone(&passed), authority.acceptor());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
                connections.spawn(async move {
                    let Ok(near) = acceptor.accept(socket).await else { return };
                    let Ok(far) = TcpStream::connect(upstream).await else { return };
                    let ((from, to), (back_from, back_to)) = (tokio::io::split(near), far.into_split());
                    // Both ways, until both are over.
                    drop(tokio::join!(pass(from, back_to, &kept), pass(back_from, to, &kept)));
                });
            }
        });
        Self { address, passed, _serving: serving }
    }

    /// Tokens of answers, and what was made of secrets for a request: header of Basic, assertions.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let passed = self.passed.lock().unwrap().clone();
        let passed: Vec<_> = passed.iter().map(|way| String::from_utf8_lossy(way)).collect();
        let before = [
            ("auth token", "\"auth_token\":\""),
            ("access token", "\"access_token\":\""),
            ("access token", "\"accessToken\":\""),
            ("token", "\"token\":\""),
            ("refresh token that was issued", "\"refresh_token\":\""),
            ("assertion", "assertion="),
            ("header of Basic", "uthorization: Basic "),
        ];
        let mut found = BTreeSet::new();
        for (name, mark) in before {
            for part in passed.iter().flat_map(|way| way.split(mark).skip(1)) {
                // One that is cut off is no token.
                let Some((text, _)) = part.split_once(['"', '&', '\r', '\n', ' ']) else { continue };
                if text.len() > 16 {
                    found.insert((name, text.to_owned()));
                }
            }
        }
        found.into_iter().map(|(name, text)| Secret::of(name, &text)).collect()
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, kept: &Passed) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let way = {
        let mut kept = kept.lock().unwrap();
        kept.push(Vec::new());
        kept.len() - 1
    };
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        kept.lock().unwrap()[way].extend_from_slice(&buffer[..read]);
        to.write_all(&buffer[..read]).await?;
    }
}
