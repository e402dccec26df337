//! The service that hands out tokens, by the rule over all Workspaces.

use super::super::{App, HOUR, WORKSPACE, asking as token_of};
use super::workspaces::put;
use super::{check, is_quiet, next, watch};
use std::time::Duration;
use token_broker::grpc::Reflection;
use token_broker::health::Rule;
use token_broker::identity::Caller;
use token_broker::provider::Failure;
use token_broker::readiness::Readiness;
use token_broker::token::WorkspaceName;
use token_broker::upstream::KeepWarm;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};

const TOKENS: &str = "tokenbroker.v1.TokenService";

async fn judged(max_unhealthy: f64) -> App {
    let rule = Rule { max_unhealthy };
    App::judged(rule, Reflection::Off, Readiness::new(), Caller::loopback()).await
}

#[tokio::test(start_paused = true)]
async fn too_many_unhealthy_workspaces_are_told_by_the_service_and_by_nothing_else() {
    let app = judged(0.5).await;
    put(&app, "well", KeepWarm::WhileUsed);
    put(&app, "idle", KeepWarm::WhileUsed);
    let mut tokens = watch(&app, TOKENS).await;
    let mut process = watch(&app, "").await;
    assert_eq!(next(&mut tokens).await, Some(Serving));
    assert_eq!(next(&mut process).await, Some(Serving));
    app.get(token_of("well")).await.unwrap();
    app.provider.answers(Err(Failure::Unavailable));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    assert!(is_quiet(&mut tokens, Duration::from_secs(30)).await, "one of two");
    put(&app, "ill", KeepWarm::WhileUsed);
    app.get(token_of("ill")).await.unwrap_err();
    assert_eq!(next(&mut tokens).await, Some(NotServing), "two of three");
    assert_eq!(check(&app, TOKENS).await, Ok(NotServing));
    for service in ["", "grpc.health.v1.Health", "workspace/well", "workspace/idle"] {
        assert_eq!(check(&app, service).await, Ok(Serving), "{service:?}");
    }
    assert!(is_quiet(&mut process, Duration::from_secs(30)).await, "an outage takes no replica away");
    app.provider.answers(Ok(HOUR));
    assert_eq!(next(&mut tokens).await, Some(Serving), "they are wanted, and tried again");
    assert_eq!(check(&app, TOKENS).await, Ok(Serving));
}

/// Or it would stay so for ever: who is sent no calls is asked for no tokens, and so tries none.
#[tokio::test(start_paused = true)]
async fn workspaces_that_nobody_wants_any_more_are_left_out() {
    let app = judged(0.0).await;
    app.provider.answers(Err(Failure::Rejected));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    let mut tokens = watch(&app, TOKENS).await;
    let first = next(&mut tokens).await;
    if first == Some(Serving) {
        assert_eq!(next(&mut tokens).await, Some(NotServing));
    }
    assert!(is_quiet(&mut tokens, Duration::from_secs(590)).await, "ten minutes without a call");
    assert_eq!(next(&mut tokens).await, Some(Serving));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_workspace_is_left_out() {
    let app = judged(0.0).await;
    app.get(token_of(WORKSPACE)).await.unwrap();
    let mut tokens = watch(&app, TOKENS).await;
    assert_eq!(next(&mut tokens).await, Some(Serving));
    app.engine.freeze(&WorkspaceName::parse(WORKSPACE).unwrap());
    assert_eq!(check(&app, "workspace/fleet/europe").await, Ok(NotServing));
    assert!(is_quiet(&mut tokens, HOUR).await);
}

#[tokio::test(start_paused = true)]
async fn without_a_rule_the_service_follows_readiness_alone() {
    let app = App::new().await;
    app.provider.answers(Err(Failure::Unavailable));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    let mut tokens = watch(&app, TOKENS).await;
    assert_eq!(next(&mut tokens).await, Some(Serving));
    assert!(is_quiet(&mut tokens, Duration::from_secs(60)).await);
    let latch = app.readiness.latch("another");
    assert_eq!(next(&mut tokens).await, Some(NotServing));
    drop(latch);
    assert_eq!(next(&mut tokens).await, Some(Serving));
}
