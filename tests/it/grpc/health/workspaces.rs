//! The health of single Workspaces.

use super::super::{App, HOUR, WORKSPACE, asking as token_of, told};
use super::{asking, check, client, is_quiet, next, watch};
use std::sync::Arc;
use std::time::Duration;
use token_broker::engine::{Call, Interest, Origin, Workspace};
use token_broker::provider::{Failure, Provider};
use token_broker::token::WorkspaceName;
use token_broker::upstream::{KeepWarm, UpstreamName};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, ServiceUnknown, Serving};

/// The Workspace of [`App`], as health calls it.
const HEALTH: &str = "workspace/fleet/europe";
const DAY: Duration = Duration::from_secs(86_400);
/// The longest that a stream takes to find out that nobody wants a Workspace any more.
const FINDS_OUT: Duration = Duration::from_secs(61);

fn name(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

/// One more Workspace of the same upstream.
pub(super) fn put(app: &App, workspace: &str, keep_warm: KeepWarm) {
    let provider = Arc::clone(&app.provider) as Arc<dyn Provider>;
    let upstream = UpstreamName::parse("fake").unwrap();
    app.engine.put(Workspace { name: name(workspace), upstream, keep_warm, provider }).unwrap();
}

/// The next status, however long it takes.
async fn at_last(stream: &mut Streaming<HealthCheckResponse>) -> super::ServingStatus {
    let message = timeout(DAY, stream.message()).await.expect("nothing is told");
    message.unwrap().expect("the stream ended").status()
}

/// Everything of a refusal but the request's own id and the date.
async fn refusal(app: &App, service: &str) -> (Code, String, Vec<u8>, Vec<String>) {
    let status: Status = client(app).check(asking(service)).await.unwrap_err();
    let mut keys: Vec<String> = status.metadata().keys().map(|key| format!("{key:?}")).collect();
    keys.sort();
    (status.code(), status.message().to_owned(), status.details().to_vec(), keys)
}

#[tokio::test(start_paused = true)]
async fn check_follows_the_state_of_the_workspace() {
    let app = App::new().await;
    assert_eq!(check(&app, HEALTH).await, Ok(Serving), "idle");
    let (first, warming) = tokio::join!(app.get(token_of(WORKSPACE)), async {
        sleep(Duration::from_secs(1)).await;
        check(&app, HEALTH).await
    });
    first.unwrap();
    assert_eq!(warming, Ok(Serving), "warming");
    assert_eq!(check(&app, HEALTH).await, Ok(Serving), "fresh");
    assert!(app.engine.freeze(&name(WORKSPACE)));
    assert_eq!(check(&app, HEALTH).await, Ok(NotServing), "frozen");
    assert!(app.engine.unfreeze(&name(WORKSPACE)));
    assert_eq!(check(&app, HEALTH).await, Ok(Serving), "idle again");
    app.provider.answers(Err(Failure::Rejected));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    assert_eq!(check(&app, HEALTH).await, Ok(NotServing), "rejected");
    assert!(app.engine.delete(&name(WORKSPACE)));
    assert_eq!(check(&app, HEALTH).await, Err(Code::NotFound), "deleted");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_with_a_token_in_hand_serves() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    app.get(token_of(WORKSPACE)).await.unwrap();
    app.provider.answers(Err(Failure::Rejected));
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(Serving));
    assert!(is_quiet(&mut stream, HOUR * 3 / 4).await);
    assert!(app.provider.calls() >= 2, "the renewal was refused");
    assert_eq!(check(&app, HEALTH).await, Ok(Serving));
}

#[tokio::test(start_paused = true)]
async fn neither_check_nor_watch_says_why_a_name_is_unknown() {
    let (known, strange) = (App::new().await, App::of_a_stranger().await);
    let unknown = refusal(&known, "workspace/fleet/asia").await;
    assert_eq!((unknown.0, unknown.1.as_str()), (Code::NotFound, "no such service"));
    let malformed = ["workspace/", "workspace/Fleet", "workspace//a", "workspace/a b", "Workspace/fleet/europe"];
    for service in malformed.into_iter().chain(["workspace/fleet/asia", "tokenbroker.v1.Other"]) {
        assert_eq!(refusal(&known, service).await, unknown, "{service:?}");
    }
    // There is such a Workspace, and this caller may not know; nor does it take a place from those who may.
    let all = (0..100).map(|n| name(&format!("w{n}"))).collect();
    let _places = strange.engine.watch(all, Interest::Status, Origin(1)).unwrap();
    for service in [HEALTH, "workspace/fleet/asia", "workspace/Fleet"] {
        assert_eq!(refusal(&strange, service).await, unknown, "{service:?}");
        let mut stream = watch(&strange, service).await;
        assert_eq!(next(&mut stream).await, Some(ServiceUnknown), "{service:?}");
        strange.engine.freeze(&name(WORKSPACE));
        assert!(is_quiet(&mut stream, Duration::from_secs(60)).await, "{service:?}");
    }
    // What is for anyone still is.
    assert_eq!(check(&strange, "").await, Ok(Serving));
}

#[tokio::test(start_paused = true)]
async fn watch_tells_the_status_at_once_and_each_change_once() {
    let app = App::new().await;
    let mut stream = watch(&app, HEALTH).await;
    let begun = Instant::now();
    assert_eq!(next(&mut stream).await, Some(Serving));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    app.get(token_of(WORKSPACE)).await.unwrap();
    assert!(is_quiet(&mut stream, HOUR).await, "a token came, and it serves as before");
    app.engine.freeze(&name(WORKSPACE));
    assert_eq!(next(&mut stream).await, Some(NotServing));
    app.engine.unfreeze(&name(WORKSPACE));
    assert_eq!(next(&mut stream).await, Some(Serving));
    app.provider.answers(Err(Failure::Unavailable));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    assert_eq!(next(&mut stream).await, Some(NotServing));
    app.provider.answers(Ok(HOUR));
    assert_eq!(next(&mut stream).await, Some(Serving), "it is wanted, and tried again");
}

#[tokio::test(start_paused = true)]
async fn a_workspace_may_come_to_be_and_go_again_while_it_is_watched() {
    let app = App::new().await;
    let mut stream = watch(&app, "workspace/later").await;
    assert_eq!(next(&mut stream).await, Some(ServiceUnknown));
    assert!(is_quiet(&mut stream, HOUR).await);
    put(&app, "later", KeepWarm::WhileUsed);
    assert_eq!(next(&mut stream).await, Some(Serving));
    app.engine.delete(&name("later"));
    assert_eq!(next(&mut stream).await, Some(ServiceUnknown));
    put(&app, "later", KeepWarm::WhileUsed);
    assert_eq!(next(&mut stream).await, Some(Serving));
}

#[tokio::test(start_paused = true)]
async fn expiry_is_told_at_that_moment() {
    let app = App::new().await;
    let begun = Instant::now();
    app.provider.answers(Ok(HOUR));
    app.get(token_of(WORKSPACE)).await.unwrap();
    app.provider.answers(Err(Failure::Unavailable));
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(Serving));
    assert_eq!(at_last(&mut stream).await, NotServing);
    // The margin of five seconds, and timers of whole milliseconds.
    let end = Duration::from_secs(3_595);
    let late = begun.elapsed().checked_sub(end).expect("told too early");
    assert!(late <= Duration::from_millis(2), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_well_again() {
    let app = App::new().await;
    app.provider.answers(Err(Failure::Rejected));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    put(&app, "always", KeepWarm::Always);
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(NotServing));
    let begun = Instant::now();
    assert_eq!(at_last(&mut stream).await, Serving, "whoever waits for that would never ask, nor find out");
    // Ten minutes without a call, the exchange of two seconds among them.
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(597) && took <= Duration::from_secs(600) + FINDS_OUT, "{took:?}");
    assert_eq!(check(&app, HEALTH).await, Ok(Serving));
    assert_eq!(check(&app, "workspace/always").await, Ok(NotServing));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_two_callers_report_is_unhealthy_until_it_is_replaced() {
    let app = App::new().await;
    app.get(token_of(WORKSPACE)).await.unwrap();
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(Serving));
    // Past the least time between exchanges.
    sleep(Duration::from_secs(11)).await;
    let workspace = name(WORKSPACE);
    let call = |origin| Call { deadline: Instant::now() + Duration::from_secs(10), origin: Origin(origin) };
    let served = app.engine.get(&workspace, Duration::ZERO, call(1)).await.unwrap();
    let rejected = served.token.fingerprint;
    app.provider.hangs();
    let first = app.engine.report(&workspace, rejected, call(1));
    let second = app.engine.report(&workspace, rejected, call(2));
    let watching = async {
        assert_eq!(next(&mut stream).await, Some(NotServing));
        assert_eq!(check(&app, HEALTH).await, Ok(NotServing));
        assert_eq!(app.get(token_of(WORKSPACE)).await.unwrap().source, 1, "it is served all the same");
        app.provider.goes_on();
        assert_eq!(next(&mut stream).await, Some(Serving));
    };
    let (first, second, ()) = tokio::join!(first, second, watching);
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test(start_paused = true)]
async fn what_passes_unseen_is_not_told() {
    let app = App::new().await;
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(Serving));
    for _ in 0..5 {
        app.engine.freeze(&name(WORKSPACE));
        app.engine.unfreeze(&name(WORKSPACE));
    }
    assert!(is_quiet(&mut stream, HOUR).await);
}

#[tokio::test(start_paused = true)]
async fn watching_health_uses_nothing() {
    let app = App::new().await;
    put(&app, "unused", KeepWarm::WhileUsed);
    let mut used = watch(&app, HEALTH).await;
    let mut unused = watch(&app, "workspace/unused").await;
    app.get(token_of(WORKSPACE)).await.unwrap();
    assert_eq!(next(&mut used).await, Some(Serving));
    assert_eq!(next(&mut unused).await, Some(Serving));
    for _ in 0..48 {
        assert!(is_quiet(&mut used, HOUR).await);
        assert_eq!(check(&app, "workspace/unused").await, Ok(Serving));
        assert_eq!(check(&app, HEALTH).await, Ok(Serving));
    }
    // The token lives four hours: renewed while the one call was recent, and then let go.
    assert!(app.provider.calls() <= 3, "{}", app.provider.calls());
}

/// As after a new secret that is wrong: nobody misses the token until somebody comes.
#[tokio::test(start_paused = true)]
async fn watch_tells_that_a_workspace_is_wanted_again() {
    let app = App::new().await;
    let mut stream = watch(&app, HEALTH).await;
    assert_eq!(next(&mut stream).await, Some(Serving));
    app.provider.answers(Err(Failure::Rejected));
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    assert_eq!(next(&mut stream).await, Some(NotServing));
    assert_eq!(at_last(&mut stream).await, Serving);
    let calls = app.provider.calls();
    app.get(token_of(WORKSPACE)).await.unwrap_err();
    assert_eq!(next(&mut stream).await, Some(NotServing));
    assert_eq!(app.provider.calls(), calls, "no flight told it");
}

#[tokio::test(start_paused = true)]
async fn readiness_and_the_drain_come_before_the_workspace() {
    let app = App::new().await;
    let mut known = watch(&app, HEALTH).await;
    let mut unknown = watch(&app, "workspace/fleet/asia").await;
    assert_eq!(next(&mut known).await, Some(Serving));
    assert_eq!(next(&mut unknown).await, Some(ServiceUnknown));
    let latch = app.readiness.latch("another");
    assert_eq!(next(&mut known).await, Some(NotServing));
    assert_eq!(check(&app, HEALTH).await, Ok(NotServing));
    drop(latch);
    assert_eq!(next(&mut known).await, Some(Serving));
    // Without readiness: the stream itself must tell it.
    let streams = async {
        assert_eq!(next(&mut known).await, Some(NotServing));
        assert_eq!(next(&mut known).await, None);
        assert_eq!(next(&mut unknown).await, None);
    };
    tokio::join!(app.supervisor.shutdown(Duration::from_secs(5)), streams);
}

#[tokio::test(start_paused = true)]
async fn streams_of_workspaces_count_among_the_watches() {
    let app = App::new().await;
    let many = (0..999).map(|n| name(&format!("w{n}"))).collect();
    let watches = app.engine.watch(many, Interest::Status, Origin(1)).unwrap();
    let mut last = watch(&app, HEALTH).await;
    assert_eq!(next(&mut last).await, Some(Serving));
    let refused = client(&app).watch(asking(HEALTH)).await.unwrap_err();
    assert_eq!(told(&refused), (Code::ResourceExhausted, "CALLER_THROTTLED".to_owned()));
    assert_eq!(next(&mut watch(&app, "").await).await, Some(Serving), "services do not");
    drop(watches);
    assert_eq!(next(&mut watch(&app, HEALTH).await).await, Some(Serving));
}
