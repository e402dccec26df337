//! Counts and times the calls of a gRPC server.
//!
//! A call is counted when it is over: by the `grpc-status` of its headers or trailers, or, when it was dropped before
//! either came, as CANCELLED. Methods that the server does not have count as one, so that no caller can make series.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Upper bounds in seconds: a hit takes microseconds, a wait for an upstream seconds.
const BUCKETS: [f64; 16] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The label of every method that the server does not have.
const OTHER: &str = "other";

/// The gRPC status codes by number, as the specification lists them.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A place in [`CODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code(usize);

impl Code {
    const CANCELLED: Self = Self(1);
    const UNKNOWN: Self = Self(2);

    /// What headers or trailers say; a number that is no code is UNKNOWN.
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let number = headers.get("grpc-status")?.to_str().ok();
        let number = number.and_then(|text| text.parse().ok());
        Some(number.filter(|n| *n < CODES.len()).map_or(Self::UNKNOWN, Self))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// The handles: a tower layer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcMetrics(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    known: HashMap<&'static str, Arc<Method>>,
    other: Arc<Method>,
    in_flight: Gauge,
}

/// The series of one method, looked up once.
#[derive(Debug)]
struct Method {
    /// In the order of [`CODES`].
    calls: Vec<Counter>,
    seconds: Histogram,
}

impl RpcMetrics {
    /// Adds the families. `methods` are the paths that the server has, such as `/tokenbroker.v1.TokenService/GetToken`.
    pub fn register(registry: &mut Registry, methods: &[&'static str]) -> Self {
        let calls = Family::<CallLabels, Counter>::default();
        let seconds = Family::<MethodLabels, Histogram, _>::new_with_constructor(|| Histogram::new(BUCKETS));
        let in_flight = Gauge::default();
        registry.register("rpc_calls", "Finished gRPC calls by method and status code", calls.clone());
        registry.register("rpc_duration_seconds", "Time from the headers of a gRPC call to its end", seconds.clone());
        registry.register("rpc_in_flight", "gRPC calls under way", in_flight.clone());
        let series = |method: &'static str| {
            let calls = CODES.map(|code| calls.get_or_create_owned(&CallLabels { method, code }));
            Arc::new(Method { calls: calls.to_vec(), seconds: seconds.get_or_create_owned(&MethodLabels { method }) })
        };
        Self(Arc::new(Methods {
            known: methods.iter().map(|path| (*path, series(path))).collect(),
            other: series(OTHER),
            in_flight,
        }))
    }

    fn begin(&self, path: &str) -> Call {
        let Methods { known, other, in_flight } = &*self.0;
        in_flight.inc();
        Call {
            method: Arc::clone(known.get(path).unwrap_or(other)),
            in_flight: in_flight.clone(),
            begun: Instant::now(),
            code: None,
        }
    }
}

/// A call under way; recorded when dropped, however it ends.
#[derive(Debug)]
struct Call {
    method: Arc<Method>,
    in_flight: Gauge,
    begun: Instant,
    code: Option<Code>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let Code(code) = self.code.unwrap_or(Code::CANCELLED);
        if let Some(calls) = self.method.calls.get(code) {
            calls.inc();
        }
        let took = self.begun.elapsed().as_secs_f64();
        self.method.seconds.observe(took);
        self.in_flight.dec();
    }
}

impl<S> Layer<S> for RpcMetrics {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, metrics: self.clone() }
    }
}

/// The service that [`RpcMetrics`] makes.
#[derive(Debug, Clone)]
pub struct Measured<S> {
    inner: S,
    metrics: RpcMetrics,
}

impl<S> Service<Request> for Measured<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = S::Error;
    type Future = MeasuredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let call = self.metrics.begin(request.uri().path());
        MeasuredFuture { inner: self.inner.call(request), call: Some(call) }
    }
}

/// The answer to one call.
#[derive(Debug)]
pub struct MeasuredFuture<F> {
    inner: F,
    /// Taken once the headers are there.
    call: Option<Call>,
}

impl<F, E> Future for MeasuredFuture<F>
where
    F: Future<Output = Result<Response, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.inner).poll(cx));
        Poll::Ready(match (outcome, this.call.take()) {
            (Ok(response), Some(call)) => Ok(follow(response, call)),
            (outcome, _) => outcome,
        })
    }
}

/// Ends the call with the response's headers if they say how it went, else with its body.
fn follow(response: Response, mut call: Call) -> Response {
    call.code = Code::from_headers(response.headers());
    if call.code.is_some() {
        return response;
    }
    if !response.status().is_success() || response.body().is_end_stream() {
        // Not an answer of gRPC at all, and UNKNOWN to a client.
        call.code = Some(Code::UNKNOWN);
        return response;
    }
    response.map(|inner| Body::new(MeasuredBody { inner, call }))
}

/// A body whose trailers say how the call went.
#[derive(Debug)]
struct MeasuredBody {
    inner: Body,
    call: Call,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let trailers = match &frame {
            Some(Ok(frame)) => frame.trailers_ref(),
            Some(Err(_)) | None => None,
        };
        let told = trailers.and_then(Code::from_headers);
        let over = !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream();
        // Broken off, or ended without a word: neither says that it went well.
        let code = told.or_else(|| over.then_some(Code::UNKNOWN));
        this.call.code = this.call.code.or(code);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::metrics::Metrics;
    use axum::Router;
    use axum::routing::any;
    use http::{HeaderValue, StatusCode};
    use std::convert::Infallible;
    use std::time::Duration;
    use tower::ServiceExt as _;

    fn set_up(methods: &[&'static str]) -> (Metrics, RpcMetrics) {
        let metrics = Metrics::new(&Clock::simulated());
        let rpc = metrics.register(|registry| RpcMetrics::register(registry, methods));
        (metrics, rpc)
    }

    fn count(metrics: &Metrics, method: &str, code: &str) -> u64 {
        let text = metrics.encode().unwrap();
        let name = format!("token_broker_rpc_calls_total{{method=\"{method}\",code=\"{code}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    async fn call(routes: &Router, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        routes.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn unknown_methods_count_as_one() {
        let (metrics, rpc) = set_up(&["/known"]);
        let status = |code: &'static str| any(async move || [("grpc-status", code)]);
        let routes = Router::new().route("/known", status("0")).route("/{*any}", status("12")).layer(rpc);
        let before = metrics.encode().unwrap().lines().count();
        call(&routes, "/known").await;
        for n in 0..50 {
            call(&routes, &format!("/made/up/{n}")).await;
        }
        assert_eq!(count(&metrics, "/known", "OK"), 1);
        assert_eq!(count(&metrics, OTHER, "UNIMPLEMENTED"), 50);
        assert_eq!(metrics.encode().unwrap().lines().count(), before);
    }

    #[tokio::test]
    async fn what_is_no_answer_of_grpc_is_unknown() {
        let (metrics, rpc) = set_up(&[]);
        let routes = Router::new()
            .route("/empty", any(async || ()))
            .route("/text", any(async || "text"))
            .route("/failed", any(async || StatusCode::BAD_GATEWAY))
            .route("/number", any(async || [("grpc-status", "99")]))
            .layer(rpc);
        for path in ["/empty", "/text", "/failed", "/number"] {
            let body = call(&routes, path).await.into_body();
            axum::body::to_bytes(body, 1024).await.unwrap();
        }
        assert_eq!(count(&metrics, OTHER, "UNKNOWN"), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_is_cancelled_and_timed() {
        let (metrics, rpc) = set_up(&["/slow"]);
        let service =
            rpc.layer(tower::service_fn(|_: Request| Box::pin(std::future::pending::<Result<Response, Infallible>>())));
        let request = Request::get("/slow").body(Body::empty()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(2), service.oneshot(request));
        assert!(answer.await.is_err());
        assert_eq!(count(&metrics, "/slow", "CANCELLED"), 1);
        let text = metrics.encode().unwrap();
        for line in ["token_broker_rpc_duration_seconds_sum{method=\"/slow\"} 2.0", "token_broker_rpc_in_flight 0"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn codes_are_read_as_the_specification_numbers_them() {
        let code = |text| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(text));
            Code::from_headers(&headers).map(|Code(n)| CODES[n])
        };
        assert_eq!(code("0"), Some("OK"));
        assert_eq!(code("14"), Some("UNAVAILABLE"));
        assert_eq!(code("16"), Some("UNAUTHENTICATED"));
        assert_eq!(code("17"), Some("UNKNOWN"));
        assert_eq!(code("-1"), Some("UNKNOWN"));
        assert_eq!(Code::from_headers(&HeaderMap::new()), None);
    }
}
