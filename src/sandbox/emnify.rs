//! A simulated emnify over HTTP, after its documentation and recorded traffic.
//!
//! Every request of the API runs through [`pass`]: it finds out whose request it is, lets the faults that were set for
//! it happen, counts it, and gives it one moment in time, so that `iat` and `Date` agree to the second.

mod accounts;
mod answer;
mod application_token;
mod authenticate;
mod endpoint;
mod expiry;
mod network;
mod users;

use super::connection::{Order, Peer};
use super::control::Control;
use super::faults::{Answer, Cut, CutAt, Fault, Met, Route};
use super::jwt::Refusal;
use super::world::{Purpose, World, http_date};
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

pub use accounts::Organisation;
pub(super) use accounts::{Accounts, Status, Wanted};
pub(super) use authenticate::create as create_application_token;
pub(super) use users::Users;
pub use users::{Refresh, User};

/// The largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// For how long a request body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Whom a lockout is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Account {
    Organisation(u64),
    User(String),
    Address(IpAddr),
}

/// A request on its way through the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    address: IpAddr,
    now: Instant,
    /// The time of day by the sandbox's clock, with what skew this request meets.
    at: SystemTime,
    same_token: Option<Duration>,
}

/// Whose JWT a protected request carried.
#[derive(Debug, Clone)]
struct Bearer {
    organisation: u64,
    /// `None`: an application token's JWT.
    user: Option<String>,
    at: SystemTime,
}

/// The API, without the control routes.
pub(super) fn router(control: &Control) -> Router {
    let protected = Router::new()
        .route("/api/v1/authenticate/workspace", post(users::switch))
        .route("/api/v1/application_token", get(application_token::list).post(application_token::create))
        .route("/api/v1/application_token/{id}", patch(application_token::update))
        .route("/api/v1/endpoint", get(endpoint::list))
        .layer(from_fn_with_state(control.clone(), authorise));
    Router::new()
        .route("/api/v1/authenticate", post(authenticate::post))
        .merge(protected)
        .fallback(no_such_resource)
        .layer(from_fn_with_state(control.clone(), pass))
        .with_state(control.clone())
}

/// Which part of the API a request is for.
fn route_of(parts: &Parts) -> Option<Route> {
    let path = parts.uri.path().strip_prefix("/api/v1/")?;
    match path.split('/').next()? {
        "authenticate" => Some(Route::Authenticate),
        "application_token" => Some(Route::ApplicationToken),
        "endpoint" => Some(Route::Endpoint),
        _ => None,
    }
}

async fn no_such_resource() -> Response {
    answer::error(StatusCode::NOT_FOUND, answer::Code::NotFound, "No such resource")
}

async fn pass(
    State(control): State<Control>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(status) => return answer::empty(status),
    };
    let route = route_of(&parts);
    let organisation = organisation_of(&control, route, &parts, &body);
    let (met, mut cleared) = control.arrived(route, organisation);
    if let Some(latency) = met.latency {
        tokio::time::sleep(latency).await;
    }
    if met.answer == Some(Fault::Hang) {
        // The sender lives in `control`, so this ends when the faults are cleared, or with the connection.
        drop(cleared.changed().await);
    }
    let call = control.call(peer.address, &met);
    parts.extensions.insert(call);
    let request = Request::from_parts(parts, Body::from(body));
    let Some(mut response) = answered(&peer, met, request, next).await else {
        return answer::empty(StatusCode::OK);
    };
    control.answered(route, organisation, response.status());
    if let Some(date) = http_date(call.at) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// The answer, real or made up; `None` where the connection has its orders and the answer will not be seen.
async fn answered(peer: &Peer, met: Met, request: Request, next: Next) -> Option<Response> {
    match met.answer {
        Some(Fault::Answer(answer)) => Some(made_up(answer)),
        Some(Fault::Raw(bytes)) => {
            peer.slot.order(Order::Raw(bytes));
            None
        }
        Some(Fault::Cut(Cut { at: at @ CutAt::Before, by })) => {
            peer.slot.order(Order::cut(at, by, 0));
            None
        }
        Some(Fault::Cut(Cut { at: at @ CutAt::InBody, by })) => {
            let response = next.run(request).await;
            let length = response.body().size_hint().lower();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            peer.slot.order(Order::cut(at, by, length));
            Some(response)
        }
        None | Some(Fault::Hang | Fault::Latency(_) | Fault::Skew(_) | Fault::SameToken(_)) => {
            Some(next.run(request).await)
        }
    }
}

fn made_up(answer: Answer) -> Response {
    let Answer { status, body, retry_after } = answer;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let typed = !body.is_empty();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    if typed {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
    }
    let retry_after = retry_after.and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    response
}

async fn read(body: Body) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Reads a JSON object. Without the first step, an array would pass for the fields in their order.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(Value::Object(fields)).ok()
}

/// Whose request this is, before anything is checked: faults and counters ask.
fn organisation_of(control: &Control, route: Option<Route>, parts: &Parts, body: &[u8]) -> Option<u64> {
    let world = control.world();
    let by_body = || authenticate::organisation_of(&world, body);
    let by_bearer = || {
        let claims = world.key.open(bearer_text(&parts.headers)?).ok()?;
        Some(claims.organisation)
    };
    match route? {
        Route::Authenticate => by_body().or_else(by_bearer),
        Route::ApplicationToken | Route::Endpoint => by_bearer(),
    }
}

/// The gateway's check of the JWT, in front of everything but the login.
async fn authorise(
    State(control): State<Control>,
    Extension(call): Extension<Call>,
    mut request: Request,
    next: Next,
) -> Response {
    let checked = check(&mut control.world(), call, request.headers());
    match checked {
        Ok(bearer) => {
            request.extensions_mut().insert(bearer);
            next.run(request).await
        }
        Err(Some(refusal)) => answer::refused(refusal),
        Err(None) => answer::unauthorised(),
    }
}

/// `Err(None)`: there is nothing to check.
fn check(world: &mut World, call: Call, headers: &HeaderMap) -> Result<Bearer, Option<Refusal>> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(None);
    }
    let text = bearer_text(headers).ok_or(Refusal::Segments)?;
    let verified = world.verify(Purpose::Authentication, text, call.at);
    if matches!(verified, Err(Refusal::Expired { .. })) {
        world.counters.protected_expired += 1;
    }
    let claims = verified?;
    Ok(Bearer { organisation: claims.organisation, user: claims.sub, at: call.at })
}

fn bearer_text(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

impl Control {
    fn call(&self, address: IpAddr, met: &Met) -> Call {
        let moment = self.moment(met.skew_ms);
        Call { address, now: moment.mono, at: moment.wall, same_token: met.same_token }
    }
}
