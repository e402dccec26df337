//! Who asks. Pure.
//!
//! A caller's name is one text in one spelling, so that names are compared and never interpreted: `loopback`,
//! `unix:<uid>`, `spiffe://<trust domain>/<path>`, `dns:<name>`, `jwt:<issuer>:<subject>`. What does not fit is
//! refused, never mended.

pub mod certificate;
pub mod headers;
mod name;
pub mod xfcc;

pub(crate) use name::{DNS, JWT, SPIFFE, UNIX};
pub use name::{Invalid, SpiffeId, TrustDomain};

use crate::error::Error;
use futures_util::future::BoxFuture;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

/// The longest name of a caller in bytes: a SPIFFE ID may have 2,048 (SPIFFE ID §2.3), and so may no other.
pub const LONGEST_CALLER: usize = 2048;

/// The authenticated identity of who asks. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller(Arc<str>);

/// What a caller showed on a channel or with a request, and for how long it counts.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Who it is.
    pub caller: Caller,
    /// Why that is believed.
    pub evidence: Arc<dyn Evidence>,
}

/// Why a caller is believed to be who it is. Kept by whatever outlives the moment in which it was judged: a connection,
/// a stream.
pub trait Evidence: fmt::Debug + Send + Sync {
    /// Whether it still counts, by the certificates, revocation lists and keys that are trusted now. Cheap enough to be
    /// asked on every call.
    fn holds(&self, now: SystemTime) -> bool;

    /// When it ends by itself: a certificate's `notAfter`, a bearer's `exp`.
    fn ends(&self) -> Option<SystemTime>;
}

/// The evidence of a channel that is what it is until it closes: loopback, a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct Channel;

impl Evidence for Channel {
    fn holds(&self, _now: SystemTime) -> bool {
        true
    }

    fn ends(&self) -> Option<SystemTime> {
        None
    }
}

/// Judges the tokens that callers show with their requests.
pub trait Bearer: fmt::Debug + Send + Sync {
    /// Who shows this token: what stands behind `Bearer ` in the one `authorization` header of a request.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Error>>;
}

impl Authenticated {
    /// Whether it still counts, and has not ended by itself.
    pub fn is_believed(&self, now: SystemTime) -> bool {
        self.evidence.ends().is_none_or(|ends| now < ends) && self.evidence.holds(now)
    }

    /// The user of a process at the other end of a Unix socket.
    pub fn unix(uid: u32) -> Self {
        Self { caller: Caller::unix(uid), evidence: Arc::new(Channel) }
    }

    /// Whoever reaches a plaintext listener on loopback: one caller, since nothing tells them apart.
    pub fn loopback() -> Self {
        Self { caller: Caller::loopback(), evidence: Arc::new(Channel) }
    }
}

impl Caller {
    /// The one caller of plaintext listeners on loopback.
    pub fn loopback() -> Self {
        Self(Arc::from(name::LOOPBACK))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.0)
    }
}
