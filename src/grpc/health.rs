//! `grpc.health.v1.Health`, answered from the readiness of the process.
//!
//! Our own service on tonic-health's types: its reporter starts as SERVING and answers `Watch` of an unknown name with
//! `NOT_FOUND`, where the specification streams `SERVICE_UNKNOWN`.

use crate::readiness::Readiness;
use crate::supervisor::Supervisor;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as WireStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The names that have a health of their own; the empty one stands for the whole process.
const SERVICES: [&str; 3] = ["", "tokenbroker.v1.TokenService", "grpc.health.v1.Health"];

#[derive(Debug)]
pub(super) struct HealthService {
    readiness: Readiness,
    supervisor: Supervisor,
}

impl HealthService {
    pub(super) fn new(readiness: Readiness, supervisor: Supervisor) -> Self {
        Self { readiness, supervisor }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("no such service"));
        }
        Ok(Response::new(answer(serving(self.readiness.is_ready()))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let supervisor = self.supervisor.clone();
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let statuses: Self::WatchStream = if known {
            changes(self.readiness.subscribe(), supervisor).boxed()
        } else {
            // The specification: the stream stays open, for the service may be registered later.
            let unknown = stream::once(async { Ok(answer(WireStatus::ServiceUnknown)) });
            let never = stream::pending().take_until(async move { supervisor.draining().await });
            unknown.chain(never).boxed()
        };
        Ok(Response::new(statuses))
    }
}

/// The status now, and every later change, the drain the last one: an open stream must not hold it up, and whoever
/// watches must not take its end for an accident.
fn changes(
    readiness: watch::Receiver<bool>,
    supervisor: Supervisor,
) -> impl stream::Stream<Item = Result<HealthCheckResponse, Status>> {
    stream::unfold((readiness, supervisor, None), |(mut readiness, supervisor, told)| async move {
        let differs = |ready: &bool| Some(*ready) != told;
        let ready = tokio::select! {
            biased;
            () = supervisor.draining() => (told != Some(false)).then_some(false)?,
            changed = readiness.wait_for(differs) => changed.ok().map(|ready| *ready)?,
        };
        Some((Ok(answer(serving(ready))), (readiness, supervisor, Some(ready))))
    })
}

fn serving(ready: bool) -> WireStatus {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    status.into()
}

fn answer(status: WireStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
