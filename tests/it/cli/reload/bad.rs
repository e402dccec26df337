//! Forty configurations that can't be used, one after the other, with calls all the while.

use super::{AMPLE, Broker, Files, OFTEN, PATIENCE, SECRET, Upstream, workspace};
use std::fmt::{self, Write as _};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::client::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const WORKSPACES: usize = 6;
const CALLERS: usize = 4;
/// How often two versions of the files take each other's place and back.
const SWAPS: usize = 400;

/// A good configuration of several Workspaces, each with its own key of one file.
fn good(upstream: &Upstream) -> (Files, String) {
    let files = Files::for_upstream(upstream.address, OFTEN, AMPLE);
    let text = fs::read_to_string(files.config()).unwrap();
    let (head, _) = text.split_once("[[workspaces]]").unwrap();
    let (mut config, mut secrets) = (head.to_owned(), String::new());
    for number in 1..=WORKSPACES {
        let secret = format!("file = \"secrets.toml\", key = \"{number}\"");
        config += &workspace(&name(number), "organisation = 1", &secret);
        writeln!(secrets, "{number} = \"{SECRET}\"").unwrap();
    }
    files.write("secrets.toml", &secrets);
    files.write("token-broker.toml", &config);
    (files, config)
}

fn name(number: usize) -> String {
    format!("bad/{number}")
}

/// What can be wrong inside of a file: from, to.
const SPOILT: [(&str, &str); 12] = [
    ("[server]", "[serve]"),
    ("[server]", "server = 1\n[servers]"),
    ("reload_interval = \"20ms\"", "reload_interval = 20"),
    ("level = \"trace\"", "level = [\"trace\"]"),
    ("kind = \"emnify\"", "kind = \"emnifi\""),
    ("url = \"http://", "url = \"http://user:pass@"),
    ("organisation = 1", "organisation = \"1\""),
    ("upstream = \"one\"", "upstream = \"three\""),
    ("name = \"bad/2\"", "name = \"bad/1\""),
    ("name = \"bad/2\"", "name = \"bad/2\"\nname = \"bad/2\""),
    ("{ file = \"secrets.toml\", key = \"2\" }", "\"an-inline-secret\""),
    ("key = \"2\"", "key = \"22\""),
];

/// Calls until it is told to stop, and counts.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Callers {
    async fn start(broker: &Broker) -> Self {
        let (stop, calls, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut this = Self { stop, calls, failed, tasks: JoinSet::new() };
        for caller in 0..CALLERS {
            let client = Client::connect(&broker.serving.grpc, PATIENCE).await.unwrap();
            let (stop, calls, failed) = (Arc::clone(&this.stop), Arc::clone(&this.calls), Arc::clone(&this.failed));
            this.tasks.spawn(async move {
                for number in (1..=WORKSPACES).cycle().skip(caller) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = client.get_token(&name(number), None).await;
                    calls.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        this
    }

    async fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        while timeout(PATIENCE, self.tasks.join_next()).await.unwrap().is_some() {}
        (self.calls.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// What was seen of the bad ones.
#[derive(Default)]
struct Tally {
    refused: u64,
    latest: Duration,
}

impl Tally {
    /// Does something bad and waits until it is told; the configuration in force must be the one before.
    async fn bad(&mut self, broker: &Broker, what: &str, spoil: impl FnOnce()) {
        let before = broker.record().await;
        let begun = Instant::now();
        spoil();
        let told = |record: &serde_json::Value| record["attempted_at"] != before["attempted_at"];
        let after = broker.says(told).await;
        self.latest = self.latest.max(begun.elapsed());
        assert_eq!(after["last_attempt"], "refused", "{what}: {after}");
        assert_eq!(after["generation"], before["generation"], "{what}");
        assert_ne!(after["problems"], serde_json::json!([]), "{what}");
        let said = after.to_string();
        assert!(!said.contains(SECRET) && !said.contains("bad/") && !said.contains("inline-secret"), "{what}: {said}");
        self.refused += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_bad_ones_change_nothing_and_fail_no_call() {
    let upstream = Upstream::start().await;
    let (files, good) = good(&upstream);
    let broker = Broker::with(upstream, files).await;
    for number in 1..=WORKSPACES {
        broker.get(&name(number)).await.unwrap();
    }
    let callers = Callers::start(&broker).await;
    let mut tally = Tally::default();
    let config = |text: &str| broker.rename_over("token-broker.toml", text);

    for percent in (5..100).step_by(5) {
        let cut = first(&good, good.len() * percent / 100);
        tally.bad(&broker, &format!("cut at {percent} %"), || config(cut)).await;
    }
    for (from, to) in SPOILT {
        assert!(good.contains(from), "{from}");
        tally.bad(&broker, to, || config(&good.replacen(from, to, 1))).await;
    }
    tally.bad(&broker, "empty", || config("")).await;
    let twice = good.clone() + &good;
    tally.bad(&broker, "all of it twice", || config(&twice)).await;
    tally.bad(&broker, "huge", || huge(&broker)).await;
    tally.bad(&broker, "not text", || fs::write(broker.path("token-broker.toml"), [0xff, 0xfe]).unwrap()).await;
    tally.bad(&broker, "not there", || fs::remove_file(broker.path("token-broker.toml")).unwrap()).await;
    tally.bad(&broker, "a directory", || fs::create_dir(broker.path("token-broker.toml")).unwrap()).await;
    fs::remove_dir(broker.path("token-broker.toml")).unwrap();
    config(&good);
    broker.accepts(2).await;
    let secrets = broker.text("secrets.toml");
    let half = first(&secrets, secrets.len() / 2);
    tally.bad(&broker, "half of the secrets", || broker.rename_over("secrets.toml", half)).await;
    let swapping = Swapping::prepare(&broker, &good, &secrets);
    tally.bad(&broker, "links swapped while it is read", || swapping.begin()).await;
    swapping.end().await;
    let settled = |record: &serde_json::Value| record["problems"].to_string().contains("no such key");
    assert_eq!(broker.says(settled).await["generation"], 2, "no mixture was taken");
    tally.bad(&broker, "one last cut", || config(first(&good, good.len() - 4))).await;

    assert_eq!(tally.refused, 40);
    let (calls, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {calls} calls");
    assert!(calls > 400, "{calls}");
    let told = broker.serving.process.stderr().matches("configuration refused").count();
    assert!(told >= 40, "{told}");
    report(format_args!("40 of 40 refused, {failed} of {calls} calls failed, told after at most {:?}", tally.latest));

    broker.rename_over("secrets.toml", &secrets);
    let more = good + &workspace("one/more", "organisation = 1", "file = \"secret\"");
    config(&more);
    broker.accepts(3).await;
    broker.get("one/more").await.unwrap();
    assert_eq!(broker.upstream.control.counters().authenticate.total, 7, "no token was fetched anew");
}

#[tokio::test]
async fn where_the_files_are_is_told_in_the_log_only() {
    let broker = Broker::start().await;
    let directory = broker.files.0.path().to_str().unwrap().to_owned();
    let mut tally = Tally::default();
    let missing = || broker.change("{ file = \"secret\" }", "{ file = \"missing\" }");
    let gone = || fs::remove_file(broker.path("token-broker.toml")).unwrap();
    tally.bad(&broker, "no secret", missing).await;
    assert!(!broker.record().await.to_string().contains(&directory));
    tally.bad(&broker, "no configuration", gone).await;
    assert!(!broker.record().await.to_string().contains(&directory));
    assert!(broker.serving.process.stderr().contains(&format!("configuration ({directory}/token-broker.toml)")));
}

/// Two versions behind one link, each of no use, whose mixtures would be: the configuration of one fits the secrets of
/// the other.
struct Swapping {
    directory: PathBuf,
    probe: String,
    task: Mutex<JoinSet<()>>,
}

impl Swapping {
    fn prepare(broker: &Broker, good: &str, secrets: &str) -> Self {
        let directory = broker.files.0.path().to_owned();
        for (version, keys, other) in [("..a", "a", "b"), ("..b", "b", "a")] {
            let folder = directory.join(version);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("token-broker.toml"), good.replace("key = \"", &format!("key = \"{keys}"))).unwrap();
            let secrets = secrets.lines().fold(String::new(), |all, line| format!("{all}{other}{line}\n"));
            fs::write(folder.join("secrets.toml"), secrets).unwrap();
        }
        symlink("..a", directory.join("..data")).unwrap();
        Self { directory, probe: format!("{}/livez", broker.serving.probe), task: Mutex::default() }
    }

    fn begin(&self) {
        let directory = self.directory.clone();
        for file in ["secrets.toml", "token-broker.toml"] {
            symlink(format!("..data/{file}"), directory.join("link")).unwrap();
            fs::rename(directory.join("link"), directory.join(file)).unwrap();
        }
        let swap = move |version: &str| {
            symlink(version, directory.join("..next")).unwrap();
            fs::rename(directory.join("..next"), directory.join("..data")).unwrap();
        };
        let (client, probe) = (reqwest::Client::builder().no_proxy().build().unwrap(), self.probe.clone());
        self.task.lock().unwrap().spawn(async move {
            for _ in 0..SWAPS {
                for version in ["..b", "..a"] {
                    swap(version);
                    // As fast as the broker gets on with something else.
                    client.get(&probe).send().await.unwrap().bytes().await.unwrap();
                }
            }
        });
    }

    async fn end(self) {
        self.task.into_inner().unwrap().join_all().await;
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this test is for")]
fn report(figures: impl fmt::Display) {
    println!("bad reloads: {figures}");
}

fn first(text: &str, bytes: usize) -> &str {
    text.split_at(bytes).0
}

fn huge(broker: &Broker) {
    let file = fs::File::create(broker.path("next")).unwrap();
    file.set_len(1 << 30).unwrap();
    fs::rename(broker.path("next"), broker.path("token-broker.toml")).unwrap();
}
