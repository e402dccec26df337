//! `grpc.health.v1.Health`: the process, its services and its Workspaces.
//!
//! The empty name and the names of services are for anyone. They follow readiness, which depends on no upstream, so
//! that an outage of theirs takes no replica away; `tokenbroker.v1.TokenService` follows the configured rule over all
//! Workspaces as well. `workspace/<name>` is for whom the policy lets; to everybody else it does not exist.
//!
//! Our own service on tonic-health's types: its reporter starts as SERVING and answers `Watch` of an unknown name with
//! `NOT_FOUND`, where the specification streams `SERVICE_UNKNOWN`.

mod follow;

use super::token_service::{going, known_asker};
use crate::broker::{Asker, Broker};
use crate::error::{Error, Reason};
use crate::health::Health as Wellness;
use crate::limits::Permit;
use crate::readiness::Readiness;
use crate::supervisor::Supervisor;
use crate::token::WorkspaceName;
use follow::Follower;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What the name of a Workspace stands behind.
const WORKSPACE: &str = "workspace/";

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    /// Where nobody is told of Workspaces, there is none.
    broker: Option<Broker>,
    readiness: Readiness,
    /// Whether all Workspaces together are well.
    overall: watch::Receiver<Wellness>,
    supervisor: Supervisor,
}

/// What a name stands for.
#[derive(Debug, Clone)]
enum Subject {
    /// Whether calls should be sent here at all.
    Process,
    /// The service that hands out tokens.
    Tokens,
    /// One Workspace, as this caller may see it.
    Workspace(Asker, WorkspaceName),
    /// Nothing.
    Unknown,
}

impl HealthService {
    pub(super) fn new(
        broker: Option<Broker>,
        readiness: Readiness,
        overall: watch::Receiver<Wellness>,
        supervisor: Supervisor,
    ) -> Self {
        Self { broker, readiness, overall, supervisor }
    }

    /// The place of a call, if it has a caller: whoever asks where nobody is told apart is not counted.
    fn admit(&self, asker: Option<&Asker>) -> Result<Option<Permit>, Error> {
        self.broker.as_ref().zip(asker).map(|(broker, asker)| broker.admit_to_health(asker)).transpose()
    }

    /// The status now. The policy is asked each time.
    fn status(&self, subject: &Subject) -> ServingStatus {
        let health = match subject {
            Subject::Process => Some(Wellness::Serving),
            Subject::Tokens => Some(*self.overall.borrow()),
            Subject::Workspace(asker, name) => {
                self.broker.as_ref().and_then(|broker| broker.authorise_then_health(asker, name))
            }
            Subject::Unknown => None,
        };
        match health {
            None => ServingStatus::ServiceUnknown,
            Some(Wellness::Serving) if self.readiness.is_ready() => ServingStatus::Serving,
            Some(Wellness::Serving | Wellness::NotServing) => ServingStatus::NotServing,
        }
    }
}

impl Subject {
    fn of(request: &HealthCheckRequest, asker: Option<Asker>, broker: Option<&Broker>) -> Result<Self, Error> {
        Ok(match request.service.as_str() {
            "" | "grpc.health.v1.Health" => Self::Process,
            "tokenbroker.v1.TokenService" => Self::Tokens,
            name => match name.strip_prefix(WORKSPACE).map(WorkspaceName::parse) {
                Some(Ok(workspace)) if broker.is_some() => {
                    Self::Workspace(asker.ok_or_else(|| Error::new(Reason::Bug))?, workspace)
                }
                Some(Ok(_) | Err(_)) | None => Self::Unknown,
            },
        })
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let asker = known_asker(&request);
        let _permit = self.admit(asker.as_ref())?;
        match self.status(&Subject::of(request.get_ref(), asker, self.broker.as_ref())?) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("no such service")),
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let asker = known_asker(&request);
        let permit = self.admit(asker.as_ref())?;
        let presence = match (&self.broker, &asker, permit) {
            (Some(broker), Some(asker), Some(permit)) => Some(broker.presence(&asker.proven, permit)),
            _ => None,
        };
        let subject = Subject::of(request.get_ref(), asker, self.broker.as_ref())?;
        let follower = Follower::new(self.clone(), subject, presence, going(&request)?)?;
        let statuses = stream::unfold(Some(follower), follow::next);
        Ok(Response::new(statuses.map(|status| Ok(answer(status?))).boxed()))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
