//! The life of `serve`, and above all its end.

use super::{Files, PATIENCE, Process, Serving, Upstream, WORKSPACE, finish, run, token_broker};
use std::time::Duration;
use token_broker::app::{self, App};
use token_broker::config::{Config, Environment};
use token_broker::grpc::Reflection;
use token_broker::sandbox::{Fault, Scope};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// A `get` that waits for the upstream, which hangs.
async fn waiting(upstream: &Upstream, serving: &Serving) -> Process {
    upstream.control.set_fault(Scope::ALL, Fault::Hang);
    let get = Process::start(token_broker(&["get", "--endpoint", &serving.grpc, "--timeout", "30s", WORKSPACE]));
    upstream.is_asked().await;
    get
}

async fn http_status(url: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url]);
    finish(command).await.stdout
}

#[tokio::test]
async fn it_is_ready_once_it_says_so_and_says_nothing_on_stdout() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "", "");
    let mut serving = Serving::start(&files, &[]).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(http_status(&format!("{}{path}", serving.probe)).await, "200", "{path}");
    }
    serving.process.signal("INT").await;
    assert_eq!(serving.process.ended().await.code(), Some(0));
    let mut stdout = String::new();
    serving.process.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
    assert_eq!(stdout, "");
}

/// For a kubelet, or a container without a client certificate.
#[tokio::test]
async fn the_probe_listener_answers_health_checks_of_grpc_and_gives_no_token() {
    let files = Files::for_upstream(([127, 0, 0, 1], 1).into(), "", "");
    let serving = Serving::start(&files, &[]).await;
    let healthcheck = ["healthcheck", "--endpoint", &serving.probe];
    for (service, code) in [(None, 0), (Some("tokenbroker.v1.TokenService"), 0), (Some("workspace/fleet/europe"), 1)] {
        let asked = service.into_iter().flat_map(|service| ["--service", service]);
        let done = run(&healthcheck.into_iter().chain(asked).collect::<Vec<_>>()).await;
        assert_eq!(done.code, Some(code), "{service:?}: {}", done.stderr);
    }
    let done = run(&["get", "--endpoint", &serving.probe, WORKSPACE]).await;
    assert_eq!(done.code, Some(1), "{}", done.stdout);
}

#[tokio::test]
async fn the_environment_overlays_the_file() {
    let files = Files::for_upstream(([127, 0, 0, 1], 1).into(), "", "");
    // Were the level not overlaid, the line that the start waits for would be there all the same; the format is told
    // by the file to be the default.
    let variables = [("TOKEN_BROKER__SERVER__GRPC_LISTEN", "[::1]:0"), ("TOKEN_BROKER__LOG__LEVEL", "info")];
    let serving = Serving::start(&files, &variables).await;
    assert!(serving.grpc.starts_with("http://[::1]:"), "{}", serving.grpc);
}

#[tokio::test]
async fn sigterm_lets_a_waiting_call_get_its_answer() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "drain_timeout = \"30s\"", "");
    let mut serving = Serving::start(&files, &[]).await;
    let mut get = waiting(&upstream, &serving).await;
    serving.process.signal("TERM").await;
    serving.process.logged("draining").await;
    upstream.control.clear();
    assert_eq!(get.ended().await.code(), Some(0), "{}", get.stderr());
    let drained = serving.process.logged("drained").await;
    assert!(drained["cut"] == false && drained["duration_ms"].is_u64(), "{drained}");
    assert_eq!(serving.process.ended().await.code(), Some(0), "{}", serving.process.stderr());
}

#[tokio::test]
async fn sigterm_ends_with_0_when_a_hanging_upstream_is_given_up() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "drain_timeout = \"20s\"", "timeout = \"2s\"");
    let mut serving = Serving::start(&files, &[]).await;
    let mut get = waiting(&upstream, &serving).await;
    let begun = Instant::now();
    serving.process.signal("TERM").await;
    assert_eq!(serving.process.ended().await.code(), Some(0), "{}", serving.process.stderr());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(get.ended().await.code(), Some(1));
    assert!(get.stderr().contains("UPSTREAM_UNAVAILABLE"), "{}", get.stderr());
}

#[tokio::test]
async fn sigterm_ends_with_0_at_the_drain_deadline_at_the_latest() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "drain_timeout = \"1s\"", "timeout = \"60s\"");
    let mut serving = Serving::start(&files, &[]).await;
    let mut get = waiting(&upstream, &serving).await;
    let begun = Instant::now();
    serving.process.signal("TERM").await;
    assert_eq!(serving.process.ended().await.code(), Some(0), "{}", serving.process.stderr());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
    let drained = serving.process.logged("drained").await;
    assert!(drained["cut"] == true && drained["duration_ms"].as_u64().unwrap() >= 900, "{drained}");
    assert_eq!(get.ended().await.code(), Some(1));
    assert!(get.stderr().contains("DRAINING"), "an answer, not a broken connection: {}", get.stderr());
}

#[tokio::test]
async fn the_probes_answer_during_the_drain_and_nobody_else_gets_in() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "drain_timeout = \"30s\"", "timeout = \"60s\"");
    let mut serving = Serving::start(&files, &[]).await;
    let mut get = waiting(&upstream, &serving).await;
    assert_eq!(http_status(&format!("{}/readyz", serving.probe)).await, "200");
    serving.process.signal("TERM").await;
    serving.process.logged("draining").await;
    for (path, status) in [("/livez", "200"), ("/readyz", "503"), ("/metrics", "200"), ("/config", "200")] {
        assert_eq!(http_status(&format!("{}{path}", serving.probe)).await, status, "{path}");
    }
    let late = serving.ask("get", &["--timeout", "5s", WORKSPACE]).await;
    assert_eq!(late.code, Some(1), "{}", late.stdout);
    let health = serving.ask("healthcheck", &["--timeout", "5s"]).await;
    assert_eq!(health.code, Some(1), "{}", health.stdout);
    assert!(health.stderr.contains("nobody listens there") && health.stderr.contains("drains"), "{}", health.stderr);
    upstream.control.clear();
    assert_eq!(get.ended().await.code(), Some(0), "{}", get.stderr());
    assert_eq!(serving.process.ended().await.code(), Some(0), "{}", serving.process.stderr());
}

#[tokio::test]
async fn a_critical_task_that_dies_ends_it_with_a_failure() {
    let files = Files::for_upstream(([127, 0, 0, 1], 1).into(), "drain_timeout = \"1s\"", "");
    let config = Config::load(files.config().as_ref(), &Environment::default()).unwrap();
    let app = App::bind(config, Reflection::Off).await.unwrap();
    app.supervisor().spawn_critical("doomed", async {});
    let ended = timeout(PATIENCE, app.run()).await.unwrap();
    assert!(matches!(ended, Err(app::Error::TaskDied("doomed"))), "{ended:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "drain_timeout = \"1h\"", "timeout = \"5m\"");
    let mut serving = Serving::start(&files, &[]).await;
    let _get = waiting(&upstream, &serving).await;
    serving.process.signal("TERM").await;
    serving.process.logged("draining").await;
    assert!(timeout(Duration::from_millis(300), serving.process.child.wait()).await.is_err(), "it did not drain");
    let begun = Instant::now();
    serving.process.signal("INT").await;
    assert_eq!(serving.process.ended().await.code(), Some(1));
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    let last = serving.process.stderr().lines().last().unwrap().to_owned();
    assert_eq!(last, "token-broker: a second signal cut the drain short");
}
