//! What the layers of the gRPC server see of real calls.

use super::in_memory;
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::supervisor::{Ended, Supervisor};
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::{HEADER, RequestIds};
use token_broker::telemetry::rpc::RpcMetrics;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_however_they_end() {
    let metrics = Metrics::new(&Clock::simulated());
    let rpc = metrics.register(|registry| RpcMetrics::register(registry, &[CHECK, WATCH]));
    let (_reporter, health) = tonic_health::server::health_reporter();
    let routes = tonic::service::Routes::new(health).into_axum_router();
    let routes = routes.layer(rpc).layer(RequestIds::new(1));
    let supervisor = Supervisor::new();
    let mut client = HealthClient::new(in_memory(routes, &supervisor).await);

    let mut named = Request::new(asking(""));
    named.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let answer = client.check(named).await.unwrap();
    assert_eq!(answer.metadata().get(HEADER.as_str()).unwrap(), "mine");
    let unknown = client.check(asking("no such service")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.metadata().contains_key(HEADER.as_str()));
    let mut watch = client.watch(asking("")).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    drop(watch);
    drop(client);

    assert_eq!(supervisor.shutdown(Duration::from_secs(30)).await, Ended::Clean);
    let text = metrics.encode().unwrap();
    for (method, code, count) in
        [(CHECK, "OK", 1), (CHECK, "NOT_FOUND", 1), (CHECK, "CANCELLED", 0), (WATCH, "CANCELLED", 1), (WATCH, "OK", 0)]
    {
        let line = format!("token_broker_rpc_calls_total{{method=\"{method}\",code=\"{code}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
