//! Logging in as a user: password, second factor, trusted device, refresh, and the switch to another Workspace.
//!
//! Passwords come as lower-case SHA-1 hex, so that is what the sandbox keeps. How long refresh and MFA tokens live, and
//! whether a refresh token is used up, is not documented; [`Refresh`] has both behaviours.

use super::authenticate::{Fields, locked, tokens};
use super::{Account, Bearer, Call, answer, object};
use crate::sandbox::control::Control;
use crate::sandbox::issued::Owner;
use crate::sandbox::world::{Purpose, World};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;

/// Seconds that a refresh token lives: made up.
const REFRESH_LIFE: u64 = 30 * 86_400;
/// Seconds that a second factor may take: as long as an emailed code is valid.
const SECOND_FACTOR_LIFE: u64 = 20 * 60;
/// How many devices a user may trust.
const MAX_DEVICES: usize = 100;

/// Somebody who logs in with a password.
#[derive(Clone)]
pub struct User {
    /// An e-mail address at the real one.
    pub username: String,
    /// Lower-case SHA-1 hex of the password: what the client sends.
    pub password_sha1: String,
    /// Whose tokens the user gets.
    pub organisation: u64,
    /// To which Workspaces the user may switch.
    pub workspaces: Vec<u64>,
    /// The code that completes a login from a device that is not trusted. `None`: no second factor.
    pub code: Option<String>,
    /// Fingerprints of devices that need no second factor.
    pub trusted_devices: Vec<String>,
}

/// What a refresh token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// Good until it expires; the answer has a new `auth_token` only, as in the documentation's example.
    #[default]
    Kept,
    /// Good once; the answer has a new pair, which the vendor's old SDK was written for.
    Rotated,
}

impl User {
    /// `sandbox-user@example.com` with the password `sandbox-password`, of organisation 1, who may switch to 2 and
    /// needs no second factor.
    pub(in crate::sandbox) fn demo() -> Self {
        Self {
            username: "sandbox-user@example.com".to_owned(),
            password_sha1: "5a865b283355bd440b4efeb674bb731e75dd56f8".to_owned(),
            organisation: 1,
            workspaces: vec![1, 2],
            code: None,
            trusted_devices: Vec::new(),
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("username", &self.username)
            .field("organisation", &self.organisation)
            .finish_non_exhaustive()
    }
}

/// All users, by name.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Users(BTreeMap<String, User>);

impl Users {
    pub(in crate::sandbox) fn new(users: &[User]) -> Self {
        let named = users.iter().map(|user| (user.username.clone(), user.clone()));
        Self(named.collect())
    }
}

pub(super) fn organisation_of(world: &World, fields: &Fields) -> Option<u64> {
    if let Some(username) = &fields.username {
        return world.users.0.get(username).map(|user| user.organisation);
    }
    let token = fields.refresh_token.as_ref().or(fields.mfa_token.as_ref())?;
    world.key.open(token).ok().map(|claims| claims.organisation)
}

/// One of the three ways; a failure counts against the user where the user is known.
pub(super) fn log_in(world: &mut World, call: &Call, fields: &Fields) -> Response {
    let named = user_of(world, call, fields);
    let account = named.as_ref().map_or(Account::Address(call.address), |user| Account::User(user.username.clone()));
    if world.is_locked(&account, call.now) {
        return locked();
    }
    let answer = named.and_then(|user| attempt(world, call, fields, &user));
    if let Some(answer) = answer {
        world.succeeded(&account);
        return answer;
    }
    world.failed(account, call.now);
    answer::empty(StatusCode::UNAUTHORIZED)
}

/// Whom the request names: by username, or by a token that is good for it.
fn user_of(world: &World, call: &Call, fields: &Fields) -> Option<User> {
    let by_token = |purpose, token: &str| {
        let claims = world.verify(purpose, token, call.at).ok()?;
        claims.sub
    };
    let username = match (&fields.refresh_token, &fields.mfa_token, &fields.username) {
        (Some(token), _, _) => by_token(Purpose::Refresh, token),
        (None, Some(token), _) => by_token(Purpose::SecondFactor, token),
        (None, None, username) => username.clone(),
    };
    world.users.0.get(&username?).cloned()
}

fn attempt(world: &mut World, call: &Call, fields: &Fields, user: &User) -> Option<Response> {
    if let Some(token) = &fields.refresh_token {
        return refresh(world, call, token, user);
    }
    if let Some(token) = &fields.mfa_token {
        return second_factor(world, call, fields, token, user);
    }
    let right = fields.password.as_ref() == Some(&user.password_sha1);
    let trusted = fields.fingerprint.as_ref().is_some_and(|device| user.trusted_devices.contains(device));
    match (right, &user.code) {
        (false, _) => None,
        (true, Some(_)) if !trusted => {
            let mfa_token = sign(world, call, Purpose::SecondFactor, user)?;
            Some(tokens(&json!({ "mfa_token": mfa_token })))
        }
        (true, Some(_) | None) => pair(world, call, user),
    }
}

fn refresh(world: &mut World, call: &Call, token: &str, user: &User) -> Option<Response> {
    match world.settings.refresh {
        Refresh::Kept => {
            let auth_token = world.mint(owner(user), Some(user.username.clone()), call.at)?;
            Some(tokens(&json!({ "auth_token": auth_token })))
        }
        Refresh::Rotated => {
            world.issued.use_up(token);
            pair(world, call, user)
        }
    }
}

/// An MFA token is good for one success, and for as many tries as the lockout leaves.
fn second_factor(world: &mut World, call: &Call, fields: &Fields, token: &str, user: &User) -> Option<Response> {
    if user.code.is_none() || fields.code != user.code {
        return None;
    }
    world.issued.use_up(token);
    if let (Some(device), Some(stored)) = (&fields.trusted_device, world.users.0.get_mut(&user.username))
        && stored.trusted_devices.len() < MAX_DEVICES
    {
        stored.trusted_devices.push(device.fingerprint.clone());
    }
    pair(world, call, user)
}

fn pair(world: &mut World, call: &Call, user: &User) -> Option<Response> {
    let auth_token = world.mint(owner(user), Some(user.username.clone()), call.at)?;
    let refresh_token = sign(world, call, Purpose::Refresh, user)?;
    Some(tokens(&json!({ "auth_token": auth_token, "refresh_token": refresh_token })))
}

fn sign(world: &mut World, call: &Call, purpose: Purpose, user: &User) -> Option<String> {
    let life = match purpose {
        Purpose::SecondFactor => SECOND_FACTOR_LIFE,
        Purpose::Refresh | Purpose::Authentication => REFRESH_LIFE,
    };
    let subject = Some(user.username.clone());
    world.sign(purpose, owner(user), subject, call.at, life)
}

fn owner(user: &User) -> Owner {
    Owner { organisation: user.organisation, application_token: None }
}

#[derive(Deserialize)]
struct Switch {
    target_organisation: Target,
}

#[derive(Deserialize)]
struct Target {
    id: u64,
}

/// `POST /api/v1/authenticate/workspace`: a user's token for another Workspace. Application tokens' JWTs are refused.
pub(super) async fn switch(
    State(control): State<Control>,
    Extension(bearer): Extension<Bearer>,
    body: Bytes,
) -> Response {
    let Some(switch) = object::<Switch>(&body) else {
        return answer::error(StatusCode::BAD_REQUEST, answer::Code::BadRequest, "target_organisation.id is required");
    };
    let target = switch.target_organisation.id;
    let mut world = control.world();
    let user = bearer.user.filter(|name| {
        let user = world.users.0.get(name);
        user.is_some_and(|user| user.workspaces.contains(&target))
    });
    let owner = Owner { organisation: target, application_token: None };
    let jwt = user.and_then(|name| world.mint(owner, Some(name), bearer.at));
    match jwt {
        Some(jwt) => tokens(&json!({ "auth_token": jwt })),
        None => answer::empty(StatusCode::UNAUTHORIZED),
    }
}
