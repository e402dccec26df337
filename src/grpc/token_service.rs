//! `tokenbroker.v1.TokenService`.

use super::DRAINING_RETRY;
use super::convert::{replacement, response, state};
use super::deadline::Deadline;
use super::pb::token_service_server::TokenService;
use super::pb::{
    GetTokenRequest, GetTokenResponse, ReportRejectedTokenRequest, ReportRejectedTokenResponse, WatchTokensRequest,
    WatchTokensResponse,
};
use crate::audit::Via;
use crate::broker::{Ask, Asker, Broker, Report, Watching};
use crate::clock::{Clock, Now};
use crate::engine::Served;
use crate::error::{Error, Reason};
use crate::identity::Authenticated;
use crate::limits::Line;
use crate::listener::{Going, Peer};
use crate::supervisor::{Supervisor, at};
use crate::telemetry::request::RequestId;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service over the broker.
#[derive(Debug)]
pub(super) struct TokenApi {
    broker: Broker,
    clock: Clock,
    supervisor: Supervisor,
}

impl TokenApi {
    pub(super) fn new(broker: Broker, clock: Clock, supervisor: Supervisor) -> Self {
        Self { broker, clock, supervisor }
    }

    /// Judges a token once more at the moment of handing it over: waiting for a turn of the runtime takes time too.
    /// Asks again if it is over.
    async fn serve(&self, asker: &Asker, wish: &Wish, deadline: Instant) -> Result<(Served, Now), Error> {
        loop {
            let served = match wish {
                Wish::Token(ask) => self.broker.authorise_then_get(asker, ask).await?,
                Wish::Replacement(report) => self.broker.authorise_then_report(asker, report).await?,
            };
            let now = self.clock.now();
            if served.is_servable(now) {
                return Ok((served, now));
            }
            if now.mono >= deadline {
                return Err(Error::new(Reason::Deadline));
            }
        }
    }
}

/// What a caller of a unary method wants.
enum Wish {
    Token(Ask),
    Replacement(Report),
}

#[tonic::async_trait]
impl TokenService for TokenApi {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        let (asker, deadline) = (asker(&request)?, deadline(&request)?.of_call);
        let ask = request.into_inner().into_ask(deadline).inspect_err(log_refusal)?;
        let (served, now) = self.serve(&asker, &Wish::Token(ask), deadline).await.inspect_err(log_refusal)?;
        Ok(Response::new(response(&served, now)))
    }

    type WatchTokensStream = BoxStream<'static, Result<WatchTokensResponse, Status>>;

    async fn watch_tokens(
        &self,
        request: Request<WatchTokensRequest>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        let (asker, going, until) = (asker(&request)?, going(&request)?, deadline(&request)?.of_stream);
        let names = request.into_inner().into_names().inspect_err(log_refusal)?;
        let watch = self.broker.authorise_then_watch(asker, names).inspect_err(log_refusal)?;
        let (clock, supervisor) = (self.clock.clone(), self.supervisor.clone());
        let following = Following { watch, clock, supervisor, going, until };
        Ok(Response::new(stream::unfold(Some(following), next_state).boxed()))
    }

    async fn report_rejected_token(
        &self,
        request: Request<ReportRejectedTokenRequest>,
    ) -> Result<Response<ReportRejectedTokenResponse>, Status> {
        let (asker, deadline) = (asker(&request)?, deadline(&request)?.of_call);
        let status = request.get_ref().upstream_status;
        let report = request.into_inner().into_report(deadline).inspect_err(log_refusal)?;
        tracing::debug!(workspace.name = %report.workspace, fingerprint = %report.rejected, status, "token reported");
        let wish = Wish::Replacement(report);
        let (served, now) = self.serve(&asker, &wish, deadline).await.inspect_err(log_refusal)?;
        Ok(Response::new(replacement(&served, now)))
    }
}

/// A stream under way.
struct Following {
    watch: Watching,
    clock: Clock,
    supervisor: Supervisor,
    going: Going,
    /// The caller's own deadline.
    until: Option<Instant>,
}

/// The next message of a stream, and what to go on with. The drain ends it, and so does the age of its connection, so
/// that whoever watches goes elsewhere before the connection is cut.
async fn next_state(following: Option<Following>) -> Option<(Result<WatchTokensResponse, Status>, Option<Following>)> {
    let mut following = following?;
    let Following { watch, clock, supervisor, going, until } = &mut following;
    let end = tokio::select! {
        biased;
        () = supervisor.draining() => Error::retry(Reason::Draining, DRAINING_RETRY),
        () = going.asked() => Error::retry(Reason::Draining, DRAINING_RETRY),
        () = at(*until) => Error::new(Reason::Deadline),
        next = watch.next() => match next {
            Ok((name, view)) => {
                let state = state(&name, &view, clock.now());
                return Some((Ok(state), Some(following)));
            }
            Err(error) => error,
        }
    };
    Some((Err(end.into()), None))
}

/// At DEBUG, with the request's id from its span: a caller that polls a broken Workspace must not fill the disk.
fn log_refusal(error: &Error) {
    tracing::debug!(reason = error.reason.as_str(), "no token for this request");
}

/// Who asks, as `authenticate` found out, and how the request came in.
fn asker<T>(request: &Request<T>) -> Result<Asker, Error> {
    known_asker(request).ok_or_else(|| Error::new(Reason::Bug))
}

/// The same; nobody, where callers are not told apart.
pub(super) fn known_asker<T>(request: &Request<T>) -> Option<Asker> {
    let extensions = request.extensions();
    let (proven, peer) = extensions.get::<Authenticated>().zip(extensions.get::<Peer>())?;
    let line = line(extensions.get::<Line>()?, proven, peer);
    let (listener, request) = (Arc::clone(&peer.listener), extensions.get::<RequestId>().cloned());
    Some(Asker { proven: proven.clone(), via: Via { listener, peer: peer.addr.socket(), request }, line })
}

/// The connection, which learns whose calls it carries: a proxy's, those of many.
fn line(line: &Line, proven: &Authenticated, peer: &Peer) -> Line {
    match &peer.identity {
        Some(proxy) if proxy.caller != proven.caller => line.carries_many(),
        _ => line.carries(&proven.caller),
    }
    line.clone()
}

/// When its connection was asked to go.
pub(super) fn going<T>(request: &Request<T>) -> Result<Going, Error> {
    request.extensions().get::<Going>().cloned().ok_or_else(|| Error::new(Reason::Bug))
}

fn deadline<T>(request: &Request<T>) -> Result<Deadline, Error> {
    let deadline = request.extensions().get::<Deadline>().copied();
    deadline.ok_or_else(|| Error::new(Reason::Bug))
}
