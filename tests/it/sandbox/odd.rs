//! The odd shapes of the field.

use super::{Running, body, date, header, life, seconds, text_at};
use reqwest::Response;
use serde_json::{Value, json};
use token_broker::sandbox::{Fault, Route, Scope};

const SECRET: &str = "sandbox-client-secret";
/// Those that are asked by POST and answer with JSON.
const JSON_SHAPES: [&str; 15] = [
    "same-until-late",
    "milliseconds",
    "no-expiry",
    "nested",
    "created",
    "code",
    "nulls",
    "rotating",
    "three-minutes",
    "two-years",
    "float",
    "text",
    "pair",
    "epoch-milliseconds",
    "companion",
];

async fn ask(sandbox: &Running, shape: &str, secret: &str) -> Response {
    let credentials = json!({ "client_id": "sandbox-client", "client_secret": secret });
    sandbox.send(&format!("/odd/{shape}/token"), &credentials).await
}

async fn answer(sandbox: &Running, shape: &str) -> Value {
    let response = ask(sandbox, shape, SECRET).await;
    assert!(response.status().is_success(), "{shape}");
    body(response).await
}

async fn opens(sandbox: &Running, shape: &str, token: &str) -> bool {
    sandbox.get(&format!("/odd/{shape}/resource"), token).await.status() == 200
}

#[tokio::test]
async fn every_shape_takes_json_and_forms_and_opens_its_resource() {
    let sandbox = Running::start().await;
    for shape in JSON_SHAPES {
        let body = answer(&sandbox, shape).await;
        let fields = [("client_id", "sandbox-client"), ("client_secret", SECRET)];
        let form = sandbox.form(&format!("/odd/{shape}/token"), &fields).send().await.unwrap();
        assert!(form.status().is_success(), "{shape}");
        let places = ["/access_token", "/result/access_token", "/tenant_access_token", "/token"];
        let token = places.iter().find_map(|place| body.pointer(place)).unwrap().as_str().unwrap();
        if shape != "pair" {
            assert!(opens(&sandbox, shape, token).await, "{shape}");
        }
        assert!(!opens(&sandbox, "raw", token).await, "{shape}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let sandbox = Running::start().await;
    for shape in JSON_SHAPES {
        let response = ask(&sandbox, shape, "wrong").await;
        let status = response.status().as_u16();
        let body = body(response).await;
        match shape {
            "code" => assert_eq!((status, &body["code"]), (200, &json!(10_014))),
            "nested" => assert_eq!((status, &body["success"]), (200, &json!(false))),
            _ => assert_eq!(status, 401, "{shape}"),
        }
        assert!(!body.to_string().contains("access_token"), "{shape}");
    }
    assert_eq!(ask(&sandbox, "raw", "wrong").await.status(), 401);
    assert_eq!(ask(&sandbox, "unheard-of", SECRET).await.status(), 404);
}

#[tokio::test]
async fn the_life_is_said_in_the_shapes_own_way() {
    let sandbox = Running::start().await;
    for (shape, place, expected) in [
        ("milliseconds", "/expires_in", json!(3_600_000)),
        ("nested", "/result/expire_time", json!(3_600)),
        ("code", "/expire", json!(3_600)),
        ("nulls", "/expires_in", json!(3_600)),
        ("three-minutes", "/expires_in", json!(180)),
        ("two-years", "/expires_in", json!(63_072_000)),
        ("float", "/expires_in", json!(3_600.0)),
        ("text", "/expires_in", json!("3600")),
        ("same-until-late", "/expires_in", json!(7_200)),
    ] {
        let body = answer(&sandbox, shape).await;
        assert_eq!(body.pointer(place), Some(&expected), "{shape}");
    }
}

#[tokio::test]
async fn some_say_nothing_of_their_end() {
    let sandbox = Running::start().await;
    for shape in ["no-expiry", "companion"] {
        let body = answer(&sandbox, shape).await;
        assert!(!body.to_string().contains("expire"), "{shape}");
        assert!(!text_at(&body, "access_token").contains('.'), "{shape}: opaque");
    }
    let companion = answer(&sandbox, "companion").await;
    assert!(text_at(&companion, "instance_url").starts_with("https://"));
}

#[tokio::test]
async fn some_name_the_moment_of_their_end() {
    let sandbox = Running::start().await;
    let response = ask(&sandbox, "created", SECRET).await;
    assert_eq!(response.status(), 201);
    let now = date(&response);
    let said = text_at(&body(response).await, "expires_at");
    assert_eq!(seconds(humantime::parse_rfc3339(&said).unwrap()), now + 3_600);
    let response = ask(&sandbox, "epoch-milliseconds", SECRET).await;
    let now = date(&response);
    let said = body(response).await["expires_at"].as_i64();
    assert_eq!(said, Some((now + 3_600) * 1_000));
}

#[tokio::test]
async fn a_raw_answer_is_the_token_and_nothing_else() {
    let sandbox = Running::start().await;
    let response = ask(&sandbox, "raw", SECRET).await;
    assert_eq!(header(&response, "content-type"), Some("text/plain; charset=utf-8"));
    let token = response.text().await.unwrap();
    assert_eq!(life(&token), 3_600);
    assert!(opens(&sandbox, "raw", &token).await);
}

#[tokio::test]
async fn nulls_are_there_and_null() {
    let sandbox = Running::start().await;
    let body = answer(&sandbox, "nulls").await;
    let members = body.as_object().unwrap();
    assert_eq!((members.get("refresh_token"), members.get("id_token")), (Some(&Value::Null), Some(&Value::Null)));
}

#[tokio::test]
async fn the_same_token_comes_with_what_it_has_left_until_late() {
    let sandbox = Running::start().await;
    let first = answer(&sandbox, "same-until-late").await;
    sandbox.pass(5_000);
    let again = answer(&sandbox, "same-until-late").await;
    assert_eq!(again["access_token"], first["access_token"]);
    let left = again["expires_in"].as_i64().unwrap();
    assert!((1_201..=2_200).contains(&left), "{left}");
    sandbox.pass(1_000);
    let other = answer(&sandbox, "same-until-late").await;
    assert_ne!(other["access_token"], first["access_token"]);
    assert!(opens(&sandbox, "same-until-late", &text_at(&first, "access_token")).await, "the old one stays good");
}

#[tokio::test]
async fn tokens_end_when_they_were_said_to() {
    let sandbox = Running::start().await;
    let token = text_at(&answer(&sandbox, "three-minutes").await, "access_token");
    assert!(opens(&sandbox, "three-minutes", &token).await);
    sandbox.pass(181);
    assert!(!opens(&sandbox, "three-minutes", &token).await);
}

#[tokio::test]
async fn a_rotating_refresh_token_is_good_once_and_ends_the_old_access_token() {
    let sandbox = Running::start().await;
    let refresh = |pair: &Value| {
        let request = sandbox.post("/odd/rotating/refresh", &json!({ "refresh_token": pair["refresh_token"] }));
        async { request.send().await.unwrap() }
    };
    let first = answer(&sandbox, "rotating").await;
    let second = body(refresh(&first).await).await;
    assert!(!opens(&sandbox, "rotating", &text_at(&first, "access_token")).await);
    assert!(opens(&sandbox, "rotating", &text_at(&second, "access_token")).await);
    assert_eq!(refresh(&first).await.status(), 401);
    assert_eq!(refresh(&second).await.status(), 401, "the family has ended");
    let other = answer(&sandbox, "rotating").await;
    assert_eq!(refresh(&other).await.status(), 200);
    assert_eq!(sandbox.send("/odd/rotating/refresh", &json!({})).await.status(), 400);
}

#[tokio::test]
async fn a_pair_opens_only_together() {
    let sandbox = Running::start().await;
    let body = answer(&sandbox, "pair").await;
    let (key, token) = (text_at(&body, "apiKey"), text_at(&body, "token"));
    assert_eq!(life(&token), 3_600);
    let url = sandbox.url("/odd/pair/resource");
    for (key, token, status) in [(&key, &token, 200), (&token, &token, 401), (&key, &key, 401)] {
        let request = sandbox.client.get(&url).header("x-api-key", key).header("x-token", token);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    assert!(!opens(&sandbox, "pair", &token).await);
}

#[tokio::test]
async fn a_header_key_is_sent_with_get() {
    let sandbox = Running::start().await;
    let url = sandbox.url("/odd/header-key/token");
    let ask = async |key: &str| sandbox.client.get(&url).header("x-api-key", key).send().await.unwrap();
    let token = text_at(&body(ask(SECRET).await).await, "access_token");
    assert!(opens(&sandbox, "header-key", &token).await);
    assert_eq!(ask("wrong").await.status(), 401);
    assert_eq!(sandbox.client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(sandbox.send("/odd/header-key/token", &json!({})).await.status(), 405);
    assert_eq!(sandbox.client.get(sandbox.url("/odd/text/token")).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn faults_counters_and_the_clock_are_those_of_the_sandbox() {
    let sandbox = Running::start().await;
    sandbox.control.set_fault_times(Scope::ALL.on(Route::OddToken), Fault::status(503), 1);
    assert_eq!(ask(&sandbox, "text", SECRET).await.status(), 503);
    sandbox.control.set_fault(Scope::ALL, Fault::Skew(86_400_000));
    let response = ask(&sandbox, "created", SECRET).await;
    let stamped = date(&response);
    assert!(stamped - seconds(sandbox.clock.now().wall) > 86_000);
    let said = text_at(&body(response).await, "expires_at");
    assert_eq!(seconds(humantime::parse_rfc3339(&said).unwrap()), stamped + 3_600);
    let counters = sandbox.control.counters();
    assert_eq!((counters.of(Route::OddToken).total, counters.of(Route::OddToken).with_status(201)), (2, 1));
}
