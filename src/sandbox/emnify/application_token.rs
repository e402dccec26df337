//! `/api/v1/application_token`: create, list, change and revoke. There is no get and no delete.

use super::accounts::{ApplicationToken, Status, Wanted};
use super::answer::{self, Code};
use super::expiry::{Expiry, timestamp};
use super::network::Network;
use super::{Bearer, authenticate, object};
use crate::sandbox::Management;
use crate::sandbox::control::Control;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) async fn list(State(control): State<Control>, Extension(bearer): Extension<Bearer>) -> Response {
    let world = control.world();
    let tokens: Vec<_> = world.accounts.of(bearer.organisation).map(item).collect();
    answer::json(StatusCode::OK, &tokens)
}

/// The text is not in it: it is returned once, on create.
fn item(token: &ApplicationToken) -> Value {
    json!({
        "id": token.id,
        "description": token.description,
        "created": timestamp(token.created),
        "status": {"id": token.status.id(), "description": token.status.description()},
        "expiry_date": token.expiry.as_ref().map(Expiry::text),
        "ip": token.network.map(|network| network.to_string()),
        "creator": {"id": 1, "name": "Sandbox", "username": "sandbox@example.com"},
    })
}

#[derive(Deserialize)]
struct Create {
    description: Option<String>,
    expiry_date: Option<String>,
    ip: Option<String>,
}

pub(super) async fn create(
    State(control): State<Control>,
    Extension(bearer): Extension<Bearer>,
    body: Bytes,
) -> Response {
    let Some(create) = object::<Create>(&body) else {
        return malformed();
    };
    let wanted = match create.wanted() {
        Ok(wanted) => wanted,
        Err(field) => return invalid_format(field),
    };
    let mut world = control.world();
    if let Some(forbidden) = forbidden(world.settings.management) {
        return forbidden;
    }
    if world.accounts.is_full() {
        return answer::invalid(StatusCode::UNPROCESSABLE_ENTITY, Code::NotAllowed, "too many application tokens");
    }
    match authenticate::create(&mut world, bearer.organisation, wanted, bearer.at) {
        Some((_, text)) => answer::json(StatusCode::OK, &json!({ "application_token": text })),
        None => not_found(),
    }
}

impl Create {
    /// Or the field that is wrong.
    fn wanted(self) -> Result<Wanted, &'static str> {
        let expiry = self.expiry_date.map(|text| Expiry::parse(&text));
        let network = self.ip.map(|text| Network::parse(&text));
        if expiry == Some(None) {
            return Err("expiry_date");
        }
        if network == Some(None) {
            return Err("ip");
        }
        Ok(Wanted { description: self.description, expiry: expiry.flatten(), network: network.flatten() })
    }
}

#[derive(Deserialize)]
struct Update {
    description: Option<String>,
    status: Option<StatusId>,
}

#[derive(Deserialize)]
struct StatusId {
    id: u64,
}

pub(super) async fn update(
    State(control): State<Control>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let Some(update) = object::<Update>(&body) else {
        return malformed();
    };
    let status = update.status.map(|status| Status::from_id(status.id));
    if status == Some(None) {
        return invalid_format("status");
    }
    let mut world = control.world();
    if let Some(forbidden) = forbidden(world.settings.management) {
        return forbidden;
    }
    let own = id
        .parse()
        .ok()
        .and_then(|id| world.accounts.token_mut(id))
        .filter(|token| token.organisation == bearer.organisation);
    let Some(token) = own else {
        return not_found();
    };
    token.status = status.flatten().unwrap_or(token.status);
    token.description = update.description.or_else(|| token.description.take());
    answer::empty(StatusCode::NO_CONTENT)
}

fn forbidden(management: Management) -> Option<Response> {
    match management {
        Management::Allowed => None,
        Management::Forbidden => Some(answer::error(StatusCode::FORBIDDEN, Code::Forbidden, "Forbidden")),
    }
}

fn malformed() -> Response {
    answer::error(StatusCode::BAD_REQUEST, Code::BadRequest, "Request body is not valid JSON of the expected form")
}

fn invalid_format(field: &str) -> Response {
    let message = format!("{field} has an invalid format");
    answer::invalid(StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidFormat, &message)
}

fn not_found() -> Response {
    answer::error(StatusCode::NOT_FOUND, Code::NotFound, "Application token not found")
}
