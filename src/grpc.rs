//! The gRPC face: what services call. The wire stops here: only this module and its children name generated types.
//!
//! Assembled from the inside out: services, then per call a deadline, a request id, and its metrics. What a message
//! must hold is checked in `convert`; what a failure looks like is decided in `status`.

mod authenticate;
mod convert;
mod deadline;
mod health;
pub mod pb;
mod status;
pub mod strict;
mod token_service;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::health::Health;
use crate::readiness::Readiness;
use crate::supervisor::Supervisor;
use crate::telemetry::request::RequestIds;
use crate::telemetry::rpc::RpcMetrics;
use authenticate::Authenticate;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use deadline::Deadlines;
use health::HealthService;
use http::{StatusCode, Version};
use pb::token_service_server::TokenServiceServer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use token_service::TokenApi;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use authenticate::Means;
pub use status::error_table;

/// The largest request message, in bytes.
const MAX_REQUEST: usize = 16 * 1024;
/// The largest request of `WatchTokens`, in bytes: a thousand names of 128 characters.
const MAX_WATCH_REQUEST: usize = 128 * 1024;
/// The largest response message, in bytes: a token of 8 KiB with its companions fits many times.
const MAX_RESPONSE: usize = 256 * 1024;
/// When a caller that is sent away by the drain should try again: another replica can take it at once, this one is back
/// when it is.
const DRAINING_RETRY: Duration = Duration::from_secs(1);

const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";
const WATCH_TOKENS: &str = "/tokenbroker.v1.TokenService/WatchTokens";

/// The paths that are served, for the metrics.
pub const METHODS: [&str; 5] = [
    GET_TOKEN,
    WATCH_TOKENS,
    "/tokenbroker.v1.TokenService/ReportRejectedToken",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// Whether `grpc.reflection.v1` is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    /// Clients may ask for the schema.
    On,
    /// They may not.
    Off,
}

/// What the gRPC face is made of. Clones share all of it.
#[derive(Clone)]
pub struct Parts {
    /// The way to a token.
    pub broker: Broker,
    /// To judge a token once more as it is handed over.
    pub clock: Clock,
    /// Whether the process is ready: what health answers.
    pub readiness: Readiness,
    /// Whether all Workspaces together are well: so does this.
    pub overall: watch::Receiver<Health>,
    /// Ends streams at the drain, and calls at the last call.
    pub supervisor: Supervisor,
    /// Counts calls.
    pub metrics: RpcMetrics,
    /// Names requests.
    pub request_ids: RequestIds,
    /// Whether the schema can be asked for.
    pub reflection: Reflection,
}

/// The routes, for a listener whose callers are told apart by these means.
pub fn routes(parts: Parts, means: Means) -> Router {
    let Parts { broker, clock, readiness, overall, supervisor, metrics, request_ids, reflection } = parts;
    let (of_authentication, audit) = (clock.clone(), broker.audit().clone());
    let api = Arc::new(TokenApi::new(broker.clone(), clock, supervisor.clone()));
    let tokens = TokenServiceServer::from_arc(Arc::clone(&api))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(MAX_RESPONSE);
    // By its whole path, so that no part of it is cut out and kept.
    let get = tokens.clone();
    // tonic has one limit for all methods of a service.
    let watch = TokenServiceServer::from_arc(api)
        .max_decoding_message_size(MAX_WATCH_REQUEST)
        .max_encoding_message_size(MAX_RESPONSE);
    let deadlines = Deadlines::new(supervisor.clone());
    let health = HealthServer::new(HealthService::new(Some(broker), readiness, overall, supervisor))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(MAX_RESPONSE);
    let mut services = Routes::new(tokens).add_service(health);
    if reflection == Reflection::On {
        match tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // What the details of a failure are made of.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
        {
            Ok(service) => services = services.add_service(service.max_decoding_message_size(MAX_REQUEST)),
            Err(error) => tracing::error!(%error, "reflection can't be served"),
        }
    }
    let routes = services.prepare().into_axum_router();
    let routes = routes.route_service(GET_TOKEN, get).route_service(WATCH_TOKENS, watch);
    // From the outside in. As one: every layer that axum is given alone costs a box for the service and one for its
    // answer, per call.
    routes.layer((metrics, request_ids, Authenticate::new(means, of_authentication, audit), deadlines))
}

/// Lets only those requests through whose caller is known by these means, with [`Authenticated`] as an extension.
///
/// [`Authenticated`]: crate::identity::Authenticated
pub fn authenticated(routes: Router, means: Means, clock: Clock, audit: Audit) -> Router {
    routes.layer(Authenticate::new(means, clock, audit))
}

/// `grpc.health.v1` alone, for whoever asks, and of no Workspace: what the probe listener has beside its own. `owner`
/// says when calls must end, since that listener outlives the others.
pub fn probes(parts: Parts, owner: Supervisor) -> Router {
    let Parts { broker, clock, readiness, overall, supervisor, metrics, request_ids, .. } = parts;
    let health = HealthServer::new(HealthService::new(None, readiness, overall, supervisor))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(MAX_RESPONSE);
    let routes = Router::new().route_service("/grpc.health.v1.Health/{method}", health);
    let routes = authenticated(routes.layer(Deadlines::new(owner)), Means::Anyone, clock, broker.audit().clone());
    // Over HTTP/1 there is no gRPC, and so nothing at all.
    routes.layer(request_ids).layer(metrics).layer(middleware::from_fn(only_http2))
}

async fn only_http2(request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_2 { next.run(request).await } else { StatusCode::NOT_FOUND.into_response() }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("reflection", &self.reflection).finish_non_exhaustive()
    }
}
