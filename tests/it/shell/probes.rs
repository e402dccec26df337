//! The probe listener over a real socket.

use std::net::SocketAddr;
use std::time::Duration;
use token_broker::admin;
use token_broker::clock::Clock;
use token_broker::config::History;
use token_broker::listener::{Address, Limits, Listener, Protocol};
use token_broker::readiness::Readiness;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::{CONTENT_TYPE, Metrics};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

struct Probes {
    readiness: Readiness,
    root: String,
    // Keeps the tasks' owner for as long as the test runs.
    _supervisor: Supervisor,
}

async fn probes() -> Probes {
    let readiness = Readiness::new();
    let routes = admin::router(readiness.clone(), Metrics::new(&Clock::system()), History::default());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(Address::Tcp(any), Protocol::Either, Limits::default()).await;
    let listener = listener.unwrap();
    let root = format!("http://{}", listener.address());
    let supervisor = Supervisor::new();
    supervisor.spawn_critical("probes", listener.run(routes, supervisor.clone(), 1));
    Probes { readiness, root, _supervisor: supervisor }
}

impl Probes {
    async fn ask(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}{path}", self.root);
        let answer = client.request(method, url).send();
        timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(reqwest::Method::GET, path).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn readiness_follows_its_latches_and_liveness_does_not() {
    let probes = probes().await;
    let ready = (200, "ok\n".to_owned());
    assert_eq!(probes.get("/readyz").await, ready);
    let latch = probes.readiness.latch("policy");
    assert_eq!(probes.get("/readyz").await, (503, "not ready\n".to_owned()));
    let why = (503, "not ready\npolicy: waiting\ndrain: not begun\n".to_owned());
    assert_eq!(probes.get("/readyz?verbose").await, why);
    drop(latch);
    assert_eq!(probes.get("/readyz").await, ready);
    let all = (200, "ok\npolicy: done\ndrain: not begun\n".to_owned());
    assert_eq!(probes.get("/readyz?verbose").await, all);
    probes.readiness.drain();
    let why = (503, "not ready\npolicy: done\ndrain: begun\n".to_owned());
    assert_eq!(probes.get("/readyz?verbose").await, why);
    assert_eq!(probes.get("/livez").await, ready);
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let probes = probes().await;
    let answer = probes.ask(reqwest::Method::GET, "/metrics").await;
    assert_eq!(answer.headers()["content-type"], CONTENT_TYPE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("\ntoken_broker_build_info{version=") && text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn anything_else_is_not_found() {
    let probes = probes().await;
    for path in ["/", "/livez/", "/metrics/x", "/debug/pprof"] {
        assert_eq!(probes.get(path).await.0, 404, "{path}");
    }
    let posted = probes.ask(reqwest::Method::POST, "/livez").await;
    assert_eq!(posted.status(), 404);
}
