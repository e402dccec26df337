//! `POST /api/v1/authenticate`: one path, and the fields that are present choose the variant.
//!
//! An `Authorization` header is ignored here: the official Python SDK sends `Bearer None` and gets its token.

use super::accounts::{Accounts, Wanted};
use super::answer::{self, Code};
use super::users;
use super::{Account, Call, object};
use crate::sandbox::control::Control;
use crate::sandbox::issued::Owner;
use crate::sandbox::limits::RetryAfter;
use crate::sandbox::world::{World, alphanumerics, unix_seconds};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// The fields of all variants. No `Debug`: they are secrets.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    application_token: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) fingerprint: Option<String>,
    pub(super) refresh_token: Option<String>,
    pub(super) mfa_token: Option<String>,
    pub(super) code: Option<String>,
    pub(super) trusted_device: Option<TrustedDevice>,
}

/// A device that needs no second factor from now on. The real one also takes its operating system, browser and name.
#[derive(Deserialize)]
pub(super) struct TrustedDevice {
    pub(super) fingerprint: String,
}

pub(super) async fn post(State(control): State<Control>, Extension(call): Extension<Call>, body: Bytes) -> Response {
    let mut world = control.world();
    if let Err(wait) = world.admit(call.address, call.now) {
        return throttled(wait, world.limits.retry_after);
    }
    let Some(fields) = object::<Fields>(&body) else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            Code::BadRequest,
            "Request body is not valid JSON of the expected form",
        );
    };
    match Fields::variant(fields) {
        Some(Variant::ApplicationToken(text)) => by_application_token(&mut world, &call, &text),
        Some(Variant::User(fields)) => users::log_in(&mut world, &call, &fields),
        None => answer::invalid(StatusCode::BAD_REQUEST, Code::Required, "application_token is required"),
    }
}

enum Variant {
    ApplicationToken(String),
    User(Fields),
}

impl Fields {
    fn variant(self) -> Option<Variant> {
        if let Some(text) = self.application_token {
            return Some(Variant::ApplicationToken(text));
        }
        let with_password = self.username.is_some() && self.password.is_some();
        let with_code = self.mfa_token.is_some() && self.code.is_some();
        let of_a_user = with_password || with_code || self.refresh_token.is_some();
        of_a_user.then_some(Variant::User(self))
    }
}

/// The organisation that a login is for, as far as its body tells.
pub(super) fn organisation_of(world: &World, body: &[u8]) -> Option<u64> {
    let fields: Fields = object(body)?;
    if let Some(text) = &fields.application_token {
        return world.accounts.by_text(text).map(|token| token.organisation);
    }
    users::organisation_of(world, &fields)
}

/// The lockout's account is the organisation, and for an unknown token the client's address. The documentation says
/// "account" and no more; locking the whole organisation is the strictest reading, so whoever gets along with it gets
/// along with the real one. An unknown token names no account, and must not lock anybody else's.
fn by_application_token(world: &mut World, call: &Call, text: &str) -> Response {
    let known = world.accounts.by_text(text);
    let account = known.map_or(Account::Address(call.address), |token| Account::Organisation(token.organisation));
    if world.is_locked(&account, call.now) {
        return locked();
    }
    let owner = known
        .filter(|token| token.works(call.at, call.address))
        .map(|token| Owner { organisation: token.organisation, application_token: Some(token.id) });
    let jwt = owner.and_then(|owner| again_or_new(world, call, owner));
    let Some(jwt) = jwt else {
        world.failed(account, call.now);
        return answer::empty(StatusCode::UNAUTHORIZED);
    };
    world.succeeded(&account);
    tokens(&json!({ "auth_token": jwt }))
}

/// Under the fault `SameToken`, the last one as long as it lives long enough.
fn again_or_new(world: &mut World, call: &Call, owner: Owner) -> Option<String> {
    let again = call.same_token.and_then(|while_left| {
        let until = unix_seconds(call.at).saturating_add(while_left.as_secs());
        world.issued.newest(owner, until).map(str::to_owned)
    });
    again.or_else(|| world.mint(owner, None, call.at))
}

/// 200 with tokens. `max-age=0`, not `no-store`, is what was recorded.
pub(super) fn tokens(body: &serde_json::Value) -> Response {
    let mut response = answer::json(StatusCode::OK, body);
    let cache_control = HeaderValue::from_static("max-age=0");
    response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    response
}

/// A locked account: 401, not 429, says the documentation.
pub(super) fn locked() -> Response {
    answer::error(StatusCode::UNAUTHORIZED, Code::TooManyRequests, "Too many failed authentication requests")
}

fn throttled(wait: Duration, retry_after: RetryAfter) -> Response {
    let mut response = answer::error(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, "Too many requests");
    match retry_after {
        RetryAfter::Absent => {}
        RetryAfter::Sent => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
    response
}

/// Makes an application token, 418 to 493 characters long as the recorded ones, for an organisation that exists; says
/// its id and text.
pub(in crate::sandbox) fn create(
    world: &mut World,
    organisation: u64,
    wanted: Wanted,
    at: SystemTime,
) -> Option<(u64, String)> {
    let name = world.accounts.organisation(organisation)?.name.clone();
    let accounts: &mut Accounts = &mut world.accounts;
    let id = accounts.next_id();
    let text = world.key.sign_application_token(&json!({
        "sub": format!("application-token-{id}"),
        // Not recorded: brings the text to the recorded length.
        "api_key": alphanumerics(id).take(120).collect::<String>(),
        "esc.app": id,
        "esc.org": organisation,
        "esc.orgName": name,
        "iss": "spc-frontend001@spc-frontend",
        "iat": unix_seconds(at),
    }));
    accounts.insert(organisation, text.clone(), wanted, at);
    Some((id, text))
}
