//! What one listener shows and trusts, read from its files as one piece.

use super::trust::{Trust, Unusable};
use super::{Clients, Error, Files};
use crate::clock::Clock;
use crate::files;
use crate::identity::TrustDomain;
use crate::identity::certificate::{Facts, Period};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// The largest file of certificates or keys, in bytes.
const LARGEST_PEM: usize = 1024 * 1024;
/// The largest file of revocation lists, in bytes: about 300,000 certificates.
const LARGEST_CRL: usize = 16 * 1024 * 1024;

/// What is spoken inside: HTTP/2 only.
pub(super) const H2: &[u8] = b"h2";

/// What is in force, as a whole.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) config: Arc<ServerConfig>,
    /// When the certificate and the intermediates beside it all count.
    pub(super) period: Period,
    /// `None`: clients are not asked for a certificate.
    pub(super) trust: Option<Arc<Trust>>,
}

/// What material is made of, besides the files.
#[derive(Debug)]
pub(super) struct Maker {
    files: Files,
    trust_domains: Option<Arc<[TrustDomain]>>,
    clock: Clock,
    provider: Arc<CryptoProvider>,
}

/// A certificate and its key.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    period: Period,
}

/// The broker's clock, as rustls asks for it.
#[derive(Debug)]
struct WallClock(Clock);

impl Maker {
    pub(super) fn new(files: Files, clients: Clients, clock: Clock) -> Self {
        let trust_domains = match clients {
            Clients::None => None,
            Clients::Required { trust_domains } => Some(trust_domains.into()),
        };
        Self { files, trust_domains, clock, provider: Arc::new(aws_lc_rs::default_provider()) }
    }

    /// What cryptography is done with.
    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Reads everything, and keeps what is trusted as it is where the files hold the same as before. Blocks.
    pub(super) fn make(&self, seen: &mut files::Files, before: Option<&Arc<Trust>>) -> Result<Material, Error> {
        let now = self.clock.now().wall;
        // All are read before any is judged, so that all are watched.
        let certificate = self.certificate(seen, now);
        let key = self.key(seen);
        let trust = self.trust(seen, now);
        let (chain, period) = certificate?;
        let (shown, trust) = (Shown { chain, key: key?, period }, trust?.map(Arc::new));
        let trust = trust.map(|new| before.filter(|before| before.is_same_as(&new)).map_or(new, Arc::clone));
        Ok(Material { period: shown.period, config: Arc::new(self.config(shown, trust.as_ref())?), trust })
    }

    fn certificate(
        &self,
        seen: &mut files::Files,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, Period), Error> {
        let wrong = |problem: &str| Error::new("certificate_file", &self.files.certificate, problem);
        let text = read(seen, &self.files.certificate, LARGEST_PEM).map_err(|problem| wrong(&problem))?;
        let chain: Vec<CertificateDer<'static>> = sections(&text, "certificate").map_err(|problem| wrong(&problem))?;
        let period = period_of(&chain).ok_or_else(|| wrong("a certificate in it can't be read"))?;
        if period.is_over(now) {
            return Err(wrong("it has expired: put a new one in its place"));
        }
        if !period.holds(now) {
            return Err(wrong("it is not valid yet: check this machine's clock"));
        }
        Ok((chain, period))
    }

    fn key(&self, seen: &mut files::Files) -> Result<PrivateKeyDer<'static>, Error> {
        let wrong = |problem: &str| Error::new("key_file", &self.files.key, problem);
        let text = read(seen, &self.files.key, LARGEST_PEM).map_err(|problem| wrong(&problem))?;
        let mut keys: Vec<PrivateKeyDer<'static>> = sections(&text, "private key").map_err(|problem| {
            let encrypted = text.contains("ENCRYPTED");
            wrong(if encrypted { "the key is encrypted; it must be stored without a passphrase" } else { &problem })
        })?;
        match (keys.pop(), keys.is_empty()) {
            (Some(key), true) => Ok(key),
            _ => Err(wrong("it holds several private keys; which one is meant can't be told")),
        }
    }

    /// `None`: clients are not asked.
    fn trust(&self, seen: &mut files::Files, now: SystemTime) -> Result<Option<Trust>, Error> {
        let (Some(trust_domains), Some(path)) = (&self.trust_domains, &self.files.client_ca) else {
            return match &self.trust_domains {
                Some(_) => Err(Error::of_none("client_ca_file", "it is needed to tell callers apart")),
                None => Ok(None),
            };
        };
        let wrong = |problem: &str| Error::new("client_ca_file", path, problem);
        let text = read(seen, path, LARGEST_PEM).map_err(|problem| wrong(&problem));
        let revocations = self.revocations(seen);
        let authorities = sections(&text?, "certificate").map_err(|problem| wrong(&problem))?;
        let made = Trust::new(authorities, revocations?, trust_domains, &self.provider, now);
        made.map(Some).map_err(|unusable| match unusable {
            Unusable::Authorities(problem) => wrong(problem),
            Unusable::Revocations(problem) => self.wrong_revocations(problem),
        })
    }

    fn revocations(
        &self,
        seen: &mut files::Files,
    ) -> Result<Option<Vec<CertificateRevocationListDer<'static>>>, Error> {
        let Some(path) = &self.files.crl else { return Ok(None) };
        let text = read(seen, path, LARGEST_CRL).map_err(|problem| self.wrong_revocations(&problem))?;
        sections(&text, "revocation list").map(Some).map_err(|problem| self.wrong_revocations(&problem))
    }

    fn wrong_revocations(&self, problem: &str) -> Error {
        match &self.files.crl {
            Some(path) => Error::new("crl_file", path, problem),
            None => Error::of_none("crl_file", problem),
        }
    }

    fn config(&self, shown: Shown, trust: Option<&Arc<Trust>>) -> Result<ServerConfig, Error> {
        let clock = Arc::new(WallClock(self.clock.clone()));
        let builder = ServerConfig::builder_with_details(Arc::clone(&self.provider), clock)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|_unsupported| Error::of_none("tls", "this build can't speak TLS 1.3 and 1.2"))?;
        let builder = match trust {
            Some(trust) => builder.with_client_cert_verifier(Arc::clone(trust) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let built = builder.with_single_cert(shown.chain, shown.key);
        let mut config = built.map_err(|error| self.unfit(&error))?;
        config.alpn_protocols = vec![H2.to_vec()];
        // A resumed session would not show its certificate again, and so not meet today's authorities and lists.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // What is sent before the handshake ends can be sent again by anybody.
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Never the error's own text: it is about content.
    fn unfit(&self, error: &rustls::Error) -> Error {
        let (key, certificate) = (&self.files.key, &self.files.certificate);
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::new("key_file", key, "the key does not belong to the first certificate of certificate_file")
            }
            rustls::Error::InvalidCertificate(_) => {
                Error::new("certificate_file", certificate, "the first certificate in it can't be used")
            }
            _ => Error::new(
                "key_file",
                key,
                "the key can't be used: it must be RSA, ECDSA (P-256, P-384, P-521) or Ed25519",
            ),
        }
    }
}

/// All of the chain together: what is shown must count from its first certificate to its last.
fn period_of(chain: &[CertificateDer<'_>]) -> Option<Period> {
    let periods = chain.iter().map(|der| Facts::of(der).ok().map(|facts| facts.period));
    let both =
        |one: Period, other: Period| Period { from: one.from.max(other.from), until: one.until.min(other.until) };
    periods.reduce(|one, other| Some(both(one?, other?))).flatten()
}

fn read(seen: &mut files::Files, path: &Path, limit: usize) -> Result<Zeroizing<String>, String> {
    seen.read(path, limit).map(|(text, _)| text)
}

/// Everything of one kind, at least one. A file that ends in the middle is refused, also where it ends in a marker,
/// which the reader of PEM would take for a remark.
fn sections<T: PemObject>(text: &str, kind: &str) -> Result<Vec<T>, String> {
    let last = text.lines().map(str::trim_end).rfind(|line| !line.is_empty()).unwrap_or_default();
    let cut_off = || "it is cut off in the middle".to_owned();
    if last.starts_with('-') && !(last.starts_with("-----END ") && last.ends_with("-----")) {
        return Err(cut_off());
    }
    let all: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("it holds no {kind} in PEM form")),
        Ok(all) => Ok(all),
        Err(pem::Error::MissingSectionEnd { .. }) => Err(cut_off()),
        Err(_) => Err("it is not in PEM form".to_owned()),
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().wall.duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
