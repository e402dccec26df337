//! The listener's own code without a port.

use super::in_memory;
use std::time::Duration;
use token_broker::supervisor::{Ended, Supervisor};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::test(start_paused = true)]
async fn grpc_works_in_memory_on_paused_time() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("x", tonic_health::ServingStatus::NotServing).await;
    let routes = tonic::service::Routes::new(health).into_axum_router();
    let supervisor = Supervisor::new();
    let channel = in_memory(routes, &supervisor).await;
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "x".to_owned() };
    let status = health.check(request).await.unwrap().into_inner().status;
    assert_eq!(status, 2, "NOT_SERVING");
    assert_eq!(supervisor.shutdown(Duration::from_secs(10)).await, Ended::Clean);
}
