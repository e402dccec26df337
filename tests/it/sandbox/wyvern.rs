//! The simulated Wyvern.

use super::{Running, body, claims, date, life, text_at};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use token_broker::sandbox::{Refresh, Route, Settings, Wyvern};

const TOKEN: &str = "/wyvern/1.0/auth/token";
const REFRESH: &str = "/wyvern/1.0/auth/token/refresh";
const IMAGES: &str = "/wyvern/1.0/images";

async fn start(refresh: Refresh) -> Running {
    let wyvern = Wyvern { refresh, ..Wyvern::default() };
    Running::with(Settings { wyvern, ..Settings::default() }).await
}

fn login(password: &str) -> Value {
    json!({ "username": "sandbox-user@example.com", "password": password })
}

async fn pair(sandbox: &Running, path: &str, request: &Value) -> Value {
    let response = sandbox.send(path, request).await;
    assert_eq!(response.status(), 200);
    body(response).await
}

fn refresh(pair: &Value) -> Value {
    json!({ "refresh_token": pair["refresh_token"] })
}

fn names(body: &Value) -> Vec<&String> {
    body.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn a_password_brings_a_pair_on_either_path() {
    let sandbox = start(Refresh::Rotated).await;
    for path in [TOKEN, "/wyvern/token"] {
        let response = sandbox.send(path, &login("sandbox-password")).await;
        assert_eq!(response.status(), 200);
        let stamped = date(&response);
        let body = body(response).await;
        assert_eq!(names(&body), ["expires_in", "refresh_token", "token", "token_type"]);
        assert_eq!((&body["expires_in"], &body["token_type"]), (&json!(3_600), &json!("Bearer")));
        let jwt = text_at(&body, "token");
        assert_eq!(life(&jwt), 3_600);
        assert_eq!(claims(&jwt)["iat"], stamped);
    }
}

#[tokio::test]
async fn the_access_token_names_its_key() {
    let sandbox = start(Refresh::Rotated).await;
    let jwt = text_at(&pair(&sandbox, TOKEN, &login("sandbox-password")).await, "token");
    let head = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
    let head: Value = serde_json::from_slice(&head).unwrap();
    assert_eq!(head, json!({ "alg": "HS256", "typ": "JWT", "kid": "sandbox-1" }));
}

#[tokio::test]
async fn wrong_credentials_get_401_and_malformed_ones_400() {
    let sandbox = start(Refresh::Rotated).await;
    assert_eq!(sandbox.send(TOKEN, &login("wrong")).await.status(), 401);
    let nobody = json!({ "username": "nobody", "password": "sandbox-password" });
    assert_eq!(sandbox.send(TOKEN, &nobody).await.status(), 401);
    for malformed in [json!({}), json!({ "username": "u" }), json!("text")] {
        assert_eq!(sandbox.send(TOKEN, &malformed).await.status(), 400, "{malformed}");
        assert_eq!(sandbox.send(REFRESH, &malformed).await.status(), 400, "{malformed}");
    }
}

#[tokio::test]
async fn a_rotated_refresh_token_is_good_once() {
    let sandbox = start(Refresh::Rotated).await;
    let first = pair(&sandbox, TOKEN, &login("sandbox-password")).await;
    let second = pair(&sandbox, REFRESH, &refresh(&first)).await;
    assert_eq!(names(&second), ["expires_in", "refresh_token", "token", "token_type"]);
    assert_ne!(first["token"], second["token"]);
    assert_eq!(sandbox.send(REFRESH, &refresh(&first)).await.status(), 401);
    pair(&sandbox, REFRESH, &refresh(&second)).await;
    assert_eq!(sandbox.get(IMAGES, &text_at(&first, "token")).await.status(), 200, "the old token lives on");
}

#[tokio::test]
async fn a_kept_refresh_token_is_good_again_and_no_other_comes() {
    let sandbox = start(Refresh::Kept).await;
    let first = pair(&sandbox, TOKEN, &login("sandbox-password")).await;
    for _ in 0..2 {
        let next = pair(&sandbox, REFRESH, &refresh(&first)).await;
        assert_eq!(names(&next), ["expires_in", "token", "token_type"]);
    }
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token_nor_the_reverse_and_ends() {
    let sandbox = start(Refresh::Kept).await;
    let first = pair(&sandbox, TOKEN, &login("sandbox-password")).await;
    assert_eq!(sandbox.get(IMAGES, &text_at(&first, "refresh_token")).await.status(), 401);
    let swapped = json!({ "refresh_token": first["token"] });
    assert_eq!(sandbox.send(REFRESH, &swapped).await.status(), 401);
    sandbox.pass(30 * 86_400 + 1);
    assert_eq!(sandbox.send(REFRESH, &refresh(&first)).await.status(), 401);
}

#[tokio::test]
async fn the_protected_route_says_the_documented_sentence() {
    let sandbox = start(Refresh::Rotated).await;
    let jwt = text_at(&pair(&sandbox, TOKEN, &login("sandbox-password")).await, "token");
    assert_eq!(sandbox.get(IMAGES, &jwt).await.status(), 200);
    sandbox.pass(3_601);
    let bare = sandbox.client.get(sandbox.url(IMAGES)).send().await.unwrap();
    for response in [sandbox.get(IMAGES, &jwt).await, bare] {
        assert_eq!(response.status(), 401);
        let expected = "You must specify a Bearer token in the Authorization header to access this resource";
        assert_eq!(body(response).await["detail"], expected);
    }
}

#[tokio::test]
async fn the_routes_are_counted_apart() {
    let sandbox = start(Refresh::Rotated).await;
    let first = pair(&sandbox, TOKEN, &login("sandbox-password")).await;
    pair(&sandbox, REFRESH, &refresh(&first)).await;
    sandbox.get(IMAGES, "x").await;
    let counters = sandbox.control.counters();
    for route in [Route::WyvernToken, Route::WyvernRefresh, Route::WyvernProtected] {
        assert_eq!(counters.of(route).total, 1, "{route:?}");
    }
    sandbox.control.calls_reach(Route::WyvernRefresh, 1).await;
}
