//! What may come of an exchange instead of a token: the classes that the engine decides by. Pure.

use std::time::Duration;

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
