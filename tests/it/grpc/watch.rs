//! What `WatchTokens` streams.

use super::fake::{EXTRA, TAKES, VALUE};
use super::{App, Channel, HOUR, HUNG, WORKSPACE, asking, told};
use prost::Message as _;
use std::time::Duration;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::watch_tokens_response::State;
use token_broker::grpc::pb::{WatchTokensRequest, WatchTokensResponse};
use token_broker::provider::Failure;
use token_broker::token::WorkspaceName;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

const WATCH_TOKENS: &str = "/tokenbroker.v1.TokenService/WatchTokens";

fn watching(workspaces: &[&str]) -> WatchTokensRequest {
    WatchTokensRequest { workspaces: workspaces.iter().map(|&name| name.to_owned()).collect() }
}

async fn watch(app: &App, workspaces: &[&str]) -> Streaming<WatchTokensResponse> {
    app.client().watch_tokens(watching(workspaces)).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchTokensResponse>) -> WatchTokensResponse {
    let message = timeout(5 * HOUR, stream.message()).await.expect("nothing came");
    message.unwrap().expect("the stream ended")
}

/// What is told next of the one Workspace: the token's number, or the reason.
async fn state(stream: &mut Streaming<WatchTokensResponse>) -> Result<String, String> {
    match next(stream).await.state.unwrap() {
        State::Token(token) => Ok(token.value.strip_prefix(VALUE).unwrap().to_owned()),
        State::Withdrawn(withdrawn) => Err(withdrawn.reason),
    }
}

/// How the stream ends.
async fn end(stream: &mut Streaming<WatchTokensResponse>) -> Status {
    end_within(stream, HUNG).await
}

async fn end_within(stream: &mut Streaming<WatchTokensResponse>, limit: Duration) -> Status {
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    timeout(limit, end).await.expect("it goes on")
}

fn name() -> WorkspaceName {
    WorkspaceName::parse(WORKSPACE).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_state_comes_at_once_and_then_each_change() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let begun = Instant::now();
    let mut stream = watch(&app, &[WORKSPACE, "fleet/asia"]).await;
    let first = next(&mut stream).await;
    assert_eq!((first.workspace.as_str(), first.valid_for), (WORKSPACE, None));
    let Some(State::Withdrawn(withdrawn)) = first.state else { panic!("{first:?}") };
    assert_eq!(withdrawn.reason, "TOKEN_PENDING");
    assert!(withdrawn.retry_after.is_some_and(|after| after.seconds > 0));
    let second = next(&mut stream).await;
    assert_eq!(second.workspace, "fleet/asia");
    let Some(State::Withdrawn(withdrawn)) = second.state else { panic!("{second:?}") };
    assert_eq!((withdrawn.reason.as_str(), withdrawn.retry_after), ("WORKSPACE_UNKNOWN", None));
    assert_eq!(begun.elapsed(), Duration::ZERO);

    let third = next(&mut stream).await;
    assert_eq!(begun.elapsed(), TAKES);
    let left = Duration::try_from(third.valid_for.unwrap()).unwrap();
    assert_eq!((third.workspace.as_str(), left + TAKES), (WORKSPACE, HOUR));
    let Some(State::Token(token)) = third.state else { panic!("{third:?}") };
    assert_eq!(Some(token), app.get(asking(WORKSPACE)).await.unwrap().token, "the token of GetToken, every field");
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_come_and_a_token_that_ends_is_withdrawn() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let mut stream = watch(&app, &[WORKSPACE]).await;
    assert_eq!(state(&mut stream).await, Err("TOKEN_PENDING".to_owned()));
    for number in 1..=5 {
        let message = next(&mut stream).await;
        let left = Duration::try_from(message.valid_for.unwrap()).unwrap();
        assert!(left > HOUR / 2, "{left:?}");
        let Some(State::Token(token)) = message.state else { panic!("{message:?}") };
        assert_eq!(token.value, format!("{VALUE}{number}"));
    }
    app.provider.answers(Err(Failure::Unavailable));
    assert_eq!(state(&mut stream).await, Err("UPSTREAM_UNAVAILABLE".to_owned()));
    app.provider.answers(Ok(HOUR));
    assert!(state(&mut stream).await.is_ok(), "though nobody else asks");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_does_is_streamed() {
    let app = App::new().await;
    let mut stream = watch(&app, &[WORKSPACE]).await;
    assert_eq!(state(&mut stream).await, Err("TOKEN_PENDING".to_owned()));
    assert_eq!(state(&mut stream).await, Ok("1".to_owned()));
    app.engine.freeze(&name());
    assert_eq!(state(&mut stream).await, Err("WORKSPACE_FROZEN".to_owned()));
    app.engine.unfreeze(&name());
    assert_eq!(state(&mut stream).await, Err("TOKEN_PENDING".to_owned()));
    assert_eq!(state(&mut stream).await, Ok("2".to_owned()));
    app.engine.delete(&name());
    assert_eq!(state(&mut stream).await, Err("WORKSPACE_UNKNOWN".to_owned()));
    assert!(timeout(48 * HOUR, stream.message()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_none_are_refused() {
    let app = App::new().await;
    let many: Vec<String> = (0..1_001).map(|n| format!("w/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let rows: [(&[&str], &str, &str); 6] = [
        (&[], "workspaces", "must hold 1 to 1000 names"),
        (&many, "workspaces", "must hold 1 to 1000 names"),
        (&["a", "b", "a"], "workspaces[2]", "stands there twice"),
        (&["a", ""], "workspaces[1]", "must not be empty"),
        (&["Fleet"], "workspaces[0]", "may only hold"),
        (&["a", "a/"], "workspaces[1]", "must not hold an empty segment"),
    ];
    for (workspaces, field, text) in rows {
        let status = app.client().watch_tokens(watching(workspaces)).await.unwrap_err();
        assert_eq!(told(&status), (Code::InvalidArgument, "REQUEST_INVALID".to_owned()));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, field);
        assert!(violations[0].description.starts_with(text), "{violations:?}");
    }
    let mut message = watching(&[WORKSPACE]).encode_to_vec();
    // Field 100, a string.
    message.extend([0xa2, 0x06, 3, b'n', b'e', b'w']);
    let status = app.call_with(WATCH_TOKENS, &message).await;
    assert_eq!(status.message(), "request: holds field 100, which this broker does not know");
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_of_the_longest_names_fit_and_no_more() {
    let app = App::new().await;
    let names: Vec<String> = (0..1_000).map(|n| format!("{n:0>128}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stream = watch(&app, &names).await;
    for name in &names {
        assert_eq!(next(&mut stream).await.workspace, *name);
    }
    let long = "a".repeat(128 * 1024);
    assert_eq!(app.client().watch_tokens(watching(&[&long])).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_grant_may_watch_nothing() {
    let app = App::of_a_stranger().await;
    for workspaces in [&[WORKSPACE][..], &["fleet/asia"], &["fleet/asia", WORKSPACE]] {
        let status = app.client().watch_tokens(watching(workspaces)).await.unwrap_err();
        assert_eq!(told(&status), (Code::PermissionDenied, "CALLER_FORBIDDEN".to_owned()));
    }
    assert_eq!(app.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_drain_ends_a_stream_with_a_reason() {
    let app = App::new().await;
    let mut stream = watch(&app, &[WORKSPACE]).await;
    assert_eq!(state(&mut stream).await, Err("TOKEN_PENDING".to_owned()));
    let (ended, status) = tokio::join!(app.supervisor.shutdown(Duration::from_secs(5)), end(&mut stream));
    assert_eq!(told(&status), (Code::Unavailable, "DRAINING".to_owned()));
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(ended, token_broker::supervisor::Ended::Clean);
    app.assert_metric(&format!(r#"token_broker_rpc_calls_total{{method="{WATCH_TOKENS}",code="UNAVAILABLE"}} 1"#));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_connection_ends_a_stream_before_it_is_cut() {
    let app = App::new().await;
    let memory = http::Uri::from_static("http://memory");
    let mut client = TokenServiceClient::with_origin(app.channel_of_age(HOUR).await, memory);
    let mut stream = client.watch_tokens(watching(&["fleet/asia"])).await.unwrap().into_inner();
    assert_eq!(state(&mut stream).await, Err("WORKSPACE_UNKNOWN".to_owned()));
    let begun = Instant::now();
    let status = end_within(&mut stream, 2 * HOUR).await;
    assert_eq!(told(&status), (Code::Unavailable, "DRAINING".to_owned()));
    assert!(begun.elapsed() <= HOUR && !app.supervisor.is_draining(), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_callers_deadline_and_only_then() {
    let app = App::new().await;
    let mut endless = watch(&app, &[WORKSPACE]).await;
    for (timeout, lasts) in [("60S", 60), ("2H", 7_200)] {
        let mut request = Request::new(watching(&[WORKSPACE]));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let begun = Instant::now();
        let mut stream = app.client().watch_tokens(request).await.unwrap().into_inner();
        let status = end_within(&mut stream, 3 * HOUR).await;
        assert_eq!(told(&status), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
        let took = begun.elapsed().as_secs_f64();
        assert!((took - f64::from(lasts)).abs() < 0.1, "{took}");
    }
    assert!(state(&mut endless).await.is_err_and(|reason| reason == "TOKEN_PENDING"));
    assert!(state(&mut endless).await.is_ok());
}

/// The window takes a few messages; a hundred and fifty changes go by.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_gets_the_newest_state_and_no_backlog() {
    let app = App::new().await;
    app.get(asking(WORKSPACE)).await.unwrap();
    let mut stuck = app.client_with_window(600).await.watch_tokens(watching(&[WORKSPACE])).await.unwrap().into_inner();
    for _ in 0..50 {
        app.engine.freeze(&name());
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.engine.unfreeze(&name());
        app.get(asking(WORKSPACE)).await.unwrap();
    }
    let mut seen = Vec::new();
    while let Ok(message) = timeout(Duration::from_secs(60), stuck.message()).await {
        match message.unwrap().unwrap().state.unwrap() {
            State::Token(token) => seen.push(token.value),
            State::Withdrawn(withdrawn) => seen.push(withdrawn.reason),
        }
    }
    assert!(seen.len() <= 8, "a backlog: {seen:?}");
    assert_eq!(seen.last(), Some(&format!("{VALUE}51")));
}

#[tokio::test(start_paused = true)]
async fn places_are_given_back_with_the_stream() {
    let app = App::new().await;
    let names: Vec<String> = (0..1_000).map(|n| format!("w/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stream = watch(&app, &names).await;
    let status = app.client().watch_tokens(watching(&[WORKSPACE])).await.unwrap_err();
    assert_eq!(told(&status), (Code::ResourceExhausted, "CALLER_THROTTLED".to_owned()));
    assert!(status.get_details_retry_info().is_some());
    drop(stream);
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(watch(&app, &names).await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_an_id_and_is_counted() {
    let app = App::new().await;
    let mut request = Request::new(watching(&[WORKSPACE]));
    request.metadata_mut().insert("x-request-id", "call-1".parse().unwrap());
    let mut client: TokenServiceClient<Channel> = app.client();
    let answer = client.watch_tokens(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "call-1");
    app.assert_metric("token_broker_rpc_in_flight 1");
    drop(answer);
    tokio::time::sleep(Duration::from_millis(1)).await;
    app.assert_metric("token_broker_rpc_in_flight 0");
    app.assert_metric(&format!(r#"token_broker_rpc_calls_total{{method="{WATCH_TOKENS}",code="CANCELLED"}} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_message_shows_no_token_to_debug() {
    let app = App::new().await;
    app.get(asking(WORKSPACE)).await.unwrap();
    let message = next(&mut watch(&app, &[WORKSPACE]).await).await;
    for shown in [format!("{message:?}"), format!("{message:#?}"), format!("{:?}", message.state)] {
        assert!(!shown.contains(VALUE) && !shown.contains(EXTRA), "{shown}");
    }
}
