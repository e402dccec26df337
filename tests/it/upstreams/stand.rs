//! A simulated upstream, and a broker's engine made of a configuration text.

use crate::logs::{Capture, captured_by};
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use token_broker::clock::Clock;
use token_broker::config::{self, Config, Environment};
use token_broker::engine::{self, Call, Engine, Interest, Metrics, Origin, Served};
use token_broker::error::Error;
use token_broker::http::Client;
use token_broker::provider::exchange::{self, Exchange};
use token_broker::sandbox::{Control, Sandbox, Settings};
use token_broker::supervisor::Supervisor;
use token_broker::token::WorkspaceName;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, timeout};
use tracing::subscriber::DefaultGuard;

/// What a test waits for at most, once time passes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long time stands still at most, in real time: a test that hangs fails by it.
const LONGEST: Duration = Duration::from_secs(60);
/// More than a timer is late, and less than anything that is told apart.
const A_MOMENT: Duration = Duration::from_millis(10);

/// A simulated upstream. While there is one, time passes only by [`advance`].
pub(super) struct Upstream {
    pub(super) control: Control,
    pub(super) clock: Clock,
    address: SocketAddr,
    _serving: JoinSet<()>,
    _still: Still,
}

/// Paused time jumps to the next timer when nothing is left to do, and an answer on its way through a socket looks like
/// nothing. It does not jump while a blocking task runs.
struct Still {
    _go_on: Sender<()>,
    _task: JoinSet<bool>,
}

impl Still {
    fn new() -> Self {
        let (go_on, told) = channel();
        let mut task = JoinSet::new();
        task.spawn_blocking(move || {
            // Told or not: time goes on.
            told.recv_timeout(LONGEST).is_ok()
        });
        Self { _go_on: go_on, _task: task }
    }
}

impl Upstream {
    /// For a test with paused time. The time of day is the machine's, by which assertions are signed.
    pub(super) async fn start(settings: Settings) -> Self {
        let still = Still::new();
        let clock = Clock::simulated();
        clock.step_wall_ms(unix_ms(Clock::system().now().wall) - unix_ms(clock.now().wall));
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sandbox = Sandbox::bind(any_port, settings, clock.clone()).await.unwrap();
        let (address, control) = (sandbox.addr(), sandbox.handle());
        let mut serving = JoinSet::new();
        serving.spawn(sandbox.run(std::future::pending()));
        Self { control, clock, address, _serving: serving, _still: still }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Reads a configuration. `SANDBOX` stands for this upstream, and `@name` for the source of the secret of this name.
    pub(super) fn config(&self, text: &str, secrets: &[(&str, &str)]) -> Result<(Config, TempDir), String> {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("secrets.toml");
        let lines: Vec<_> = secrets.iter().map(|(name, secret)| format!("{name} = {secret:?}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut text = text.replace("SANDBOX", &self.url(""));
        for (name, _) in secrets {
            text = text.replace(&format!("@{name} "), &format!("{{ file = \"secrets.toml\", key = \"{name}\" }} "));
        }
        let config = Config::parse(&text, files.path(), &Environment::default());
        Ok((config.map_err(|problems| problems.to_string())?, files))
    }
}

/// The engine of a broker with this configuration, and all that it logs.
pub(super) struct Broker {
    pub(super) engine: Engine,
    workspaces: Vec<WorkspaceName>,
    logs: Capture,
    secrets: Vec<String>,
    _captured: DefaultGuard,
    _files: TempDir,
}

/// What the log says of an exchange.
#[derive(Debug, PartialEq)]
pub(super) struct Exchanged {
    /// `token`, or the class of the failure.
    pub(super) outcome: String,
    pub(super) detail: String,
}

impl Broker {
    pub(super) fn start(upstream: &Upstream, text: &str, secrets: &[(&str, &str)]) -> Self {
        let logs = Capture::default();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG);
        let captured = captured_by(subscriber.with_writer(logs.clone()).finish());
        let (config, files) = upstream.config(text, secrets).unwrap_or_else(|problems| panic!("{problems}"));
        let workspaces = config.workspaces.iter().map(|workspace| workspace.name.clone()).collect();
        let engine = engine(&upstream.clock, config);
        let secrets = secrets.iter().map(|(_, secret)| (*secret).to_owned()).collect();
        Self { engine, workspaces, logs, secrets, _captured: captured, _files: files }
    }

    pub(super) async fn get(&self, workspace: &str) -> Result<Served, Error> {
        let served = self.engine.get(&name(workspace), Duration::ZERO, call()).await;
        if let Ok(served) = &served {
            assert!(!self.logs.text().contains(served.token.value.expose()), "the log holds a token");
        }
        served
    }

    /// Lets time pass until the token's renewal is due, and waits for what comes of it.
    pub(super) async fn renewed(&self, workspace: &str) -> Exchanged {
        let held = self.get(workspace).await.unwrap().held;
        let due = held.renew_at.saturating_duration_since(Instant::now());
        self.exchanged_after(workspace, due + A_MOMENT).await
    }

    /// Lets time pass, and waits for the exchange that becomes due meanwhile.
    pub(super) async fn exchanged_after(&self, workspace: &str, time: Duration) -> Exchanged {
        let before = self.exchanges().len();
        let mut watch = self.engine.watch(vec![name(workspace)], Interest::Status, Origin(1)).unwrap();
        advance(time).await;
        let another = async {
            while self.exchanges().len() == before {
                watch.changed().await;
            }
        };
        timeout(PATIENCE, another).await.expect("no exchange was made");
        self.exchanges().swap_remove(before)
    }

    /// All exchanges so far.
    pub(super) fn exchanges(&self) -> Vec<Exchanged> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let exchanged = |fields: Value| match fields["message"].as_str()? {
            "token exchanged" => Some(Exchanged { outcome: "token".to_owned(), detail: String::new() }),
            "exchange failed" | "the credential is of no use" => {
                Some(Exchanged { outcome: text(&fields["outcome"]), detail: text(&fields["detail"]) })
            }
            _ => None,
        };
        lines(&self.logs).filter_map(exchanged).collect()
    }

    /// How all exchanges so far came out.
    pub(super) fn outcomes(&self) -> Vec<String> {
        self.exchanges().into_iter().map(|exchanged| exchanged.outcome).collect()
    }

    /// The requests so far, by the names of the steps.
    pub(super) fn steps(&self) -> Vec<String> {
        let step = |fields: Value| {
            let asked = fields["message"] == "asks the upstream";
            asked.then(|| fields["step"].as_str().unwrap_or_default().to_owned())
        };
        lines(&self.logs).filter_map(step).collect()
    }

    /// How many lines of the log have this in their message.
    pub(super) fn said(&self, part: &str) -> usize {
        let message = |fields: &Value| fields["message"].as_str().is_some_and(|message| message.contains(part));
        lines(&self.logs).filter(message).count()
    }
}

/// Whatever a test was about: no secret is in the log. What the engine has planned ends here.
impl Drop for Broker {
    fn drop(&mut self) {
        for workspace in &self.workspaces {
            self.engine.delete(workspace);
        }
        if !thread::panicking() {
            let logs = self.logs.text();
            assert!(logs.contains("asks the upstream"), "nothing was captured");
            assert!(!self.secrets.iter().any(|secret| logs.contains(secret)), "the log holds a secret");
        }
    }
}

/// As `app` does it, by a clock that can be moved.
fn engine(clock: &Clock, config: Config) -> Engine {
    let settings = engine::Settings {
        serve_margin: config.engine.serve_margin,
        min_gap: config.engine.min_gap,
        max_waiters: config.engine.max_waiters_per_workspace,
        max_workspaces: config.engine.max_workspaces,
        max_watches: config.engine.max_watches,
        seed: 7,
    };
    let metrics = Metrics::register(&mut Registry::default());
    let engine = Engine::new(clock.clone(), Supervisor::new(), settings, metrics);
    let Config { upstreams, workspaces, .. } = config;
    for upstream in &upstreams {
        engine.add_upstream(upstream.name.clone(), limits(upstream));
    }
    for workspace in workspaces {
        let config::Workspace { name, upstream, flow, fields, keep_warm, place: _ } = workspace;
        let found = upstreams.iter().find(|found| found.name == upstream).unwrap();
        let provider = Arc::new(Exchange::new(reached(found), Arc::clone(&flow.recipe), name.clone(), fields).unwrap());
        engine.put(engine::Workspace { name, upstream, keep_warm, provider }).unwrap();
    }
    engine
}

fn reached(upstream: &config::Upstream) -> Arc<exchange::Upstream> {
    let client = Arc::new(Client::new(&upstream.http).unwrap());
    let config::Upstream { base_url, bounds, token_lifetime, .. } = upstream;
    Arc::new(exchange::Upstream { client, base: base_url.clone(), bounds: *bounds, token_lifetime: *token_lifetime })
}

fn limits(upstream: &config::Upstream) -> engine::Limits {
    engine::Limits {
        max_concurrent: upstream.max_concurrent,
        budget: upstream.budget,
        renew_at: upstream.renew_at,
        timeout: upstream.http.timeout + Duration::from_secs(1),
    }
}

fn name(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

fn call() -> Call {
    Call { deadline: Instant::now() + PATIENCE, origin: Origin(0) }
}

fn unix_ms(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The fields of each line that the thread of the test logged, which all of its tasks run on.
fn lines(logs: &Capture) -> impl Iterator<Item = Value> + use<> {
    let lines: Vec<Value> = logs.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.into_iter().map(|mut line| line["fields"].take())
}
