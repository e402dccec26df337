//! The control API, `/_control`: what [`Control`] can do, as JSON over HTTP. Not counted and not subject to faults.

use super::Control;
use crate::sandbox::Client;
use crate::sandbox::counters::Counters;
use crate::sandbox::faults::{Answer, Cut, CutAt, CutBy, Fault, Route, Scope, Times};
use crate::sandbox::limits::{Limits, RetryAfter};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// How many faults may be set at once over HTTP.
const MAX_FAULTS: usize = 10_000;
/// The largest made-up body, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

pub(in crate::sandbox) fn router(control: Control) -> Router {
    Router::new()
        .route("/faults", post(set_faults).delete(clear))
        .route("/revoke", post(revoke))
        .route("/reject", post(reject))
        .route("/mint", post(mint))
        .route("/client", post(client))
        .route("/refresh_token", post(refresh_token))
        .route("/limits", put(limits))
        .route("/counters", get(counters))
        .route("/reset", post(reset))
        .route("/now", get(now))
        .with_state(control)
}

/// What is wrong with a control request.
struct Wrong(StatusCode, String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "message": self.1 }))).into_response()
    }
}

fn wrong(message: &str) -> Wrong {
    Wrong(StatusCode::UNPROCESSABLE_ENTITY, message.to_owned())
}

fn unknown() -> Wrong {
    Wrong(StatusCode::NOT_FOUND, "no such thing here".to_owned())
}

/// `POST /_control/faults`: at least one thing that goes wrong, for whom, and how often.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FaultRequest {
    organisation: Option<u64>,
    route: Option<Route>,
    /// Standing without it.
    times: Option<u32>,
    latency_ms: Option<u64>,
    skew_ms: Option<i64>,
    /// 200 without it, where there is a body.
    status: Option<u16>,
    body: Option<String>,
    body_base64: Option<String>,
    /// A body of so many bytes.
    body_bytes: Option<usize>,
    retry_after: Option<String>,
    cut: Option<CutAt>,
    /// Whether a cut is an RST.
    reset: bool,
    /// Base64.
    raw: Option<String>,
    hang: bool,
    /// The seconds that the last token must have left to be given again.
    same_token: Option<u64>,
}

impl FaultRequest {
    fn faults(&self) -> Result<Vec<Fault>, Wrong> {
        let by = if self.reset { CutBy::Reset } else { CutBy::Close };
        let mut faults = Vec::new();
        faults.extend(self.latency_ms.map(|ms| Fault::Latency(Duration::from_millis(ms))));
        faults.extend(self.skew_ms.map(Fault::Skew));
        faults.extend(self.same_token.map(|seconds| Fault::SameToken(Duration::from_secs(seconds))));
        faults.extend(self.answer()?);
        faults.extend(self.cut.map(|at| Fault::Cut(Cut { at, by })));
        if let Some(raw) = &self.raw {
            faults.push(Fault::Raw(decode(raw)?));
        }
        faults.extend(self.hang.then_some(Fault::Hang));
        if faults.is_empty() {
            return Err(wrong("no fault named"));
        }
        Ok(faults)
    }

    fn answer(&self) -> Result<Option<Fault>, Wrong> {
        let body = match (&self.body, &self.body_base64, self.body_bytes) {
            (None, None, None) => None,
            (Some(text), None, None) => Some(Bytes::from(text.clone())),
            (None, Some(text), None) => Some(decode(text)?),
            (None, None, Some(length)) if length <= MAX_BODY => Some(vec![b'x'; length].into()),
            (None, None, Some(_)) => return Err(wrong("body_bytes is too large")),
            (_, _, _) => return Err(wrong("more than one body")),
        };
        if self.status.is_none() && body.is_none() {
            return Ok(None);
        }
        let status = self.status.unwrap_or(200);
        if !(200..=599).contains(&status) {
            return Err(wrong("status must be 200 to 599"));
        }
        Ok(Some(Fault::Answer(Answer {
            status,
            body: body.unwrap_or_default(),
            retry_after: self.retry_after.clone(),
        })))
    }
}

fn decode(base64: &str) -> Result<Bytes, Wrong> {
    let bytes = STANDARD.decode(base64);
    bytes.map(Bytes::from).or(Err(wrong("not base64")))
}

async fn set_faults(State(control): State<Control>, Json(request): Json<FaultRequest>) -> Result<StatusCode, Wrong> {
    let scope = Scope { organisation: request.organisation, route: request.route };
    let times = request.times.map_or(Times::Standing, Times::Next);
    let faults = request.faults()?;
    let mut world = control.world();
    if world.faults.len() + faults.len() > MAX_FAULTS {
        return Err(Wrong(StatusCode::CONFLICT, "too many faults are set".to_owned()));
    }
    for fault in faults {
        world.faults.set(scope, fault, times);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(State(control): State<Control>) -> StatusCode {
    control.clear();
    StatusCode::NO_CONTENT
}

async fn reset(State(control): State<Control>) -> StatusCode {
    control.reset();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Revoke {
    ApplicationTokenId(u64),
    Organisation(u64),
    /// All refresh tokens of a client of the authorization server.
    RefreshTokensOf(String),
}

async fn revoke(State(control): State<Control>, Json(what): Json<Revoke>) -> Result<StatusCode, Wrong> {
    let revoked = match what {
        Revoke::ApplicationTokenId(id) => control.revoke_application_token(id),
        Revoke::Organisation(id) => control.revoke_organisation(id),
        Revoke::RefreshTokensOf(client) => control.revoke_refresh_tokens(&client) > 0,
    };
    let no_content = revoked.then_some(StatusCode::NO_CONTENT);
    no_content.ok_or_else(unknown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Reject {
    Fingerprint(String),
    Organisation(u64),
}

async fn reject(State(control): State<Control>, Json(what): Json<Reject>) -> StatusCode {
    match what {
        Reject::Fingerprint(fingerprint) => control.reject_token(&fingerprint),
        Reject::Organisation(id) => {
            control.reject_organisation(id);
        }
    }
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    organisation: u64,
}

async fn mint(State(control): State<Control>, Json(mint): Json<Mint>) -> Result<Json<Value>, Wrong> {
    let jwt = control.mint(mint.organisation).ok_or_else(unknown)?;
    Ok(Json(json!({ "auth_token": jwt })))
}

/// `POST /_control/client`: a client of the authorization server. No `Debug`: it holds a secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClient {
    id: String,
    secret: Option<String>,
    /// PEM.
    public_key: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

async fn client(State(control): State<Control>, Json(new): Json<NewClient>) -> Result<StatusCode, Wrong> {
    let scopes: Vec<&str> = new.scopes.iter().map(String::as_str).collect();
    let mut client = Client::new(new.id).scopes(&scopes);
    if let Some(secret) = new.secret {
        client = client.secret(secret);
    }
    if let Some(pem) = new.public_key {
        client = client.key(&pem).map_err(|bad| wrong(&bad.to_string()))?;
    }
    control.add_client(client);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    client: String,
    subject: String,
}

async fn refresh_token(State(control): State<Control>, Json(consent): Json<Consent>) -> Result<Json<Value>, Wrong> {
    let text = control.grant_refresh_token(&consent.client, &consent.subject).ok_or_else(unknown)?;
    Ok(Json(json!({ "refresh_token": text })))
}

/// What is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    failures: Option<u32>,
    lockout_seconds: Option<u64>,
    logins: Option<usize>,
    window_seconds: Option<u64>,
    retry_after: Option<bool>,
}

async fn limits(State(control): State<Control>, Json(new): Json<NewLimits>) -> StatusCode {
    let mut world = control.world();
    let old = world.limits;
    let retry_after = new.retry_after.map(|sent| if sent { RetryAfter::Sent } else { RetryAfter::Absent });
    world.limits = Limits {
        failures: new.failures.unwrap_or(old.failures),
        lockout: new.lockout_seconds.map_or(old.lockout, Duration::from_secs),
        logins: new.logins.unwrap_or(old.logins),
        window: new.window_seconds.map_or(old.window, Duration::from_secs),
        retry_after: retry_after.unwrap_or(old.retry_after),
    };
    StatusCode::NO_CONTENT
}

async fn counters(State(control): State<Control>) -> Json<Counters> {
    Json(control.counters())
}

async fn now(State(control): State<Control>) -> Json<Value> {
    Json(json!({ "now_ms": super::unix_ms(control.now()) }))
}
