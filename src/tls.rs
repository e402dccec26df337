//! TLS of the listeners: a first part, which reads its files once and proves nothing of clients.

use crate::clock::Clock;
use crate::identity::{Authenticated, TrustDomain};
use crate::revision::Revisions;
use crate::supervisor::Supervisor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The files of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain that is shown.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// What they have revoked.
    pub crl: Option<PathBuf>,
}

/// What clients have to show.
#[derive(Debug, Clone)]
pub enum Clients {
    /// Nothing.
    None,
    /// A certificate.
    Required {
        /// Whose SPIFFE IDs are taken; any, if there is none.
        trust_domains: Vec<TrustDomain>,
    },
}

/// Why files are of no use.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {why}", path.display())]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    why: String,
}

/// One listener's TLS.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// Reads the files.
    pub fn new(files: Files, clients: Clients, _revisions: Revisions, _clock: Clock) -> Result<Self, Error> {
        let chain = certificates("the certificate", &files.certificate)?;
        let bad = |what, path: &PathBuf, why: &dyn fmt::Display| Error { what, path: path.clone(), why: why.to_string() };
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| bad("the key", &files.key, &why))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| bad("the certificate", &files.certificate, &why))?;
        let builder = match (clients, &files.client_ca) {
            (Clients::Required { .. }, Some(path)) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("the client CA", path)? {
                    roots.add(root).map_err(|why| bad("the client CA", path, &why))?;
                }
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|why| bad("the client CA", path, &why))?)
            }
            (Clients::Required { .. } | Clients::None, _) => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|why| bad("the certificate", &files.certificate, &why))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The handshake. The caller bounds it in time.
    pub async fn accept<I>(&self, io: I) -> io::Result<(TlsStream<I>, Option<Authenticated>)>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stream = TlsAcceptor::from(Arc::clone(&self.0)).accept(io).await?;
        Ok((stream, None))
    }

    /// Follows the files, until the drain.
    pub async fn follow(self, _interval: Duration, supervisor: Supervisor) {
        supervisor.draining().await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

fn certificates(what: &'static str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |why: &dyn fmt::Display| Error { what, path: path.clone(), why: why.to_string() };
    let read = CertificateDer::pem_file_iter(path).map_err(|why| bad(&why))?;
    let read: Result<Vec<_>, _> = read.collect();
    match read {
        Ok(chain) if chain.is_empty() => Err(bad(&"holds no certificate")),
        Ok(chain) => Ok(chain),
        Err(why) => Err(bad(&why)),
    }
}
