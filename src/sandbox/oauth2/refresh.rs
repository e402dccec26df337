//! The grant `refresh_token` (RFC 6749 §6), and where its tokens come from.

use super::Moment;
use super::client::Client;
use super::form::Form;
use super::grant::{Wanted, insert, token};
use super::refusal::{Error, Refusal};
use super::target::{scopes, targets};
use crate::sandbox::emnify::Refresh;
use crate::sandbox::families::Holder;
use crate::sandbox::world::{World, alphanumerics, unix_seconds};
use serde_json::Value;
use std::time::SystemTime;

/// Seconds that a refresh token lives.
const LIFE: u64 = 30 * 86_400;

pub(super) fn answer(world: &mut World, client: &Client, form: &Form, moment: &Moment) -> Result<Value, Refusal> {
    let text = form.required("refresh_token", "refresh_token is missing")?;
    let held = world.oauth2.families.present(text, &client.id, moment.seconds());
    let Some(held) = held else {
        return Err(Refusal::new(Error::InvalidGrant, "the refresh token is not good"));
    };
    let scopes = scopes(form.get("scope"), &held.scope)?;
    let wanted = Wanted::new(&held.subject, scopes, targets(form, client)?, client);
    match world.settings.oauth2.refresh {
        Refresh::Kept => Ok(token(world, client, wanted, moment)),
        Refresh::Rotated => {
            world.oauth2.families.use_up(text);
            Ok(with_refresh_token(world, client, wanted, Some(held), moment))
        }
    }
}

/// An answer with a refresh token. One that comes from another keeps its scope, whatever is asked for meanwhile.
pub(super) fn with_refresh_token(
    world: &mut World,
    client: &Client,
    wanted: Wanted,
    from: Option<Holder>,
    moment: &Moment,
) -> Value {
    let (subject, scope) = (wanted.subject.clone(), wanted.scopes.clone());
    let mut body = token(world, client, wanted, moment);
    let number = world.number();
    let (scope, family) = from.map_or((scope, number), |from| (from.scope, from.family));
    let text = format!("sandbox-refresh-{}", alphanumerics(number).take(40).collect::<String>());
    let holder = holder(client, subject, scope, family, moment.at);
    world.oauth2.families.insert(text.clone(), holder);
    insert(&mut body, "refresh_token", text.into());
    body
}

/// Makes a refresh token exist, as if a person had given consent; `None` where there is no such client.
pub(in crate::sandbox) fn grant(
    world: &mut World,
    client: &str,
    subject: &str,
    text: Option<String>,
    at: SystemTime,
) -> Option<String> {
    let client = world.oauth2.clients.iter().find(|known| known.id == client)?.clone();
    let number = world.number();
    let text =
        text.unwrap_or_else(|| format!("sandbox-refresh-{}", alphanumerics(number).take(40).collect::<String>()));
    let holder = holder(&client, subject.to_owned(), client.scopes.clone(), number, at);
    world.oauth2.families.insert(text.clone(), holder);
    Some(text)
}

/// Ends all refresh tokens of a client; says how many.
pub(in crate::sandbox) fn revoke(world: &mut World, client: &str) -> usize {
    world.oauth2.families.end(|holder| holder.client == client)
}

fn holder(client: &Client, subject: String, scope: Vec<String>, family: u64, at: SystemTime) -> Holder {
    let exp = unix_seconds(at).saturating_add(LIFE);
    Holder { client: client.id.clone(), subject, scope, access: None, family, exp }
}
