//! `get`, `report`, `inspect` and `healthcheck` against a running broker.

use super::{ANY_PORT, Files, SECRET, Serving, Upstream, WORKSPACE, finish, run, run_with_input, token_broker};
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;
use token_broker::listener::{Address, Limits, Listener, Protocol};
use token_broker::sandbox::{Fault, Scope};
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::token::Fingerprint;
use tokio::task::JoinSet;

async fn set_up() -> (Upstream, Files, Serving) {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "", "");
    let serving = Serving::start(&files, &[]).await;
    (upstream, files, serving)
}

#[tokio::test]
async fn get_prints_the_bare_token_and_nothing_else() {
    let (upstream, _files, serving) = set_up().await;
    let first = serving.ask("get", &[WORKSPACE]).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    let token = first.stdout.strip_suffix('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(!token.contains(char::is_whitespace), "{token:?}");
    let second = serving.ask("get", &[WORKSPACE, "--min-validity", "3h"]).await;
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(upstream.control.counters().authenticate.total, 1);
}

#[tokio::test]
async fn get_json_holds_every_field() {
    let (_upstream, _files, serving) = set_up().await;
    let done = serving.ask("get", &["--json", WORKSPACE]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "attributes",
            "expires_at",
            "extra_headers",
            "fingerprint",
            "generation",
            "header_name",
            "issued_at",
            "refresh_after",
            "source",
            "token_type",
            "valid_for_seconds",
            "value",
            "workspace"
        ]
    );
    assert_eq!(json["workspace"], WORKSPACE);
    assert_eq!((&json["token_type"], &json["header_name"]), (&"Bearer".into(), &"authorization".into()));
    assert_eq!(json["source"], "EXCHANGED");
    let value = AccessToken::new(json["value"].as_str().unwrap());
    assert_eq!(json["fingerprint"], Fingerprint::of(&value).to_string());
    let left = json["valid_for_seconds"].as_f64().unwrap();
    assert!(left > 14_000.0 && left <= 14_400.0, "{left}");
    let time = |key: &str| humantime::parse_rfc3339(json[key].as_str().unwrap()).unwrap();
    assert!(time("issued_at") < time("refresh_after") && time("refresh_after") < time("expires_at"));
    assert!(json["generation"].as_u64().unwrap() > 1_700_000_000_000_000);
}

#[tokio::test]
async fn inspect_shows_the_claims_and_not_the_token() {
    let (_upstream, _files, serving) = set_up().await;
    let token = serving.ask("get", &[WORKSPACE]).await.stdout;
    let by_name = serving.ask("inspect", &[WORKSPACE]).await;
    let by_pipe = run_with_input(&["inspect", "-"], &token).await;
    for done in [&by_name, &by_pipe] {
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
        let json: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(json["claims"]["esc.org"], 1, "{json}");
        let signature = token.trim().rsplit('.').next().unwrap();
        assert!(!done.stdout.contains(signature), "the signature was printed");
    }
    assert_eq!(by_name.stdout, by_pipe.stdout);
}

#[tokio::test]
async fn inspect_of_what_is_no_jwt_is_1_and_quotes_nothing() {
    for text in ["", "s3cret", "a.s3cret.c", &"s3cret".repeat(20_000)] {
        let done = run_with_input(&["inspect", "-"], text).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
        assert!(done.stderr.starts_with("token-broker: ") && !done.stderr.contains("s3cret"), "{}", done.stderr);
    }
}

#[tokio::test]
async fn healthcheck_tells_by_its_code() {
    let (_upstream, _files, serving) = set_up().await;
    let well = serving.ask("healthcheck", &[]).await;
    assert_eq!((well.code, well.stdout.as_str(), well.stderr.as_str()), (Some(0), "serving\n", ""));
    // Bound and let go again: nobody is there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ill = run(&["healthcheck", "--endpoint", &format!("http://{nobody}")]).await;
    assert_eq!((ill.code, ill.stdout.as_str()), (Some(1), ""));
    assert!(ill.stderr.contains(&format!("can't reach the broker at http://{nobody}")), "{}", ill.stderr);
}

#[tokio::test]
async fn healthcheck_tells_of_services_and_workspaces() {
    let (upstream, _files, serving) = set_up().await;
    let workspace = format!("workspace/{WORKSPACE}");
    for service in ["", "tokenbroker.v1.TokenService", &workspace] {
        let well = serving.ask("healthcheck", &["--service", service]).await;
        assert_eq!((well.code, well.stdout.as_str(), well.stderr.as_str()), (Some(0), "serving\n", ""), "{service:?}");
    }
    assert_eq!(upstream.control.counters().authenticate.total, 0, "asking uses nothing");
    let unknown = serving.ask("healthcheck", &["--service", "workspace/fleet/asia"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert_eq!(unknown.stderr, "token-broker: NotFound: no such service\n");
    upstream.control.set_fault(Scope::ALL, Fault::status(503));
    assert_eq!(serving.ask("get", &[WORKSPACE]).await.code, Some(1));
    let ill = serving.ask("healthcheck", &["--service", &workspace]).await;
    assert_eq!((ill.code, ill.stdout.as_str(), ill.stderr.as_str()), (Some(1), "", "token-broker: not serving\n"));
    // The rule is off, and an upstream takes no replica away.
    for service in ["", "tokenbroker.v1.TokenService"] {
        assert_eq!(serving.ask("healthcheck", &["--service", service]).await.code, Some(0), "{service:?}");
    }
}

#[tokio::test]
async fn healthcheck_of_a_broker_that_is_not_ready_is_1() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let routes = tonic::service::Routes::new(health).into_axum_router();
    let listener = Listener::bind(Address::Tcp(ANY_PORT), Protocol::Http2, Limits::default()).await.unwrap();
    let endpoint = format!("http://{}", listener.address());
    let mut serving = JoinSet::new();
    serving.spawn(listener.run(routes, Supervisor::new(), 1));
    let done = run(&["healthcheck", "--endpoint", &endpoint]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert_eq!(done.stderr, "token-broker: not serving\n");
}

/// A listener that never answers must not hold up a health check.
#[tokio::test]
async fn healthcheck_of_a_silent_peer_ends() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let done = run(&["healthcheck", "--endpoint", &endpoint, "--timeout", "500ms"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
}

#[tokio::test]
async fn what_the_broker_refuses_is_1_with_the_reason() {
    let (upstream, _files, serving) = set_up().await;
    let unknown = serving.ask("get", &["fleet/asia"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert_eq!(unknown.stderr, "token-broker: NotFound (WORKSPACE_UNKNOWN): no such workspace\n");
    let invalid = serving.ask("get", &["Fleet"]).await;
    assert_eq!(invalid.code, Some(1));
    assert!(invalid.stderr.contains("(REQUEST_INVALID): workspace: "), "{}", invalid.stderr);
    upstream.control.set_fault(Scope::ALL, Fault::status(503));
    let down = serving.ask("get", &[WORKSPACE]).await;
    assert_eq!(down.code, Some(1));
    assert!(down.stderr.contains("(UPSTREAM_UNAVAILABLE)") && down.stderr.contains("try again in"), "{}", down.stderr);
}

#[tokio::test]
async fn get_ends_at_its_own_time_limit() {
    let (upstream, _files, serving) = set_up().await;
    upstream.control.set_fault(Scope::ALL, Fault::Hang);
    let begun = tokio::time::Instant::now();
    let done = serving.ask("get", &[WORKSPACE, "--timeout", "500ms"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.starts_with("token-broker: no answer within 500ms"), "{}", done.stderr);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_min_validity_beyond_all_bounds_is_refused_and_not_forgotten() {
    let (_upstream, _files, serving) = set_up().await;
    for validity in ["11years", "500000000000years"] {
        let done = serving.ask("get", &[WORKSPACE, "--min-validity", validity]).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{validity}: {}", done.stderr);
        assert!(done.stderr.contains("ten years"), "{validity}: {}", done.stderr);
    }
}

#[tokio::test]
async fn the_endpoint_may_come_from_the_environment() {
    let (_upstream, _files, serving) = set_up().await;
    let mut command = token_broker(&["get", WORKSPACE]);
    command.env("TOKEN_BROKER_ENDPOINT", &serving.grpc);
    let done = finish(command).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(!done.stdout.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_named() {
    for endpoint in ["", "a b", "http://", "http://a b", "ftp://127.0.0.1:7700", "unix:broker.sock", "unix://a/b"] {
        let done = run(&["get", "--endpoint", endpoint, WORKSPACE]).await;
        assert_eq!(done.code, Some(1), "{endpoint:?}: {}", done.stderr);
        let named = done.stderr.contains("is not an address") || done.stderr.contains("is neither an http:// nor");
        assert!(named, "{endpoint:?}: {}", done.stderr);
    }
    let done = run(&["get", "--endpoint", "https://me:s3cret@127.0.0.1:7700", WORKSPACE]).await;
    assert!(done.code == Some(1) && !done.stderr.contains("s3cret"), "{}", done.stderr);
}

#[tokio::test]
async fn an_endpoint_may_lack_its_scheme() {
    let (_upstream, _files, serving) = set_up().await;
    let bare = serving.grpc.strip_prefix("http://").unwrap();
    let done = run(&["healthcheck", "--endpoint", bare]).await;
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(0), "serving\n", ""));
}

#[tokio::test]
async fn an_address_where_no_grpc_is_spoken_is_told() {
    let (_upstream, _files, serving) = set_up().await;
    let done = run(&["get", WORKSPACE, "--endpoint", &serving.probe]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.contains("is this the gRPC address of a token-broker?"), "{}", done.stderr);
}

#[tokio::test]
async fn at_trace_the_log_holds_neither_token_nor_secret() {
    let (_upstream, _files, mut serving) = set_up().await;
    let token = serving.ask("get", &[WORKSPACE]).await.stdout;
    serving.ask("get", &[WORKSPACE]).await;
    serving.process.logged("token exchanged").await;
    serving.process.signal("TERM").await;
    assert_eq!(serving.process.ended().await.code(), Some(0));
    let log = serving.process.stderr();
    for part in token.trim().split('.').chain([SECRET]) {
        assert!(!log.contains(part), "{log}");
    }
}

#[tokio::test]
async fn report_prints_the_replacement_as_get_does() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "[engine]\nmin_gap = \"100ms\"", "");
    let serving = Serving::start(&files, &[]).await;
    let got: Value = serde_json::from_str(&serving.ask("get", &["--json", WORKSPACE]).await.stdout).unwrap();
    let fingerprint = got["fingerprint"].as_str().unwrap();
    let report = ["--fingerprint", fingerprint, "--status", "401", WORKSPACE];
    // The token may be too young for a report yet.
    let replaced = async {
        loop {
            let done = serving.ask("report", &report).await;
            if done.code == Some(0) {
                return done;
            }
            assert!(done.stderr.contains("(REPORT_THROTTLED)"), "{}", done.stderr);
        }
    };
    let replaced = tokio::time::timeout(super::PATIENCE, replaced).await.expect("never replaced");
    assert_eq!(replaced.stderr, "");
    assert_eq!(replaced.stdout, serving.ask("get", &[WORKSPACE]).await.stdout);
    assert_ne!(Some(replaced.stdout.trim()), got["value"].as_str());
    let again = serving.ask("report", &[&report[..], &["--json"]].concat()).await;
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&again["source"], again["value"].as_str()), (&"CACHE".into(), Some(replaced.stdout.trim())));
    assert_eq!(upstream.control.counters().authenticate.total, 2);
    let of_another = ["--fingerprint", "-AAAAAAAAAAAAAAAAAAAAA", "--status", "401", WORKSPACE];
    assert_eq!(serving.ask("report", &of_another).await.stdout, replaced.stdout, "one in 64 begins with a hyphen");
    let unheard = serving.ask("report", &["--fingerprint", "F", "--status", "401", WORKSPACE]).await;
    assert_eq!((unheard.code, unheard.stdout.as_str()), (Some(1), ""));
    assert!(unheard.stderr.contains("(REQUEST_INVALID): fingerprint: "), "{}", unheard.stderr);
}
