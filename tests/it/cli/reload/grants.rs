//! Grants that change while `serve` runs.

use super::{Broker, WORKSPACE};

async fn refusal(broker: &Broker) -> String {
    broker.get(WORKSPACE).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_right_ends_and_comes_back_without_a_restart() {
    let mut broker = Broker::start().await;
    let before = broker.fingerprint().await;
    broker.change("caller = \"loopback\"", "caller = \"unix:1\"");
    let record = broker.accepts(2).await;
    assert_eq!(record["needs_restart"], serde_json::json!([]));
    assert!(refusal(&broker).await.contains("CALLER_FORBIDDEN"));
    let said = broker.serving.process.logged("configuration accepted").await;
    assert_eq!(said["grants.changed"], true);
    broker.change("caller = \"unix:1\"", "caller = \"loopback\"");
    broker.accepts(3).await;
    assert_eq!(broker.fingerprint().await, before, "the token was there all the time");
    broker.change("workspaces = [\"**\"]", "workspaces = [\"fleet/asia\"]");
    broker.accepts(4).await;
    assert!(refusal(&broker).await.contains("CALLER_FORBIDDEN"));
    broker.change("\"get\", ", "");
    broker.change("[\"fleet/asia\"]", "[\"fleet/*\"]");
    broker.says(|record| record["generation"].as_u64() >= Some(5) && record["last_attempt"] == "accepted").await;
    assert!(refusal(&broker).await.contains("CALLER_FORBIDDEN"));
    assert_eq!(broker.upstream.control.counters().authenticate.total, 1);
}

#[tokio::test]
async fn a_grant_that_is_wrong_leaves_those_in_force() {
    let broker = Broker::start().await;
    broker.change("caller = \"loopback\"", "caller = \"loop\"");
    let record = broker.says(|record| record["last_attempt"] == "refused").await;
    assert_eq!(record["problems"][0]["key"], "grants[0].caller", "{record}");
    assert!(broker.get(WORKSPACE).await.is_ok());
}

#[tokio::test]
async fn what_is_unwise_is_logged() {
    let mut broker = Broker::start().await;
    broker.change("workspaces = [\"**\"]", "workspaces = [\"fleet/*\", \"none\"]");
    broker.accepts(2).await;
    let warned = broker.serving.process.logged("configuration").await;
    let text = warned["warning"].as_str().unwrap();
    assert!(text.starts_with("grants[0].workspaces["), "{text}");
}
