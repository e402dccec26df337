//! What is wrong with a Workspace's fields shows when it is made.

use super::keys;
use super::observed::PATIENT;
use super::recipes::{fields, json, loaded, optional, path, post, required, sealed, template, user};
use token_broker::provider::exchange::{Error, Fields};
use token_broker::provider::recipe::{Body, Expiry, Json, Recipe, Request, Step, Unit};

const BASE: &str = "https://api.example/";

/// Uses a parameter in every way in which it can be wrong.
fn recipe() -> Recipe {
    let members = [("username", "{username}"), ("password", "{password}"), ("number", "{number?|number}")];
    let request = Request {
        path: template("{login_path|path}/{tenant}"),
        headers: vec![("x-tenant".to_owned(), template("{tenant}"))],
        extra: true,
        ..post("", json(&members))
    };
    let mut answer = user().login.answer;
    answer.expiry.push(Expiry::Asked("seconds".to_owned(), Unit::Seconds));
    Recipe {
        parameters: vec![required("login_path"), required("tenant"), optional("number"), optional("seconds")],
        login: Step { request, answer },
        ..user()
    }
}

fn sound() -> Fields {
    fields(&[("username", "u"), ("password", "hunter2")], &[("login_path", "/v1"), ("tenant", "t")])
}

fn refused(change: impl FnOnce(&mut Fields)) -> Option<String> {
    let mut given = sound();
    change(&mut given);
    let error = loaded(BASE, PATIENT, recipe(), given).err()?;
    let text = error.to_string();
    assert!(!format!("{error:?} {text}").contains("hunter2"), "{text}");
    Some(text)
}

fn with_parameter(name: &str, value: &str) -> Option<String> {
    refused(|given| drop(given.parameters.insert(name.to_owned(), value.to_owned())))
}

fn with_secret(value: &str) -> Option<String> {
    refused(|given| drop(given.secrets.insert("password".to_owned(), sealed("password", value))))
}

fn with_extra(name: &str, value: &str) -> Option<String> {
    refused(|given| drop(given.extra.insert(name.to_owned(), value.to_owned())))
}

#[test]
fn sound_fields_are_taken() {
    assert_eq!(refused(|_| {}), None);
    assert_eq!(with_parameter("number", "42"), None);
    assert_eq!(with_parameter("seconds", "3600"), None);
    assert_eq!(with_secret("hunter2 with spaces: ü"), None);
    assert_eq!(with_extra("audience", "x"), None);
}

#[test]
fn fields_that_do_not_fit_are_named() {
    let long = "hunter2".repeat(3_000);
    let table = [
        (refused(|given| drop(given.secrets.remove("password"))), "password is missing"),
        (refused(|given| drop(given.parameters.remove("tenant"))), "tenant is missing"),
        (with_parameter("tenants", "hunter2"), "tenants is no field of this flow"),
        (with_secret(""), "password is empty"),
        (with_secret("hunter2\n"), "password holds a line break or another control character"),
        (with_secret(" hunter2"), "password begins or ends with white space"),
        (with_secret(&long), "password is longer than 16 KiB"),
        (with_parameter("tenant", &long), "tenant is longer than 4 KiB"),
        (with_parameter("tenant", "a\nb"), "tenant holds a line break or another control character"),
        (with_parameter("tenant", ""), "tenant must not be empty"),
        (with_parameter("tenant", ".."), "path leads elsewhere than it says"),
        (with_parameter("login_path", "hunter2"), "login_path must begin with '/'"),
        (with_parameter("login_path", "/../hunter2"), "login_path must not hold the segments '.' and '..'"),
        (with_parameter("number", "hunter2"), "number is not a whole number"),
        (with_parameter("seconds", "hunter2"), "seconds is not a whole number"),
        (with_extra("username", "hunter2"), "the extra parameter username is one that the flow sends itself"),
    ];
    for (refused, expected) in table {
        assert_eq!(refused.as_deref(), Some(expected));
    }
}

#[test]
fn what_the_recipe_does_not_allow_is_refused() {
    let extra = Fields {
        extra: [("a".to_owned(), "b".to_owned())].into(),
        ..fields(&[("username", "u"), ("password", "p")], &[])
    };
    assert_eq!(loaded(BASE, PATIENT, user(), extra).unwrap_err(), Error::Extra);
    let plain = loaded("http://api.example/", PATIENT, recipe(), sound());
    assert!(matches!(plain, Err(Error::Url(_))));
    let mut endless = recipe();
    endless.login.answer.expiry.clear();
    assert_eq!(
        loaded(BASE, PATIENT, Recipe { parameters: recipe().parameters, ..endless }, sound()).unwrap_err(),
        Error::Lifetime
    );
}

/// Signs with the secret `private_key`.
fn signing(claims: Vec<(String, Json)>) -> Recipe {
    let assertion = token_broker::provider::recipe::Assertion {
        key: "private_key".to_owned(),
        algorithm: template("RS256"),
        header: Vec::new(),
        claims,
        lifetime: std::time::Duration::from_secs(60),
        backdate: std::time::Duration::ZERO,
        issued_at: false,
        id: false,
    };
    let body = Body::Form(vec![("client_assertion".to_owned(), template("{assertion}"))]);
    let request = Request { assertion: Some(assertion), ..post("", body) };
    let mut login = user().login;
    login.request = request;
    login.answer.scheme = Some(path("token_type"));
    Recipe { secrets: vec![required("private_key")], login, ..user() }
}

#[test]
fn a_key_is_read_at_once() {
    let recipe = signing(Vec::new());
    assert_eq!(recipe.check(), []);
    let error = loaded(BASE, PATIENT, recipe, fields(&[("private_key", "hunter2")], &[])).unwrap_err();
    assert_eq!(error.to_string(), "private_key is no RSA private key in PEM form, of 2048 bits or more");
}

#[test]
fn the_claims_of_an_assertion_are_written_at_once() {
    let claims = vec![("app".to_owned(), Json::Text(template("{app|number}")))];
    let recipe = Recipe { parameters: vec![required("app")], ..signing(claims) };
    assert_eq!(recipe.check(), []);
    let key = keys::secret("generated:rsa");
    let given = |app| fields(&[("private_key", key.as_str())], &[("app", app)]);
    assert!(loaded(BASE, PATIENT, recipe.clone(), given("815")).is_ok());
    let error = loaded(BASE, PATIENT, recipe, given("hunter2")).unwrap_err();
    assert_eq!(error.to_string(), "app is not a whole number");
}
