//! What each grant brings.

use super::authentication::signed;
use super::client::{Client, Expiry, Grant};
use super::form::Form;
use super::refusal::{Error, Refusal};
use super::target::{scopes, targets};
use super::{Moment, refresh};
use crate::sandbox::bearer::claims;
use crate::sandbox::login::Login;
use crate::sandbox::world::World;
use serde_json::{Map, Value, json};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What a token is to say.
pub(super) struct Wanted {
    pub(super) subject: String,
    pub(super) scopes: Vec<String>,
    pub(super) targets: Vec<String>,
    /// Seconds.
    pub(super) life: u64,
    /// `act` (RFC 8693 §4.1).
    actor: Option<String>,
}

impl Wanted {
    pub(super) fn new(subject: &str, scopes: Vec<String>, targets: Vec<String>, client: &Client) -> Self {
        Self { subject: subject.to_owned(), scopes, targets, life: client.lifetime.as_secs(), actor: None }
    }
}

pub(super) fn answer(
    world: &mut World,
    grant: Grant,
    client: &Client,
    form: &Form,
    moment: &Moment,
) -> Result<Value, Refusal> {
    match grant {
        Grant::ClientCredentials => client_credentials(world, client, form, moment),
        Grant::RefreshToken => refresh::answer(world, client, form, moment),
        Grant::JwtBearer => jwt_bearer(world, client, form, moment),
        Grant::TokenExchange => token_exchange(world, client, form, moment),
        Grant::Password => password(world, client, form, moment),
    }
}

/// Without a refresh token (RFC 6749 §4.4.3).
fn client_credentials(world: &mut World, client: &Client, form: &Form, moment: &Moment) -> Result<Value, Refusal> {
    let scopes = scopes(form.get("scope"), &client.scopes)?;
    let wanted = Wanted::new(&client.id, scopes, targets(form, client)?, client);
    Ok(token(world, client, wanted, moment))
}

fn password(world: &mut World, client: &Client, form: &Form, moment: &Moment) -> Result<Value, Refusal> {
    let username = form.required("username", "username is missing")?;
    let password = form.required("password", "password is missing")?;
    if !world.settings.oauth2.users.contains(&Login::new(username, password)) {
        return Err(Refusal::new(Error::InvalidGrant, "the user's credentials are wrong"));
    }
    let scopes = scopes(form.get("scope"), &client.scopes)?;
    let wanted = Wanted::new(username, scopes, targets(form, client)?, client);
    Ok(refresh::with_refresh_token(world, client, wanted, None, moment))
}

/// The signer is the client. The scope may be in the assertion instead, as at Google.
fn jwt_bearer(world: &mut World, client: &Client, form: &Form, moment: &Moment) -> Result<Value, Refusal> {
    let text = form.required("assertion", "assertion is missing")?;
    let invalid = |description| Refusal::new(Error::InvalidGrant, description);
    let (signer, asserted) = signed(world, text, moment).map_err(invalid)?;
    if signer.id != client.id {
        return Err(invalid("the assertion is another client's"));
    }
    let scopes = scopes(form.get("scope").or(asserted.scope.as_deref()), &client.scopes)?;
    let targets = targets(form, client)?;
    world.oauth2.seen.take(&asserted, moment.seconds()).map_err(invalid)?;
    let wanted = Wanted::new(&asserted.sub, scopes, targets, client);
    Ok(token(world, client, wanted, moment))
}

/// Tokens of this server for tokens of this server, which live no longer and may do no more.
fn token_exchange(world: &mut World, client: &Client, form: &Form, moment: &Moment) -> Result<Value, Refusal> {
    let requested = form.get("requested_token_type").unwrap_or(ACCESS_TOKEN);
    if ![ACCESS_TOKEN, JWT].contains(&requested) {
        return Err(Refusal::new(Error::InvalidRequest, "requested_token_type is not known"));
    }
    let subject = presented(world, form, moment, ("subject_token", "subject_token_type"))?;
    let Some(subject) = subject else {
        return Err(Refusal::new(Error::InvalidRequest, "subject_token is missing"));
    };
    let actor = presented(world, form, moment, ("actor_token", "actor_token_type"))?;
    let targets = targets(form, client)?;
    let text = |claims: &Map<String, Value>, name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let held = text(&subject, "scope").unwrap_or_default();
    let may: Vec<String> =
        client.scopes.iter().filter(|own| held.split(' ').any(|scope| scope == *own)).cloned().collect();
    let scopes = scopes(form.get("scope"), &may)?;
    let left = subject.get("exp").and_then(Value::as_u64).unwrap_or_default().saturating_sub(moment.seconds());
    let mut wanted = Wanted::new(&text(&subject, "sub").unwrap_or_default(), scopes, targets, client);
    wanted.life = wanted.life.min(left);
    wanted.actor = actor.and_then(|actor| text(&actor, "sub"));
    let mut body = token(world, client, wanted, moment);
    insert(&mut body, "issued_token_type", requested.into());
    Ok(body)
}

/// The claims of a token that a form presents. Whatever is wrong with it is `invalid_request` (RFC 8693 §2.2.2).
fn presented(
    world: &World,
    form: &Form,
    moment: &Moment,
    (name, type_name): (&str, &str),
) -> Result<Option<Map<String, Value>>, Refusal> {
    let invalid = |description| Refusal::new(Error::InvalidRequest, description);
    match (form.get(name), form.get(type_name)) {
        (None, None) => Ok(None),
        (Some(token), Some(ACCESS_TOKEN | JWT)) => {
            let claims = world.bearer_claims(&world.settings.oauth2.issuer, token, moment.at);
            claims.map(Some).ok_or_else(|| invalid("a presented token is not good"))
        }
        (Some(_), Some(_)) => Err(invalid("the type of a presented token is not known")),
        (Some(_), None) | (None, Some(_)) => Err(invalid("a token and its type belong together")),
    }
}

/// A successful answer (RFC 6749 §5.1).
pub(super) fn token(world: &mut World, client: &Client, wanted: Wanted, moment: &Moment) -> Value {
    let Wanted { subject, scopes, targets, life, actor } = wanted;
    let scope = scopes.join(" ");
    let mut said = json!({ "sub": subject, "client_id": client.id });
    let aud = match targets.as_slice() {
        [] => json!("sandbox"),
        [one] => json!(one),
        several => json!(several),
    };
    insert(&mut said, "aud", aud);
    if let Some(actor) = actor {
        insert(&mut said, "act", json!({ "sub": actor }));
    }
    let mut body = json!({ "token_type": "Bearer" });
    if !scope.is_empty() {
        insert(&mut said, "scope", scope.clone().into());
        insert(&mut body, "scope", scope.into());
    }
    if client.expiry == Expiry::Said {
        insert(&mut body, "expires_in", life.into());
    }
    let issuer = world.settings.oauth2.issuer.clone();
    insert(&mut body, "access_token", world.bearer(&issuer, claims(said), moment.at, life).into());
    body
}

pub(super) fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
