//! Which client certificates count: today's authorities and revocation lists, and the rules of identity.

use crate::identity::certificate::{Facts, Name, Period, period_of_revocations};
use crate::identity::{Caller, TrustDomain};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const NONE_VALID: &str = "no authority in it is valid now: each has ended or is yet to begin";

/// What client certificates are judged by. Built anew whenever that changes.
#[derive(Debug)]
pub(super) struct Trust {
    webpki: Arc<dyn ClientCertVerifier>,
    domains: Arc<[TrustDomain]>,
    made_of: MadeOf,
    /// When the last authority ends: webpki takes an authority for good whatever its dates say.
    ends: SystemTime,
    /// The authority that ends first.
    pub(super) first_authority: Period,
    /// The revocation list that ends first.
    pub(super) first_revocations: Option<Period>,
    /// When something of it begins or ends.
    moments: Vec<SystemTime>,
    /// When it was made.
    pub(super) made: SystemTime,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeOf {
    authorities: Vec<CertificateDer<'static>>,
    /// Which of them are valid.
    counts: Vec<bool>,
    revocations: Option<Vec<CertificateRevocationListDer<'static>>>,
}

/// The periods of what was read.
#[derive(Debug)]
struct Periods {
    authorities: Vec<Period>,
    revocations: Vec<Period>,
}

/// What is wrong, and with which of the two files.
#[derive(Debug)]
pub(super) enum Unusable {
    Authorities(&'static str),
    Revocations(&'static str),
}

impl Trust {
    /// Authorities that are not valid yet or no more are left out; a revocation list that does not count is refused.
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        revocations: Option<Vec<CertificateRevocationListDer<'static>>>,
        trust_domains: &Arc<[TrustDomain]>,
        provider: &Arc<CryptoProvider>,
        now: SystemTime,
    ) -> Result<Self, Unusable> {
        let periods = Periods::of(&authorities, revocations.as_deref().unwrap_or_default(), now)?;
        let counting: Vec<Period> = periods.authorities.iter().filter(|period| period.holds(now)).copied().collect();
        let counts = periods.authorities.iter().map(|period| period.holds(now)).collect();
        let made_of = MadeOf { authorities, counts, revocations };
        let webpki = verifier(&made_of, provider)?;
        Ok(Self {
            webpki,
            domains: Arc::clone(trust_domains),
            ends: counting.iter().map(|period| period.until).max().unwrap_or(now),
            first_authority: counting
                .iter()
                .min_by_key(|period| period.until)
                .copied()
                .ok_or(Unusable::Authorities(NONE_VALID))?,
            first_revocations: periods.revocations.iter().min_by_key(|period| period.until).copied(),
            moments: periods.moments(),
            made: now,
            made_of,
        })
    }

    /// Made of the same as of now. `None` where all authorities have ended, and then this one lets nobody in; or where
    /// a revocation list has, and then it lets in nobody whom that list is about.
    pub(super) fn anew(&self, provider: &Arc<CryptoProvider>, now: SystemTime) -> Option<Self> {
        let MadeOf { authorities, revocations, counts: _ } = self.made_of.clone();
        Self::new(authorities, revocations, &self.domains, provider, now).ok()
    }

    /// Whether both judge alike.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.made_of == other.made_of && self.domains == other.domains
    }

    /// Whether something of it began or ended between two looks, so that it has to be made anew.
    pub(super) fn changed_between(&self, last: SystemTime, now: SystemTime) -> bool {
        self.moments.iter().any(|moment| (last..now).contains(moment))
    }

    /// Whom a chain proves to be there, leaf first.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Caller, rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        if self.ends < now {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.webpki.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since))?;
        let caller = Name::of(leaf).and_then(|name| name.caller(&self.domains));
        caller.map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
    }
}

impl Periods {
    fn of(
        authorities: &[CertificateDer<'_>],
        revocations: &[CertificateRevocationListDer<'_>],
        now: SystemTime,
    ) -> Result<Self, Unusable> {
        let authorities = authorities.iter().map(|der| authority(der)).collect::<Result<_, _>>()?;
        let revocations = revocations.iter().map(|der| list(der, now)).collect::<Result<_, _>>()?;
        Ok(Self { authorities, revocations })
    }

    fn moments(&self) -> Vec<SystemTime> {
        self.authorities.iter().chain(&self.revocations).flat_map(|period| [period.from, period.until]).collect()
    }
}

fn authority(der: &CertificateDer<'_>) -> Result<Period, Unusable> {
    let facts = Facts::of(der).map_err(|_malformed| Unusable::Authorities("a certificate in it can't be read"))?;
    if !facts.authority {
        return Err(Unusable::Authorities(
            "a certificate in it is not of an authority (basicConstraints without CA:TRUE): list authorities only",
        ));
    }
    Ok(facts.period)
}

fn list(der: &CertificateRevocationListDer<'_>, now: SystemTime) -> Result<Period, Unusable> {
    let unreadable = "a revocation list in it can't be read, or has no nextUpdate";
    let period = period_of_revocations(der).ok_or(Unusable::Revocations(unreadable))?;
    if period.is_over(now) {
        return Err(Unusable::Revocations("a revocation list in it is past its nextUpdate: fetch a new one"));
    }
    if !period.holds(now) {
        return Err(Unusable::Revocations("a revocation list in it is not valid yet: check this machine's clock"));
    }
    Ok(period)
}

/// Revocation is checked for every certificate of a chain, and one whose status can't be known, because its issuer has
/// no list here or one that is past its `nextUpdate`, is refused. An extended key usage, where there is one, must name
/// client authentication itself.
fn verifier(made_of: &MadeOf, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
    let mut roots = RootCertStore::empty();
    for (authority, _) in made_of.authorities.iter().zip(&made_of.counts).filter(|(_, counts)| **counts) {
        let added = roots.add(authority.clone());
        added.map_err(|_unusable| Unusable::Authorities("a certificate in it can't be used as an authority"))?;
    }
    if roots.is_empty() {
        return Err(Unusable::Authorities(NONE_VALID));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let built = match &made_of.revocations {
        Some(lists) => builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration().build(),
        None => builder.build(),
    };
    built.map_err(|_unusable| Unusable::Revocations("a revocation list in it can't be used"))
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let now = UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        self.judge(&chain, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
