//! Recipes for the tests, built by hand.

use std::sync::Arc;
use std::time::Duration;
use token_broker::http::{Client, Options};
use token_broker::lifetime::Bounds;
use token_broker::provider::exchange::{Error, Exchange, Fields, Upstream};
use token_broker::provider::recipe::template::Template;
use token_broker::provider::recipe::{
    Answer, Body, Expiry, Field, Json, Method, Path, Presence, Presented, Recipe, Request, Source, Step, Unit,
};
use token_broker::secret::{LongLivedSecret, Sealed};
use token_broker::token::WorkspaceName;
use url::Url;

pub(super) const BOUNDS: Bounds =
    Bounds { shortest: Duration::from_secs(30), longest: Duration::from_secs(2 * 365 * 86_400) };

pub(super) fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

pub(super) fn path(text: &str) -> Path {
    Path(text.split('.').map(str::to_owned).collect())
}

pub(super) fn required(name: &str) -> Field {
    Field { name: name.to_owned(), presence: Presence::Required }
}

pub(super) fn optional(name: &str) -> Field {
    Field { name: name.to_owned(), presence: Presence::Optional }
}

pub(super) fn json(members: &[(&str, &str)]) -> Body {
    Body::Json(members.iter().map(|(name, text)| ((*name).to_owned(), Json::Text(template(text)))).collect())
}

pub(super) fn post(at: &str, body: Body) -> Request {
    Request {
        method: Method::Post,
        path: template(at),
        query: Vec::new(),
        headers: Vec::new(),
        basic: None,
        body,
        assertion: None,
        extra: false,
    }
}

pub(super) fn answer(token: &str) -> Answer {
    Answer {
        success: vec![200],
        when: Vec::new(),
        failures: Vec::new(),
        token: Source::Path(path(token)),
        scheme: None,
        refresh_token: None,
        expiry: vec![Expiry::Relative(path("expires_in"), Unit::Seconds)],
        extra_headers: Vec::new(),
        attributes: Vec::new(),
    }
}

/// A user name and a password; the answer of OAuth.
pub(super) fn user() -> Recipe {
    let request = post("/login", json(&[("username", "{username}"), ("password", "{password}")]));
    Recipe {
        secrets: vec![required("username"), required("password")],
        parameters: Vec::new(),
        login: Step { request, answer: answer("access_token") },
        refresh: None,
        switch: None,
        presentation: Presented { header: "authorization".to_owned(), scheme: "Bearer".to_owned() },
        tenant: None,
        needs_store: false,
    }
}

/// Whose the secrets of these tests are.
fn owner() -> WorkspaceName {
    WorkspaceName::parse("team/tenant").unwrap()
}

pub(super) fn sealed(name: &str, value: &str) -> Sealed {
    Sealed::new(&LongLivedSecret::new(value), owner().as_str(), name)
}

pub(super) fn fields(secrets: &[(&str, &str)], parameters: &[(&str, &str)]) -> Fields {
    let secret = |(name, value): &(&str, &str)| ((*name).to_owned(), sealed(name, value));
    let parameter = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Fields {
        secrets: secrets.iter().map(secret).collect(),
        parameters: parameters.iter().map(parameter).collect(),
        ..Fields::default()
    }
}

pub(super) fn exchange(base: &str, timeout: Duration, recipe: Recipe, fields: Fields) -> Exchange {
    assert_eq!(recipe.check(), []);
    loaded(base, timeout, recipe, fields).unwrap()
}

pub(super) fn loaded(base: &str, timeout: Duration, recipe: Recipe, fields: Fields) -> Result<Exchange, Error> {
    let client = Arc::new(Client::new(&Options { timeout, ..Options::default() }).unwrap());
    let base = Url::parse(base).unwrap();
    let upstream = Upstream { client, base, bounds: BOUNDS, token_lifetime: None };
    Exchange::new(Arc::new(upstream), Arc::new(recipe), owner(), fields)
}
