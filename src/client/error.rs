//! Why a client has no answer.

use std::fmt::Write as _;
use std::time::Duration;
use std::{error, fmt, io, iter};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error("{0:?} is not an address such as http://127.0.0.1:7700")]
    Endpoint(String),
    /// Another scheme than http: nobody must believe that the token travels encrypted.
    #[error("{0:?} is not an http:// address; the broker speaks plaintext, on loopback")]
    Scheme(String),
    /// Nobody answers there.
    #[error("can't reach the broker at {endpoint}: {why}")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// What is known of the cause.
        why: Why,
    },
    /// The wait is over.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// No broker takes such a `min_validity`.
    #[error("min_validity must be at most ten years")]
    MinValidity,
    /// The broker says no.
    #[error("{text}")]
    Refused {
        /// The broker's words.
        text: String,
        /// Whether the same request may succeed later.
        passes: bool,
    },
    /// The broker's answer lacks something that it must hold.
    #[error("the broker's answer holds no token")]
    Incomplete,
    /// The stream is over, and nobody said why.
    #[error("the broker ended the stream")]
    Ended,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The host is there, and nobody listens on the port.
    NobodyListens,
    /// Anything else: no such name, no way there, no answer.
    NoConnection,
}

impl Why {
    pub(super) fn of(error: &(dyn error::Error + 'static)) -> Self {
        let mut chain = iter::successors(Some(error), |error| error.source());
        let is_refusal = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let refused = chain.any(|error| error.downcast_ref().is_some_and(is_refusal));
        if refused { Self::NobodyListens } else { Self::NoConnection }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NobodyListens => "nobody listens there; it is not running, or it drains and lets nobody in any more",
            Self::NoConnection => "there is no connection; is the address right, and the way there open?",
        })
    }
}

impl Error {
    /// Whether the same request may succeed later, without anybody changing it.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) | Self::Ended => true,
            Self::Refused { passes, .. } => *passes,
            Self::Endpoint(_) | Self::Scheme(_) | Self::MinValidity | Self::Incomplete => false,
        }
    }
}

/// The broker's words, with the reason that programs go by and when to try again.
pub(super) fn refused(status: &Status) -> Error {
    let mut text = format!("{:?}", status.code());
    if let Some(info) = status.get_details_error_info() {
        // Writing to a String can't fail.
        let _infallible = write!(text, " ({})", info.reason);
    }
    let _infallible = write!(text, ": {}", status.message());
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        let _infallible = write!(text, "; try again in {:.1} s", delay.as_secs_f64().max(0.1));
    }
    if status.code() == Code::Unimplemented {
        text.push_str("; is this the gRPC address of a token-broker?");
    }
    if is_no_answer(status) {
        text = format!(
            "no gRPC answer came ({text}); this looks like no gRPC address of a broker, but like that of its probes or \
             of something else, unless the broker has just ended"
        );
    }
    Error::Refused { text, passes: passes(status.code()) }
}

/// Whether this is what our own end makes of a connection that breaks off, or on which something else is spoken: the
/// broker never answers so.
fn is_no_answer(status: &Status) -> bool {
    match status.code() {
        Code::Unknown | Code::Cancelled => true,
        Code::Internal => error::Error::source(status).is_some(),
        _ => false,
    }
}

/// A connection that breaks off is told as one of several codes, so what is listed is what does not pass.
fn passes(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}
