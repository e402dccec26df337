//! The simulated authorization server: how clients authenticate, and what every request has to keep to.

mod assertions;
mod exchange;
mod refresh;

use super::{Running, body, claims, date, header, life, seconds, text_at};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use std::time::Duration;
use token_broker::sandbox::{Client, Expiry, Grant, Method, OAuth2, Refresh, Route, Settings};
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;
use url::form_urlencoded::byte_serialize;

const TOKEN: &str = "/oauth2/token";
const RESOURCE: &str = "/oauth2/resource";
const CLIENT: &str = "sandbox-client";
const SECRET: &str = "sandbox-client-secret";
const CREDENTIALS: (&str, &str) = ("grant_type", "client_credentials");

/// A sandbox with these clients beside the demo's.
async fn with_clients(clients: impl IntoIterator<Item = Client>, refresh: Refresh) -> Running {
    let mut oauth2 = OAuth2 { refresh, ..OAuth2::default() };
    oauth2.clients.extend(clients);
    Running::with(Settings { oauth2, ..Settings::default() }).await
}

impl Running {
    fn token_request(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        self.form(TOKEN, fields)
    }

    /// As the demo's client, in the body.
    async fn token(&self, fields: &[(&str, &str)]) -> Response {
        let client = [("client_id", CLIENT), ("client_secret", SECRET)];
        self.token_request(&[fields, &client].concat()).send().await.unwrap()
    }

    async fn basic(&self, credentials: &str, fields: &[(&str, &str)]) -> Response {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        self.token_request(fields).header("authorization", value).send().await.unwrap()
    }
}

async fn granted(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    body(response).await
}

/// 400 and this error, or 401 where it is about the client.
async fn assert_refused(response: Response, error: &str) {
    let expected = if error == "invalid_client" { 401 } else { 400 };
    assert_eq!(response.status(), expected, "{error}");
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let body = body(response).await;
    assert_eq!(body["error"], error, "{body}");
    let description = text_at(&body, "error_description");
    assert!(description.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{description}");
}

#[tokio::test]
async fn client_credentials_bring_a_bearer_token_and_no_refresh_token() {
    let sandbox = Running::start().await;
    let response = sandbox.token(&[CREDENTIALS]).await;
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(header(&response, "pragma"), Some("no-cache"));
    let stamped = date(&response);
    let body = granted(response).await;
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["access_token", "expires_in", "scope", "token_type"]);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3_600)));
    let jwt = text_at(&body, "access_token");
    let claims = claims(&jwt);
    assert_eq!(life(&jwt), 3_600);
    assert_eq!(claims["iat"], stamped);
    for (name, expected) in [("sub", CLIENT), ("client_id", CLIENT), ("scope", "read write"), ("aud", "sandbox")] {
        assert_eq!(claims[name], expected, "{name}");
    }
}

#[tokio::test]
async fn basic_credentials_are_form_encoded_each() {
    let (id, secret) = ("id:with colon", "p+ %ä&=/:");
    let sandbox = with_clients([Client::new(id).secret(secret)], Refresh::Kept).await;
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let right = format!("{}:{}", encode(id), encode(secret));
    granted(sandbox.basic(&right, &[CREDENTIALS]).await).await;
    granted(sandbox.basic(&right, &[CREDENTIALS, ("client_id", id)]).await).await;
    assert_refused(sandbox.basic(&right, &[CREDENTIALS, ("client_id", "other")]).await, "invalid_request").await;
    let plain = format!("{}:{secret}", encode(id));
    assert_refused(sandbox.basic(&plain, &[CREDENTIALS]).await, "invalid_client").await;
}

#[tokio::test]
async fn a_client_that_is_not_known_gets_401_and_a_challenge_if_it_came_by_header() {
    let sandbox = Running::start().await;
    for credentials in ["sandbox-client:wrong", "nobody:sandbox-client-secret", "nonsense"] {
        let response = sandbox.basic(credentials, &[CREDENTIALS]).await;
        assert!(header(&response, "www-authenticate").unwrap().starts_with("Basic "));
        assert_refused(response, "invalid_client").await;
    }
    let bearer = sandbox.token_request(&[CREDENTIALS]).bearer_auth("x").send().await.unwrap();
    assert!(header(&bearer, "www-authenticate").unwrap().starts_with("Basic "));
    assert_refused(bearer, "invalid_client").await;
    for (id, secret) in [(CLIENT, "wrong"), ("nobody", SECRET)] {
        let fields = [CREDENTIALS, ("client_id", id), ("client_secret", secret)];
        let response = sandbox.token_request(&fields).send().await.unwrap();
        assert_eq!(header(&response, "www-authenticate"), None);
        assert_refused(response, "invalid_client").await;
    }
    for fields in [vec![CREDENTIALS], vec![CREDENTIALS, ("client_id", CLIENT)]] {
        assert_refused(sandbox.token_request(&fields).send().await.unwrap(), "invalid_client").await;
    }
}

#[tokio::test]
async fn exactly_one_way_to_authenticate_is_taken() {
    let sandbox = Running::start().await;
    let basic = format!("{CLIENT}:{SECRET}");
    let secret = [CREDENTIALS, ("client_id", CLIENT), ("client_secret", SECRET)];
    assert_refused(sandbox.basic(&basic, &secret).await, "invalid_request").await;
    let assertion = [CREDENTIALS, ("client_assertion", "a.b.c")];
    assert_refused(sandbox.basic(&basic, &assertion).await, "invalid_request").await;
    assert_refused(sandbox.token(&assertion).await, "invalid_request").await;
    let kind = [CREDENTIALS, ("client_assertion_type", "x")];
    assert_refused(sandbox.token(&kind).await, "invalid_request").await;
}

#[tokio::test]
async fn a_client_uses_only_the_ways_that_it_may() {
    let only = |id: &str, method| Client::new(id).secret("s").methods(&[method]);
    let clients = [only("basic", Method::Basic), only("body", Method::Body), only("key", Method::PrivateKeyJwt)];
    let sandbox = with_clients(clients, Refresh::Kept).await;
    for (id, by_basic, by_body) in [("basic", 200, 401), ("body", 401, 200), ("key", 401, 401)] {
        let response = sandbox.basic(&format!("{id}:s"), &[CREDENTIALS]).await;
        assert_eq!(response.status(), by_basic, "{id}");
        let fields = [CREDENTIALS, ("client_id", id), ("client_secret", "s")];
        let response = sandbox.token_request(&fields).send().await.unwrap();
        assert_eq!(response.status(), by_body, "{id}");
    }
}

#[tokio::test]
async fn a_malformed_request_is_refused() {
    let sandbox = Running::start().await;
    assert_refused(sandbox.token(&[]).await, "invalid_request").await;
    assert_refused(sandbox.token(&[("grant_type", "")]).await, "invalid_request").await;
    assert_refused(sandbox.token(&[CREDENTIALS, CREDENTIALS]).await, "invalid_request").await;
    let twice = [CREDENTIALS, ("scope", "read"), ("scope", "write")];
    assert_refused(sandbox.token(&twice).await, "invalid_request").await;
    let as_json = json!({ "grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET });
    assert_refused(sandbox.send(TOKEN, &as_json).await, "invalid_request").await;
    let in_query = format!("{TOKEN}?grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}");
    assert_refused(sandbox.form(&in_query, &[]).send().await.unwrap(), "invalid_request").await;
    assert_eq!(sandbox.client.get(sandbox.url(TOKEN)).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_grant_must_exist_and_be_the_clients() {
    let client = Client::new("narrow").secret("s").grants(&[Grant::RefreshToken]);
    let sandbox = with_clients([client], Refresh::Kept).await;
    assert_refused(sandbox.token(&[("grant_type", "implicit")]).await, "unsupported_grant_type").await;
    assert_refused(sandbox.basic("narrow:s", &[CREDENTIALS]).await, "unauthorized_client").await;
    let unknown = sandbox.token_request(&[("grant_type", "implicit")]).send().await.unwrap();
    assert_refused(unknown, "invalid_client").await;
}

#[tokio::test]
async fn scope_audience_and_resource_end_up_in_the_token() {
    let sandbox = Running::start().await;
    let wish = [CREDENTIALS, ("scope", "write"), ("audience", "https://api.example")];
    let body = granted(sandbox.token(&wish).await).await;
    assert_eq!(body["scope"], "write");
    let said = claims(&text_at(&body, "access_token"));
    assert_eq!((&said["scope"], &said["aud"]), (&json!("write"), &json!("https://api.example")));
    let resources = [CREDENTIALS, ("resource", "https://a.example"), ("resource", "https://b.example")];
    let body = granted(sandbox.token(&resources).await).await;
    let said = claims(&text_at(&body, "access_token"));
    assert_eq!(said["aud"], json!(["https://a.example", "https://b.example"]));
}

#[tokio::test]
async fn what_a_client_may_not_have_is_refused() {
    let client = Client::new("narrow").secret("s").scopes(&["read"]).targets(&["api"]);
    let sandbox = with_clients([client], Refresh::Kept).await;
    let ask = async |name, value| sandbox.basic("narrow:s", &[CREDENTIALS, (name, value)]).await;
    granted(ask("scope", "read").await).await;
    granted(ask("audience", "api").await).await;
    for scope in ["write", "read write", "read  read"] {
        assert_refused(ask("scope", scope).await, "invalid_scope").await;
    }
    assert_refused(ask("audience", "other").await, "invalid_target").await;
    assert_refused(ask("resource", "https://other.example").await, "invalid_target").await;
    assert_refused(sandbox.token(&[CREDENTIALS, ("resource", "relative")]).await, "invalid_target").await;
    let fragment = [CREDENTIALS, ("resource", "https://a.example/#f")];
    assert_refused(sandbox.token(&fragment).await, "invalid_target").await;
}

#[tokio::test]
async fn the_life_may_go_unsaid() {
    let client = Client::new("silent").secret("s").lifetime(Duration::from_secs(60), Expiry::Unsaid);
    let sandbox = with_clients([client], Refresh::Kept).await;
    let body = granted(sandbox.basic("silent:s", &[CREDENTIALS]).await).await;
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["access_token", "token_type"]);
    assert_eq!(life(&text_at(&body, "access_token")), 60);
}

#[tokio::test]
async fn the_protected_route_takes_a_token_until_it_is_over() {
    let sandbox = Running::start().await;
    let body = granted(sandbox.token(&[CREDENTIALS]).await).await;
    let jwt = text_at(&body, "access_token");
    assert_eq!(sandbox.get(RESOURCE, &jwt).await.status(), 200);
    let bare = sandbox.client.get(sandbox.url(RESOURCE)).send().await.unwrap();
    assert_eq!((bare.status().as_u16(), header(&bare, "www-authenticate")), (401, Some("Bearer realm=\"sandbox\"")));
    sandbox.pass(3_601);
    let over = sandbox.get(RESOURCE, &jwt).await;
    assert_eq!(over.status(), 401);
    assert!(header(&over, "www-authenticate").unwrap().contains("error=\"invalid_token\""));
    assert_eq!(sandbox.control.counters().of(Route::Oauth2Protected).total, 3);
    assert_eq!(sandbox.control.counters().of(Route::Oauth2Token).with_status(200), 1);
}

#[tokio::test]
async fn a_rejected_token_is_refused_and_a_new_one_works() {
    let sandbox = Running::start().await;
    let first = text_at(&granted(sandbox.token(&[CREDENTIALS]).await).await, "access_token");
    let second = text_at(&granted(sandbox.token(&[CREDENTIALS]).await).await, "access_token");
    let fingerprint = Fingerprint::of(&AccessToken::new(first.clone()));
    sandbox.control.reject_token(&fingerprint.to_string());
    assert_eq!(sandbox.get(RESOURCE, &first).await.status(), 401);
    assert_eq!(sandbox.get(RESOURCE, &second).await.status(), 200);
}

#[tokio::test]
async fn clients_are_added_over_the_control_api_and_forgotten_by_a_reset() {
    let sandbox = Running::start().await;
    let new = json!({ "id": "late", "secret": "s", "scopes": ["read"] });
    assert_eq!(sandbox.send("/_control/client", &new).await.status(), 204);
    let body = granted(sandbox.basic("late:s", &[CREDENTIALS]).await).await;
    assert_eq!(body["scope"], "read");
    let bad_key = json!({ "id": "late", "public_key": "nonsense" });
    assert_eq!(sandbox.send("/_control/client", &bad_key).await.status(), 422);
    sandbox.control.reset();
    assert_refused(sandbox.basic("late:s", &[CREDENTIALS]).await, "invalid_client").await;
}
