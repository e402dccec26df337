//! The probe listener: what orchestrators and Prometheus ask, over plain HTTP.
//!
//! May be reachable without a certificate, so it says nothing about Workspaces or callers and reads no body. Liveness
//! depends on nothing but that the process answers; readiness on [`Readiness`] alone.

use crate::readiness::Readiness;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

/// `/livez`, `/readyz` and `/metrics`; anything else is not found.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
}

/// 200 or 503; with `?verbose`, followed by what is missing, one per line.
async fn ready(State(readiness): State<Readiness>, RawQuery(query): RawQuery) -> Response {
    let (status, mut text) = if readiness.is_ready() {
        (StatusCode::OK, String::from("ok\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, String::from("not ready\n"))
    };
    if query.as_deref() == Some("verbose") {
        for reason in readiness.reasons() {
            text.push_str(reason);
            text.push('\n');
        }
    }
    (status, text).into_response()
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
