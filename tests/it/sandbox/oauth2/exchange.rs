//! Token exchange (RFC 8693).

use super::{CREDENTIALS, RESOURCE, Running, assert_refused, claims, granted, life, text_at, with_clients};
use reqwest::Response;
use serde_json::json;
use std::time::Duration;
use token_broker::sandbox::{Client, Expiry, Refresh};

const EXCHANGE: (&str, &str) = ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

async fn subject(sandbox: &Running) -> String {
    text_at(&granted(sandbox.token(&[CREDENTIALS]).await).await, "access_token")
}

async fn exchange(sandbox: &Running, subject: &str, more: &[(&str, &str)]) -> Response {
    let fields = [EXCHANGE, ("subject_token", subject), ("subject_token_type", ACCESS_TOKEN)];
    sandbox.basic("worker:s", &[&fields, more].concat()).await
}

async fn start() -> Running {
    let worker = Client::new("worker").secret("s").scopes(&["read", "other"]).targets(&["api", "billing"]);
    let brief = Client::new("brief").secret("s").lifetime(Duration::from_secs(60), Expiry::Said);
    with_clients([worker, brief], Refresh::Kept).await
}

#[tokio::test]
async fn a_token_brings_another_for_the_same_subject() {
    let sandbox = start().await;
    let subject = subject(&sandbox).await;
    let body = granted(exchange(&sandbox, &subject, &[("audience", "api")]).await).await;
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["access_token", "expires_in", "issued_token_type", "scope", "token_type"]);
    assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
    let jwt = text_at(&body, "access_token");
    let said = claims(&jwt);
    assert_eq!((&said["sub"], &said["client_id"]), (&json!("sandbox-client"), &json!("worker")));
    assert_eq!((&said["aud"], &said["scope"]), (&json!("api"), &json!("read")));
    assert_eq!(sandbox.get(RESOURCE, &jwt).await.status(), 200);
}

#[tokio::test]
async fn it_lives_no_longer_than_the_one_presented() {
    let sandbox = start().await;
    let brief = granted(sandbox.basic("brief:s", &[CREDENTIALS]).await).await;
    let body = granted(exchange(&sandbox, &text_at(&brief, "access_token"), &[]).await).await;
    let said = body["expires_in"].as_i64().unwrap();
    assert!((1..=60).contains(&said), "{said}");
    assert_eq!(life(&text_at(&body, "access_token")), said);
}

#[tokio::test]
async fn several_audiences_may_be_named() {
    let sandbox = start().await;
    let subject = subject(&sandbox).await;
    let both = [("audience", "api"), ("audience", "billing")];
    let body = granted(exchange(&sandbox, &subject, &both).await).await;
    assert_eq!(claims(&text_at(&body, "access_token"))["aud"], json!(["api", "billing"]));
    let foreign = [("audience", "api"), ("audience", "elsewhere")];
    assert_refused(exchange(&sandbox, &subject, &foreign).await, "invalid_target").await;
    assert_refused(exchange(&sandbox, &subject, &[("resource", "https://a.example")]).await, "invalid_target").await;
}

#[tokio::test]
async fn the_scope_is_no_wider_than_both_sides_have() {
    let sandbox = start().await;
    let subject = subject(&sandbox).await;
    for scope in ["write", "other"] {
        assert_refused(exchange(&sandbox, &subject, &[("scope", scope)]).await, "invalid_scope").await;
    }
}

#[tokio::test]
async fn an_actor_is_named_in_the_token() {
    let sandbox = start().await;
    let subject = subject(&sandbox).await;
    let actor = granted(sandbox.basic("brief:s", &[CREDENTIALS]).await).await;
    let actor = text_at(&actor, "access_token");
    let fields = [("actor_token", actor.as_str()), ("actor_token_type", JWT), ("requested_token_type", JWT)];
    let body = granted(exchange(&sandbox, &subject, &fields).await).await;
    assert_eq!(body["issued_token_type"], JWT);
    assert_eq!(claims(&text_at(&body, "access_token"))["act"], json!({ "sub": "brief" }));
}

#[tokio::test]
async fn what_is_wrong_with_a_presented_token_is_an_invalid_request() {
    let sandbox = start().await;
    let good = subject(&sandbox).await;
    for fields in [
        vec![EXCHANGE],
        vec![EXCHANGE, ("subject_token", good.as_str())],
        vec![EXCHANGE, ("subject_token_type", ACCESS_TOKEN)],
        vec![EXCHANGE, ("subject_token", good.as_str()), ("subject_token_type", "urn:x")],
        vec![EXCHANGE, ("subject_token", "a.b.c"), ("subject_token_type", ACCESS_TOKEN)],
    ] {
        assert_refused(sandbox.basic("worker:s", &fields).await, "invalid_request").await;
    }
    for more in [
        [("actor_token", good.as_str())],
        [("actor_token_type", JWT)],
        [("requested_token_type", "urn:ietf:params:oauth:token-type:saml2")],
    ] {
        assert_refused(exchange(&sandbox, &good, &more).await, "invalid_request").await;
    }
    sandbox.pass(3_601);
    assert_refused(exchange(&sandbox, &good, &[]).await, "invalid_request").await;
}
