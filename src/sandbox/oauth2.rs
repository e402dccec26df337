//! A simulated OAuth 2.0 authorization server: its token endpoint and a resource that its tokens open.
//!
//! | route | what |
//! |---|---|
//! | `POST /oauth2/token` | a form; five grants, three ways to authenticate a client |
//! | `GET /oauth2/resource` | protected (RFC 6750) |
//!
//! *Grants*: `client_credentials`, `refresh_token` (used up or kept, [`Refresh`]; a used one that comes again ends its
//! family), `password`, `urn:ietf:params:oauth:grant-type:jwt-bearer` (RFC 7523 §2.1, without or with client
//! authentication) and `urn:ietf:params:oauth:grant-type:token-exchange` (RFC 8693, of tokens of this server).
//! *Clients* authenticate by Basic, in the body, or with `private_key_jwt` (RFC 7523 §2.2): exactly one way per
//! request, and one that the client may use. `scope`, `audience` and `resource` (RFC 8707) end up in the JWT.
//!
//! Answers and errors are those of RFC 6749 §5. Of what RFCs leave open, the strict reading was taken: a repeated
//! parameter is refused (but `resource`, and `audience` in an exchange, which may repeat), assertions need a `jti` to
//! authenticate a client and may live for an hour at most. The audience of an assertion is the token endpoint, as the
//! `Host` of the request has it, or [`OAuth2::issuer`].

mod assertion;
mod authentication;
mod client;
mod form;
mod grant;
mod refresh;
mod refusal;
mod target;

use super::control::Control;
use super::emnify::Refresh;
use super::families::Families;
use super::login::Login;
use super::pass::{Call, bearer_text, is_of_type};
use super::world::{World, unix_seconds};
use assertion::Seen;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use form::Form;
use refusal::{Error, Refusal};
use serde_json::{Value, json};
use std::fmt;
use std::time::SystemTime;

pub use assertion::BadKey;
pub use client::{Client, Expiry, Grant, Method};
pub(super) use refresh::{grant as grant_refresh_token, revoke as revoke_refresh_tokens};

/// What the simulated authorization server is.
#[derive(Debug, Clone)]
pub struct OAuth2 {
    /// `iss` of its tokens, and a good audience of an assertion.
    pub issuer: String,
    /// Who asks for tokens.
    pub clients: Vec<Client>,
    /// Whose passwords the password grant takes.
    pub users: Vec<Login>,
    /// What a refresh token is worth.
    pub refresh: Refresh,
    /// Refresh tokens that exist from the beginning.
    pub consents: Vec<Consent>,
}

/// What a person has once agreed to, and the refresh token that came of it.
#[derive(Clone)]
pub struct Consent {
    /// The id of the client.
    pub client: String,
    /// The person: `sub` of the access tokens.
    pub subject: String,
    /// The text of the token.
    pub refresh_token: String,
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consent").field("client", &self.client).field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Default for OAuth2 {
    /// One client and one user, and a refresh token of them that is good once.
    fn default() -> Self {
        let user = "sandbox-user@example.com";
        Self {
            issuer: "https://sandbox.example/oauth2".to_owned(),
            clients: vec![Client::new("sandbox-client").secret("sandbox-client-secret").scopes(&["read", "write"])],
            users: vec![Login::new(user, "sandbox-password")],
            refresh: Refresh::Rotated,
            consents: vec![Consent {
                client: "sandbox-client".to_owned(),
                subject: user.to_owned(),
                refresh_token: "sandbox-refresh-token".to_owned(),
            }],
        }
    }
}

/// What the authorization server remembers.
#[derive(Debug)]
pub(super) struct Server {
    clients: Vec<Client>,
    families: Families,
    seen: Seen,
}

impl Server {
    pub(super) fn new(settings: &OAuth2) -> Self {
        Self { clients: settings.clients.clone(), families: Families::default(), seen: Seen::default() }
    }

    /// Adds a client, or replaces the one with its id.
    pub(super) fn add(&mut self, client: Client) {
        self.clients.retain(|known| known.id != client.id);
        self.clients.push(client);
    }
}

/// When a request came, and how it named this server.
struct Moment {
    at: SystemTime,
    token_url: String,
}

impl Moment {
    fn seconds(&self) -> u64 {
        unix_seconds(self.at)
    }
}

pub(super) fn router(control: &Control) -> Router {
    Router::new()
        .route("/oauth2/token", post(token))
        .route("/oauth2/resource", get(resource))
        .with_state(control.clone())
}

async fn token(
    State(control): State<Control>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let moment = Moment { at: call.at, token_url: format!("http://{host}/oauth2/token") };
    let mut response = match answer(&mut control.world(), &headers, &body, &moment) {
        Ok(body) => Json(body).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn answer(world: &mut World, headers: &HeaderMap, body: &[u8], moment: &Moment) -> Result<Value, Refusal> {
    if !is_of_type(headers, "application/x-www-form-urlencoded") {
        return Err(Refusal::new(Error::InvalidRequest, "the body must be a form"));
    }
    let form = Form::parse(body)?;
    let grant_type = form.required("grant_type", "grant_type is missing")?;
    let grant = Grant::named(grant_type);
    let client = authentication::client(world, grant, &form, headers, moment)?;
    let Some(grant) = grant else {
        return Err(Refusal::new(Error::UnsupportedGrantType, "no such grant here"));
    };
    if !client.grants.contains(&grant) {
        return Err(Refusal::new(Error::UnauthorizedClient, "the client may not use this grant"));
    }
    grant::answer(world, grant, &client, &form, moment)
}

/// What a token says, to whoever holds it.
async fn resource(State(control): State<Control>, Extension(call): Extension<Call>, headers: HeaderMap) -> Response {
    let Some(token) = bearer_text(&headers) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"sandbox\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    let world = control.world();
    if let Some(claims) = world.bearer_claims(&world.settings.oauth2.issuer, token, call.at) {
        return Json(Value::Object(claims)).into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"sandbox\", error=\"invalid_token\"")];
    (StatusCode::UNAUTHORIZED, challenge, Json(json!({ "error": "invalid_token" }))).into_response()
}
