//! What speaks to one kind of upstream: one exchange of a credential for a token.
//!
//! A provider makes exactly one attempt per call and classifies what came of it. It must not retry, cache, schedule or
//! know who asked: that is the engine's. It never lets an upstream's body out, in an error or a log.

pub mod emnify;

use crate::secret::AccessToken;
use crate::token::Presentation;
use futures_util::future::BoxFuture;
use std::fmt;
use std::time::Duration;

/// Exchanges the credential of one Workspace; made anew when its configuration or secret changes.
pub trait Provider: fmt::Debug + Send + Sync {
    /// One attempt. The caller bounds its time, and counts the lifetime from before this call.
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>>;
}

/// What a good answer holds.
#[derive(Debug)]
pub struct Fetched {
    /// The token.
    pub value: AccessToken,
    /// How it is presented.
    pub presentation: Presentation,
    /// How long it lives, counted from before the request was sent; see [`crate::lifetime`].
    pub lifetime: Duration,
}

/// What came of an attempt that brought no token. Cloned to every waiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct FetchError {
    /// What the engine decides by.
    pub kind: Failure,
    /// For the operator's log: our own words and numbers, never the upstream's body.
    pub detail: String,
}

/// The classes of failure that the engine tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No HTTP answer came: refused, reset, timed out. Costs no upstream budget.
    Unreachable,
    /// The upstream answered that it can't now (5xx and the like).
    Unavailable,
    /// The upstream asks for fewer requests (429), perhaps saying for how long.
    Throttled {
        /// `Retry-After`, where it was given.
        retry_after: Option<Duration>,
    },
    /// The credential is refused.
    Rejected,
    /// The account is locked after too many failures.
    LockedOut,
    /// The token is of another tenant than the Workspace's.
    TenantMismatch,
    /// A success that can't be understood, or an answer that fits no class.
    Malformed,
}

impl Failure {
    /// Whether the attempt reached the upstream and so counts against its limits.
    pub fn was_answered(self) -> bool {
        !matches!(self, Self::Unreachable)
    }

    /// The low-cardinality name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unavailable => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::Rejected => "rejected",
            Self::LockedOut => "locked_out",
            Self::TenantMismatch => "tenant_mismatch",
            Self::Malformed => "malformed",
        }
    }
}

impl FetchError {
    /// A failure of this kind, described in our own words.
    pub fn new(kind: Failure, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}
