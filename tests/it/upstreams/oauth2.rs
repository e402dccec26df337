//! OAuth 2.0: every flow of the preset, against a server that reads the RFCs strictly.

mod assertions;
mod refusals;
mod renewals;

use super::{Broker, Upstream, claims, reason};
use serde_json::{Value, json};
use token_broker::sandbox::{Client, OAuth2, Refresh, Settings};

const ID: &str = "sandbox-client";
const SECRET: (&str, &str) = ("client_secret", "sandbox-client-secret");
const USERNAME: &str = "sandbox-user@example.com";

fn with(clients: Vec<Client>, refresh: Refresh) -> Settings {
    let own = OAuth2::default();
    let clients = own.clients.iter().cloned().chain(clients).collect();
    Settings { oauth2: OAuth2 { clients, refresh, ..own }, ..Settings::default() }
}

/// One Workspace `one` that goes this flow with these parameters, and each secret under its own name.
fn config(flow: &str, parameters: &str, more: &str, secrets: &[(&str, &str)]) -> String {
    let credential: Vec<_> = secrets.iter().map(|(name, _)| format!("{name} = @{name} ")).collect();
    format!(
        "[[upstreams]]\nname = \"server\"\nkind = \"oauth2\"\nurl = \"SANDBOX/oauth2/token\"\n\
         budget = {{ logins = 100000 }}\n\
         [[workspaces]]\nname = \"one\"\nupstream = \"server\"\nflow = \"{flow}\"\n\
         parameters = {{ {parameters} }}\n{more}\ncredential = {{ {} }}\n",
        credential.join(", ")
    )
}

fn start(upstream: &Upstream, flow: &str, parameters: &str, more: &str, secrets: &[(&str, &str)]) -> Broker {
    Broker::start(upstream, &config(flow, parameters, more, secrets), secrets)
}

/// What the token says that the flow brings.
async fn said(upstream: &Upstream, flow: &str, parameters: &str, more: &str, secrets: &[(&str, &str)]) -> Value {
    let served = start(upstream, flow, parameters, more, secrets).get("one").await.unwrap();
    assert_eq!(served.token.presentation.token_type, "Bearer");
    assert_eq!(served.held.validity.lifetime.as_secs(), 3_599);
    claims(&served)
}

fn client_id(id: &str) -> String {
    format!("client_id = {id:?}")
}

/// RFC 6749 §2.3.1: each is form-encoded before it goes into the header.
#[tokio::test(start_paused = true)]
async fn ids_and_secrets_may_hold_anything() {
    let (id, secret) = ("a client: 100 % ü+&=", "p:a+s s%20&=w\"ord/?~");
    let upstream = Upstream::start(with(vec![Client::new(id).secret(secret)], Refresh::Kept)).await;
    for flow in ["client-credentials", "client-credentials-body"] {
        let said = said(&upstream, flow, &client_id(id), "", &[("client_secret", secret)]).await;
        assert_eq!((&said["sub"], &said["client_id"]), (&json!(id), &json!(id)), "{flow}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_flow_authenticates_its_client_in_its_own_way() {
    use token_broker::sandbox::Method;
    let clients = [("by-basic", Method::Basic), ("by-body", Method::Body)];
    let clients = clients.map(|(id, method)| Client::new(id).secret(SECRET.1).methods(&[method]));
    let upstream = Upstream::start(with(clients.to_vec(), Refresh::Kept)).await;
    for (flow, id, taken) in [
        ("client-credentials", "by-basic", true),
        ("client-credentials", "by-body", false),
        ("client-credentials-body", "by-body", true),
        ("client-credentials-body", "by-basic", false),
    ] {
        let broker = start(&upstream, flow, &client_id(id), "", &[SECRET]);
        assert_eq!(broker.get("one").await.is_ok(), taken, "{flow} {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_token_is_asked_for_is_in_it() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Kept)).await;
    let id = client_id(ID);
    let narrow = format!("{id}, scope = \"read\", audience = \"api one\", resource = \"https://api.example/x?y=1\"");
    let aud = json!(["api one", "https://api.example/x?y=1"]);
    for flow in ["client-credentials", "client-credentials-body"] {
        let said = said(&upstream, flow, &narrow, "", &[SECRET]).await;
        assert_eq!((&said["scope"], &said["aud"]), (&json!("read"), &aud), "{flow}");
    }
    let said = said(&upstream, "client-credentials", &id, "", &[SECRET]).await;
    assert_eq!((&said["scope"], &said["aud"]), (&json!("read write"), &json!("sandbox")), "nothing was asked for");
}

/// The flow of passwords knows no audience and no resource: both come by `extra_parameters`.
#[tokio::test(start_paused = true)]
async fn a_password_and_parameters_that_no_flow_knows() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Rotated)).await;
    let secrets = [("username", USERNAME), ("password", "sandbox-password"), SECRET];
    let extra = "extra_parameters = { audience = \"an api\", resource = \"https://api.example/\", unheard-of = \"x\" }";
    let said = said(&upstream, "password", &client_id(ID), extra, &secrets).await;
    assert_eq!((&said["sub"], &said["client_id"]), (&json!(USERNAME), &json!(ID)));
    assert_eq!(said["aud"], json!(["an api", "https://api.example/"]));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_exchanged_for_a_narrower_one() {
    let other = Client::new("exchanger").secret(SECRET.1).scopes(&["read"]);
    let upstream = Upstream::start(with(vec![other], Refresh::Kept)).await;
    let minted = async |parameters: &str| {
        let broker = start(&upstream, "client-credentials", parameters, "", &[SECRET]);
        broker.get("one").await.unwrap().token.value.expose().to_owned()
    };
    let (subject, actor) = (minted(&client_id(ID)).await, minted(&client_id("exchanger")).await);
    let secrets = [("subject_token", subject.as_str()), ("actor_token", &actor), SECRET];
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let parameters = format!(
        "{}, audience = \"api\", actor_token_type = \"{access_token}\", requested_token_type = \"{access_token}\"",
        client_id("exchanger")
    );
    let told = said(&upstream, "token-exchange", &parameters, "", &secrets).await;
    assert_eq!((&told["sub"], &told["client_id"]), (&json!(ID), &json!("exchanger")));
    assert_eq!((&told["act"], &told["aud"]), (&json!({ "sub": "exchanger" }), &json!("api")));
    assert_eq!(told["scope"], "read", "no more than both may");
    let alone = [secrets[0], SECRET];
    let told = said(&upstream, "token-exchange", &client_id("exchanger"), "", &alone).await;
    assert_eq!(told["act"], Value::Null);
}
