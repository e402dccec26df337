//! Which client asks (RFC 6749 §2.3): exactly one way to prove it, and one that the client may use.

use super::Moment;
use super::assertion::{self, Claims};
use super::client::{Client, Grant, Method};
use super::form::Form;
use super::refusal::{Error, Refusal};
use crate::sandbox::world::World;
use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::form_urlencoded;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The client that a request is from.
pub(super) fn client(
    world: &mut World,
    grant: Option<Grant>,
    form: &Form,
    headers: &HeaderMap,
    moment: &Moment,
) -> Result<Client, Refusal> {
    let by_header = headers.contains_key(header::AUTHORIZATION);
    let by_secret = form.get("client_secret").is_some();
    let by_assertion = form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some();
    match (by_header, by_secret, by_assertion) {
        (true, false, false) => by_basic(world, form, headers),
        (false, true, false) => by_body(world, form),
        (false, false, true) => by_key(world, form, moment),
        (false, false, false) => by_nothing(world, grant, form),
        (_, _, _) => Err(Refusal::new(Error::InvalidRequest, "more than one way to authenticate the client was used")),
    }
}

fn by_basic(world: &World, form: &Form, headers: &HeaderMap) -> Result<Client, Refusal> {
    let refusal = Refusal::challenged("client authentication failed");
    let (id, secret) = basic(headers).ok_or(refusal)?;
    if form.get("client_id").is_some_and(|other| other != id) {
        return Err(Refusal::new(Error::InvalidRequest, "client_id is not that of the header"));
    }
    with_secret(world, &id, &secret, Method::Basic).ok_or(refusal)
}

/// Each part is form-encoded before both are joined and encoded once more (RFC 6749 §2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

/// `None` where it can't have been encoded so.
fn form_decoded(text: &str) -> Option<String> {
    if text.bytes().any(|byte| matches!(byte, b'&' | b'=')) {
        return None;
    }
    let pair = format!("a={text}");
    let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(value.into_owned())
}

fn by_body(world: &World, form: &Form) -> Result<Client, Refusal> {
    let id = form.required("client_id", "client_id is missing")?;
    let secret = form.required("client_secret", "client_secret is missing")?;
    let refusal = Refusal::new(Error::InvalidClient, "client authentication failed");
    with_secret(world, id, secret, Method::Body).ok_or(refusal)
}

fn with_secret(world: &World, id: &str, secret: &str, method: Method) -> Option<Client> {
    let client = named(world, id)?;
    let right = client.secret.as_deref() == Some(secret) && client.methods.contains(&method);
    right.then(|| client.clone())
}

fn by_key(world: &mut World, form: &Form, moment: &Moment) -> Result<Client, Refusal> {
    let text = form.required("client_assertion", "client_assertion is missing")?;
    let kind = form.required("client_assertion_type", "client_assertion_type is missing")?;
    let invalid = |description| Refusal::new(Error::InvalidClient, description);
    if kind != ASSERTION_TYPE {
        return Err(invalid("client_assertion_type is not known"));
    }
    let (client, claims) = signed(world, text, moment).map_err(invalid)?;
    if !client.methods.contains(&Method::PrivateKeyJwt) {
        return Err(invalid("client authentication failed"));
    }
    let is_own = claims.sub == client.id && form.get("client_id").is_none_or(|id| id == client.id);
    if !is_own {
        return Err(invalid("the assertion is not about its signer"));
    }
    if claims.jti.is_none() {
        return Err(invalid("the assertion has no jti"));
    }
    world.oauth2.seen.take(&claims, moment.seconds()).map_err(invalid)?;
    Ok(client)
}

/// Who has signed an assertion, and what it says.
pub(super) fn signed(world: &World, text: &str, moment: &Moment) -> Result<(Client, Claims), &'static str> {
    let issuer = assertion::issuer(text).ok_or("the assertion's signature or form is bad")?;
    let client = named(world, &issuer).ok_or("the assertion's issuer is not known")?;
    let audiences = [moment.token_url.as_str(), world.settings.oauth2.issuer.as_str()];
    let claims = assertion::verify(&client.keys, text, &audiences, moment.seconds())?;
    Ok((client.clone(), claims))
}

/// Only an assertion as a grant may do without: then whoever has signed it is the client (RFC 7521 §4.1).
fn by_nothing(world: &World, grant: Option<Grant>, form: &Form) -> Result<Client, Refusal> {
    let missing = Refusal::new(Error::InvalidClient, "client authentication is missing");
    if grant != Some(Grant::JwtBearer) {
        return Err(missing);
    }
    let text = form.required("assertion", "assertion is missing")?;
    let unknown = Refusal::new(Error::InvalidGrant, "the assertion's signature, form or issuer is bad");
    let client = assertion::issuer(text).and_then(|issuer| named(world, &issuer)).ok_or(unknown)?;
    match form.get("client_id") {
        Some(id) if id != client.id => Err(missing),
        Some(_) | None => Ok(client.clone()),
    }
}

fn named<'a>(world: &'a World, id: &str) -> Option<&'a Client> {
    world.oauth2.clients.iter().find(|client| client.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(credentials: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        let value = format!("bAsIc {}", STANDARD.encode(credentials));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        basic(&headers)
    }

    #[test]
    fn id_and_secret_are_form_decoded_each() {
        let expected = Some(("a:b".to_owned(), "p+ %ä&=".to_owned()));
        assert_eq!(parts("a%3Ab:p%2B+%25%C3%A4%26%3D"), expected);
    }

    #[test]
    fn what_was_not_form_encoded_is_refused() {
        assert_eq!(parts("no colon"), None);
        assert_eq!(parts("a:b&c"), None);
        assert_eq!(parts("a:b=c"), None);
    }
}
