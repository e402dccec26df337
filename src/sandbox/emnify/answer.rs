//! The answers of the simulated emnify, in the shapes that were documented or recorded.

use crate::sandbox::jwt::Refusal;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// What is wrong, in emnify's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    Forbidden,
    TooManyRequests,
    NotFound,
    InvalidQuery,
    InputValidationFailed,
    Required,
    InvalidFormat,
    NotAllowed,
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Self::BadRequest => 1000,
            Self::Forbidden => 1104,
            Self::TooManyRequests => 1105,
            Self::NotFound => 1201,
            Self::InvalidQuery => 1301,
            Self::InputValidationFailed => 1400,
            Self::Required => 1402,
            Self::InvalidFormat => 1403,
            Self::NotAllowed => 1406,
        }
    }

    fn token(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Forbidden => "Forbidden",
            Self::TooManyRequests => "TooManyRequests",
            Self::NotFound => "NotFound",
            Self::InvalidQuery => "InvalidQuery",
            Self::InputValidationFailed => "InputValidationFailed",
            Self::Required => "Required",
            Self::InvalidFormat => "InvalidFormat",
            Self::NotAllowed => "NotAllowed",
        }
    }

    fn body(self, message: &str) -> Value {
        json!({
            "error_code": self.number(),
            "error_token": self.token(),
            "message": message,
        })
    }
}

/// JSON as the Express backend sends it.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let content_type = HeaderValue::from_static("application/json; charset=utf-8");
            (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A status and nothing else: no body, no content type.
pub(super) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// The documented error shape.
pub(super) fn error(status: StatusCode, code: Code, message: &str) -> Response {
    json(status, &code.body(message))
}

/// The documented shape of a failed validation: `errors` says which field.
pub(super) fn invalid(status: StatusCode, code: Code, message: &str) -> Response {
    let mut body = Code::InputValidationFailed.body("Input validation failed");
    if let Some(fields) = body.as_object_mut() {
        fields.insert("errors".to_owned(), json!([code.body(message)]));
    }
    json(status, &body)
}

/// What the gateway in front of everything but the login says to a bad bearer token.
pub(super) fn refused(refusal: Refusal) -> Response {
    gateway(&refusal.to_string(), "AccessDeniedException")
}

/// The same when there is no bearer token at all: API Gateway's own text, not recorded at emnify.
pub(super) fn unauthorised() -> Response {
    gateway("Unauthorized", "UnauthorizedException")
}

fn gateway(message: &str, error_type: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::HeaderName::from_static("x-amzn-errortype"), HeaderValue::from_static(error_type)),
    ];
    let body = json!({ "message": message }).to_string();
    (StatusCode::UNAUTHORIZED, headers, body).into_response()
}
