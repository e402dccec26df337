//! What changes while `serve` runs: files replaced in each of the ways that people and Kubernetes have, good and bad.

mod bad;
mod contents;
#[cfg(target_os = "linux")]
mod early;
mod flows;
mod grants;
mod secrets;

use super::{Files, PATIENCE, SECRET, Serving, Upstream, WORKSPACE};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use token_broker::client::{Client, Error, Token};
use tokio::time::{sleep, timeout};

/// Looked at often, so that a test need not wait.
const OFTEN: &str = "reload_interval = \"20ms\"";
/// No test is about the budget of the upstream.
const AMPLE: &str = "budget = { logins = 100000 }";

/// A broker as its own process, with the files that it follows.
struct Broker {
    upstream: Upstream,
    files: Files,
    serving: Serving,
    client: Client,
}

impl Broker {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let files = Files::for_upstream(upstream.address, OFTEN, AMPLE);
        Self::with(upstream, files).await
    }

    async fn with(upstream: Upstream, files: Files) -> Self {
        let serving = Serving::start(&files, &[]).await;
        let client = Client::connect(&serving.grpc, PATIENCE).await.unwrap();
        Self { upstream, files, serving, client }
    }

    async fn get(&self, workspace: &str) -> Result<Token, Error> {
        self.client.get_token(workspace, None).await
    }

    async fn fingerprint(&self) -> String {
        self.get(WORKSPACE).await.unwrap().fingerprint
    }

    /// Waits until the Workspace's token is not this one any more.
    async fn gives_another_than(&self, before: &str) {
        let changed = async { while self.fingerprint().await == before {} };
        timeout(PATIENCE, changed).await.expect("it is still the old token");
    }

    /// What the broker says of its configuration.
    async fn record(&self) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}/config", self.serving.probe)).send();
        serde_json::from_str(&answer.await.unwrap().text().await.unwrap()).unwrap()
    }

    async fn generation(&self) -> u64 {
        self.record().await["generation"].as_u64().unwrap()
    }

    /// Waits until the broker says so of its configuration.
    async fn says(&self, what: impl Fn(&Value) -> bool + Send + Sync) -> Value {
        let search = async {
            loop {
                let record = self.record().await;
                if what(&record) {
                    return record;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let found = timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("it never said so: {}", self.serving.process.stderr()))
    }

    /// Waits for this many accepted configurations.
    async fn accepts(&self, generation: u64) -> Value {
        self.says(|record| record["generation"] == generation && record["last_attempt"] == "accepted").await
    }

    /// Waits until the upstream was asked so often for an organisation's token.
    async fn logins(&self, organisation: u64, count: u64) {
        let reached = async {
            loop {
                let calls = self.upstream.control.counters().authenticate_by_organisation;
                if calls.get(&organisation).is_some_and(|calls| calls.total >= count) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the upstream was not asked");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Replaces a file as a careful person would.
    fn rename_over(&self, name: &str, text: &str) {
        self.files.write("next", text);
        fs::rename(self.path("next"), self.path(name)).unwrap();
    }

    /// Replaces the configuration by itself with this done to it.
    fn change(&self, from: &str, to: &str) {
        let text = self.text("token-broker.toml");
        assert!(text.contains(from), "{from}");
        self.rename_over("token-broker.toml", &text.replace(from, to));
    }
}

/// A Workspace of the upstream `one`, with its secret in this file.
fn workspace(name: &str, more: &str, secret: &str) -> String {
    format!(
        "[[workspaces]]\nname = \"{name}\"\nupstream = \"one\"\n{more}\n\
         credential = {{ application_token = {{ {secret} }} }}\n"
    )
}
