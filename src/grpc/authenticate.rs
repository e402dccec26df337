//! Finds out who asks, before anything else looks at a request: by the one means that its listener has.

use super::token_service::listener_name;
use crate::audit::{Audit, By, Denial};
use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::identity::Authenticated;
use crate::listener::Peer;
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tower::{Layer, Service};

/// How the callers of a listener are told apart.
#[derive(Debug, Clone)]
pub enum Means {
    /// Not at all: plaintext, and only from loopback.
    Loopback,
    /// By what the channel proves: a client certificate, the peer of a Unix socket.
    Channel,
}

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Authenticate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    means: Means,
    clock: Clock,
    audit: Audit,
}

/// A service that knows who asks: [`Authenticated`] is an extension of every request that reaches it.
#[derive(Debug, Clone)]
pub(super) struct Authenticating<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl Authenticate {
    pub(super) fn new(means: Means, clock: Clock, audit: Audit) -> Self {
        Self(Arc::new(Shared { means, clock, audit }))
    }
}

impl Shared {
    fn authenticate(&self, peer: Option<&Peer>) -> Result<Authenticated, Error> {
        let peer = peer.ok_or_else(|| Error::new(Reason::Bug))?;
        let proven = match &self.means {
            Means::Loopback => peer.addr.ip().is_loopback().then(Authenticated::loopback),
            Means::Channel => peer.identity.clone(),
        };
        let now = self.clock.now().wall;
        let proven = proven.filter(|proven| proven.evidence.holds(now));
        proven.ok_or_else(|| Error::new(Reason::CallerUnauthenticated))
    }

    fn denied(&self, peer: Option<&Peer>, reason: Reason) {
        let by = peer.map_or(By::Nobody, |peer| By::Address(peer.addr.ip()));
        let (action, listener) = ("authenticate", &listener_name());
        self.audit.denied(&Denial { by, reason, action, listener, workspace: None });
    }
}

impl<S> Layer<S> for Authenticate {
    type Service = Authenticating<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticating { inner, shared: Arc::clone(&self.0) }
    }
}

impl<S, B, C> Service<Request<B>> for Authenticating<S>
where
    S: Service<Request<B>, Response = Response<C>, Error = Infallible>,
    S::Future: Send + 'static,
    C: Default + Send + 'static,
{
    type Response = Response<C>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.shared.authenticate(request.extensions().get::<Peer>()) {
            Ok(proven) => {
                request.extensions_mut().insert(proven);
                Box::pin(self.inner.call(request))
            }
            Err(error) => {
                self.shared.denied(request.extensions().get::<Peer>(), error.reason);
                Box::pin(std::future::ready(Ok(Status::from(error).into_http::<C>())))
            }
        }
    }
}
