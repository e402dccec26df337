//! Streams that stay open while what their callers are judged by changes.

use super::{App, Channel, HOUR, HUNG, USUAL_AGE, USUAL_WINDOW, WORKSPACE, asking, connect, told};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use token_broker::broker::Broker;
use token_broker::grpc::pb::WatchTokensRequest;
use token_broker::grpc::pb::WatchTokensResponse;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::watch_tokens_response::State;
use token_broker::grpc::{self, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::identity::{Authenticated, Caller, Evidence};
use token_broker::limits::{Limits, Metrics as LimitMetrics, Pace, PerAction, Settings};
use token_broker::listener::Peer;
use token_broker::policy::{Action, CallerPattern, Grant, Policy, WorkspacePattern};
use token_broker::revision::Revisions;
use token_broker::telemetry::metrics::Metrics;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use tokio::time::{Instant, timeout};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

const SECOND: Duration = Duration::from_secs(1);

/// These Workspaces to these callers.
fn policy_for(caller: &str, workspaces: &[&str]) -> Policy {
    let workspaces = workspaces.iter().map(|pattern| WorkspacePattern::parse(pattern).unwrap()).collect();
    let caller = CallerPattern::parse(caller).unwrap();
    Policy::new(vec![Grant { caller, workspaces, actions: Action::ALL.into_iter().collect() }])
}

/// What can be taken away.
#[derive(Debug, Default)]
struct Proof {
    revoked: AtomicBool,
    ends: Option<SystemTime>,
}

impl Evidence for Proof {
    fn holds(&self, _now: SystemTime) -> bool {
        !self.revoked.load(Ordering::SeqCst)
    }

    fn ends(&self) -> Option<SystemTime> {
        self.ends
    }
}

/// A broker whose callers are told apart, over the engine of an [`App`].
struct World {
    app: App,
    routes: axum::Router,
    broker: Broker,
    revisions: Revisions,
    limits: Limits,
}

impl World {
    async fn new() -> Self {
        Self::limited(&Settings::default()).await
    }

    async fn limited(settings: &Settings) -> Self {
        Self::of(settings, grpc::Means::Channel).await
    }

    async fn of(settings: &Settings, means: grpc::Means) -> Self {
        let app = App::new().await;
        app.provider.answers(Ok(HOUR));
        let (revisions, metrics) = (Revisions::default(), Metrics::new(&app.clock));
        let limits = Limits::new(settings, metrics.register(LimitMetrics::register));
        let broker = Broker::new(app.engine.clone(), policy_for("**", &["**"]), revisions.clone());
        let broker = broker.limited_by(limits.clone());
        let routes = grpc::routes(
            Parts {
                broker: broker.clone(),
                clock: app.clock.clone(),
                readiness: app.readiness.clone(),
                overall: app.engine.judge(Rule { max_unhealthy: 1.0 }),
                supervisor: app.supervisor.clone(),
                metrics: metrics.register(|registry| RpcMetrics::register(registry, &grpc::METHODS)),
                request_ids: RequestIds::new(1),
                reflection: Reflection::Off,
            },
            means,
        );
        Self { app, routes, broker, revisions, limits }
    }

    /// A connection of a caller who shows this.
    async fn channel(&self, caller: &Caller, proof: &Arc<Proof>) -> Channel {
        let evidence = Arc::clone(proof) as Arc<dyn Evidence>;
        let identity = Some(Authenticated { caller: caller.clone(), evidence });
        let peer = Peer { identity, ..self.app.peer.clone() };
        connect(&self.routes, peer, &self.app.supervisor, (USUAL_WINDOW, USUAL_AGE)).await
    }

    async fn client(&self, caller: &Caller, proof: &Arc<Proof>) -> TokenServiceClient<Channel> {
        let channel = self.channel(caller, proof).await;
        TokenServiceClient::with_origin(channel, http::Uri::from_static("http://memory"))
    }

    async fn watch(&self, caller: &Caller, proof: &Arc<Proof>) -> Streaming<WatchTokensResponse> {
        self.watch_all(caller, proof, vec![WORKSPACE.to_owned()]).await
    }

    async fn watch_all(
        &self,
        caller: &Caller,
        proof: &Arc<Proof>,
        workspaces: Vec<String>,
    ) -> Streaming<WatchTokensResponse> {
        let request = WatchTokensRequest { workspaces };
        self.client(caller, proof).await.watch_tokens(request).await.unwrap().into_inner()
    }

    async fn health(&self, caller: &Caller, proof: &Arc<Proof>, service: &str) -> Streaming<HealthCheckResponse> {
        let channel = self.channel(caller, proof).await;
        let mut client = HealthClient::with_origin(channel, http::Uri::from_static("http://memory"));
        client.watch(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner()
    }
}

fn caller() -> Caller {
    Caller::loopback()
}

/// What is told next: that there is a token, or the reason why there is none.
async fn state(stream: &mut Streaming<WatchTokensResponse>) -> Result<(), String> {
    let message = timeout(HUNG, stream.message()).await.expect("nothing came");
    match message.unwrap().expect("the stream ended").state.unwrap() {
        State::Token(_) => Ok(()),
        State::Withdrawn(withdrawn) => Err(withdrawn.reason),
    }
}

/// Up to the first token.
async fn token(stream: &mut Streaming<WatchTokensResponse>) {
    while state(stream).await.is_err() {}
}

/// Up to this status.
async fn status(stream: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    while timeout(HUNG, stream.message()).await.expect("nothing came").unwrap().unwrap().status() != wanted {}
}

/// How a stream ends, told nothing before that.
async fn end<T: std::fmt::Debug>(stream: &mut Streaming<T>) -> (Code, String) {
    let message = timeout(2 * HOUR, stream.message()).await.expect("it goes on");
    told(&message.expect_err("something was told"))
}

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned())
}

#[tokio::test(start_paused = true)]
async fn who_is_not_believed_any_more_is_told_so_at_once() {
    let world = World::new().await;
    let (proof, other) = (Arc::new(Proof::default()), Arc::new(Proof::default()));
    let mut stream = world.watch(&caller(), &proof).await;
    let mut of_workspace = world.health(&caller(), &proof, &format!("workspace/{WORKSPACE}")).await;
    let mut of_process = world.health(&caller(), &proof, "").await;
    let mut of_other = world.watch(&caller(), &other).await;
    token(&mut stream).await;
    token(&mut of_other).await;
    for health in [&mut of_workspace, &mut of_process] {
        assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    }
    let begun = Instant::now();
    proof.revoked.store(true, Ordering::SeqCst);
    world.revisions.moved();
    assert_eq!(end(&mut stream).await, unauthenticated());
    assert_eq!(end(&mut of_workspace).await, unauthenticated());
    assert_eq!(end(&mut of_process).await, unauthenticated());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(timeout(SECOND, of_other.message()).await.is_err(), "others go on");
    drop((stream, of_workspace, of_process, of_other));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_to_who_is_not_believed_any_more_though_nobody_said_that_it_changed() {
    let world = World::new().await;
    let proof = Arc::new(Proof::default());
    let mut stream = world.watch(&caller(), &proof).await;
    token(&mut stream).await;
    proof.revoked.store(true, Ordering::SeqCst);
    // The token is renewed within the hour.
    assert_eq!(end(&mut stream).await, unauthenticated());
    assert!(world.app.provider.calls() >= 2, "it was about to be told");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_gets_no_token_once_its_caller_is_not_believed_any_more() {
    let world = World::new().await;
    let (gone, stays) = (Arc::new(Proof::default()), Arc::new(Proof::default()));
    let mut of_gone = world.client(&caller(), &gone).await;
    let mut of_other = world.client(&caller(), &stays).await;
    world.app.provider.hangs();
    let change = async {
        tokio::time::sleep(SECOND).await;
        gone.revoked.store(true, Ordering::SeqCst);
        world.app.provider.goes_on();
    };
    let (refused, answered, ()) =
        tokio::join!(of_gone.get_token(asking(WORKSPACE)), of_other.get_token(asking(WORKSPACE)), change);
    assert_eq!(told(&refused.unwrap_err()), unauthenticated());
    assert!(answered.is_ok());
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_evidence() {
    let world = World::new().await;
    let ends = world.app.clock.now().wall + Duration::from_millis(90_500);
    let proof = Arc::new(Proof { ends: Some(ends), ..Proof::default() });
    let mut stream = world.watch(&caller(), &proof).await;
    let mut health = world.health(&caller(), &proof, "").await;
    token(&mut stream).await;
    assert!(health.message().await.unwrap().is_some());
    assert_eq!(end(&mut stream).await, unauthenticated());
    assert_eq!(end(&mut health).await, unauthenticated());
    let late = world.app.clock.now().wall.duration_since(ends).unwrap();
    assert!(late < Duration::from_millis(10), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_set_back_does_not_end_a_stream_too_early() {
    let world = World::new().await;
    let ends = world.app.clock.now().wall + Duration::from_secs(60);
    let proof = Arc::new(Proof { ends: Some(ends), ..Proof::default() });
    let mut stream = world.watch(&caller(), &proof).await;
    token(&mut stream).await;
    world.app.clock.step_wall_ms(-30_000);
    let begun = Instant::now();
    assert_eq!(end(&mut stream).await, unauthenticated());
    assert!(begun.elapsed() > Duration::from_secs(80), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_over_its_rate_is_told_when_to_come_again_and_that_is_true() {
    let pace = Pace { per_second: 2, burst: 3 };
    let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
    let world = World::limited(&Settings { rates, ..Settings::default() }).await;
    let proof = Arc::new(Proof::default());
    let mut client = world.client(&caller(), &proof).await;
    for _ in 0..3 {
        client.get_token(asking(WORKSPACE)).await.unwrap();
    }
    for _ in 0..5 {
        while let Ok(_token) = client.get_token(asking(WORKSPACE)).await {}
        let status = client.get_token(asking(WORKSPACE)).await.unwrap_err();
        assert_eq!(told(&status), (Code::ResourceExhausted, "CALLER_THROTTLED".to_owned()));
        let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(wait <= Duration::from_millis(500) && wait.subsec_nanos() % 1_000_000 == 0, "{wait:?}");
        tokio::time::advance(wait).await;
        client.get_token(asking(WORKSPACE)).await.unwrap();
    }
    let calls = world.app.provider.calls();
    let unknown = client.get_token(asking("no/such")).await.unwrap_err();
    assert_eq!(told(&unknown).1, "CALLER_THROTTLED", "whether it exists is not asked");
    assert_eq!(world.app.provider.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn open_streams_hold_places_and_give_them_back() {
    let settings = Settings { max_in_flight_per_caller: 3, ..Settings::default() };
    let world = World::limited(&settings).await;
    let proof = Arc::new(Proof::default());
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(world.watch(&caller(), &proof).await);
    }
    let mut health = world.health(&caller(), &proof, "").await;
    assert!(health.message().await.unwrap().is_some());
    let mut client = world.client(&caller(), &proof).await;
    let status = client.get_token(asking(WORKSPACE)).await.unwrap_err();
    assert_eq!(told(&status), (Code::ResourceExhausted, "CALLER_THROTTLED".to_owned()));
    assert_eq!(world.limits.in_flight(), 3);
    drop((open, health));
    let gone = async {
        while world.limits.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HUNG, gone).await.expect("the places did not come back");
    client.get_token(asking(WORKSPACE)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_called_off_gives_its_place_back() {
    let world = World::new().await;
    let mut client = world.client(&caller(), &Arc::new(Proof::default())).await;
    let call = client.get_token(asking(WORKSPACE));
    assert!(timeout(Duration::from_millis(1), call).await.is_err(), "it waits for the upstream");
    assert_eq!(world.limits.in_flight(), 1);
    let gone = async {
        while world.limits.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HUNG, gone).await.expect("the place did not come back");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_believed_any_more_when_the_token_is_there_does_not_get_it() {
    let soon = Duration::from_millis(1);
    for revoked in [true, false] {
        let world = World::new().await;
        let ends = (!revoked).then(|| world.app.clock.now().wall + soon);
        let proof = Arc::new(Proof { ends, ..Proof::default() });
        let mut client = world.client(&caller(), &proof).await;
        let meanwhile = async {
            tokio::time::sleep(soon).await;
            assert_eq!(world.app.provider.calls(), 1, "it waits for the upstream");
            proof.revoked.store(revoked, Ordering::SeqCst);
        };
        let (answer, ()) = tokio::join!(client.get_token(asking(WORKSPACE)), meanwhile);
        assert_eq!(told(&answer.unwrap_err()), unauthenticated());
    }
}

/// A policy that leaves this caller only these Workspaces.
fn put_in_force(world: &World, workspaces: &[&str]) {
    world.broker.put_in_force(&Arc::new(policy_for("unix:7", workspaces)));
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_lost_is_told_once_and_its_return_brings_the_token_again() {
    let world = World::new().await;
    let (caller, proof) = (Caller::unix(7), Arc::new(Proof::default()));
    let mut stream = world.watch(&caller, &proof).await;
    let mut health = world.health(&caller, &proof, &format!("workspace/{WORKSPACE}")).await;
    assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    token(&mut stream).await;
    for _ in 0..3 {
        let begun = Instant::now();
        put_in_force(&world, &["other/**"]);
        assert_eq!(state(&mut stream).await, Err("CALLER_FORBIDDEN".to_owned()));
        status(&mut health, ServingStatus::ServiceUnknown).await;
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());

        // Renewals, an operator's deeds, and policies that change nothing for it.
        put_in_force(&world, &["another/**"]);
        let before = world.app.provider.calls();
        assert!(timeout(5 * HOUR, stream.message()).await.is_err(), "something was told");
        assert!(timeout(SECOND, health.message()).await.is_err(), "something was told of its health");
        let renewals = world.app.provider.calls() - before;
        assert!(renewals <= 3, "it is not kept warm for who may not have it: {renewals} in five hours");

        let begun = Instant::now();
        put_in_force(&world, &[WORKSPACE]);
        // None is in hand after five hours.
        assert_eq!(state(&mut stream).await, Err("TOKEN_PENDING".to_owned()));
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        token(&mut stream).await;
        status(&mut health, ServingStatus::Serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_that_returns_soon_brings_the_very_token_that_was_told_before() {
    let world = World::new().await;
    let (caller, proof) = (Caller::unix(7), Arc::new(Proof::default()));
    let mut stream = world.watch(&caller, &proof).await;
    token(&mut stream).await;
    put_in_force(&world, &["other/**"]);
    assert_eq!(state(&mut stream).await, Err("CALLER_FORBIDDEN".to_owned()));
    let begun = Instant::now();
    put_in_force(&world, &[WORKSPACE]);
    assert_eq!(state(&mut stream).await, Ok(()));
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(world.app.provider.calls(), 1, "from memory");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_lost_is_withdrawn() {
    let world = World::new().await;
    let (caller, proof) = (Caller::unix(7), Arc::new(Proof::default()));
    let mut stream = world.watch_all(&caller, &proof, vec![WORKSPACE.to_owned(), "fleet/asia".to_owned()]).await;
    let mut told_of = Vec::new();
    while told_of.len() < 3 {
        told_of.push(timeout(HUNG, stream.message()).await.unwrap().unwrap().unwrap().workspace);
    }
    put_in_force(&world, &[WORKSPACE]);
    let lost = timeout(SECOND, stream.message()).await.unwrap().unwrap().unwrap();
    let Some(State::Withdrawn(withdrawn)) = lost.state else { panic!("{lost:?}") };
    assert_eq!((lost.workspace.as_str(), withdrawn.reason.as_str()), ("fleet/asia", "CALLER_FORBIDDEN"));
    let next = timeout(HOUR, stream.message()).await.unwrap().unwrap().unwrap();
    assert!(matches!(next.state, Some(State::Token(_))) && next.workspace == WORKSPACE, "its renewal goes on");
}

#[tokio::test(start_paused = true)]
async fn no_token_leaves_between_the_loss_of_a_right_and_the_look_at_it() {
    let world = World::new().await;
    let (caller, proof) = (Caller::unix(7), Arc::new(Proof::default()));
    // Streams look at different moments after a change: all of them.
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(world.watch(&caller, &proof).await);
    }
    for stream in &mut streams {
        token(stream).await;
    }
    put_in_force(&world, &["other/**"]);
    let name = token_broker::token::WorkspaceName::parse(WORKSPACE).unwrap();
    // A change that every watcher is told of at once.
    world.app.engine.freeze(&name);
    let begun = Instant::now();
    for stream in &mut streams {
        assert_eq!(state(stream).await, Err("CALLER_FORBIDDEN".to_owned()), "not that it is frozen");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn many_workspaces_on_many_streams_are_judged_within_a_second() {
    let world = World::new().await;
    let (caller, proof) = (Caller::unix(7), Arc::new(Proof::default()));
    let names: Vec<String> = (0..100).map(|n| format!("w/{n}")).collect();
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = world.watch_all(&caller, &proof, names.clone()).await;
        for _ in &names {
            assert_eq!(state(&mut stream).await, Err("WORKSPACE_UNKNOWN".to_owned()));
        }
        streams.push(stream);
    }
    let begun = Instant::now();
    put_in_force(&world, &["other/**"]);
    for stream in &mut streams {
        for _ in &names {
            assert_eq!(state(stream).await, Err("CALLER_FORBIDDEN".to_owned()));
        }
    }
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

/// One caller asks as fast as it can; nineteen others ask a hundred times a second each and never hear of it.
#[tokio::test(start_paused = true)]
async fn a_flood_of_one_caller_refuses_no_other() {
    let pace = Pace { per_second: 500, burst: 200 };
    let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
    let world = World::limited(&Settings { rates, ..Settings::default() }).await;
    let proof = Arc::new(Proof::default());
    let flooding = world.client(&Caller::unix(0), &proof).await;
    let mut others = Vec::new();
    for number in 1..20 {
        others.push(world.client(&Caller::unix(number), &proof).await);
    }
    others[0].get_token(asking(WORKSPACE)).await.unwrap();
    let (mut served, mut refused, begun) = (0_u32, 0_u32, Instant::now());
    for _tick in 0..30 {
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let mut flooding = flooding.clone();
            flood.spawn(async move {
                let mut counts = [0_u32, 0];
                for _ in 0..10 {
                    counts[usize::from(flooding.get_token(asking(WORKSPACE)).await.is_err())] += 1;
                }
                counts
            });
        }
        for other in &mut others {
            other.get_token(asking(WORKSPACE)).await.unwrap();
        }
        while let Some(counts) = flood.join_next().await {
            let [good, bad] = counts.unwrap();
            served += good;
            refused += bad;
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    // The burst, and what came due meanwhile: some of the time the flood was not read.
    let due = 200 + u32::try_from(begun.elapsed().as_millis() / 2).unwrap();
    assert!(served <= due + 1 && refused >= 200 && served + refused == 3_000, "{served} {refused} {due}");
}

/// Its calls are refused as fast as it sends them, up to the burst of refusals; then as its connection is read.
#[tokio::test(start_paused = true)]
async fn who_goes_on_although_it_is_refused_is_slowed_and_no_other_is() {
    let pace = Pace { per_second: 1, burst: 1 };
    let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
    let world = World::limited(&Settings { rates, ..Settings::default() }).await;
    let proof = Arc::new(Proof::default());
    let mut flooding = world.client(&Caller::unix(0), &proof).await;
    while flooding.get_token(asking(WORKSPACE)).await.is_ok() {}
    let begun = Instant::now();
    for number in 0..300 {
        let refused = flooding.get_token(asking(WORKSPACE)).await;
        assert!(refused.is_err() || begun.elapsed() > SECOND / 2, "{number}");
    }
    let took = begun.elapsed();
    assert!(took > SECOND * 9 / 10 && took < SECOND * 11 / 10, "{took:?}");
    let mut same = world.client(&Caller::unix(0), &proof).await;
    let mut other = world.client(&Caller::unix(1), &proof).await;
    let begun = Instant::now();
    other.get_token(asking(WORKSPACE)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Another connection of the same caller has not been refused anything yet.
    drop(same.get_token(asking(WORKSPACE)).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// The others behind the same proxy would have to wait where their neighbour's refusals made the connection pause.
#[tokio::test(start_paused = true)]
async fn a_connection_that_carries_many_callers_is_never_paused() {
    let pace = Pace { per_second: 1, burst: 1 };
    let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
    let proxies = vec![CallerPattern::parse("unix:7").unwrap()];
    let means = grpc::Means::ForwardedCertificate { proxies, trust_domains: Vec::new() };
    let world = World::of(&Settings { rates, ..Settings::default() }, means).await;
    let mut proxy = world.client(&Caller::unix(7), &Arc::new(Proof::default())).await;
    let asking_as = |name: &str| {
        let mut request = tonic::Request::new(asking(WORKSPACE));
        let header = format!("URI=spiffe://prod.example/{name}").parse().unwrap();
        request.metadata_mut().insert("x-forwarded-client-cert", header);
        request
    };
    while proxy.get_token(asking_as("flood")).await.is_ok() {}
    let begun = Instant::now();
    for _ in 0..500 {
        let refused = proxy.get_token(asking_as("flood")).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
    proxy.get_token(asking_as("neighbour")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
