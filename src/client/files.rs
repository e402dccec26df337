//! What a client shows and trusts: files that somebody else replaces (cert-manager, SPIRE, the kubelet), so they are
//! read anew whenever they are used and never kept.

use super::Error;
use super::why::Flaw;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tonic::metadata::AsciiMetadataValue;
use zeroize::Zeroizing;

/// The largest file of certificates, in bytes: a whole system's bundle fits.
const LARGEST_PEM: usize = 1024 * 1024;
/// The largest file of a token, in bytes.
const LARGEST_TOKEN: usize = 8 * 1024;

/// A client certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The file of the certificate and of what links it to its authority, in PEM.
    pub certificate: PathBuf,
    /// The file of its private key, in PEM.
    pub key: PathBuf,
}

/// How TLS is to be spoken now: by the files as they are at this moment.
pub(super) async fn tls(ca: Option<&Path>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
    let builder = builder.with_root_certificates(roots(ca).await?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = certificates("--cert", certificate).await?;
            let private = private_key(key).await?;
            let unusable = |error| match error {
                rustls::Error::InconsistentKeys(_) => flaw("--key", key, Flaw::Mismatch),
                _ => flaw("--key", key, Flaw::NoKey),
            };
            builder.with_client_auth_cert(chain, private).map_err(unusable)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

async fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => drop(roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned())),
        Some(path) => {
            for certificate in certificates("--ca", path).await? {
                roots.add(certificate).map_err(|_invalid| flaw("--ca", path, Flaw::NoCertificate))?;
            }
        }
    }
    Ok(roots)
}

async fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(option, path, LARGEST_PEM).await?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(flaw(option, path, Flaw::NoCertificate)),
    }
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read("--key", path, LARGEST_PEM).await?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_invalid| flaw("--key", path, Flaw::NoKey))
}

/// The bearer token as it is now, as a header carries it (RFC 6750 §2.1).
pub(super) async fn bearer(path: &Path) -> Result<AsciiMetadataValue, Error> {
    let flaw = |what| flaw("--token-file", path, what);
    let content = read("--token-file", path, LARGEST_TOKEN).await?;
    let token = content.trim_ascii();
    if token.is_empty() {
        return Err(flaw(Flaw::Empty));
    }
    // No line feed and no space, so that no key is sent by mistake.
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(flaw(Flaw::NoToken));
    }
    let header = Zeroizing::new([b"Bearer ".as_slice(), token].concat());
    let mut header = AsciiMetadataValue::try_from(header.as_slice()).map_err(|_invalid| flaw(Flaw::NoToken))?;
    // hyper and h2 neither print it nor remember it for compression.
    header.set_sensitive(true);
    Ok(header)
}

/// The whole file, unless it is larger. The room is taken at once, so that no copy of a secret is left behind.
async fn read(option: &'static str, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |error: io::Error| flaw(option, path, Flaw::of(&error));
    let file = File::open(path).await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX).clamp(LARGEST_TOKEN, limit);
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut content).await.map_err(failed)?;
    if content.len() > limit { Err(flaw(option, path, Flaw::TooLarge { limit })) } else { Ok(content) }
}

fn flaw(option: &'static str, path: &Path, flaw: Flaw) -> Error {
    Error::File { option, path: path.to_owned(), flaw }
}
