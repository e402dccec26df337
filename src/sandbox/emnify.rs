//! A simulated emnify over HTTP, after its documentation and recorded traffic.
//!
//! Every request has run through [`pass`](super::pass) before it comes here.

mod accounts;
mod answer;
mod application_token;
mod authenticate;
mod endpoint;
mod expiry;
mod network;
mod users;

use super::control::Control;
use super::faults::Route;
use super::jwt::Refusal;
use super::pass::{Call, bearer_text, object};
use super::world::{Purpose, World};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, patch, post};
use axum::{Extension, Router};
use std::net::IpAddr;
use std::time::SystemTime;

pub use accounts::Organisation;
pub(super) use accounts::{Accounts, Status, Wanted};
pub(super) use authenticate::create as create_application_token;
pub(super) use users::Users;
pub use users::{Refresh, User};

/// Whom a lockout is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Account {
    Organisation(u64),
    User(String),
    Address(IpAddr),
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
    Router::new().route("/api/v1/authenticate", post(authenticate::post)).merge(protected).with_state(control.clone())
}

/// Of this simulator, and of all paths that belong to none.
pub(super) async fn no_such_resource() -> Response {
    answer::error(StatusCode::NOT_FOUND, answer::Code::NotFound, "No such resource")
}

/// Whose request this is, before anything is checked: faults and counters ask.
pub(super) fn organisation_of(world: &World, route: Route, headers: &HeaderMap, body: &[u8]) -> Option<u64> {
    let by_body = || authenticate::organisation_of(world, body);
    let by_bearer = || {
        let claims = world.key.open(bearer_text(headers)?).ok()?;
        Some(claims.organisation)
    };
    match route {
        Route::Authenticate => by_body().or_else(by_bearer),
        Route::ApplicationToken | Route::Endpoint => by_bearer(),
        Route::SensosToken
        | Route::SensosProtected
        | Route::WyvernToken
        | Route::WyvernRefresh
        | Route::WyvernProtected
        | Route::Oauth2Token
        | Route::Oauth2Protected
        | Route::OddToken
        | Route::OddRefresh
        | Route::OddProtected => None,
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
