//! What came of an attempt that brought no whole answer.

use super::head::Head;
use super::resolver::Refused;
use h2::Reason;
use std::error::Error as StdError;
use std::io;

/// No whole answer came. Whether there was an answer at all decides whether the attempt counts against the upstream's
/// limits, so the two are told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No status and headers came.
    #[error("no answer: {0}")]
    NoAnswer(Cause),
    /// Status and headers came, but not the whole body.
    #[error("answered with status {status}, but the body did not come: {1}", status = .0.status)]
    Body(Head, Cause),
}

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Cause {
    /// Our own rules forbid the URL, or every address that its host leads to. Nothing was sent.
    #[error("the host or its address may not be connected to")]
    Refused,
    /// The name has no address, or nobody could say.
    #[error("the host name could not be resolved")]
    Unresolved,
    /// No connection.
    #[error("could not connect")]
    Connect,
    /// A connection, but no TLS on it: an unknown issuer, a wrong name, an expired certificate.
    #[error("the TLS handshake failed")]
    Tls,
    /// The deadline came first.
    #[error("timed out")]
    Timeout,
    /// The connection ended in the middle.
    #[error("the connection was cut")]
    Interrupted,
    /// More than is read.
    #[error("too large")]
    TooLarge,
    /// Something came that is not HTTP, or against its rules.
    #[error("not understood as HTTP")]
    Garbled,
}

impl Cause {
    /// Sorts reqwest's errors; their text, which holds the URL, goes no further.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some(cause) = chain(error).find_map(specific).or_else(|| chain(error).find_map(of_a_body)) {
            cause
        } else if error.is_timeout() {
            Self::Timeout
        } else if error.is_dns() {
            Self::Unresolved
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Interrupted
        }
    }
}

/// The causes that only the innermost error knows.
fn specific(error: &(dyn StdError + 'static)) -> Option<Cause> {
    if error.is::<Refused>() {
        return Some(Cause::Refused);
    }
    if error.is::<rustls::Error>() {
        return Some(Cause::Tls);
    }
    if let Some(http2) = error.downcast_ref::<h2::Error>() {
        return of_http2(http2);
    }
    let hyper = error.downcast_ref::<hyper::Error>()?;
    if hyper.is_parse_too_large() {
        Some(Cause::TooLarge)
    } else if hyper.is_parse() {
        Some(Cause::Garbled)
    } else {
        None
    }
}

/// What our own side of HTTP/2 objected to. What the upstream called off is a cut, whatever reason it gave.
fn of_http2(error: &h2::Error) -> Option<Cause> {
    let reason = error.reason().filter(|_| error.is_library())?;
    match reason {
        // Past the window, or too many small pieces of headers or of a body.
        Reason::FLOW_CONTROL_ERROR | Reason::ENHANCE_YOUR_CALM => Some(Cause::TooLarge),
        _ => Some(Cause::Garbled),
    }
}

/// What hyper says of a chunked body that it reads no further: data that is over a limit, input that is no chunk.
fn of_a_body(error: &(dyn StdError + 'static)) -> Option<Cause> {
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::InvalidData => Some(Cause::TooLarge),
        io::ErrorKind::InvalidInput => Some(Cause::Garbled),
        _ => None,
    }
}

/// An error and what lies beneath. An `io::Error` leaves out the error it wraps, so that is looked up.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |outer: &&'a (dyn StdError + 'static)| {
        let outer: &'a (dyn StdError + 'static) = *outer;
        let wrapped = outer
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        wrapped.or_else(|| outer.source())
    })
    .take(16)
}
