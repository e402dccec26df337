//! The probe listener: HTTP/1 and HTTP/2 on one port, health for whoever asks, and nothing else of gRPC.

use crate::listener::{ANY, PATIENCE, parts};
use std::net::SocketAddr;
use std::time::Duration;
use token_broker::admin;
use token_broker::clock::Clock;
use token_broker::config::History;
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::listener::{Address, Limits, Listener, Protocol};
use token_broker::readiness::Readiness;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::metrics::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

struct Probes {
    address: SocketAddr,
    /// Of the process; the probes have their own.
    supervisor: Supervisor,
    readiness: Readiness,
    _owner: Supervisor,
}

async fn probes() -> Probes {
    let (supervisor, probes, readiness) = (Supervisor::new(), Supervisor::new(), Readiness::new());
    let metrics = Metrics::new(&Clock::system());
    let parts = parts(&supervisor, readiness.clone(), &metrics);
    let told = admin::router(readiness.clone(), metrics, History::default());
    let routes = told.merge(token_broker::grpc::probes(parts, probes.clone()));
    let listener = Listener::bind(Address::Tcp(ANY), Protocol::Either, Limits::default()).await.unwrap();
    let address = listener.local_addr().unwrap();
    probes.spawn_critical("probes", listener.run(routes, probes.clone(), 1));
    Probes { address, supervisor, readiness, _owner: probes }
}

impl Probes {
    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn check(&self, service: &str) -> Result<i32, Code> {
        let mut health = HealthClient::new(self.channel().await);
        let answer = timeout(PATIENCE, health.check(asking(service))).await.unwrap();
        answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    }
}

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn next(stream: &mut tonic::Streaming<HealthCheckResponse>) -> Option<i32> {
    let next = timeout(PATIENCE, stream.message()).await.expect("it says nothing");
    next.unwrap().map(|answer| answer.status)
}

#[tokio::test]
async fn health_is_told_of_the_process_and_its_services_and_of_no_workspace() {
    let probes = probes().await;
    for service in ["", "grpc.health.v1.Health", "tokenbroker.v1.TokenService"] {
        assert_eq!(probes.check(service).await, Ok(SERVING), "{service}");
    }
    for service in ["workspace/fleet/europe", "workspace/", "other"] {
        assert_eq!(probes.check(service).await, Err(Code::NotFound), "{service}");
    }
    let latch = probes.readiness.latch("policy");
    assert_eq!(probes.check("").await, Ok(NOT_SERVING));
    drop(latch);
    assert_eq!(probes.check("").await, Ok(SERVING));
}

#[tokio::test]
async fn nothing_else_of_grpc_is_there() {
    let probes = probes().await;
    let mut tokens = TokenServiceClient::new(probes.channel().await);
    let request = GetTokenRequest { workspace: "fleet/europe".to_owned(), ..GetTokenRequest::default() };
    let status = timeout(PATIENCE, tokens.get_token(request)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn who_watches_is_told_of_the_drain_and_then_let_go() {
    let probes = probes().await;
    let mut health = HealthClient::new(probes.channel().await);
    let mut process = health.watch(asking("")).await.unwrap().into_inner();
    let mut workspace = health.watch(asking("workspace/fleet/europe")).await.unwrap().into_inner();
    assert_eq!(next(&mut process).await, Some(SERVING));
    assert_eq!(next(&mut workspace).await, Some(SERVICE_UNKNOWN));
    probes.readiness.drain();
    assert_eq!(next(&mut process).await, Some(NOT_SERVING));
    probes.supervisor.shutdown(Duration::ZERO).await;
    assert_eq!(next(&mut process).await, None);
    assert_eq!(next(&mut workspace).await, None);
    assert_eq!(probes.check("").await, Ok(NOT_SERVING), "the probes outlive the rest");
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let probes = probes().await;
    let url = format!("http://{}/readyz", probes.address);
    let client = || reqwest::Client::builder().no_proxy();
    for (client, version) in
        [(client().http1_only(), http::Version::HTTP_11), (client().http2_prior_knowledge(), http::Version::HTTP_2)]
    {
        let answer = timeout(PATIENCE, client.build().unwrap().get(&url).send()).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        assert_eq!(answer.text().await.unwrap(), "ok\n");
    }
}

#[tokio::test]
async fn there_is_no_grpc_over_http1() {
    let probes = probes().await;
    let mut socket = TcpStream::connect(probes.address).await.unwrap();
    let request = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
                   content-length: 5\r\nconnection: close\r\n\r\n\0\0\0\0\0";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}
