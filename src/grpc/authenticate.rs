//! Finds out who asks, before anything else looks at a request: by the one means that its listener has.
//!
//! Promises: a request that shows more than the one proof, or tells of an identity in a header or a trailer where none
//! is believed, reaches no handler; what is wrong with a proof is told to the log at DEBUG, and to nobody else.

mod checked;

use crate::audit::{Audit, By, Denial};
use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::identity::{Authenticated, Bearer, TrustDomain, headers, xfcc};
use crate::listener::Peer;
use crate::policy::CallerPattern;
use checked::Checked;
use futures_util::future::Either;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::convert::Infallible;
use std::future::{Future, ready};
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
    /// By what a proxy says of its own client's certificate, where the channel proves the proxy to be one of these.
    ForwardedCertificate {
        /// Who is believed.
        proxies: Vec<CallerPattern>,
        /// Whose SPIFFE IDs are taken from them; any, if there is none.
        trust_domains: Vec<TrustDomain>,
    },
    /// By a token that comes with each request.
    Bearer(Arc<dyn Bearer>),
    /// Nobody is asked who he is, and nothing is served that depends on it.
    Anyone,
}

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Authenticate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    means: Means,
    clock: Clock,
    audit: Audit,
    /// The one caller of plaintext listeners, made once.
    loopback: Authenticated,
}

/// A service that knows who asks: [`Authenticated`] is an extension of every request that reaches it, except by
/// [`Means::Anyone`].
#[derive(Debug, Clone)]
pub(super) struct Authenticating<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What is known of a request by its head and its channel.
enum Judged {
    Nobody,
    Proven(Authenticated),
    /// The token has to be looked at.
    Shown(Arc<dyn Bearer>, HeaderValue),
}

impl Authenticate {
    pub(super) fn new(means: Means, clock: Clock, audit: Audit) -> Self {
        Self(Arc::new(Shared { means, clock, audit, loopback: Authenticated::loopback() }))
    }
}

impl Shared {
    fn judge(&self, headers: &mut HeaderMap, peer: Option<&Peer>) -> Result<Judged, Error> {
        let peer = peer.ok_or_else(|| Error::new(Reason::Bug))?;
        let judged = self.one_proof(headers).and_then(|()| match &self.means {
            Means::Loopback => {
                let is_local = peer.addr.ip().is_some_and(|ip| ip.is_loopback());
                is_local.then(|| Judged::Proven(self.loopback.clone())).ok_or("it does not come from loopback")
            }
            Means::Channel => self.proven(peer).map(Judged::Proven),
            Means::ForwardedCertificate { proxies, trust_domains } => {
                let proxy = self.proven(peer)?;
                if !proxies.iter().any(|pattern| pattern.fits(&proxy.caller)) {
                    return Err("the proxy is not one that is believed");
                }
                forwarded(headers, trust_domains, proxy).map(Judged::Proven)
            }
            Means::Bearer(bearer) => Ok(Judged::Shown(Arc::clone(bearer), shown(headers)?)),
            Means::Anyone => Ok(Judged::Nobody),
        });
        judged.map_err(|why| refused(peer, why))
    }

    /// Refuses whatever tells of an identity beside the one proof of this listener.
    fn one_proof(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        for name in headers.keys() {
            let name = name.as_str();
            let is_proof = match &self.means {
                Means::ForwardedCertificate { .. } => name == headers::FORWARDED_CERTIFICATE,
                Means::Bearer(_) | Means::Anyone => name == AUTHORIZATION.as_str(),
                Means::Loopback | Means::Channel => false,
            };
            if !is_proof && tells_identity(name) {
                return Err("a header tells of an identity, and none is believed here");
            }
        }
        Ok(())
    }

    /// Who the channel proves its peer to be.
    fn proven(&self, peer: &Peer) -> Result<Authenticated, &'static str> {
        let proven = peer.identity.as_ref().ok_or("the channel proves nobody")?;
        self.holds(proven).then(|| proven.clone()).ok_or("what the channel proved no longer counts")
    }

    /// Has the audit count a refusal.
    fn denied(&self, peer: Option<&Peer>, reason: Reason) {
        let Some(peer) = peer else { return };
        let by = peer.addr.ip().map_or(By::Nobody, By::Address);
        let (action, listener) = ("authenticate", &peer.listener);
        self.audit.denied(&Denial { by, reason, action, listener, workspace: None });
    }

    fn holds(&self, proven: &Authenticated) -> bool {
        proven.evidence.holds(self.clock.now().wall)
    }
}

/// Whether a header or trailer of this name says who somebody is.
fn tells_identity(name: &str) -> bool {
    matches!(name, "authorization" | "proxy-authorization") || headers::tells_identity(name)
}

/// Who the proxy says its client is; that counts for as long as the proxy's own proof does.
fn forwarded(
    headers: &HeaderMap,
    trust_domains: &[TrustDomain],
    proxy: Authenticated,
) -> Result<Authenticated, &'static str> {
    let header = exactly_one(headers, headers::FORWARDED_CERTIFICATE)?;
    let caller = xfcc::caller(header.as_bytes(), trust_domains).map_err(|why| {
        tracing::debug!("x-forwarded-client-cert: {why}");
        "the forwarded certificate names nobody"
    })?;
    Ok(Authenticated { caller, evidence: proxy.evidence })
}

/// Takes the token out of the request, so that nothing behind this sees it.
fn shown(headers: &mut HeaderMap) -> Result<HeaderValue, &'static str> {
    exactly_one(headers, AUTHORIZATION.as_str())?;
    let mut value = headers.remove(AUTHORIZATION).ok_or("there is no proof")?;
    value.set_sensitive(true);
    Ok(value)
}

fn exactly_one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h HeaderValue, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err("there is no proof"),
        (Some(_), Some(_)) => Err("there is more than one proof"),
    }
}

/// The token behind `Bearer ` (RFC 6750 §2.1).
fn token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(allowed)).then_some(token)
}

async fn judge_token(
    shared: &Shared,
    bearer: &dyn Bearer,
    value: &HeaderValue,
    peer: &Peer,
) -> Result<Authenticated, Error> {
    let token = token(value).ok_or_else(|| refused(peer, "what it shows is no bearer token"))?;
    let proven = bearer.authenticate(token).await?;
    if shared.holds(&proven) { Ok(proven) } else { Err(refused(peer, "what the token proved no longer counts")) }
}

fn refused(peer: &Peer, why: &'static str) -> Error {
    tracing::debug!(peer = %peer.addr, "not authenticated: {why}");
    Error::new(Reason::CallerUnauthenticated)
}

impl<S> Layer<S> for Authenticate {
    type Service = Authenticating<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticating { inner, shared: Arc::clone(&self.0) }
    }
}

impl<S, B, C> Service<Request<B>> for Authenticating<S>
where
    S: Service<Request<Checked<B>>, Response = Response<C>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    C: Default + Send + 'static,
{
    type Response = Response<C>;
    type Error = Infallible;
    // What is known by the head goes on without a box of its own.
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let peer = head.extensions.get::<Peer>();
        let judged = self.shared.judge(&mut head.headers, peer);
        let request = |head| Request::from_parts(head, Checked::new(body));
        match judged {
            Ok(Judged::Nobody) => Either::Left(self.inner.call(request(head))),
            Ok(Judged::Proven(proven)) => {
                head.extensions.insert(proven);
                Either::Left(self.inner.call(request(head)))
            }
            Ok(Judged::Shown(bearer, value)) => {
                let peer = peer.cloned();
                let mut request = request(head);
                // The one that was asked whether it is ready is the one that is called.
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                let shared = Arc::clone(&self.shared);
                Either::Right(Box::pin(async move {
                    let Some(peer) = peer else { return Ok(answer(Error::new(Reason::Bug))) };
                    match judge_token(&shared, bearer.as_ref(), &value, &peer).await {
                        Ok(proven) => {
                            request.extensions_mut().insert(proven);
                            inner.call(request).await
                        }
                        Err(error) => {
                            shared.denied(Some(&peer), error.reason);
                            Ok(answer(error))
                        }
                    }
                }))
            }
            Err(error) => {
                self.shared.denied(peer, error.reason);
                Either::Right(Box::pin(ready(Ok(answer(error)))))
            }
        }
    }
}

fn answer<C: Default>(error: Error) -> Response<C> {
    Status::from(error).into_http()
}
