//! Logging in with a password.

use super::{Running, TOKEN_1, assert_empty_401, assert_locked, body, claims, text_at};
use serde_json::{Value, json};
use token_broker::sandbox::{Refresh, Settings, User};

/// SHA-1 of `correct horse`.
const PASSWORD: &str = "2f9e53523b62abc141a2b4d6019d23cba835dbd0";

fn user(username: &str, code: Option<&str>) -> User {
    User {
        username: username.to_owned(),
        password_sha1: PASSWORD.to_owned(),
        organisation: 1,
        workspaces: vec![2],
        code: code.map(str::to_owned),
        trusted_devices: vec!["known device".to_owned()],
    }
}

async fn start(refresh: Refresh) -> Running {
    let users = vec![user("plain", None), user("careful", Some("123456"))];
    Running::with(Settings { users, refresh, ..Settings::default() }).await
}

fn login(username: &str) -> Value {
    json!({ "username": username, "password": PASSWORD })
}

async fn fields(sandbox: &Running, request: &Value) -> Value {
    let response = sandbox.authenticate(request).await;
    assert_eq!(response.status(), 200);
    body(response).await
}

fn names(fields: &Value) -> Vec<&String> {
    fields.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn a_password_brings_an_auth_token_and_a_refresh_token() {
    let sandbox = start(Refresh::Kept).await;
    let answer = fields(&sandbox, &login("plain")).await;
    assert_eq!(names(&answer), ["auth_token", "refresh_token"]);
    let jwt = text_at(&answer, "auth_token");
    assert_eq!(claims(&jwt)["sub"], "plain");
    assert_eq!(sandbox.endpoints(&jwt).await.status(), 200);
}

#[tokio::test]
async fn three_wrong_passwords_lock_the_user_and_nobody_else() {
    let sandbox = start(Refresh::Kept).await;
    let wrong = json!({ "username": "plain", "password": "00" });
    for _ in 0..3 {
        assert_empty_401(sandbox.authenticate(&wrong).await).await;
    }
    assert_locked(sandbox.authenticate(&login("plain")).await).await;
    fields(&sandbox, &login("careful")).await;
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_completes_the_login() {
    let sandbox = start(Refresh::Kept).await;
    let answer = fields(&sandbox, &login("careful")).await;
    assert_eq!(names(&answer), ["mfa_token"]);
    let mfa_token = text_at(&answer, "mfa_token");
    let wrong = json!({ "mfa_token": mfa_token, "code": "000000" });
    assert_empty_401(sandbox.authenticate(&wrong).await).await;
    let right = json!({ "mfa_token": mfa_token, "code": "123456" });
    let answer = fields(&sandbox, &right).await;
    assert_eq!(names(&answer), ["auth_token", "refresh_token"]);
    assert_empty_401(sandbox.authenticate(&right).await).await;
    assert_eq!(sandbox.endpoints(&mfa_token).await.status(), 401);
}

#[tokio::test]
async fn a_trusted_device_needs_no_second_factor() {
    let sandbox = start(Refresh::Kept).await;
    let mut known = login("careful");
    known["fingerprint"] = json!("known device");
    let answer = fields(&sandbox, &known).await;
    assert_eq!(names(&answer), ["auth_token", "refresh_token"]);
}

#[tokio::test]
async fn a_device_is_trusted_after_a_second_factor_that_named_it() {
    let sandbox = start(Refresh::Kept).await;
    let mut new = login("careful");
    new["fingerprint"] = json!("new device");
    let answer = fields(&sandbox, &new).await;
    assert_eq!(names(&answer), ["mfa_token"]);
    let second = json!({
        "mfa_token": answer["mfa_token"],
        "code": "123456",
        "trusted_device": {
            "fingerprint": "new device",
            "operating_system": "o",
            "browser": "b",
            "name": "n",
        },
    });
    fields(&sandbox, &second).await;
    let answer = fields(&sandbox, &new).await;
    assert_eq!(names(&answer), ["auth_token", "refresh_token"]);
}

#[tokio::test]
async fn a_kept_refresh_token_brings_an_auth_token_again_and_again() {
    let sandbox = start(Refresh::Kept).await;
    let answer = fields(&sandbox, &login("plain")).await;
    let refresh = json!({ "refresh_token": answer["refresh_token"] });
    for _ in 0..2 {
        assert_eq!(names(&fields(&sandbox, &refresh).await), ["auth_token"]);
    }
}

#[tokio::test]
async fn a_rotated_refresh_token_is_good_once() {
    let sandbox = start(Refresh::Rotated).await;
    let answer = fields(&sandbox, &login("plain")).await;
    let refresh = json!({ "refresh_token": answer["refresh_token"] });
    let next = fields(&sandbox, &refresh).await;
    assert_eq!(names(&next), ["auth_token", "refresh_token"]);
    assert_empty_401(sandbox.authenticate(&refresh).await).await;
    let refresh = json!({ "refresh_token": next["refresh_token"] });
    fields(&sandbox, &refresh).await;
}

#[tokio::test]
async fn a_user_may_switch_to_another_workspace_and_an_application_token_may_not() {
    let sandbox = start(Refresh::Kept).await;
    let path = "/api/v1/authenticate/workspace";
    let switch = |jwt: String, id: u64| {
        let order = json!({ "target_organisation": { "id": id } });
        let request = sandbox.post(path, &order).bearer_auth(jwt);
        async { request.send().await.unwrap() }
    };
    let own = text_at(&fields(&sandbox, &login("plain")).await, "auth_token");
    let response = switch(own.clone(), 2).await;
    assert_eq!(response.status(), 200);
    let other = text_at(&body(response).await, "auth_token");
    assert_eq!(claims(&other)["esc.org"], 2);
    assert_eq!(sandbox.endpoints(&own).await.status(), 200);
    assert_eq!(switch(own, 3).await.status(), 401);
    let of_application = sandbox.jwt(TOKEN_1).await;
    assert_eq!(switch(of_application, 2).await.status(), 401);
}
