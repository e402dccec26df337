//! How long a call waits.

use super::fake::TAKES;
use super::{App, WORKSPACE, asking, told};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use std::convert::Infallible;
use std::time::Duration;
use token_broker::grpc::pb::TokenSource;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;

/// The clock of timers counts milliseconds, and rounds up.
const TICKS: Duration = Duration::from_millis(5);
/// What the broker adds before it ends a call that its handler never sees.
const SLACK: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_call_waits_as_long_as_it_says_within_bounds() {
    let rows = [
        (None, 10_000),
        (Some("5S"), 5_000),
        (Some("1500m"), 1_500),
        (Some("60S"), 30_000),
        (Some("99999999H"), 30_000),
        (Some("soon"), 10_000),
    ];
    for (timeout, millis) in rows {
        let app = App::new().await;
        app.provider.hangs();
        let (answer, took) = app.timed(timeout).await;
        let status = answer.unwrap_err();
        assert_eq!(told(&status), (Code::DeadlineExceeded, "DEADLINE".to_owned()), "{timeout:?}");
        let wanted = Duration::from_millis(millis);
        assert!(took >= wanted && took <= wanted + TICKS, "{timeout:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_exchange_outlives_the_call_that_began_it() {
    let app = App::new().await;
    app.provider.hangs();
    let (answer, took) = app.timed(Some("500m")).await;
    assert_eq!(told(&answer.unwrap_err()).0, Code::DeadlineExceeded);
    assert!(took < TAKES);
    app.provider.goes_on();
    let answer = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!(answer.source(), TokenSource::Exchanged);
    assert_eq!(app.provider.calls(), 1, "it joined the exchange of the first call");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_away_leaves_the_exchange_to_the_next() {
    let app = App::new().await;
    let gone = tokio::time::timeout(Duration::from_secs(1), app.get(asking(WORKSPACE))).await;
    assert!(gone.is_err());
    tokio::time::sleep(TAKES).await;
    let answer = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!(answer.source(), TokenSource::Cache);
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_still_gets_what_is_in_memory_or_an_answer_at_once() {
    let app = App::new().await;
    let (answer, took) = app.timed(Some("0n")).await;
    assert_eq!(told(&answer.unwrap_err()).0, Code::DeadlineExceeded);
    assert!(took <= TICKS, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_message_never_comes_ends() {
    let app = App::new().await;
    let nothing = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let begun = Instant::now();
    let status = app.raw(Body::new(StreamBody::new(nothing))).await;
    assert_eq!(told(&status), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
    let (took, wanted) = (begun.elapsed(), Duration::from_secs(10));
    assert!(took >= wanted && took <= wanted + SLACK + TICKS, "{took:?}");
    assert_eq!(app.provider.calls(), 0);
}
