//! `/api/v1/application_token`.

use super::{Running, TOKEN_1, TOKEN_2, assert_empty_401, body, claims, text_at};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use token_broker::sandbox::{Management, Settings};

const PATH: &str = "/api/v1/application_token";

impl Running {
    async fn manage(&self, jwt: &str, method: Method, path: &str, order: &Value) -> Response {
        let request = self.client.request(method, self.url(path)).json(order);
        request.bearer_auth(jwt).send().await.unwrap()
    }

    async fn create(&self, jwt: &str, order: &Value) -> String {
        let response = self.manage(jwt, Method::POST, PATH, order).await;
        assert_eq!(response.status(), 200);
        text_at(&body(response).await, "application_token")
    }

    async fn list(&self, jwt: &str) -> Vec<Value> {
        let response = self.manage(jwt, Method::GET, PATH, &json!({})).await;
        assert_eq!(response.status(), 200);
        body(response).await.as_array().unwrap().clone()
    }

    async fn update(&self, jwt: &str, id: &Value, order: &Value) -> Response {
        let path = format!("{PATH}/{id}");
        self.manage(jwt, Method::PATCH, &path, order).await
    }
}

fn described<'a>(list: &'a [Value], description: &str) -> &'a Value {
    list.iter().find(|item| item["description"] == description).unwrap()
}

#[tokio::test]
async fn a_created_application_token_logs_in_and_its_id_is_in_the_jwt() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let text = sandbox.create(&jwt, &json!({ "description": "new" })).await;
    let list = sandbox.list(&jwt).await;
    let new = sandbox.jwt(&text).await;
    assert_eq!(claims(&new)["esc.app"], described(&list, "new")["id"]);
    assert_eq!(claims(&new)["esc.org"], 1);
}

#[tokio::test]
async fn create_answers_the_text_alone_and_the_list_never_holds_it() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let order = json!({ "description": "new" });
    let response = sandbox.manage(&jwt, Method::POST, PATH, &order).await;
    let created = body(response).await;
    let fields: Vec<_> = created.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["application_token"]);
    let text = text_at(&created, "application_token");
    let list = Value::from(sandbox.list(&jwt).await).to_string();
    assert!((418..=493).contains(&text.len()), "{}", text.len());
    assert!(!list.contains(&text) && !list.contains(TOKEN_1));
}

#[tokio::test]
async fn the_list_has_the_documented_fields_of_the_own_organisation_alone() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_2).await;
    let order = json!({ "description": "d", "ip": "10.88.0.139/32" });
    sandbox.create(&jwt, &order).await;
    let list = sandbox.list(&jwt).await;
    assert_eq!(list.len(), 2);
    let item = described(&list, "d");
    assert_eq!(item["ip"], "10.88.0.139/32");
    assert_eq!(item["status"], json!({"id": 0, "description": "Activated"}));
    assert_eq!(item["expiry_date"], Value::Null);
    assert!(item["creator"]["username"].is_string());
    let created = text_at(item, "created");
    assert!(created.ends_with('Z') && created.len() == 24, "{created}");
}

#[tokio::test]
async fn a_revoked_application_token_gets_401_and_its_jwts_live_on() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let text = sandbox.create(&jwt, &json!({ "description": "new" })).await;
    let new = sandbox.jwt(&text).await;
    let id = described(&sandbox.list(&jwt).await, "new")["id"].clone();
    let revoke = json!({ "status": { "id": 1 } });
    let response = sandbox.update(&jwt, &id, &revoke).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.text().await.unwrap(), "");
    assert_empty_401(sandbox.log_in(&text).await).await;
    assert_eq!(sandbox.endpoints(&new).await.status(), 200);
    let item = described(&sandbox.list(&jwt).await, "new").clone();
    assert_eq!(item["status"], json!({"id": 1, "description": "Revoked"}));
}

#[tokio::test]
async fn a_description_can_be_changed_alone() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let id = sandbox.list(&jwt).await[0]["id"].clone();
    let order = json!({ "description": "renamed" });
    assert_eq!(sandbox.update(&jwt, &id, &order).await.status(), 204);
    let list = sandbox.list(&jwt).await;
    assert_eq!(described(&list, "renamed")["status"]["id"], 0);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn another_organisations_application_token_is_not_found() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let foreign = json!(sandbox.control.application_token_ids(2)[0]);
    let revoke = json!({ "status": { "id": 1 } });
    for id in [foreign, json!(9_999)] {
        let response = sandbox.update(&jwt, &id, &revoke).await;
        assert_eq!(response.status(), 404);
        assert_eq!(body(response).await["error_code"], 1201);
    }
    assert_eq!(sandbox.log_in(TOKEN_2).await.status(), 200);
}

#[tokio::test]
async fn an_expiry_date_in_either_form_is_kept_and_ends_the_application_token() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    for (nth, date) in ["2021-05-29", "2021-05-29T00:00:00.000Z"].iter().enumerate() {
        let description = format!("expired {nth}");
        let order = json!({ "description": description, "expiry_date": date });
        let text = sandbox.create(&jwt, &order).await;
        let list = sandbox.list(&jwt).await;
        assert_eq!(described(&list, &description)["expiry_date"], *date);
        assert_empty_401(sandbox.log_in(&text).await).await;
    }
    let future = json!({ "expiry_date": "2999-01-01" });
    let text = sandbox.create(&jwt, &future).await;
    assert_eq!(sandbox.log_in(&text).await.status(), 200);
}

#[tokio::test]
async fn an_application_token_for_another_network_gets_401() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let elsewhere = sandbox.create(&jwt, &json!({ "ip": "10.0.0.0/8" })).await;
    assert_empty_401(sandbox.log_in(&elsewhere).await).await;
    let here = sandbox.create(&jwt, &json!({ "ip": "127.0.0.0/8" })).await;
    assert_eq!(sandbox.log_in(&here).await.status(), 200);
}

#[tokio::test]
async fn a_bad_field_gets_422_with_the_field_in_errors() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    for order in [json!({ "expiry_date": "soon" }), json!({ "ip": "here" })] {
        let response = sandbox.manage(&jwt, Method::POST, PATH, &order).await;
        assert_eq!(response.status(), 422, "{order}");
        let body = body(response).await;
        assert_eq!(body["error_code"], 1400);
        assert_eq!(body["errors"][0]["error_code"], 1403);
    }
    let id = sandbox.list(&jwt).await[0]["id"].clone();
    let order = json!({ "status": { "id": 2 } });
    assert_eq!(sandbox.update(&jwt, &id, &order).await.status(), 422);
}

#[tokio::test]
async fn management_needs_a_jwt_and_can_be_forbidden() {
    let sandbox = Running::with(Settings { management: Management::Forbidden, ..Settings::default() }).await;
    let nobody = sandbox.manage("None", Method::GET, PATH, &json!({})).await;
    assert_eq!(nobody.status(), 401);
    let jwt = sandbox.jwt(TOKEN_1).await;
    let response = sandbox.manage(&jwt, Method::POST, PATH, &json!({})).await;
    assert_eq!(response.status(), 403);
    assert_eq!(body(response).await["error_code"], 1104);
    assert_eq!(sandbox.list(&jwt).await.len(), 1);
}
