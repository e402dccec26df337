//! What every request of a simulated API runs through: [`pass`] finds out whose request it is, lets the faults that
//! were set for it happen, counts it, and gives it one moment in time, so that `iat` and `Date` agree to the second.

use super::connection::{Order, Peer};
use super::control::Control;
use super::emnify::organisation_of;
use super::faults::{Answer, Cut, CutAt, Fault, Met, Route};
use super::world::http_date;
use axum::Extension;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// For how long a request body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A request on its way through an API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) address: IpAddr,
    pub(super) now: Instant,
    /// The time of day by the sandbox's clock, with what skew this request meets.
    pub(super) at: SystemTime,
    pub(super) same_token: Option<Duration>,
}

pub(super) async fn pass(
    State(control): State<Control>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(status) => return status.into_response(),
    };
    let route = Route::of(parts.uri.path());
    let organisation = route.and_then(|route| organisation_of(&control.world(), route, &parts.headers, &body));
    let (met, mut cleared) = control.arrived(route, organisation);
    if let Some(latency) = met.latency {
        tokio::time::sleep(latency).await;
    }
    if met.answer == Some(Fault::Hang) {
        // The sender lives in `control`, so this ends when the faults are cleared, or with the connection.
        drop(cleared.changed().await);
    }
    let call = control.call(peer.address, &met);
    parts.extensions.insert(call);
    let request = Request::from_parts(parts, Body::from(body));
    let Some(mut response) = answered(&peer, met, request, next).await else {
        return StatusCode::OK.into_response();
    };
    control.answered(route, organisation, response.status());
    if let Some(date) = http_date(call.at) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// The answer, real or made up; `None` where the connection has its orders and the answer will not be seen.
async fn answered(peer: &Peer, met: Met, request: Request, next: Next) -> Option<Response> {
    match met.answer {
        Some(Fault::Answer(answer)) => Some(made_up(answer)),
        Some(Fault::Raw(bytes)) => {
            peer.slot.order(Order::Raw(bytes));
            None
        }
        Some(Fault::Cut(Cut { at: at @ CutAt::Before, by })) => {
            peer.slot.order(Order::cut(at, by, 0));
            None
        }
        Some(Fault::Cut(Cut { at: at @ CutAt::InBody, by })) => {
            let response = next.run(request).await;
            let length = response.body().size_hint().lower();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            peer.slot.order(Order::cut(at, by, length));
            Some(response)
        }
        None | Some(Fault::Hang | Fault::Latency(_) | Fault::Skew(_) | Fault::SameToken(_)) => {
            Some(next.run(request).await)
        }
    }
}

fn made_up(answer: Answer) -> Response {
    let Answer { status, body, retry_after } = answer;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let typed = !body.is_empty();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    if typed {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
    }
    let retry_after = retry_after.and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    response
}

async fn read(body: Body) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Reads a JSON object. Without the first step, an array would pass for the fields in their order.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(Value::Object(fields)).ok()
}

/// Whether the body says that it is of this type; parameters such as a charset are left aside.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = said.and_then(|said| said.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// The text behind `Bearer`.
pub(super) fn bearer_text(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

impl Control {
    fn call(&self, address: IpAddr, met: &Met) -> Call {
        let moment = self.moment(met.skew_ms);
        Call { address, now: moment.mono, at: moment.wall, same_token: met.same_token }
    }
}
