//! Flows and what they take: a change of one Workspace concerns that one and no other.

use super::{Broker, Files, OFTEN, PATIENCE, Upstream, WORKSPACE};
use crate::grants::ALL_TO_LOOPBACK;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::time::Duration;
use token_broker::client::Token;
use token_broker::sandbox::{Client, Method, Route};
use tokio::time::timeout;

/// Beside the Workspace that changes: one of the same upstream, one of another, one whose flow is described.
const OTHERS: [&str; 3] = ["fleet/same", "fleet/wyvern", "fleet/described"];
const CLIENT: &str = "parameters = { client_id = \"sandbox-client\" }\n\
                      credential = { client_secret = { file = \"client-secret\" } }\n";

/// A broker with [`WORKSPACE`] as it is told, and the others, all of which have their tokens.
async fn broker(workspace: &str, prepare: impl FnOnce(&Files, &Upstream)) -> Broker {
    let upstream = Upstream::start().await;
    let address = upstream.address;
    let [same, wyvern, described] = OTHERS;
    let files = Files::new(&format!(
        "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\n{OFTEN}\n\
         [engine]\nmin_gap = \"10ms\"\n[log]\nlevel = \"trace\"\n\
         {ALL_TO_LOOPBACK}\
         [[upstreams]]\nname = \"oauth2\"\nkind = \"oauth2\"\nurl = \"http://{address}/oauth2/token\"\n\
         [[upstreams]]\nname = \"wyvern\"\nkind = \"wyvern\"\nurl = \"http://{address}/wyvern\"\n\
         [[upstreams]]\nname = \"described\"\nkind = \"http\"\nurl = \"http://{address}/odd/text\"\n\
         [upstreams.flows.login]\nsecrets = [\"client_secret\"]\nparameters = [\"client_id\"]\n\
         [upstreams.flows.login.login]\npath = \"/token\"\n\
         json = {{ client_id = \"{{client_id}}\", client_secret = \"{{client_secret}}\" }}\n\
         [upstreams.flows.login.login.answer]\ntoken = \"access_token\"\n\
         expiry = [{{ relative = \"expires_in\", unit = \"s\" }}]\n\
         [[workspaces]]\nname = \"{WORKSPACE}\"\nupstream = \"oauth2\"\n{workspace}\n\
         [[workspaces]]\nname = \"{same}\"\nupstream = \"oauth2\"\nflow = \"client-credentials\"\n{CLIENT}\
         [[workspaces]]\nname = \"{wyvern}\"\nupstream = \"wyvern\"\n\
         credential = {{ username = {{ file = \"username\" }}, password = {{ file = \"password\" }} }}\n\
         [[workspaces]]\nname = \"{described}\"\nupstream = \"described\"\n{CLIENT}"
    ));
    files.write("client-secret", "sandbox-client-secret");
    files.write("username", "sandbox-user@example.com");
    files.write("password", "sandbox-password");
    prepare(&files, &upstream);
    Broker::with(upstream, files).await
}

async fn fingerprints(broker: &Broker) -> Vec<String> {
    let mut all = Vec::new();
    for workspace in OTHERS {
        all.push(broker.get(workspace).await.unwrap().fingerprint);
    }
    all
}

/// How often the upstreams were asked: the server of OAuth 2.0, Wyvern, the described one.
fn asked(broker: &Broker) -> [u64; 3] {
    let counters = broker.upstream.control.counters();
    [Route::Oauth2Token, Route::WyvernToken, Route::OddToken].map(|route| counters.of(route).total)
}

fn claims(token: &Token) -> Value {
    let payload = token.value.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn another_parameter_brings_another_token_to_its_workspace_alone() {
    let narrow = CLIENT.replace("\"sandbox-client\"", "\"sandbox-client\", scope = \"read\"");
    let broker = broker(&format!("flow = \"client-credentials\"\n{narrow}"), |_, _| {}).await;
    let others = fingerprints(&broker).await;
    assert_eq!(claims(&broker.get(WORKSPACE).await.unwrap())["scope"], "read");
    assert_eq!(asked(&broker), [2, 1, 1]);
    broker.change("scope = \"read\"", "scope = \"write\"");
    broker.accepts(2).await;
    assert_eq!(claims(&broker.get(WORKSPACE).await.unwrap())["scope"], "write", "none of the old ones is handed out");
    assert_eq!(fingerprints(&broker).await, others);
    assert_eq!(asked(&broker), [3, 1, 1]);
}

/// The client may send its secret in the body alone, so that the first flow is refused.
#[tokio::test]
async fn another_flow_is_gone_at_once() {
    let by_body = CLIENT.replace("\"sandbox-client\"", "\"by-body\"");
    let workspace = format!("flow = \"client-credentials\"\n{by_body}");
    let broker = broker(&workspace, |_, upstream| {
        let client = Client::new("by-body").secret("sandbox-client-secret").methods(&[Method::Body]);
        upstream.control.add_client(client);
    });
    let broker = broker.await;
    let others = fingerprints(&broker).await;
    let refused = broker.get(WORKSPACE).await.unwrap_err().to_string();
    assert!(refused.contains("CREDENTIAL_REJECTED"), "{refused}");
    let first = format!("name = \"{WORKSPACE}\"\nupstream = \"oauth2\"\nflow = \"client-credentials");
    broker.change(&format!("{first}\""), &format!("{first}-body\""));
    broker.accepts(2).await;
    assert_eq!(claims(&broker.get(WORKSPACE).await.unwrap())["sub"], "by-body");
    assert_eq!(fingerprints(&broker).await, others);
    assert_eq!(asked(&broker), [3, 1, 1]);
}

/// What a token is for does not change, so that the one in hand is served until it is renewed.
#[tokio::test]
async fn another_description_counts_from_the_next_exchange_on() {
    let [.., described] = OTHERS;
    let broker = broker(&format!("flow = \"client-credentials\"\n{CLIENT}"), |_, _| {}).await;
    broker.get(WORKSPACE).await.unwrap();
    let others = fingerprints(&broker).await;
    broker.change("unit = \"s\" }]", "unit = \"s\" }, { fixed = \"10m\" }]");
    broker.accepts(2).await;
    assert_eq!(fingerprints(&broker).await, others);
    assert_eq!(asked(&broker), [2, 1, 1]);
    let replaced = broker.client.report(described, others.last().unwrap(), 401).await.unwrap();
    assert!(replaced.valid_for <= Duration::from_secs(600), "{:?}", replaced.valid_for);
    assert_eq!(asked(&broker), [2, 1, 2]);
}

/// The one in hand would travel as before, and alone, for as long as it lives.
#[tokio::test]
async fn a_description_by_which_tokens_travel_otherwise_drops_the_one_in_hand() {
    let [same, wyvern, described] = OTHERS;
    let broker = broker(&format!("flow = \"client-credentials\"\n{CLIENT}"), |_, _| {}).await;
    broker.get(WORKSPACE).await.unwrap();
    let before = fingerprints(&broker).await;
    let answer = "token = \"access_token\"\n";
    broker.change(answer, &format!("{answer}attributes = {{ kind = \"token_type\" }}\n"));
    broker.accepts(2).await;
    let token = broker.get(described).await.unwrap();
    assert_eq!(token.attributes.get("kind").map(String::as_str), Some("Bearer"));
    assert_ne!(token.fingerprint, before[2]);
    assert_eq!(broker.get(same).await.unwrap().fingerprint, before[0]);
    assert_eq!(broker.get(wyvern).await.unwrap().fingerprint, before[1]);
    assert_eq!(asked(&broker), [2, 1, 2]);
}

#[tokio::test]
async fn the_log_counts_the_workspaces_whose_description_changes() {
    let mut broker = broker(&format!("flow = \"client-credentials\"\n{CLIENT}"), |_, _| {}).await;
    broker.change("path = \"/token\"\n", "path = \"/token\"\nheaders = { x-reason = \"renewal\" }\n");
    broker.accepts(2).await;
    let line = broker.serving.process.logged("configuration accepted").await;
    assert_eq!(line["workspaces.redescribed"], 1, "{line}");
}

#[tokio::test]
async fn another_private_key_is_tried_at_once() {
    let keys = [(); 2].map(|()| KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
    let signer = |key: &KeyPair| Client::new("signer").key(&key.public_key_pem()).unwrap();
    let workspace = "flow = \"private-key-jwt\"\n\
                     parameters = { client_id = \"signer\", algorithm = \"ES256\", audience = \"api\" }\n\
                     credential = { private_key = { file = \"key.pem\" } }\n";
    let broker = broker(workspace, |files, upstream| {
        files.write("key.pem", &keys[0].serialize_pem());
        upstream.control.add_client(signer(&keys[0]));
    });
    let broker = broker.await;
    let (before, others) = (broker.fingerprint().await, fingerprints(&broker).await);
    assert_eq!(asked(&broker), [2, 1, 1]);
    // From here on only the second key signs.
    broker.upstream.control.add_client(signer(&keys[1]));
    broker.rename_over("key.pem", &keys[1].serialize_pem());
    broker.accepts(2).await;
    timeout(PATIENCE, broker.upstream.control.calls_reach(Route::Oauth2Token, 3)).await.expect("it was not tried");
    broker.gives_another_than(&before).await;
    assert_eq!(claims(&broker.get(WORKSPACE).await.unwrap())["aud"], json!("api"));
    assert_eq!(fingerprints(&broker).await, others);
    assert_eq!(asked(&broker), [3, 1, 1]);
    assert_eq!(broker.upstream.control.counters().of(Route::Oauth2Token).with_status(200), 3);
}

/// A flow that can't be gone is refused, and everything stays as it was.
#[tokio::test]
async fn a_flow_that_needs_a_store_is_refused_and_nothing_changes() {
    let broker = broker(&format!("flow = \"client-credentials\"\n{CLIENT}"), |_, _| {}).await;
    let (before, others) = (broker.fingerprint().await, fingerprints(&broker).await);
    let first = format!("name = \"{WORKSPACE}\"\nupstream = \"oauth2\"\nflow = ");
    broker.change(&format!("{first}\"client-credentials\""), &format!("{first}\"rotating-refresh-token\""));
    let record = broker.says(|record| record["last_attempt"] == "refused").await;
    assert!(record.to_string().contains("needs a store"), "{record}");
    assert_eq!((broker.fingerprint().await, fingerprints(&broker).await), (before, others));
    assert_eq!(asked(&broker), [2, 1, 1]);
}
