//! Refresh tokens, and the password grant that brings them.

use super::{CLIENT, RESOURCE, Running, assert_refused, claims, granted, text_at, with_clients};
use crate::sandbox::body;
use reqwest::Response;
use serde_json::{Value, json};
use token_broker::sandbox::{Client, Refresh};

const USER: &str = "sandbox-user@example.com";

fn password(password: &str) -> [(&'static str, &str); 3] {
    [("grant_type", "password"), ("username", USER), ("password", password)]
}

async fn log_in(sandbox: &Running) -> String {
    text_at(&granted(sandbox.token(&password("sandbox-password")).await).await, "refresh_token")
}

async fn refresh(sandbox: &Running, token: &str, more: &[(&str, &str)]) -> Response {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
    sandbox.token(&[&fields, more].concat()).await
}

fn names(body: &Value) -> Vec<&String> {
    body.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn a_password_brings_a_pair() {
    let sandbox = Running::start().await;
    let body = granted(sandbox.token(&password("sandbox-password")).await).await;
    assert_eq!(names(&body), ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    let said = claims(&text_at(&body, "access_token"));
    assert_eq!((&said["sub"], &said["client_id"]), (&json!(USER), &json!(CLIENT)));
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let sandbox = Running::start().await;
    assert_refused(sandbox.token(&password("wrong")).await, "invalid_grant").await;
    let nobody = [("grant_type", "password"), ("username", "nobody"), ("password", "sandbox-password")];
    assert_refused(sandbox.token(&nobody).await, "invalid_grant").await;
    assert_refused(sandbox.token(&password("")).await, "invalid_request").await;
    assert_refused(sandbox.token(&[("grant_type", "password")]).await, "invalid_request").await;
}

#[tokio::test]
async fn a_rotated_token_that_comes_again_ends_its_family() {
    let sandbox = Running::start().await;
    let (first, other) = (log_in(&sandbox).await, log_in(&sandbox).await);
    let body = granted(refresh(&sandbox, &first, &[]).await).await;
    let second = text_at(&body, "refresh_token");
    assert_ne!(first, second);
    assert_eq!(claims(&text_at(&body, "access_token"))["sub"], USER);
    let third = text_at(&granted(refresh(&sandbox, &second, &[]).await).await, "refresh_token");
    assert_refused(refresh(&sandbox, &first, &[]).await, "invalid_grant").await;
    assert_refused(refresh(&sandbox, &third, &[]).await, "invalid_grant").await;
    granted(refresh(&sandbox, &other, &[]).await).await;
}

#[tokio::test]
async fn a_kept_token_is_good_again_and_no_other_comes() {
    let sandbox = with_clients([], Refresh::Kept).await;
    let token = log_in(&sandbox).await;
    for _ in 0..2 {
        let body = granted(refresh(&sandbox, &token, &[]).await).await;
        assert_eq!(names(&body), ["access_token", "expires_in", "scope", "token_type"]);
        assert_eq!(sandbox.get(RESOURCE, &text_at(&body, "access_token")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_token_is_its_clients_and_ends() {
    let sandbox = with_clients([Client::new("other").secret("s")], Refresh::Rotated).await;
    let token = log_in(&sandbox).await;
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    assert_refused(sandbox.basic("other:s", &fields).await, "invalid_grant").await;
    assert_refused(refresh(&sandbox, "unknown", &[]).await, "invalid_grant").await;
    assert_refused(refresh(&sandbox, "", &[]).await, "invalid_request").await;
    sandbox.pass(30 * 86_400 + 1);
    assert_refused(refresh(&sandbox, &token, &[]).await, "invalid_grant").await;
}

#[tokio::test]
async fn a_scope_may_get_narrower_for_once_and_never_wider() {
    let sandbox = Running::start().await;
    let narrow = [&password("sandbox-password")[..], &[("scope", "read")]].concat();
    let token = text_at(&granted(sandbox.token(&narrow).await).await, "refresh_token");
    assert_refused(refresh(&sandbox, &token, &[("scope", "read write")]).await, "invalid_scope").await;
    let wide = log_in(&sandbox).await;
    let body = granted(refresh(&sandbox, &wide, &[("scope", "read")]).await).await;
    assert_eq!(body["scope"], "read");
    let body = granted(refresh(&sandbox, &text_at(&body, "refresh_token"), &[]).await).await;
    assert_eq!(body["scope"], "read write");
    let body = granted(refresh(&sandbox, &token, &[]).await).await;
    assert_eq!(body["scope"], "read", "a refusal has not used it up");
}

#[tokio::test]
async fn a_refresh_token_exists_from_the_beginning_and_others_can_be_made() {
    let sandbox = Running::start().await;
    let body_of = granted(refresh(&sandbox, "sandbox-refresh-token", &[]).await).await;
    assert_eq!(claims(&text_at(&body_of, "access_token"))["sub"], USER);
    let consent = json!({ "client": CLIENT, "subject": "somebody" });
    let response = sandbox.send("/_control/refresh_token", &consent).await;
    let made = text_at(&body(response).await, "refresh_token");
    let body_of = granted(refresh(&sandbox, &made, &[]).await).await;
    assert_eq!(claims(&text_at(&body_of, "access_token"))["sub"], "somebody");
    assert_eq!(sandbox.control.grant_refresh_token("nobody", "somebody"), None);
}

#[tokio::test]
async fn all_of_a_client_can_be_revoked() {
    let sandbox = Running::start().await;
    let token = log_in(&sandbox).await;
    let revoke = json!({ "refresh_tokens_of": CLIENT });
    assert_eq!(sandbox.send("/_control/revoke", &revoke).await.status(), 204);
    assert_refused(refresh(&sandbox, &token, &[]).await, "invalid_grant").await;
    assert_refused(refresh(&sandbox, "sandbox-refresh-token", &[]).await, "invalid_grant").await;
    let nobody = json!({ "refresh_tokens_of": "nobody" });
    assert_eq!(sandbox.send("/_control/revoke", &nobody).await.status(), 404);
}
