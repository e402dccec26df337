//! `tokenbroker.v1.TokenService`.

use super::convert::response;
use super::deadline::Deadline;
use super::pb::token_service_server::TokenService;
use super::pb::{GetTokenRequest, GetTokenResponse};
use crate::broker::{Ask, Broker};
use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::identity::Caller;
use crate::listener::Peer;
use tonic::{Request, Response, Status};

/// The service over the broker.
#[derive(Debug)]
pub(super) struct TokenApi {
    broker: Broker,
    clock: Clock,
}

impl TokenApi {
    pub(super) fn new(broker: Broker, clock: Clock) -> Self {
        Self { broker, clock }
    }

    /// Gets a token and judges it once more at the moment of handing it over: waiting for a turn of the runtime takes
    /// time too.
    async fn get(&self, caller: &Caller, ask: &Ask) -> Result<GetTokenResponse, Error> {
        loop {
            let served = self.broker.authorise_then_get(caller, ask).await?;
            let now = self.clock.now();
            if served.is_servable(now) {
                return Ok(response(&served, now));
            }
            if now.mono >= ask.deadline {
                return Err(Error::new(Reason::Deadline));
            }
        }
    }
}

#[tonic::async_trait]
impl TokenService for TokenApi {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        let caller = caller(&request)?;
        let deadline = request.extensions().get::<Deadline>().copied();
        let Deadline(deadline) = deadline.ok_or_else(|| Error::new(Reason::Bug))?;
        let ask = request.into_inner().into_ask(deadline).inspect_err(log_refusal)?;
        let token = self.get(&caller, &ask).await.inspect_err(log_refusal)?;
        Ok(Response::new(token))
    }
}

/// At DEBUG, with the request's id from its span: a caller that polls a broken Workspace must not fill the disk.
fn log_refusal(error: &Error) {
    tracing::debug!(reason = error.reason.as_str(), "no token for this request");
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Error> {
    let peer = request.extensions().get::<Peer>();
    peer.map(|peer| Caller::Loopback(peer.addr.ip())).ok_or_else(|| Error::new(Reason::Bug))
}
