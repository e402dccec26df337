//! An issuer's web server on loopback, and a broker's issuers that ask it.

use super::signer::Signer;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use token_broker::bearer::{Accepting, Algorithm, Issuers, Metrics, Place, Refusal, Rule, Settings};
use token_broker::clock::Clock;
use token_broker::http::Options;
use token_broker::identity::Authenticated;
use token_broker::revision::Revisions;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

pub(super) const ISSUER: &str = "https://idp.example/tenant";
pub(super) const AUDIENCE: &str = "token-broker";

#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Never answers.
    pub(super) hangs: bool,
}

/// What a web server was asked, and what it answers.
#[derive(Default)]
pub(super) struct Script {
    replies: Mutex<HashMap<String, Reply>>,
    pub(super) seen: Mutex<Vec<(String, Option<String>)>>,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) script: Arc<Script>,
    _tasks: JoinSet<()>,
}

pub(super) struct Stand {
    pub(super) issuers: Issuers,
    pub(super) bearer: Accepting,
    pub(super) metrics: telemetry::metrics::Metrics,
    pub(super) moved: watch::Receiver<u64>,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status: 200, headers, body: body.into(), hangs: false }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("{}") }
    }

    pub(super) fn keys(signers: &[&Signer]) -> Self {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        Self::ok(json!({ "keys": keys }).to_string())
    }
}

impl Script {
    pub(super) fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let shown = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    script.seen.lock().unwrap().push((path.clone(), shown));
    let reply = script.replies.lock().unwrap().get(&path).cloned().unwrap_or_else(|| Reply::status(404));
    if reply.hangs {
        std::future::pending::<()>().await;
    }
    let response = reply.headers.into_iter().fold(Response::builder(), |all, (name, value)| all.header(name, value));
    response.status(reply.status).body(Body::from(reply.body)).unwrap()
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::<Script>::default());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, script, _tasks: tasks }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    pub(super) fn settings(&self) -> Settings {
        settings(Place::Url(self.url("/keys")))
    }
}

pub(super) fn settings(place: Place) -> Settings {
    Settings {
        rule: Rule { name: Arc::from("idp"), issuer: ISSUER.to_owned(), audiences: vec![AUDIENCE.to_owned()] },
        algorithms: Algorithm::ALL.iter().map(|(_, algorithm)| *algorithm).collect(),
        place,
        http: Options { timeout: Duration::from_secs(5), ..Options::default() },
        token_file: None::<PathBuf>,
        refresh_interval: Duration::from_secs(300),
        keys_outlive: Duration::from_secs(86_400),
    }
}

impl Stand {
    /// Waits for nothing: the keys may not be there yet.
    pub(super) fn new(settings: Vec<Settings>) -> Self {
        let (clock, revisions) = (Clock::system(), Revisions::default());
        let metrics = telemetry::metrics::Metrics::new(&clock);
        let counted = metrics.register(Metrics::register);
        let moved = revisions.subscribe();
        let issuers = Issuers::new(clock, revisions, Supervisor::new(), counted);
        let stand = Self { bearer: issuers.accepting(None), issuers, metrics, moved };
        stand.install(settings);
        stand
    }

    /// With the keys of these at the address that [`Server::settings`] has.
    pub(super) async fn with(server: &Server, signers: &[&Signer]) -> Self {
        server.script.set("/keys", Reply::keys(signers));
        let mut stand = Self::new(vec![server.settings()]);
        stand.keys_come().await;
        stand
    }

    pub(super) fn install(&self, settings: Vec<Settings>) {
        let prepared = settings.into_iter().map(|one| {
            let client = one.check().unwrap();
            one.prepared(client)
        });
        self.issuers.install(prepared.collect(), &[]);
    }

    /// Until a token without any claim to a key would be told that it is wrong.
    pub(super) async fn keys_come(&mut self) {
        let probe = Signer::ed25519("probe");
        let header = json!({ "alg": "ES384" });
        while let Err(Refusal::Unavailable { .. }) = self.ask(&probe.signed(&header, &claims())).await {
            self.moved.changed().await.unwrap();
        }
    }

    pub(super) async fn ask(&self, token: &str) -> Result<Authenticated, Refusal> {
        self.bearer.judge(token).await
    }

    pub(super) async fn caller(&self, token: &str) -> Result<String, Refusal> {
        self.ask(token).await.map(|authenticated| authenticated.caller.to_string())
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().unwrap().lines().any(|l| l == format!("token_broker_{line}"))
    }
}

pub(super) fn now() -> u64 {
    Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn wall() -> SystemTime {
    Clock::system().now().wall
}

pub(super) fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "svc-1", "exp": now() + 600, "iat": now(), "nbf": now() })
}

/// The usual claims with some others; null takes one away.
pub(super) fn with(changed: &Value) -> Value {
    let mut all = claims();
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}
