//! The grammar of a caller's name: one spelling each, and whatever else is refused with the reason.

use super::{Caller, LONGEST_CALLER};
use std::fmt;
use std::sync::Arc;

/// The one caller of a plaintext listener on loopback.
pub(super) const LOOPBACK: &str = "loopback";
/// What the name of a process's user stands behind.
pub(crate) const UNIX: &str = "unix:";
/// What a SPIFFE ID begins with.
pub(crate) const SPIFFE: &str = "spiffe://";
/// What a DNS name stands behind.
pub(crate) const DNS: &str = "dns:";
/// What the name of an issuer and a subject stand behind.
pub(crate) const JWT: &str = "jwt:";

/// The longest trust domain in bytes (SPIFFE ID §2.1).
const LONGEST_TRUST_DOMAIN: usize = 255;
/// The longest DNS name in bytes, and the longest of its labels (RFC 1035 §2.3.4, without the root).
const LONGEST_DNS_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// The longest name of an issuer in bytes.
const LONGEST_ISSUER: usize = 64;
/// The longest subject in bytes (`OpenID` Connect Core §2).
const LONGEST_SUBJECT: usize = 255;

/// Why a text names no caller. Holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Longer than any name may be.
    #[error("must be at most 2048 bytes long")]
    TooLong,
    /// None of the five kinds.
    #[error("must be loopback, or begin with unix:, spiffe://, dns: or jwt:")]
    Kind,
    /// Not a user's number as it is written.
    #[error("must be unix: and a user's number, in decimal and without leading zeros")]
    Uid,
    /// Not the scheme in lower case.
    #[error("must begin with spiffe://, in lower case")]
    Scheme,
    /// Not a trust domain; ports and user names are in none.
    #[error("must have a trust domain of 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// A trust domain and no more, which is nobody.
    #[error("must have a path behind its trust domain")]
    NoPath,
    /// An empty, `.` or `..` segment, or another character. Queries and fragments are of those.
    #[error("must have a path of segments of A-Z, a-z, 0-9, '.', '-' and '_', none of them empty, '.' or '..'")]
    Path,
    /// Not a host's name in lower case.
    #[error("must be a DNS name in lower case: labels of 1 to 63 of a-z, 0-9 and inner '-', and no address")]
    DnsName,
    /// Not the name of an issuer.
    #[error("must name an issuer with 1 to 64 of a-z, 0-9 and '-'")]
    Issuer,
    /// Not a subject that can be told in one line.
    #[error("must have a subject of 1 to 255 visible ASCII characters, none of them '*'")]
    Subject,
}

/// The name of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Box<str>);

/// A SPIFFE ID of a workload: a trust domain and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Box<str>,
    trust_domain: TrustDomain,
}

impl TrustDomain {
    /// Reads a name as it is.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let fits = (1..=LONGEST_TRUST_DOMAIN).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.into())) } else { Err(Invalid::TrustDomain) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    /// Reads an ID as it is (SPIFFE ID §2).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST_CALLER {
            return Err(Invalid::TooLong);
        }
        let rest = text.strip_prefix(SPIFFE).ok_or(Invalid::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (TrustDomain::parse(domain)?, path),
            None => return Err(TrustDomain::parse(rest).err().unwrap_or(Invalid::NoPath)),
        };
        if !path.split('/').all(is_path_segment) {
            return Err(Invalid::Path);
        }
        Ok(Self { text: text.into(), trust_domain: domain })
    }

    /// The ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl Caller {
    /// The workload of a SPIFFE ID.
    pub fn spiffe(id: &SpiffeId) -> Self {
        Self(Arc::from(id.as_str()))
    }

    /// The host of a DNS name.
    pub fn dns(name: &str) -> Result<Self, Invalid> {
        if is_dns_name(name) { Ok(Self([DNS, name].concat().into())) } else { Err(Invalid::DnsName) }
    }

    /// The user of a process at the other end of a Unix socket.
    pub fn unix(uid: u32) -> Self {
        Self(format!("{UNIX}{uid}").into())
    }

    /// Whom an issuer, by the name that the configuration gives it, vouches for.
    pub fn bearer(issuer: &str, subject: &str) -> Result<Self, Invalid> {
        if !is_issuer(issuer) {
            return Err(Invalid::Issuer);
        }
        if !is_subject(subject) {
            return Err(Invalid::Subject);
        }
        Ok(Self([JWT, issuer, ":", subject].concat().into()))
    }

    /// Reads a name as [`Caller::as_str`] gives it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST_CALLER {
            return Err(Invalid::TooLong);
        }
        if text == LOOPBACK {
            return Ok(Self::loopback());
        }
        if text.starts_with(SPIFFE) {
            return SpiffeId::parse(text).map(|id| Self::spiffe(&id));
        }
        if let Some(uid) = text.strip_prefix(UNIX) {
            return parse_uid(uid).map(Self::unix).ok_or(Invalid::Uid);
        }
        if let Some(name) = text.strip_prefix(DNS) {
            return Self::dns(name);
        }
        let rest = text.strip_prefix(JWT).ok_or(Invalid::Kind)?;
        let (issuer, subject) = rest.split_once(':').ok_or(Invalid::Subject)?;
        Self::bearer(issuer, subject)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A user's number in the one way that it is written.
fn parse_uid(text: &str) -> Option<u32> {
    let uid: u32 = text.parse().ok()?;
    (uid.to_string() == text).then_some(uid)
}

/// Whether a path of a SPIFFE ID may have this segment.
fn is_path_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

/// Whether the configuration may call an issuer so.
fn is_issuer(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=LONGEST_ISSUER).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_subject(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'*';
    (1..=LONGEST_SUBJECT).contains(&text.len()) && text.bytes().all(allowed)
}

/// A name whose last label is a number is an address, or taken for one.
fn is_dns_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= LONGEST_DNS_NAME && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests;
