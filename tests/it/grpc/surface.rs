//! What holds for every call: its id, its count, what is served at all, and what is never shown.

use super::fake::{EXTRA, VALUE};
use super::{App, Channel, GET_TOKEN, WORKSPACE, asking};
use crate::logs::{Capture, captured_by};
use token_broker::grpc::Reflection;
use token_broker::identity::Caller;
use token_broker::provider::Failure;
use token_broker::readiness::Readiness;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

async fn reflected(app: &App, ask: MessageRequest) -> Result<ServerReflectionResponse, Status> {
    let mut client: ServerReflectionClient<Channel> =
        ServerReflectionClient::with_origin(app.channel.clone(), http::Uri::from_static("http://memory"));
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let answers = client.server_reflection_info(futures_util::stream::iter([request])).await?;
    Ok(answers.into_inner().message().await?.expect("no answer"))
}

#[tokio::test(start_paused = true)]
async fn reflection_tells_the_schema_where_it_is_on() {
    let app = App::start(Reflection::On, Readiness::new(), Caller::loopback()).await;
    let answer = reflected(&app, MessageRequest::ListServices(String::new())).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "tokenbroker.v1.TokenService"]);
    let symbol = "tokenbroker.v1.TokenService.GetToken".to_owned();
    let answer = reflected(&app, MessageRequest::FileContainingSymbol(symbol)).await.unwrap();
    assert!(matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn without_reflection_the_schema_stays_here() {
    let app = App::new().await;
    let status = reflected(&app, MessageRequest::ListServices(String::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn a_request_id_comes_back_on_answers_and_on_failures() {
    let app = App::new().await;
    for workspace in [WORKSPACE, "fleet/asia"] {
        let mut request = Request::new(asking(workspace));
        request.metadata_mut().insert("x-request-id", "call-1.of_Mine".parse().unwrap());
        let metadata = match app.client().get_token(request).await {
            Ok(answer) => answer.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        assert_eq!(metadata.get("x-request-id").unwrap(), "call-1.of_Mine", "{workspace}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_good_id_gets_one() {
    let app = App::new().await;
    let mut seen = Vec::new();
    for given in [None, Some(""), Some("two words"), Some("a\"b")] {
        let mut request = Request::new(asking(WORKSPACE));
        if let Some(given) = given {
            request.metadata_mut().insert("x-request-id", given.parse().unwrap());
        }
        let answer = app.client().get_token(request).await.unwrap();
        let id = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        assert!(!id.is_empty() && Some(id.as_str()) != given && !seen.contains(&id), "{id:?}");
        seen.push(id);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_method_and_code() {
    let app = App::new().await;
    app.get(asking(WORKSPACE)).await.unwrap();
    app.get(asking(WORKSPACE)).await.unwrap();
    app.get(asking("fleet/asia")).await.unwrap_err();
    app.get(asking("")).await.unwrap_err();
    reflected(&app, MessageRequest::ListServices(String::new())).await.unwrap_err();
    for (method, code, count) in [
        (GET_TOKEN, "OK", 2),
        (GET_TOKEN, "NOT_FOUND", 1),
        (GET_TOKEN, "INVALID_ARGUMENT", 1),
        (GET_TOKEN, "INTERNAL", 0),
        ("other", "UNIMPLEMENTED", 1),
    ] {
        app.assert_metric(&format!(r#"token_broker_rpc_calls_total{{method="{method}",code="{code}"}} {count}"#));
    }
    app.assert_metric(r#"token_broker_tokens_served_total{source="cache"} 1"#);
    app.assert_metric(r#"token_broker_tokens_served_total{source="exchanged"} 1"#);
    app.assert_metric("token_broker_rpc_in_flight 0");
}

#[tokio::test(start_paused = true)]
async fn no_token_is_logged_or_shown() {
    let captured = Capture::default();
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_span_events(FmtSpan::NEW).with_writer(captured.clone());
    // Whatever the broker itself says at TRACE. Libraries are silenced below INFO by its own filter.
    let ours = tracing_subscriber::filter::Targets::new().with_target("token_broker", tracing::Level::TRACE);
    let guard = captured_by(tracing_subscriber::registry().with(lines.with_filter(ours)));
    let app = App::new().await;
    let mut shown = Vec::new();
    let answer = app.client().get_token(asking(WORKSPACE)).await.unwrap();
    shown.push(format!("{answer:?} {answer:#?}"));
    shown.push(format!("{:?} {:?}", app.get(asking("")).await, app.get(asking("fleet/asia")).await));
    app.provider.answers(Err(Failure::Rejected));
    tokio::time::sleep(super::HOUR * 5).await;
    shown.push(format!("{:?}", app.get(asking(WORKSPACE)).await));
    shown.push(app.metrics.encode().unwrap());
    drop(guard);
    let logs = captured.text();
    assert!(logs.contains("token exchanged") && logs.contains("request"), "nothing was captured:\n{logs}");
    shown.push(logs);
    for text in shown {
        assert!(!text.contains(VALUE) && !text.contains(EXTRA), "{text}");
    }
}
