//! Why a client has no answer.

use super::why::{Flaw, Why, chain};
use std::error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error(
        "{0:?} is not an address such as http://127.0.0.1:7700, https://broker.example:7800 or unix:/run/broker.sock"
    )]
    Endpoint(String),
    /// Another scheme than these.
    #[error("{0:?} is neither an http:// nor an https:// address, nor a unix: one")]
    Scheme(String),
    /// A password, perhaps, so it is not quoted.
    #[error("the endpoint holds a user name or a password, which no broker asks for; see --token-file")]
    UserInfo,
    /// What the broker's certificate shall hold is none.
    #[error("{0:?} is no name that a certificate can hold: a DNS name or an IP address")]
    ServerName(String),
    /// An option of TLS for an endpoint without TLS: nobody must believe that the token travels encrypted.
    #[error("{option} is of no use with {endpoint}: only an https:// endpoint is encrypted")]
    NotEncrypted {
        /// The option.
        option: &'static str,
        /// The address.
        endpoint: String,
    },
    /// A bearer token on a way that others can read.
    #[error(
        "everybody on the way to {0} could read the token of --token-file, and act with it; use https://, or say \
         --plaintext-lets-the-network-read-tokens"
    )]
    BearerInTheClear(String),
    /// A file that is to be shown or trusted.
    #[error("{option} {}: {flaw}", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// TLS can't be set up on this side.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
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
        /// Its code.
        code: Code,
    },
    /// The broker's answer lacks something that it must hold.
    #[error("the broker's answer holds no token")]
    Incomplete,
    /// The stream is over, and nobody said why.
    #[error("the broker ended the stream")]
    Ended,
}

impl Error {
    /// Whether the same request may succeed later, without anybody changing it.
    pub fn passes(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Ended => true,
            Self::Unreachable { why, .. } => why.passes(),
            Self::Refused { code, .. } => passes(*code),
            Self::Endpoint(_)
            | Self::Scheme(_)
            | Self::UserInfo
            | Self::ServerName(_)
            | Self::NotEncrypted { .. }
            | Self::BearerInTheClear(_)
            | Self::File { .. }
            | Self::Tls(_)
            | Self::MinValidity
            | Self::Incomplete => false,
        }
    }

    /// Whether it is about what this side shows or trusts, or about the broker's certificate: files that are renewed.
    /// To whom was let in before, the next ones may open again.
    pub fn is_of_credentials(&self) -> bool {
        match self {
            Self::File { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => *code == Code::Unauthenticated,
            _ => false,
        }
    }

    /// Whether the options contradict each other.
    pub fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::ServerName(_) | Self::NotEncrypted { .. } | Self::BearerInTheClear(_))
    }

    /// What made the transport fail, if it was one of ours.
    pub(super) fn within(error: &(dyn error::Error + 'static)) -> Option<Self> {
        chain(error).find_map(|error| error.downcast_ref::<Self>()).cloned()
    }
}

/// The broker's words, with the reason that programs go by and when to try again.
pub(super) fn refused(status: &Status) -> Error {
    // A connection that had to be made anew, and was not.
    if let Some(error) = Error::within(status) {
        return error;
    }
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
    Error::Refused { text, code: status.code() }
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
