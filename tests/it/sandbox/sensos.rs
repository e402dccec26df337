//! The simulated Sensos.

use super::{Running, body, claims, date, header, life, text_at};
use serde_json::{Value, json};
use token_broker::sandbox::{Fault, Route, Scope};

const TOKEN: &str = "/sensos/v1/applications/token";
const DEVICES: &str = "/sensos/v1/devices";

fn exchange(tenant: &str, secret: &str) -> Value {
    json!({ "tenantId": tenant, "applicationId": "sandbox-application", "applicationSecret": secret })
}

fn good(tenant: &str) -> Value {
    exchange(tenant, "sandbox-application-secret")
}

async fn assert_unauthorised(response: reqwest::Response) {
    assert_eq!(response.status(), 401);
    let expected = json!({ "error": "Unauthorized", "message": "Invalid or expired access token" });
    assert_eq!(body(response).await, expected);
}

#[tokio::test]
async fn an_exchange_brings_an_access_token_and_its_life_and_nothing_else() {
    let sandbox = Running::start().await;
    for (tenant, said, lives) in [
        ("sandbox-tenant", 86_400, 86_400),
        ("sandbox-tenant-ten-hours", 36_000, 36_000),
        ("sandbox-tenant-mismatch", 86_400, 36_000),
    ] {
        let response = sandbox.send(TOKEN, &good(tenant)).await;
        assert_eq!(response.status(), 200);
        let stamped = date(&response);
        let body = body(response).await;
        let names: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["accessToken", "expiresIn"]);
        let jwt = text_at(&body, "accessToken");
        assert_eq!((body["expiresIn"].as_i64(), life(&jwt)), (Some(said), lives), "{tenant}");
        assert_eq!(claims(&jwt)["iat"], stamped);
        assert_eq!(claims(&jwt)["tenantId"], tenant);
    }
}

#[tokio::test]
async fn wrong_credentials_get_the_documented_401() {
    let sandbox = Running::start().await;
    let mut other = good("sandbox-tenant");
    other["applicationId"] = json!("another");
    for wrong in [exchange("sandbox-tenant", "wrong"), good("nobody"), other] {
        assert_unauthorised(sandbox.send(TOKEN, &wrong).await).await;
    }
}

#[tokio::test]
async fn a_malformed_exchange_gets_400() {
    let sandbox = Running::start().await;
    for malformed in [json!({}), json!([]), json!({ "tenantId": 7, "applicationId": "a", "applicationSecret": "b" })] {
        assert_eq!(sandbox.send(TOKEN, &malformed).await.status(), 400, "{malformed}");
    }
    let untyped = sandbox.client.post(sandbox.url(TOKEN)).body(good("sandbox-tenant").to_string());
    assert_eq!(untyped.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_protected_route_takes_a_token_until_it_is_over() {
    let sandbox = Running::start().await;
    let jwt = text_at(&body(sandbox.send(TOKEN, &good("sandbox-tenant-mismatch")).await).await, "accessToken");
    let response = sandbox.get(DEVICES, &jwt).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await[0]["tenantId"], "sandbox-tenant-mismatch");
    assert_unauthorised(sandbox.get(DEVICES, "a.b.c").await).await;
    assert_unauthorised(sandbox.client.get(sandbox.url(DEVICES)).send().await.unwrap()).await;
    sandbox.pass(36_001);
    assert_unauthorised(sandbox.get(DEVICES, &jwt).await).await;
}

#[tokio::test]
async fn faults_and_counters_know_the_routes() {
    let sandbox = Running::start().await;
    sandbox.control.set_fault_times(Scope::ALL.on(Route::SensosToken), Fault::status(503), 1);
    assert_eq!(sandbox.get(DEVICES, "x").await.status(), 401);
    assert_eq!(sandbox.send(TOKEN, &good("sandbox-tenant")).await.status(), 503);
    let response = sandbox.send(TOKEN, &good("sandbox-tenant")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let counters = sandbox.control.counters();
    assert_eq!(counters.of(Route::SensosToken).total, 2);
    assert_eq!(counters.of(Route::SensosToken).with_status(503), 1);
    assert_eq!(counters.of(Route::SensosProtected).with_status(401), 1);
    assert_eq!(counters.authenticate.total + counters.protected.total, 0);
    let read = body(sandbox.client.get(sandbox.url("/_control/counters")).send().await.unwrap()).await;
    assert_eq!(read["by_route"]["sensos_token"]["total"], 2);
}
