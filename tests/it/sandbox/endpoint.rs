//! The protected route of the simulated emnify, and what its gateway says to a bad bearer token.

use super::{Running, TOKEN_1, TOKEN_2, assert_gateway_401, body, claims, header, seconds, text_at};
use serde_json::json;
use token_broker::sandbox::Settings;
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;

#[tokio::test]
async fn a_good_jwt_lists_the_endpoints_of_its_organisation() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_2).await;
    let response = sandbox.endpoints(&jwt).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "x-total-pages"), Some("1"));
    assert_eq!(header(&response, "x-total-count"), Some("3"));
    let body = body(response).await;
    let list = body.as_array().unwrap();
    assert_eq!(list.len(), 3);
    for endpoint in list {
        assert_eq!(endpoint["organisation"]["id"], 2);
        assert!(endpoint["name"].is_string());
        assert!(endpoint["status"]["id"].is_u64());
        assert!(endpoint["service_profile"]["id"].is_u64());
        assert!(endpoint["tariff_profile"]["id"].is_u64());
    }
}

#[tokio::test]
async fn endpoints_come_in_pages() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    for (query, status, count, pages) in [
        ("page=1&per_page=2", 200, 2, "2"),
        ("page=2&per_page=2", 200, 1, "2"),
        ("page=3&per_page=2", 200, 0, "2"),
        ("page=18446744073709551615", 200, 0, "1"),
        ("page=0", 422, 0, ""),
        ("per_page=x", 422, 0, ""),
    ] {
        let url = sandbox.url(&format!("/api/v1/endpoint?{query}"));
        let request = sandbox.client.get(url).bearer_auth(&jwt);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{query}");
        if status == 200 {
            assert_eq!(header(&response, "x-total-pages"), Some(pages), "{query}");
            let body = body(response).await;
            assert_eq!(body.as_array().unwrap().len(), count, "{query}");
        }
    }
}

#[tokio::test]
async fn a_malformed_bearer_gets_the_recorded_gateway_answer() {
    let sandbox = Running::start().await;
    for bearer in ["None", "", "a.b", "a.b.c.d"] {
        let response = sandbox.endpoints(bearer).await;
        assert_gateway_401(response, "token contains an invalid number of segments").await;
    }
}

#[tokio::test]
async fn a_bad_signature_gets_401_from_the_gateway() {
    let sandbox = Running::start().await;
    let foreign = Running::with(Settings { signing_key: b"another".to_vec(), ..Settings::default() }).await;
    let response = sandbox.endpoints(&foreign.jwt(TOKEN_1).await).await;
    assert_gateway_401(response, "signature is invalid").await;
}

#[tokio::test]
async fn an_expired_jwt_gets_401_from_the_gateway_and_is_counted() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let exp = claims(&jwt)["exp"].as_i64().unwrap();
    let step = exp + 61 - seconds(sandbox.clock.now().wall);
    sandbox.clock.step_wall_ms(step * 1_000);
    let response = sandbox.endpoints(&jwt).await;
    assert_eq!(response.status(), 401);
    let message = text_at(&body(response).await, "message");
    assert!(message.starts_with("token is expired by 1m"), "{message}");
    assert_eq!(sandbox.control.counters().protected_expired, 1);
}

#[tokio::test]
async fn a_call_without_a_bearer_gets_401() {
    let sandbox = Running::start().await;
    let request = sandbox.client.get(sandbox.url("/api/v1/endpoint"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(body(response).await, json!({ "message": "Unauthorized" }));
}

#[tokio::test]
async fn a_rejected_jwt_gets_401_and_a_new_one_works() {
    let sandbox = Running::start().await;
    let (first, second) = (sandbox.jwt(TOKEN_1).await, sandbox.jwt(TOKEN_1).await);
    let fingerprint = Fingerprint::of(&AccessToken::new(first.clone()));
    sandbox.control.reject_token(&fingerprint.to_string());
    let response = sandbox.endpoints(&first).await;
    assert_gateway_401(response, "token is revoked").await;
    assert_eq!(sandbox.endpoints(&second).await.status(), 200);
}

#[tokio::test]
async fn all_jwts_of_an_organisation_can_be_rejected() {
    let sandbox = Running::start().await;
    let (own, other) = (sandbox.jwt(TOKEN_1).await, sandbox.jwt(TOKEN_2).await);
    assert_eq!(sandbox.control.reject_organisation(1), 1);
    assert_eq!(sandbox.endpoints(&own).await.status(), 401);
    assert_eq!(sandbox.endpoints(&other).await.status(), 200);
    let new = sandbox.jwt(TOKEN_1).await;
    assert_eq!(sandbox.endpoints(&new).await.status(), 200);
}
