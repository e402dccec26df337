//! What a failure looks like on the wire: the only place that turns an [`Error`] into a gRPC status.
//!
//! Messages are constant per reason; the details are `google.rpc.ErrorInfo`, `RetryInfo` and `BadRequest`.

use crate::error::{Error, Reason};
use std::collections::HashMap;
use std::fmt::Write as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "token-broker";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason.as_str(), DOMAIN, HashMap::new());
        if let Some(delay) = error.retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some(violation) = &error.violation {
            details.add_bad_request_violation(violation.field.as_ref(), &violation.description);
        }
        let message = match &error.violation {
            Some(violation) => format!("{}: {}", violation.field, violation.description),
            None => error.to_string(),
        };
        Self::with_error_details(code(error.reason), message, details)
    }
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::RequestInvalid => Code::InvalidArgument,
        Reason::CallerUnauthenticated => Code::Unauthenticated,
        Reason::CallerForbidden => Code::PermissionDenied,
        Reason::WorkspaceUnknown => Code::NotFound,
        Reason::WorkspaceFrozen
        | Reason::CredentialRejected
        | Reason::TenantMismatch
        | Reason::LifetimeUnsatisfiable => Code::FailedPrecondition,
        Reason::CallerThrottled | Reason::ReportThrottled => Code::ResourceExhausted,
        Reason::TokenPending
        | Reason::UpstreamUnavailable
        | Reason::UpstreamThrottled
        | Reason::RenewalTooSoon
        | Reason::TokenStillRejected
        | Reason::AuditUnavailable
        | Reason::CallerUnverifiable
        | Reason::Draining => Code::Unavailable,
        Reason::Deadline => Code::DeadlineExceeded,
        Reason::UpstreamMalformed | Reason::Bug => Code::Internal,
    }
}

/// The table in `docs/errors.md`.
pub fn error_table() -> String {
    let mut table = String::from("| Reason | Code | Message |\n|---|---|---|\n");
    for reason in Reason::ALL {
        // Writing to a String can't fail.
        let _infallible = writeln!(table, "| `{}` | {} | {} |", reason.as_str(), name(code(*reason)), reason.message());
    }
    table
}

/// The code as the gRPC specification writes it.
fn name(code: Code) -> String {
    let camel = format!("{code:?}");
    let mut upper = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !upper.is_empty() {
            upper.push('_');
        }
        upper.push(letter.to_ascii_uppercase());
    }
    upper
}
