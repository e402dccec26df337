//! The error answers of RFC 6749 §5.2, with `invalid_target` of RFC 8693.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Error {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    InvalidTarget,
}

impl Error {
    fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
        }
    }
}

/// Why there is no token. The description is fixed text: it never repeats what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: Error,
    pub(super) description: &'static str,
    challenge: Challenge,
}

/// Whether the answer asks for Basic, as it must where the client has tried by a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Challenge {
    Absent,
    Basic,
}

impl Refusal {
    pub(super) fn new(error: Error, description: &'static str) -> Self {
        Self { error, description, challenge: Challenge::Absent }
    }

    /// `invalid_client` for one that came with an `Authorization` header.
    pub(super) fn challenged(description: &'static str) -> Self {
        Self { error: Error::InvalidClient, description, challenge: Challenge::Basic }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.error {
            Error::InvalidClient => StatusCode::UNAUTHORIZED,
            Error::InvalidRequest
            | Error::InvalidGrant
            | Error::UnauthorizedClient
            | Error::UnsupportedGrantType
            | Error::InvalidScope
            | Error::InvalidTarget => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.error.name(), "error_description": self.description });
        match self.challenge {
            Challenge::Absent => (status, Json(body)).into_response(),
            Challenge::Basic => {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"sandbox\", charset=\"UTF-8\"")];
                (status, challenge, Json(body)).into_response()
            }
        }
    }
}
