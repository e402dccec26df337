//! What a good configuration changes, and what it leaves alone.

use super::{AMPLE, Broker, Duration, Files, OFTEN, PATIENCE, SECRET, Upstream, WORKSPACE, workspace};
use std::fs;
use token_broker::sandbox::Organisation;
use tokio::time::timeout;

#[tokio::test]
async fn workspaces_come_and_go_and_the_others_keep_their_tokens() {
    let broker = Broker::start().await;
    let before = broker.fingerprint().await;
    let alone = broker.text("token-broker.toml");
    let both = alone.clone() + &workspace("fleet/asia", "organisation = 1", "file = \"secret\"");
    broker.rename_over("token-broker.toml", &both);
    broker.accepts(2).await;
    assert!(broker.get("fleet/asia").await.is_ok());
    broker.rename_over("token-broker.toml", &alone);
    broker.accepts(3).await;
    let gone = broker.get("fleet/asia").await.unwrap_err().to_string();
    assert!(gone.contains("WORKSPACE_UNKNOWN"), "{gone}");
    assert_eq!(broker.fingerprint().await, before);
    assert_eq!(broker.upstream.control.counters().authenticate.total, 2, "one exchange each");
}

#[tokio::test]
async fn a_workspace_of_another_tenant_gets_another_token() {
    const SECOND: &str = "the-application-token-of-the-second";
    let broker = Broker::start().await;
    broker.upstream.control.add_organisation(Organisation::new(2, "Two", SECOND, Duration::from_secs(14_400)));
    let before = broker.fingerprint().await;
    broker.files.write("second", SECOND);
    let text = broker.text("token-broker.toml").replace("organisation = 1", "organisation = 2");
    broker.rename_over("token-broker.toml", &text.replace("file = \"secret\"", "file = \"second\""));
    broker.accepts(2).await;
    assert_ne!(broker.fingerprint().await, before, "no token of the first organisation is handed out any more");
    assert_eq!(broker.upstream.control.counters().authenticate_by_organisation[&2].total, 1);
}

#[tokio::test]
async fn an_upstream_that_moves_is_asked_at_its_new_address() {
    let broker = Broker::start().await;
    let before = broker.fingerprint().await;
    let second = Upstream::start().await;
    broker.change(&broker.upstream.address.to_string(), &second.address.to_string());
    broker.accepts(2).await;
    assert_eq!(broker.fingerprint().await, before, "what is valid is served");
    let text = broker.text("token-broker.toml") + &workspace("fleet/asia", "", "file = \"secret\"");
    broker.rename_over("token-broker.toml", &text);
    broker.accepts(3).await;
    assert!(broker.get("fleet/asia").await.is_ok());
    let asked = |upstream: &Upstream| upstream.control.counters().authenticate.total;
    assert_eq!((asked(&broker.upstream), asked(&second)), (1, 1));
}

#[tokio::test]
async fn an_upstream_is_removed_with_its_workspaces_and_the_rest_goes_on() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, OFTEN, AMPLE);
    let alone = fs::read_to_string(files.config()).unwrap();
    let second = format!(
        "[[upstreams]]\nname = \"two\"\nkind = \"emnify\"\nurl = \"http://{}\"\n{}",
        upstream.address,
        workspace("second", "", "file = \"secret\"").replace("\"one\"", "\"two\"")
    );
    files.write("token-broker.toml", &(alone.clone() + &second));
    let broker = Broker::with(upstream, files).await;
    let before = broker.fingerprint().await;
    assert!(broker.get("second").await.is_ok());
    broker.rename_over("token-broker.toml", &alone);
    broker.accepts(2).await;
    assert!(broker.get("second").await.is_err());
    assert_eq!(broker.fingerprint().await, before);
    // It comes back, and is served again: its driver ended, and another took its place.
    broker.rename_over("token-broker.toml", &(alone + &second));
    broker.accepts(3).await;
    assert!(broker.get("second").await.is_ok());
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_taken_up() {
    let mut broker = Broker::start().await;
    broker.change("grpc_listen = \"127.0.0.1:0\"", "grpc_listen = \"127.0.0.1:1\"\ndrain_timeout = \"1s\"");
    let record = broker.accepts(2).await;
    assert_eq!(record["needs_restart"], serde_json::json!(["server.grpc_listen", "server.drain_timeout"]));
    let warned = broker.serving.process.logged("the new value of this setting takes effect only after a restart").await;
    assert_eq!(warned["key"], "server.grpc_listen");
    assert!(broker.get(WORKSPACE).await.is_ok(), "on the address that it has");
    broker.change("127.0.0.1:1\"\ndrain_timeout = \"1s\"", "127.0.0.1:0\"");
    let record = broker.accepts(3).await;
    assert_eq!(record["needs_restart"], serde_json::json!([]));
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let mut broker = Broker::start().await;
    broker.change("level = \"trace\"", "level = \"error\"");
    broker.accepts(2).await;
    assert!(broker.get(WORKSPACE).await.is_ok());
    broker.change("level = \"error\"", "level = \"info\"");
    broker.accepts(3).await;
    broker.serving.process.logged("configuration accepted").await;
    assert!(!broker.serving.process.stderr().contains("token exchanged"));
}

#[tokio::test]
async fn sighup_reloads_at_once_and_says_that_much_may_go() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "reload_interval = \"0s\"", AMPLE);
    let broker = Broker::with(upstream, files).await;
    assert!(broker.get(WORKSPACE).await.is_ok());
    let text = broker.text("token-broker.toml");
    let (head, _) = text.split_once("[[workspaces]]").unwrap();
    broker.rename_over("token-broker.toml", head);
    assert_eq!(broker.generation().await, 1, "nobody looks by themselves");
    broker.serving.process.signal("HUP").await;
    broker.accepts(2).await;
    let gone = broker.get(WORKSPACE).await.unwrap_err().to_string();
    assert!(gone.contains("WORKSPACE_UNKNOWN"), "{gone}");
}

#[tokio::test]
async fn that_most_workspaces_go_is_taken_for_a_mistake() {
    let broker = Broker::start().await;
    let text = broker.text("token-broker.toml");
    let (head, _) = text.split_once("[[workspaces]]").unwrap();
    broker.rename_over("token-broker.toml", head);
    let record = broker.says(|record| record["last_attempt"] == "refused").await;
    assert!(record["problems"][0]["problem"].as_str().unwrap().contains("1 of 1 Workspaces"), "{record}");
    assert!(broker.get(WORKSPACE).await.is_ok());
}

#[tokio::test]
async fn callers_who_wait_while_their_workspace_is_moved_get_its_new_token() {
    use token_broker::sandbox::{Fault, Scope};
    let broker = Broker::start().await;
    broker.upstream.control.set_fault(Scope::ALL, Fault::Hang);
    let second = Upstream::start().await;
    let waiting = broker.get(WORKSPACE);
    let moved = async {
        broker.logins(1, 1).await;
        let text = broker.text("token-broker.toml");
        let (head, tail) = text.split_once("[[workspaces]]").unwrap();
        let tail = tail.replace("upstream = \"one\"", "upstream = \"two\"");
        let two = format!("[[upstreams]]\nname = \"two\"\nkind = \"emnify\"\nurl = \"http://{}\"\n", second.address);
        broker.rename_over("token-broker.toml", &format!("{head}{two}[[workspaces]]{tail}"));
    };
    let (answer, ()) = timeout(PATIENCE, async { tokio::join!(waiting, moved) }).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(second.control.counters().authenticate.total, 1);
    assert!(!broker.serving.process.stderr().contains(SECRET));
}
