//! `grpc.health.v1.Health`.

mod together;
mod workspaces;

use super::{App, Channel, HOUR, HUNG};
use std::time::Duration;
use token_broker::grpc::Reflection;
use token_broker::identity::Caller;
use token_broker::readiness::Readiness;
use tokio::time::timeout;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const SERVICES: [&str; 3] = ["", "tokenbroker.v1.TokenService", "grpc.health.v1.Health"];

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

fn client(app: &App) -> HealthClient<Channel> {
    HealthClient::with_origin(app.channel.clone(), http::Uri::from_static("http://memory"))
}

async fn check(app: &App, service: &str) -> Result<ServingStatus, Code> {
    let answer = client(app).check(asking(service)).await;
    answer.map(|answer| answer.get_ref().status()).map_err(|status| status.code())
}

/// Nothing is told for this long.
async fn is_quiet(stream: &mut Streaming<HealthCheckResponse>, time: Duration) -> bool {
    timeout(time, stream.message()).await.is_err()
}

async fn watch(app: &App, service: &str) -> Streaming<HealthCheckResponse> {
    client(app).watch(asking(service)).await.unwrap().into_inner()
}

/// The next status, or nothing at the end of the stream.
async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let message = timeout(HUNG, stream.message()).await.expect("nothing came");
    message.unwrap().map(|message| message.status())
}

#[tokio::test(start_paused = true)]
async fn check_answers_for_the_broker_and_its_services() {
    let app = App::new().await;
    for service in SERVICES {
        assert_eq!(check(&app, service).await, Ok(ServingStatus::Serving), "{service:?}");
    }
    for service in ["tokenbroker.v1.Other", "TokenService", "fleet/europe", "workspace", " "] {
        assert_eq!(check(&app, service).await, Err(Code::NotFound), "{service:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_serve_before_it_has_started_and_while_it_drains() {
    let readiness = Readiness::new();
    let latch = readiness.latch("starting");
    let app = App::start(Reflection::Off, readiness, Caller::loopback()).await;
    assert_eq!(check(&app, "").await, Ok(ServingStatus::NotServing));
    drop(latch);
    assert_eq!(check(&app, "").await, Ok(ServingStatus::Serving));
    app.readiness.drain();
    for service in SERVICES {
        assert_eq!(check(&app, service).await, Ok(ServingStatus::NotServing), "{service:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn watch_tells_every_change_once() {
    let app = App::new().await;
    let mut stream = watch(&app, "").await;
    assert_eq!(next(&mut stream).await, Some(ServingStatus::Serving));
    let latch = app.readiness.latch("another");
    assert_eq!(next(&mut stream).await, Some(ServingStatus::NotServing));
    // No change of the whole: nothing is told.
    drop(app.readiness.latch("a third"));
    assert!(is_quiet(&mut stream, Duration::from_secs(60)).await);
    drop(latch);
    assert_eq!(next(&mut stream).await, Some(ServingStatus::Serving));
}

#[tokio::test(start_paused = true)]
async fn watch_of_an_unknown_name_says_so_and_stays_open() {
    let app = App::new().await;
    let mut stream = watch(&app, "tokenbroker.v1.Other").await;
    assert_eq!(next(&mut stream).await, Some(ServingStatus::ServiceUnknown));
    assert!(is_quiet(&mut stream, Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn streams_say_that_it_drains_and_end() {
    let app = App::new().await;
    let mut known = watch(&app, "").await;
    let mut unknown = watch(&app, "tokenbroker.v1.Other").await;
    assert_eq!(next(&mut known).await, Some(ServingStatus::Serving));
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
    // In this order and at once, as the broker does it.
    app.readiness.drain();
    let streams = async {
        assert_eq!(next(&mut known).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut known).await, None);
        assert_eq!(next(&mut unknown).await, None);
    };
    tokio::join!(app.supervisor.shutdown(Duration::from_secs(5)), streams);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_connection_ends_streams_without_a_word() {
    let app = App::new().await;
    let memory = http::Uri::from_static("http://memory");
    let mut client = HealthClient::with_origin(app.channel_of_age(HOUR).await, memory);
    let mut stream = client.watch(asking("")).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await, Some(ServingStatus::Serving));
    let end = timeout(2 * HOUR, stream.message()).await.expect("it goes on");
    assert!(end.unwrap().is_none());
}
