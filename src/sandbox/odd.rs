//! Token endpoints in the odd shapes that were found in the field, one path per shape: `POST /odd/{shape}/token`.
//!
//! | shape | what is odd | after |
//! |---|---|---|
//! | `same-until-late` | lives 2 h; the same token again until 20 min are left | `BesChannels`, `ThingSpace` |
//! | `milliseconds` | `expires_in` in milliseconds | Fiserv, Sensoworks |
//! | `no-expiry` | an opaque token, and no word of its end | |
//! | `nested` | `result.access_token`, `result.expire_time` (s, relative) beside `success` | Tuya |
//! | `raw` | the body is the token, a JWT, as `text/plain` | IBM Envizi |
//! | `created` | 201 with `token` and `expires_at` (RFC 3339) | GitHub App |
//! | `code` | errors are 200 with a `code` that is not 0; `tenant_access_token`, `expire` | Feishu |
//! | `nulls` | `refresh_token` and `id_token` are `null` | Twilio |
//! | `rotating` | a refresh token that is good once, at `…/refresh`; it ends the old access token | Tuya |
//! | `three-minutes` | shorter than many a margin | Airbyte |
//! | `two-years` | longer than a token should be kept | KORE |
//! | `float` | `expires_in` is `3600.0` | |
//! | `text` | `expires_in` is `"3600"` | |
//! | `pair` | `apiKey` and `token` (a JWT), both needed; no expiry beside the JWT's | Soracom |
//! | `epoch-milliseconds` | `expires_at` is absolute, in milliseconds since 1970 | |
//! | `companion` | `instance_url` has to travel with the opaque token; no expiry | Salesforce |
//! | `header-key` | `GET`, with the secret in `X-Api-Key` | IBM Envizi |
//!
//! The credentials are `client_id` and `client_secret`, as JSON or as a form; `header-key` wants the secret alone.
//! Lives an hour where nothing else is said. Tokens are opaque unless they are said to be JWTs, so that what the body
//! says of their end is all there is. `GET /odd/{shape}/resource` is protected by `Authorization: Bearer`, and for
//! `pair` by `X-Api-Key` and `X-Token`. Names and values of members are the originals' where they are known; refusals
//! are made up.

mod shape;

use super::bearer::claims;
use super::control::Control;
use super::families::{Families, Holder};
use super::login::Login;
use super::pass::{Call, bearer_text, is_of_type, object};
use super::world::{World, alphanumerics, unix_seconds};
use axum::body::Bytes;
use axum::extract::{Path, State as Of};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use serde_json::{Map, Value, json};
use shape::Shape;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use url::form_urlencoded;

const ISSUER: &str = "sandbox/odd";
/// How many tokens are remembered; the oldest is forgotten, which ends it.
const MAX_REMEMBERED: usize = 10_000;
/// Seconds that a refresh token lives: made up.
const REFRESH_LIFE: u64 = 30 * 86_400;

/// What was handed out in odd shapes.
#[derive(Debug, Default)]
pub(super) struct Odd {
    tokens: VecDeque<Token>,
    families: Families,
}

/// A token in the shape that it was asked for.
#[derive(Clone)]
struct Token {
    shape: Shape,
    text: String,
    /// `pair`: what goes with it.
    api_key: String,
    refresh: Option<String>,
    /// Unix seconds.
    exp: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("shape", &self.shape).field("exp", &self.exp).finish_non_exhaustive()
    }
}

/// The client that the odd shapes know by default.
pub(super) fn demo() -> Login {
    Login::new("sandbox-client", "sandbox-client-secret")
}

pub(super) fn router(control: &Control) -> Router {
    Router::new()
        .route("/odd/{shape}/token", any(token))
        .route("/odd/rotating/refresh", post(refresh))
        .route("/odd/{shape}/resource", get(resource))
        .with_state(control.clone())
}

async fn token(
    Of(control): Of<Control>,
    Extension(call): Extension<Call>,
    Path(shape): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(shape) = Shape::named(&shape) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if method != shape.method() {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let mut world = control.world();
    if !is_known(&world, shape, &headers, &body) {
        return shape.refused();
    }
    let token = again(&world, shape, call).unwrap_or_else(|| mint(&mut world, shape, call, None));
    shape.answer(&token, unix_seconds(call.at))
}

fn is_known(world: &World, shape: Shape, headers: &HeaderMap, body: &[u8]) -> bool {
    let Login { username, password } = &world.settings.odd;
    if shape == Shape::HeaderKey {
        return text_of(headers, "x-api-key") == Some(password);
    }
    let fields = fields(headers, body).unwrap_or_default();
    fields.get("client_id") == Some(username) && fields.get("client_secret") == Some(password)
}

/// The texts among the members of a JSON object, or of a form.
fn fields(headers: &HeaderMap, body: &[u8]) -> Option<BTreeMap<String, String>> {
    if is_of_type(headers, "application/x-www-form-urlencoded") {
        return Some(form_urlencoded::parse(body).into_owned().collect());
    }
    let members = is_of_type(headers, "application/json").then(|| object::<Map<String, Value>>(body))??;
    let text = |(name, value): (String, Value)| value.as_str().map(|text| (name, text.to_owned()));
    Some(members.into_iter().filter_map(text).collect())
}

/// The token that was handed out last, where the shape says it again.
fn again(world: &World, shape: Shape, call: Call) -> Option<Token> {
    let until = unix_seconds(call.at).saturating_add(shape.same_while_left()?);
    let newest = world.odd.tokens.iter().rev().find(|token| token.shape == shape)?;
    (newest.exp > until && !world.issued.is_rejected(&newest.text)).then(|| newest.clone())
}

fn mint(world: &mut World, shape: Shape, call: Call, family: Option<u64>) -> Token {
    let (iat, life) = (unix_seconds(call.at), shape.life());
    let number = world.number();
    let text = if shape.is_jwt() {
        world.bearer(ISSUER, claims(json!({ "sub": "sandbox-client" })), call.at, life)
    } else {
        opaque("odd", number)
    };
    let exp = iat.saturating_add(life);
    let refresh = (shape == Shape::Rotating).then(|| opaque("odd-refresh", number));
    if let Some(renewal) = &refresh {
        let holder = Holder {
            client: shape.name().to_owned(),
            subject: String::new(),
            scope: Vec::new(),
            access: Some(text.clone()),
            family: family.unwrap_or(number),
            exp: iat.saturating_add(REFRESH_LIFE),
        };
        world.odd.families.insert(renewal.clone(), holder);
    }
    let token = Token { shape, text, api_key: opaque("odd-key", number), refresh, exp };
    if world.odd.tokens.len() >= MAX_REMEMBERED {
        world.odd.tokens.pop_front();
    }
    world.odd.tokens.push_back(token.clone());
    token
}

fn opaque(prefix: &str, number: u64) -> String {
    format!("{prefix}-{}", alphanumerics(number).take(40).collect::<String>())
}

async fn refresh(
    Of(control): Of<Control>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (shape, now) = (Shape::Rotating, unix_seconds(call.at));
    let fields = fields(&headers, &body).unwrap_or_default();
    let Some(refresh_token) = fields.get("refresh_token") else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut world = control.world();
    let Some(holder) = world.odd.families.present(refresh_token, shape.name(), now) else {
        return shape.refused();
    };
    world.odd.families.use_up(refresh_token);
    if let Some(access) = &holder.access {
        world.issued.use_up(access);
    }
    let token = mint(&mut world, shape, call, Some(holder.family));
    shape.answer(&token, now)
}

async fn resource(
    Of(control): Of<Control>,
    Extension(call): Extension<Call>,
    Path(shape): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(shape) = Shape::named(&shape) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (text, api_key) = if shape == Shape::Pair {
        (text_of(&headers, "x-token"), text_of(&headers, "x-api-key"))
    } else {
        (bearer_text(&headers), None)
    };
    let world = control.world();
    let fits = |token: &&Token| {
        token.shape == shape
            && Some(token.text.as_str()) == text
            && (shape != Shape::Pair || Some(token.api_key.as_str()) == api_key)
    };
    let token = world.odd.tokens.iter().rev().find(fits);
    let good = token.filter(|token| unix_seconds(call.at) < token.exp && !world.issued.is_rejected(&token.text));
    match good {
        Some(_) => Json(json!({ "shape": shape.name() })).into_response(),
        None => (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Unauthorized" }))).into_response(),
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
