//! What stands between a client and a broker, in words that say what to do.

use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};
use std::time::{Duration, UNIX_EPOCH};
use std::{error, fmt, io, iter};

/// How many names of a certificate are told.
const NAMES_TOLD: usize = 5;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The host is there, and nobody listens on the port.
    NobodyListens,
    /// There is no such socket.
    NoSocket,
    /// The socket's mode, or that of a directory above it, keeps this user out.
    SocketForbidden,
    /// TLS was spoken to something that speaks none.
    NoTls,
    /// Plaintext was spoken to something that speaks TLS.
    TlsSpoken,
    /// TLS, but no HTTP/2 over it.
    NoHttp2,
    /// The handshake was cut, and nobody said why.
    HandshakeCut,
    /// The handshake was done on this side, and then it was cut before anything was said.
    CutAfterHandshake,
    /// The broker's certificate is not to be trusted.
    Untrusted(Distrust),
    /// The broker objects to the client's certificate, or to its absence.
    ClientRefused(Objection),
    /// The handshake failed in another way; our own side's words.
    Handshake(String),
    /// Anything else: no such name, no way there, no answer.
    NoConnection,
}

/// What is wrong with the broker's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// No trusted authority has signed it.
    UnknownAuthority,
    /// It is for others.
    Name {
        /// The name that was asked for.
        asked: String,
        /// The names that it holds.
        holds: Vec<String>,
    },
    /// It has ended.
    Expired {
        /// When, in seconds since 1970.
        at: u64,
    },
    /// It has not begun.
    NotYet {
        /// When it begins, in seconds since 1970.
        at: u64,
    },
    /// Something else; our own side's words.
    Other(String),
}

/// What a broker objects to, as its alert says (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// There is none.
    Missing,
    /// No authority that the broker trusts has signed it.
    UnknownAuthority,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
    /// Something else about it.
    Unfit,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// This user may not read it.
    Forbidden,
    /// It can't be read.
    Unreadable(io::ErrorKind),
    /// It is larger than is read.
    TooLarge {
        /// That many bytes.
        limit: usize,
    },
    /// It holds no certificate.
    NoCertificate,
    /// It holds no private key.
    NoKey,
    /// It is the key of another certificate.
    Mismatch,
    /// It is empty.
    Empty,
    /// It holds more than one word.
    NoToken,
}

// === impl Why ===

impl Why {
    /// Why there is no connection over TCP.
    pub(super) fn of(error: &(dyn error::Error + 'static)) -> Self {
        let mut found = chain(error).filter_map(|error| error.downcast_ref::<io::Error>());
        let refused = found.any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused { Self::NobodyListens } else { Self::NoConnection }
    }

    /// Why a Unix socket can't be connected to.
    pub(super) fn of_socket(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoSocket,
            io::ErrorKind::PermissionDenied => Self::SocketForbidden,
            io::ErrorKind::ConnectionRefused => Self::NobodyListens,
            _ => Self::NoConnection,
        }
    }

    /// Why a handshake failed.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        Self::of_tls(error).unwrap_or(Self::HandshakeCut)
    }

    /// What TLS has to say to a failure.
    pub(super) fn of_tls(error: &io::Error) -> Option<Self> {
        let tls = chain(error).find_map(|error| error.downcast_ref::<TlsError>())?;
        Some(match tls {
            TlsError::InvalidCertificate(what) => Self::Untrusted(Distrust::of(what)),
            TlsError::AlertReceived(alert) => Self::of_alert(*alert),
            // What is no TLS record at all.
            TlsError::InvalidMessage(_) => Self::NoTls,
            TlsError::NoApplicationProtocol => Self::NoHttp2,
            other => Self::Handshake(other.to_string()),
        })
    }

    fn of_alert(alert: Alert) -> Self {
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => Self::ClientRefused(Objection::Missing),
            Alert::UnknownCA => Self::ClientRefused(Objection::UnknownAuthority),
            Alert::CertificateExpired => Self::ClientRefused(Objection::Expired),
            Alert::CertificateRevoked => Self::ClientRefused(Objection::Revoked),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError => Self::ClientRefused(Objection::Unfit),
            Alert::NoApplicationProtocol => Self::NoHttp2,
            other => Self::Handshake(format!("the other side says {other:?}")),
        }
    }

    /// Whether it may go well the next time, without anybody changing anything.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::NobodyListens
            | Self::NoSocket
            | Self::HandshakeCut
            | Self::CutAfterHandshake
            | Self::Handshake(_)
            | Self::NoConnection => true,
            Self::SocketForbidden
            | Self::NoTls
            | Self::TlsSpoken
            | Self::NoHttp2
            | Self::Untrusted(_)
            | Self::ClientRefused(_) => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NobodyListens => "nobody listens there; it is not running, or it drains and lets nobody in any more",
            Self::NoSocket => "there is no such socket; is the path right, and is the broker running?",
            Self::SocketForbidden => "this user may not use the socket; its mode and its directory's say who may",
            Self::NoTls => "no TLS is spoken there; is it an http:// endpoint, or another port?",
            Self::TlsSpoken => "TLS is spoken there; use https://",
            Self::NoHttp2 => "TLS is spoken there, but no HTTP/2 over it; is this the gRPC address of a broker?",
            Self::HandshakeCut => "it was closed in the middle of the TLS handshake; is TLS spoken there?",
            Self::CutAfterHandshake => {
                "it was closed right after the TLS handshake; does it want a client certificate (--cert, --key), or \
                 another one?"
            }
            Self::Untrusted(distrust) => return distrust.fmt(f),
            Self::ClientRefused(objection) => return objection.fmt(f),
            Self::Handshake(words) => return write!(f, "the TLS handshake failed: {words}"),
            Self::NoConnection => "there is no connection; is the address right, and the way there open?",
        })
    }
}

// === impl Distrust ===

impl Distrust {
    fn of(error: &CertificateError) -> Self {
        match error {
            // The latter: of an authority that has the name of a trusted one, such as the one after it.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::Name { asked: expected.to_str().into_owned(), holds: presented.clone() }
            }
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired { at: not_after.as_secs() },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYet { at: not_before.as_secs() },
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |seconds: u64| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
        match self {
            Self::UnknownAuthority => f.write_str(
                "its certificate is of an unknown authority; --ca names the file of those to trust, and is it up to \
                 date?",
            ),
            Self::Name { asked, holds } => {
                let told: Vec<&str> = holds.iter().take(NAMES_TOLD).map(|name| bare(name)).collect();
                let told = if told.is_empty() { "no name".to_owned() } else { told.join(", ") };
                write!(f, "its certificate is not for {asked}, but holds {told}; --server-name asks for another name")
            }
            Self::Expired { at: seconds } => write!(f, "its certificate expired at {}", at(*seconds)),
            Self::NotYet { at: seconds } => {
                write!(f, "its certificate begins at {} only; is this machine's clock right?", at(*seconds))
            }
            Self::Other(words) => write!(f, "its certificate is not to be trusted: {words}"),
        }
    }
}

/// `localhost` of rustls's `DnsName("localhost")`.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_kind, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it wants a client certificate; --cert and --key name the files of one",
            Self::UnknownAuthority => "it does not know the authority of the client certificate in --cert",
            Self::Expired => "it says that the client certificate in --cert has expired",
            Self::Revoked => "it says that the client certificate in --cert was revoked",
            Self::Unfit => "it does not accept the client certificate in --cert",
        })
    }
}

// === impl Flaw ===

impl Flaw {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            other => Self::Unreadable(other),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no such file",
            Self::Forbidden => "this user may not read it",
            Self::Unreadable(kind) => return write!(f, "can't be read: {kind}"),
            Self::TooLarge { limit } => return write!(f, "is larger than {limit} bytes"),
            Self::NoCertificate => "holds no certificate in PEM form that can be read",
            Self::NoKey => "holds no private key in PEM form that can be used",
            Self::Mismatch => "is not the key of the certificate in --cert",
            Self::Empty => "is empty",
            Self::NoToken => "holds something else than one token of visible characters",
        })
    }
}

/// An error and what lies beneath. An `io::Error` leaves out the error it wraps, so that is looked up.
pub(super) fn chain<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    iter::successors(Some(error), |outer: &&'a (dyn error::Error + 'static)| {
        let outer: &'a (dyn error::Error + 'static) = *outer;
        let wrapped = outer.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn error::Error + 'static)).or_else(|| outer.source())
    })
    .take(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_tells_who_keeps_one_out() {
        let table = [
            (io::ErrorKind::NotFound, Why::NoSocket),
            (io::ErrorKind::NotADirectory, Why::NoSocket),
            (io::ErrorKind::PermissionDenied, Why::SocketForbidden),
            (io::ErrorKind::ConnectionRefused, Why::NobodyListens),
            (io::ErrorKind::TimedOut, Why::NoConnection),
        ];
        for (kind, why) in table {
            assert_eq!(Why::of_socket(&kind.into()), why, "{kind}");
        }
        let words = Why::SocketForbidden.to_string();
        assert_eq!(words, "this user may not use the socket; its mode and its directory's say who may");
    }

    #[test]
    fn an_alert_tells_what_the_broker_objects_to() {
        let table = [
            (Alert::CertificateRequired, "it wants a client certificate; --cert and --key name the files of one"),
            (Alert::UnknownCA, "it does not know the authority of the client certificate in --cert"),
            (Alert::CertificateExpired, "it says that the client certificate in --cert has expired"),
            (Alert::CertificateRevoked, "it says that the client certificate in --cert was revoked"),
            (Alert::BadCertificate, "it does not accept the client certificate in --cert"),
            (Alert::ProtocolVersion, "the TLS handshake failed: the other side says ProtocolVersion"),
        ];
        for (alert, words) in table {
            let error = io::Error::new(io::ErrorKind::InvalidData, TlsError::AlertReceived(alert));
            assert_eq!(Why::of_handshake(&error).to_string(), words, "{alert:?}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_told() {
        let words = Flaw::of(&io::ErrorKind::PermissionDenied.into()).to_string();
        assert_eq!(words, "this user may not read it");
        assert_eq!(Flaw::of(&io::ErrorKind::IsADirectory.into()).to_string(), "can't be read: is a directory");
    }

    #[test]
    fn few_names_are_told_and_bare() {
        let of = |holds: &[&str]| {
            let holds = holds.iter().map(|&name| name.to_owned()).collect();
            Distrust::Name { asked: "a".to_owned(), holds }.to_string()
        };
        assert!(of(&[]).contains(" holds no name;"));
        let many = ["DnsName(\"b\")", "IpAddress(10.0.0.1)", "c", "d", "e", "f"];
        assert!(of(&many).contains(" holds b, 10.0.0.1, c, d, e;"), "{}", of(&many));
    }
}
