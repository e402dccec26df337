//! Whom a client certificate names, and for how long. That it can be trusted is judged elsewhere.
//!
//! One name, or none:
//!
//! * **One URI** among the alternative names, and it is a SPIFFE ID: that is the caller. A second URI, or one that is
//!   anything else, and the certificate is refused. What else it holds (SPIRE adds DNS names if asked to) names nobody.
//! * **No URI** and exactly one DNS name: that is the caller. With several nobody can say which one is meant.
//! * The common name is never read, nor are addresses and mail addresses. No case is folded: a name in capitals is
//!   refused, and so is a wildcard.
//!
//! A certificate authority is no caller, and neither is a key that may not sign a handshake (X.509-SVID §4 and 5).

use super::{Caller, Invalid, SpiffeId, TrustDomain};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

/// Why a certificate names no caller. Holds nothing of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a certificate, or one with an extension that can't be read or stands there twice.
    #[error("the certificate can't be read")]
    Malformed,
    /// It may sign certificates or revocation lists.
    #[error("it is the certificate of an authority, not of a caller")]
    Authority,
    /// Its key usage leaves signatures out.
    #[error("its key may not sign a handshake: the key usage has no digitalSignature")]
    CannotSign,
    /// A common name does not count.
    #[error("it has neither a URI nor a DNS name among its alternative names")]
    Nameless,
    /// One too many.
    #[error("it has several URIs; a caller has one")]
    SeveralUris,
    /// One too many.
    #[error("it has several DNS names and no SPIFFE ID; which of them is meant can't be told")]
    SeveralDnsNames,
    /// A URI of another kind.
    #[error("its URI is not a SPIFFE ID: it {0}")]
    Uri(Invalid),
    /// A wildcard, capitals, an address.
    #[error("its DNS name can't be used: it {0}")]
    DnsName(Invalid),
    /// Not one of those that the listener takes.
    #[error("its SPIFFE ID is of another trust domain")]
    TrustDomain,
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A workload.
    Spiffe(SpiffeId),
    /// A host.
    Dns(Caller),
}

/// From when until when something counts, both included, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// `notBefore`, `thisUpdate`.
    pub from: SystemTime,
    /// `notAfter`, `nextUpdate`.
    pub until: SystemTime,
}

/// What has to be known of a certificate that is shown or trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// When it counts.
    pub period: Period,
    /// Whether it may sign certificates.
    pub authority: bool,
}

impl Name {
    /// The name in a certificate.
    pub fn of(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der)?;
        fit_for_a_caller(&certificate)?;
        let names = certificate.subject_alternative_name().map_err(|_unreadable| Error::Malformed)?;
        let names = names.as_ref().map_or(&[][..], |names| names.value.general_names.as_slice());
        choose(names)
    }

    /// The caller, if its SPIFFE ID is of one of these trust domains; none listed: of any. A host is of none.
    pub fn caller(self, trust_domains: &[TrustDomain]) -> Result<Caller, Error> {
        match self {
            Self::Spiffe(id) if trust_domains.is_empty() || trust_domains.contains(id.trust_domain()) => {
                Ok(Caller::spiffe(&id))
            }
            Self::Spiffe(_) => Err(Error::TrustDomain),
            Self::Dns(caller) => Ok(caller),
        }
    }
}

impl Period {
    /// Whether it has begun and has not ended.
    pub fn holds(self, now: SystemTime) -> bool {
        self.from <= now && !self.is_over(now)
    }

    /// Whether it has ended.
    pub fn is_over(self, now: SystemTime) -> bool {
        self.until < now
    }
}

impl Facts {
    /// Those of a certificate.
    pub fn of(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der)?;
        let constraints = certificate.basic_constraints().map_err(|_unreadable| Error::Malformed)?;
        let authority = constraints.is_some_and(|constraints| constraints.value.ca);
        let (from, until) = (&certificate.validity().not_before, &certificate.validity().not_after);
        Ok(Self { period: Period { from: moment(from), until: moment(until) }, authority })
    }
}

/// When a revocation list counts. `None`: it can't be read, or does not say until when it counts (RFC 5280 §5.1.2.5
/// wants it to).
pub fn period_of_revocations(der: &[u8]) -> Option<Period> {
    let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
    let until = list.next_update().filter(|_| rest.is_empty())?;
    Some(Period { from: moment(&list.last_update()), until: moment(&until) })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok((rest, certificate)) if rest.is_empty() => Ok(certificate),
        _ => Err(Error::Malformed),
    }
}

fn fit_for_a_caller(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let constraints = certificate.basic_constraints().map_err(|_unreadable| Error::Malformed)?;
    let usage = certificate.key_usage().map_err(|_unreadable| Error::Malformed)?;
    let signs_others = usage.as_ref().is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if signs_others || constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(Error::Authority);
    }
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(Error::CannotSign);
    }
    Ok(())
}

fn choose(names: &[GeneralName<'_>]) -> Result<Name, Error> {
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(host) => hosts.push(*host),
            // It may have been meant as a URI.
            GeneralName::Invalid(..) => return Err(Error::Malformed),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    match (uris.as_slice(), hosts.as_slice()) {
        ([uri], _) => SpiffeId::parse(uri).map(Name::Spiffe).map_err(Error::Uri),
        ([], [host]) => Caller::dns(host).map(Name::Dns).map_err(Error::DnsName),
        ([], []) => Err(Error::Nameless),
        ([], _) => Err(Error::SeveralDnsNames),
        _ => Err(Error::SeveralUris),
    }
}

/// A time before 1970 is as good as 1970.
fn moment(time: &ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
