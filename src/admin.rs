//! The probe listener: what orchestrators and Prometheus ask, over plain HTTP.
//!
//! May be reachable without a certificate, so it says nothing about Workspaces or callers and reads no body. Liveness
//! depends on nothing but that the process answers; readiness on [`Readiness`] alone.

use crate::config::{History, Place, Record};
use crate::readiness::Readiness;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};
use axum::Json;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::{Value, json};
use std::time::SystemTime;

/// `/livez`, `/readyz`, `/metrics` and `/config`; anything else is not found.
pub fn router(readiness: Readiness, metrics: Metrics, history: History) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
        .route("/config", get(configuration).with_state(history))
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
}

/// 200 or 503; with `?verbose`, followed by each thing that it depends on and how that stands, one per line.
async fn ready(State(readiness): State<Readiness>, RawQuery(query): RawQuery) -> Response {
    let (status, mut text) = if readiness.is_ready() {
        (StatusCode::OK, String::from("ok\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, String::from("not ready\n"))
    };
    if query.as_deref() == Some("verbose") {
        for (name, check) in readiness.checks() {
            text.extend([name, ": ", check.as_str(), "\n"]);
        }
        for (name, words) in readiness.reports() {
            text.extend([&name, ": ", &words, "\n"]);
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

/// Which configuration is in force and what came of the last attempt to change it: no value of it, no Workspace, no
/// path.
async fn configuration(State(history): State<History>) -> Json<Value> {
    let Record { generation, accepted_at, attempted_at, problems, more_problems, restart } = history.record();
    let time = |at: Option<SystemTime>| at.map(|at| humantime::format_rfc3339_millis(at).to_string());
    let problems: Vec<Value> = problems
        .iter()
        .map(|problem| {
            let line = match &problem.place {
                Place::Line(line) => Some(line),
                Place::Variable(_) | Place::File(_) | Place::Unknown => None,
            };
            json!({ "key": problem.key, "line": line, "problem": problem.text })
        })
        .collect();
    Json(json!({
        "generation": generation,
        "accepted_at": time(accepted_at),
        "attempted_at": time(attempted_at),
        "last_attempt": if problems.is_empty() { "accepted" } else { "refused" },
        "problems": problems,
        "more_problems": more_problems,
        "needs_restart": restart,
    }))
}
