//! What a caller may learn of a failure. Pure; knows nothing of gRPC.
//!
//! Messages are constant per reason: no secret, no upstream body, nothing that a caller without a right could use.

use std::borrow::Cow;
use std::time::Duration;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.message())]
pub struct Error {
    /// What went wrong, in a closed list.
    pub reason: Reason,
    /// When trying again makes sense. Present exactly for the reasons that ask for it.
    pub retry_after: Option<Duration>,
    /// For [`Reason::RequestInvalid`]: the field and what is wrong with it.
    pub violation: Option<Violation>,
}

/// A field of a request that does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, as the proto names it; one of several as `workspaces[1]`, counted from 0.
    pub field: Cow<'static, str>,
    /// What is wrong with it.
    pub description: String,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $message:literal;)+) => {
        /// Why a call failed: the `reason` of `google.rpc.ErrorInfo`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the table in `docs/errors.md`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The text that callers read.
            pub fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }
        }
    };
}

reasons! {
    /// A malformed request.
    RequestInvalid, "REQUEST_INVALID", "the request is not valid";
    /// There is no proof of who the caller is, or one that is of no use, or one too many.
    CallerUnauthenticated, "CALLER_UNAUTHENTICATED", "the caller could not be authenticated";
    /// Whether the proof is good can't be told now: the keys of its issuer are not there.
    CallerUnverifiable, "CALLER_UNVERIFIABLE", "the caller's token can't be verified now";
    /// Policy says no, or would say no if the name existed.
    CallerForbidden, "CALLER_FORBIDDEN", "the caller may not do this";
    /// Policy would allow it, but there is no such Workspace.
    WorkspaceUnknown, "WORKSPACE_UNKNOWN", "no such workspace";
    /// An operator froze the Workspace.
    WorkspaceFrozen, "WORKSPACE_FROZEN", "the workspace is frozen by an operator";
    /// The upstream refuses the Workspace's credential.
    CredentialRejected, "CREDENTIAL_REJECTED",
        "the upstream rejects the workspace's credential; an operator must replace it";
    /// The upstream's token is for another tenant than the Workspace is configured for.
    TenantMismatch, "TENANT_MISMATCH",
        "the upstream answered with a token of another tenant; an operator must check the credential";
    /// More validity was asked for than the upstream ever gives.
    LifetimeUnsatisfiable, "LIFETIME_UNSATISFIABLE", "the upstream never gives a token that lives that long";
    /// Too many wait for this Workspace already, too much is watched, or the caller forced too many exchanges.
    CallerThrottled, "CALLER_THROTTLED", "too many calls; try again later";
    /// There is no token yet; the exchange that brings one is under way. Told to watchers only: calls wait.
    TokenPending, "TOKEN_PENDING", "no token yet; one is on its way";
    /// The upstream can't be reached, fails or does not answer in time.
    UpstreamUnavailable, "UPSTREAM_UNAVAILABLE", "the upstream is unavailable";
    /// The upstream, or the budget kept for it, allows no exchange now.
    UpstreamThrottled, "UPSTREAM_THROTTLED", "the upstream allows no further exchange now";
    /// A newer token than the last one was asked for too soon after it.
    RenewalTooSoon, "RENEWAL_TOO_SOON",
        "the token was renewed moments ago; ask again later or with a smaller min_validity";
    /// A token was reported as rejected too often.
    ReportThrottled, "REPORT_THROTTLED", "too many reports";
    /// The upstream gave the reported token once more.
    TokenStillRejected, "TOKEN_STILL_REJECTED", "the upstream gave the same token again";
    /// An answer that can't be understood.
    UpstreamMalformed, "UPSTREAM_MALFORMED", "the upstream's answer can't be understood";
    /// The record of who gets which token can't be kept, and no token leaves without one.
    AuditUnavailable, "AUDIT_UNAVAILABLE", "the audit record can't be written; no token leaves without one";
    /// The broker is shutting down, or a stream's connection has reached its age.
    Draining, "DRAINING", "the broker is shutting down, or this connection has reached its age";
    /// The caller's own deadline came first; the exchange goes on.
    Deadline, "DEADLINE", "the deadline came before an answer; the exchange goes on";
    /// Anything else, and panics.
    Bug, "BUG", "internal error";
}

impl Error {
    /// A failure that only an operator, or the caller itself, can mend.
    pub fn new(reason: Reason) -> Self {
        Self { reason, retry_after: None, violation: None }
    }

    /// A failure that may be gone after `delay`.
    pub fn retry(reason: Reason, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..Self::new(reason) }
    }

    /// A request whose `field` is wrong.
    pub fn invalid(field: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), description: description.into() };
        Self { violation: Some(violation), ..Self::new(Reason::RequestInvalid) }
    }
}
