//! `x-forwarded-client-cert`: what an Envoy says of the certificate that its own client showed.
//!
//! Elements stand between `,`, one per proxy on the way; an element is pairs `key=value` between `;`, and a value that
//! holds one of `,;="` stands in double quotes, in which `\` takes the next character as it is. Exactly one element is
//! taken: with two, one is of a proxy that nobody knows. Who it names is judged as a certificate is.

use super::{Caller, SpiffeId, TrustDomain};

/// The longest header that is read, in bytes: a chain of certificates as text does not fit, and is not wanted.
const LONGEST: usize = 8 * 1024;
/// The most pairs of an element.
const MOST_PAIRS: usize = 64;

/// Why a header names no caller. Holds nothing of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbelievable {
    /// More than 8 KiB, or more than 64 pairs.
    #[error("it is too long")]
    TooLong,
    /// Not pairs, or with characters that belong into quotes, or quotes that don't end.
    #[error("it is not written as Envoy writes it")]
    Malformed,
    /// More than one element: there is another proxy on the way.
    #[error("it has more than one element")]
    Elements,
    /// Neither one URI nor one DNS name.
    #[error("it does not name exactly one URI, or exactly one DNS name and no URI")]
    Names,
    /// The URI is no SPIFFE ID, or the DNS name is no name.
    #[error("the name in it is no SPIFFE ID and no DNS name")]
    Name,
    /// Not of a trust domain that the listener is for.
    #[error("the SPIFFE ID in it is of another trust domain")]
    TrustDomain,
}

/// Who the one element of a header is about: exactly one URI, which must be a SPIFFE ID; without any, exactly one DNS
/// name. Empty `trust_domains`: any.
pub fn caller(header: &[u8], trust_domains: &[TrustDomain]) -> Result<Caller, Unbelievable> {
    let (mut uris, mut names) = (Vec::new(), Vec::new());
    for (key, value) in pairs(header)? {
        if key.eq_ignore_ascii_case("uri") {
            uris.push(value);
        } else if key.eq_ignore_ascii_case("dns") {
            names.push(value);
        }
    }
    // Envoy writes `URI=` where the certificate has none. It does not escape names: beside that a second URI comes from
    // within another name.
    if uris == [""] {
        uris.clear();
    }
    match (uris.as_slice(), names.as_slice()) {
        ([uri], _) => {
            let id = SpiffeId::parse(uri).map_err(|_invalid| Unbelievable::Name)?;
            if trust_domains.is_empty() || trust_domains.contains(id.trust_domain()) {
                Ok(Caller::spiffe(&id))
            } else {
                Err(Unbelievable::TrustDomain)
            }
        }
        ([], [name]) => Caller::dns(name).map_err(|_invalid| Unbelievable::Name),
        ([] | [_, _, ..], _) => Err(Unbelievable::Names),
    }
}

/// The pairs of the one element, in their order.
fn pairs(header: &[u8]) -> Result<Vec<(String, String)>, Unbelievable> {
    if header.len() > LONGEST {
        return Err(Unbelievable::TooLong);
    }
    if !header.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Unbelievable::Malformed);
    }
    let mut rest = header.iter().map(|byte| char::from(*byte)).peekable();
    let mut pairs = Vec::new();
    loop {
        let key = key(&mut rest)?;
        let (value, end) = if rest.next_if_eq(&'"').is_some() { quoted(&mut rest)? } else { bare(&mut rest)? };
        pairs.push((key, value));
        match end {
            None => return Ok(pairs),
            Some(',') => return Err(Unbelievable::Elements),
            Some(_) if pairs.len() == MOST_PAIRS => return Err(Unbelievable::TooLong),
            Some(_) => {}
        }
    }
}

/// Letters, up to `=`.
fn key(rest: &mut impl Iterator<Item = char>) -> Result<String, Unbelievable> {
    let mut key = String::new();
    for next in rest {
        match next {
            '=' if !key.is_empty() => return Ok(key),
            letter if letter.is_ascii_alphabetic() => key.push(letter),
            // Also where an element is empty: a second one that says nothing is one.
            ',' => return Err(Unbelievable::Elements),
            _ => return Err(Unbelievable::Malformed),
        }
    }
    Err(Unbelievable::Malformed)
}

/// Up to `;`, `,` or the end, which is given too.
fn bare(rest: &mut impl Iterator<Item = char>) -> Result<(String, Option<char>), Unbelievable> {
    let mut value = String::new();
    for next in rest {
        match next {
            ';' | ',' => return Ok((value, Some(next))),
            // In a query of a URI, which no name has; a space is in none either.
            '=' | '"' | '\\' | ' ' => return Err(Unbelievable::Malformed),
            other => value.push(other),
        }
    }
    Ok((value, None))
}

/// Up to the quotation mark that ends it, and what stands behind that.
fn quoted(rest: &mut impl Iterator<Item = char>) -> Result<(String, Option<char>), Unbelievable> {
    let mut value = String::new();
    while let Some(next) = rest.next() {
        match next {
            '\\' => value.push(rest.next().ok_or(Unbelievable::Malformed)?),
            '"' => {
                return match rest.next() {
                    end @ (None | Some(';' | ',')) => Ok((value, end)),
                    Some(_) => Err(Unbelievable::Malformed),
                };
            }
            other => value.push(other),
        }
    }
    Err(Unbelievable::Malformed)
}

#[cfg(test)]
mod tests;
