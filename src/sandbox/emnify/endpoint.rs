//! `GET /api/v1/endpoint`: the devices of an organisation, page by page. What a JWT is good for.

use super::Bearer;
use super::answer::{self, Code};
use crate::sandbox::control::Control;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Entries on a page, unless asked otherwise.
const PER_PAGE: u64 = 100;
const MAX_PER_PAGE: u64 = 2_000;

pub(super) async fn list(
    State(control): State<Control>,
    Extension(bearer): Extension<Bearer>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (Some(page), Some(per_page)) = (positive(&query, "page", 1), positive(&query, "per_page", PER_PAGE)) else {
        return answer::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            Code::InvalidQuery,
            "page and per_page must be positive numbers",
        );
    };
    let per_page = per_page.min(MAX_PER_PAGE);
    let world = control.world();
    let total = world.accounts.organisation(bearer.organisation).map_or(0, |organisation| organisation.endpoints);
    let first = (page - 1).saturating_mul(per_page).min(total);
    let last = first.saturating_add(per_page).min(total);
    let endpoints: Vec<_> = (first..last).map(|nth| endpoint(bearer.organisation, nth + 1)).collect();
    let mut response = answer::json(StatusCode::OK, &endpoints);
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-count-per-page", per_page),
        ("x-current-page", page),
        ("x-total-count", total),
        ("x-total-pages", total.div_ceil(per_page)),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    response
}

fn positive(query: &HashMap<String, String>, name: &str, default: u64) -> Option<u64> {
    match query.get(name) {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|number| *number > 0),
    }
}

fn endpoint(organisation: u64, nth: u64) -> Value {
    json!({
        "id": organisation.saturating_mul(1_000).saturating_add(nth),
        "name": format!("Device {nth}"),
        "status": {"id": 0, "description": "Enabled"},
        "service_profile": {"id": 1, "name": "Default service profile"},
        "tariff_profile": {"id": 1, "name": "Default tariff profile"},
        "organisation": {"id": organisation},
    })
}
