//! A simulated Wyvern over HTTP, after its documentation.
//!
//! | route | what |
//! |---|---|
//! | `POST /wyvern/1.0/auth/token`, `POST /wyvern/token` | `username`, `password` → `token`, `refresh_token` and more |
//! | `POST /wyvern/1.0/auth/token/refresh` | JSON `refresh_token` → the same |
//! | `GET /wyvern/1.0/images` | protected |
//!
//! The refresh route is invented: the documentation says that there is one and not where. What a refresh token is worth
//! is a setting ([`Refresh`]), and how long it lives is made up. So are the claims, the envelope of errors, and all of
//! their texts but the one about the missing bearer token. The real access token is RS256 with a `kid`; this one is
//! HS256 with a `kid`, as is the refresh token.

use super::bearer::claims;
use super::control::Control;
use super::emnify::Refresh;
use super::login::Login;
use super::pass::{Call, bearer_text, is_of_type, object};
use super::world::World;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

const ISSUER: &str = "sandbox/wyvern";
const REFRESH_ISSUER: &str = "sandbox/wyvern/refresh";
/// Seconds that a refresh token lives: made up.
const REFRESH_LIFE: u64 = 30 * 86_400;
/// Documented.
const MISSING_BEARER: &str = "You must specify a Bearer token in the Authorization header to access this resource";

/// What the simulated Wyvern is.
#[derive(Debug, Clone)]
pub struct Wyvern {
    /// Who may log in.
    pub users: Vec<Login>,
    /// What a refresh token is worth.
    pub refresh: Refresh,
    /// How long an access token lives; an hour at the real one.
    pub lifetime: Duration,
}

impl Default for Wyvern {
    /// One user, whose refresh tokens are good once.
    fn default() -> Self {
        Self {
            users: vec![Login::new("sandbox-user@example.com", "sandbox-password")],
            refresh: Refresh::Rotated,
            lifetime: Duration::from_secs(3_600),
        }
    }
}

pub(super) fn router(control: &Control) -> Router {
    Router::new()
        .route("/wyvern/1.0/auth/token", post(log_in))
        .route("/wyvern/token", post(log_in))
        .route("/wyvern/1.0/auth/token/refresh", post(refresh))
        .route("/wyvern/1.0/images", get(images))
        .with_state(control.clone())
}

/// No `Debug`: it holds a secret.
#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

async fn log_in(
    State(control): State<Control>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let credentials = is_of_type(&headers, "application/json").then(|| object::<Credentials>(&body));
    let Some(Credentials { username, password }) = credentials.flatten() else {
        return refused(StatusCode::BAD_REQUEST, "username and password are required");
    };
    let mut world = control.world();
    if !world.settings.wyvern.users.contains(&Login { username: username.clone(), password }) {
        return refused(StatusCode::UNAUTHORIZED, "Invalid username or password");
    }
    Json(pair(&mut world, call, &username)).into_response()
}

/// No `Debug`: it holds a secret.
#[derive(Deserialize)]
struct Renewal {
    refresh_token: String,
}

async fn refresh(
    State(control): State<Control>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let renewal = is_of_type(&headers, "application/json").then(|| object::<Renewal>(&body));
    let Some(Renewal { refresh_token }) = renewal.flatten() else {
        return refused(StatusCode::BAD_REQUEST, "refresh_token is required");
    };
    let mut world = control.world();
    let claims = world.bearer_claims(REFRESH_ISSUER, &refresh_token, call.at);
    let username = claims.as_ref().and_then(|claims| claims.get("sub")?.as_str());
    let Some(username) = username else {
        return refused(StatusCode::UNAUTHORIZED, "Invalid or expired refresh token");
    };
    match world.settings.wyvern.refresh {
        Refresh::Kept => Json(access(&mut world, call, username)).into_response(),
        Refresh::Rotated => {
            world.issued.use_up(&refresh_token);
            Json(pair(&mut world, call, username)).into_response()
        }
    }
}

fn access(world: &mut World, call: Call, username: &str) -> Value {
    let life = world.settings.wyvern.lifetime.as_secs();
    let token = world.bearer(ISSUER, claims(json!({ "sub": username })), call.at, life);
    json!({ "token": token, "token_type": "Bearer", "expires_in": life })
}

fn pair(world: &mut World, call: Call, username: &str) -> Value {
    let mut body = access(world, call, username);
    let refresh_token = world.bearer(REFRESH_ISSUER, claims(json!({ "sub": username })), call.at, REFRESH_LIFE);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("refresh_token".to_owned(), refresh_token.into());
    }
    body
}

async fn images(State(control): State<Control>, Extension(call): Extension<Call>, headers: HeaderMap) -> Response {
    let claims = bearer_text(&headers).and_then(|token| control.world().bearer_claims(ISSUER, token, call.at));
    match claims {
        Some(_) => Json(json!([{ "id": 1 }])).into_response(),
        None => refused(StatusCode::UNAUTHORIZED, MISSING_BEARER),
    }
}

fn refused(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}
