//! A simulated Sensos over HTTP, after its documentation: one exchange, no refresh token.
//!
//! | route | what |
//! |---|---|
//! | `POST /sensos/v1/applications/token` | tenant, application and its secret → `accessToken`, `expiresIn` |
//! | `GET /sensos/v1/devices` | protected |
//!
//! The documentation names two lives (a day and ten hours) and one 401, which stands for a failed exchange and for a
//! bad token alike. The claims, the answer to a malformed exchange and the protected route are made up.

use super::bearer::claims;
use super::control::Control;
use super::pass::{Call, bearer_text, is_of_type, object};
use super::world::World;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use std::time::Duration;

const ISSUER: &str = "sandbox/sensos";
const DAY: Duration = Duration::from_secs(86_400);
const TEN_HOURS: Duration = Duration::from_secs(36_000);

/// What an exchange is made with, and what it brings.
#[derive(Clone)]
pub struct Application {
    /// `tenantId`.
    pub tenant: String,
    /// `applicationId`.
    pub id: String,
    /// `applicationSecret`.
    pub secret: String,
    /// How long its tokens live: `exp` − `iat`, in whole seconds.
    pub lifetime: Duration,
    /// What `expiresIn` says.
    pub expires_in: Duration,
}

impl Application {
    /// An application of this tenant with the id and secret of the demo, whose tokens live for as long as they say.
    pub fn new(tenant: impl Into<String>, lifetime: Duration) -> Self {
        Self {
            tenant: tenant.into(),
            id: "sandbox-application".to_owned(),
            secret: "sandbox-application-secret".to_owned(),
            lifetime,
            expires_in: lifetime,
        }
    }

    /// The three of the demo: a day, ten hours, and one that says a day and lives ten hours.
    pub(super) fn demo() -> Vec<Self> {
        vec![
            Self::new("sandbox-tenant", DAY),
            Self::new("sandbox-tenant-ten-hours", TEN_HOURS),
            Self { expires_in: DAY, ..Self::new("sandbox-tenant-mismatch", TEN_HOURS) },
        ]
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("tenant", &self.tenant)
            .field("id", &self.id)
            .field("lifetime", &self.lifetime)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

pub(super) fn router(control: &Control) -> Router {
    Router::new()
        .route("/sensos/v1/applications/token", post(token))
        .route("/sensos/v1/devices", get(devices))
        .with_state(control.clone())
}

/// No `Debug`: it holds a secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exchange {
    tenant_id: String,
    application_id: String,
    application_secret: String,
}

async fn token(
    State(control): State<Control>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let exchange = is_of_type(&headers, "application/json").then(|| object::<Exchange>(&body));
    let Some(exchange) = exchange.flatten() else {
        let body = json!({ "error": "Bad Request", "message": "Invalid request body" });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    };
    let mut world = control.world();
    let Some(application) = application(&world, &exchange) else {
        return unauthorised();
    };
    let claims = claims(json!({ "sub": application.id, "tenantId": application.tenant }));
    let access_token = world.bearer(ISSUER, claims, call.at, application.lifetime.as_secs());
    let body = json!({ "accessToken": access_token, "expiresIn": application.expires_in.as_secs() });
    Json(body).into_response()
}

fn application(world: &World, exchange: &Exchange) -> Option<Application> {
    let fits = |application: &&Application| {
        application.tenant == exchange.tenant_id
            && application.id == exchange.application_id
            && application.secret == exchange.application_secret
    };
    world.settings.applications.iter().find(fits).cloned()
}

/// The devices of the tenant.
async fn devices(State(control): State<Control>, Extension(call): Extension<Call>, headers: HeaderMap) -> Response {
    let claims = bearer_text(&headers).and_then(|token| control.world().bearer_claims(ISSUER, token, call.at));
    match claims {
        Some(claims) => Json(json!([{ "id": 1, "tenantId": claims.get("tenantId") }])).into_response(),
        None => unauthorised(),
    }
}

fn unauthorised() -> Response {
    let body = json!({ "error": "Unauthorized", "message": "Invalid or expired access token" });
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}
