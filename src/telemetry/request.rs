//! A name for every request, the same in the caller's logs and in ours.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};
use tracing::Span;

/// The header, on requests and on responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a caller.
const MAX_LENGTH: usize = 64;

/// The id of a request: an extension of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Takes over what a caller sent, if it is 1–64 of `A-Z a-z 0-9 . _ -`.
    fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=MAX_LENGTH).contains(&bytes.len());
        (fits && bytes.iter().all(allowed)).then(|| Self(value.clone()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Made of ASCII only, so this never falls back.
        self.0.to_str().unwrap_or_default()
    }
}

/// Gives each request an id: the caller's `x-request-id` if it is well formed, else one of our own. It goes into the
/// request's extensions, into a span `request` at DEBUG, and back in the response's header.
#[derive(Debug, Clone)]
pub struct RequestIds(Arc<Sequence>);

/// Ids that look random and do not repeat within a process.
#[derive(Debug)]
struct Sequence {
    seed: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that follow from the seed: random in a process, fixed in a test.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Sequence { seed, next: AtomicU64::new(0) }))
    }
}

impl Sequence {
    fn next(&self) -> RequestId {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 16];
        let written = write!(text.as_mut_slice(), "{:016x}", mix(self.seed.wrapping_add(n)));
        // Sixteen hexadecimal digits fit, and always are a header value.
        let value = written.ok().and_then(|()| HeaderValue::from_bytes(&text).ok());
        RequestId(value.unwrap_or(HeaderValue::from_static("invalid")))
    }
}

/// The finaliser of `SplitMix64` (Steele et al. 2014): a permutation, so that different inputs never meet.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl<S> Layer<S> for RequestIds {
    type Service = Named<S>;

    fn layer(&self, inner: S) -> Named<S> {
        Named { inner, ids: self.clone() }
    }
}

/// The service that [`RequestIds`] makes.
#[derive(Debug, Clone)]
pub struct Named<S> {
    inner: S,
    ids: RequestIds,
}

impl<S> Service<Request> for Named<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = S::Error;
    type Future = NamedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let given = request.headers().get(HEADER).and_then(RequestId::parse);
        let id = given.unwrap_or_else(|| self.ids.0.next());
        let span = tracing::debug_span!("request", id = id.as_str(), method = request.uri().path());
        request.extensions_mut().insert(id.clone());
        let inner = span.in_scope(|| self.inner.call(request));
        NamedFuture { inner, span, id }
    }
}

/// The answer to one request.
#[derive(Debug)]
pub struct NamedFuture<F> {
    inner: F,
    span: Span,
    id: RequestId,
}

impl<F, E> Future for NamedFuture<F>
where
    F: Future<Output = Result<Response, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        let mut outcome = ready!(this.span.in_scope(|| inner.poll(cx)));
        if let Ok(response) = &mut outcome {
            response.headers_mut().insert(HEADER, this.id.0.clone());
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Extension, Router};
    use std::collections::HashSet;
    use tower::ServiceExt as _;

    async fn id_for(routes: &Router, given: Option<&'static str>) -> (String, String) {
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        if let Some(given) = given {
            let given = HeaderValue::from_static(given);
            request.headers_mut().insert(HEADER, given);
        }
        let response = routes.clone().oneshot(request).await.unwrap();
        let back = response.headers()[HEADER].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1024).await;
        (back, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    fn routes() -> Router {
        let seen = |Extension(id): Extension<RequestId>| async move { id.as_str().to_owned() };
        Router::new().route("/", get(seen)).layer(RequestIds::new(7))
    }

    #[tokio::test]
    async fn a_well_formed_id_is_kept_and_any_other_replaced() {
        let routes = routes();
        let longest = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ab._-Z";
        for good in ["a", longest] {
            let (back, seen) = id_for(&routes, Some(good)).await;
            assert_eq!((back.as_str(), seen.as_str()), (good, good));
        }
        let too_long = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0";
        for bad in ["", "a b", "a/b", "a\"", too_long] {
            let (back, seen) = id_for(&routes, Some(bad)).await;
            assert_ne!(back, bad);
            assert_eq!(back, seen);
        }
    }

    #[tokio::test]
    async fn own_ids_do_not_repeat() {
        let routes = routes();
        let mut ids = HashSet::new();
        for _ in 0..100 {
            let (id, _) = id_for(&routes, None).await;
            assert!(id.len() == 16 && ids.insert(id));
        }
    }
}
