//! The caller's deadline, from `grpc-timeout`: absent 10 s, at most 30 s. Bounds the whole of a unary call, the reading
//! of its request included; a stream is bounded until it starts, and after that by what the caller itself set, uncut. A
//! panic on the way is the answer `BUG`, not a stream that breaks off; so is the answer `DRAINING` to a call that still
//! waits when the process is about to end.

use super::DRAINING_RETRY;
use crate::error::{Error, Reason};
use crate::supervisor::Supervisor;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tower::{Layer, Service};

const DEFAULT: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(30);
/// The handler answers at the deadline itself, and says more; this is for what never reaches it.
const SLACK: Duration = Duration::from_millis(100);

/// Until when the caller waits: an extension of every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// For one answer.
    pub(super) of_call: Instant,
    /// For a stream: only if the caller set one.
    pub(super) of_stream: Option<Instant>,
}

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Deadlines {
    /// Shared, since it is cloned with every call.
    supervisor: Arc<Supervisor>,
}

/// A service whose calls end.
#[derive(Debug, Clone)]
pub(super) struct Bounded<S> {
    inner: S,
    supervisor: Arc<Supervisor>,
}

impl Deadlines {
    pub(super) fn new(supervisor: Supervisor) -> Self {
        Self { supervisor: Arc::new(supervisor) }
    }
}

impl<S> Layer<S> for Deadlines {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bounded { inner, supervisor: Arc::clone(&self.supervisor) }
    }
}

impl<S, B, C> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<B>, Response = Response<C>, Error = Infallible>,
    S::Future: Send + 'static,
    C: Default,
{
    type Response = Response<C>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (now, given) = (Instant::now(), given(request.headers()));
        let deadline = now + bounded(given);
        request.extensions_mut().insert(Deadline { of_call: deadline, of_stream: given.map(|given| now + given) });
        let answer = self.inner.call(request);
        let supervisor = Arc::clone(&self.supervisor);
        Box::pin(async move {
            let answer = timeout_at(deadline + SLACK, AssertUnwindSafe(answer).catch_unwind());
            let failed = tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(Ok(answer)) => return answer,
                    // The panic hook has logged it, within the request's span.
                    Ok(Err(_panic)) => Error::new(Reason::Bug),
                    Err(_elapsed) => Error::new(Reason::Deadline),
                },
                () = supervisor.last_call() => Error::retry(Reason::Draining, DRAINING_RETRY),
            };
            Ok(Status::from(failed).into_http::<C>())
        })
    }
}

/// What the caller allows. Nonsense counts as nothing said.
fn given(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse)
}

/// Cut to what the broker allows.
fn bounded(given: Option<Duration>) -> Duration {
    given.unwrap_or(DEFAULT).min(LONGEST)
}

/// `1S`, `500m`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits = Some(digits).filter(|digits| digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit()))?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_clamped_and_nonsense_is_ignored() {
        let rows = [
            ("0n", Duration::ZERO),
            ("500m", Duration::from_millis(500)),
            ("2S", Duration::from_secs(2)),
            ("99999999H", LONGEST),
            ("100000000H", DEFAULT),
            ("-1S", DEFAULT),
            ("", DEFAULT),
            ("S", DEFAULT),
            ("1", DEFAULT),
            ("1 S", DEFAULT),
            ("1s", DEFAULT),
            ("+1S", DEFAULT),
        ];
        for (text, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(bounded(given(&headers)), expected, "{text:?}");
        }
        assert_eq!(bounded(given(&HeaderMap::new())), DEFAULT);
    }
}
