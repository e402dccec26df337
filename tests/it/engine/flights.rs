//! Promises 1, 2, 3 and 12: one flight at a time, owned by the engine, apart per upstream, and bounded.

use super::fake::Outcome;
use super::world::{HOUR, World, count, limits, ms, name, pass, reason, secs, settings, until};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use token_broker::engine::{Limits, PutError, Source, Workspace};
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::{KeepWarm, UpstreamName};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn promise_01_at_most_one_flight_per_workspace_and_all_waiters_share_its_token() {
    let (world, upstream, _) = World::of_one();
    let answers = world.crowd("a", 10_000, secs(10)).join_all().await;
    let tokens: HashSet<_> = answers.iter().map(|answer| answer.as_ref().unwrap().token.fingerprint).collect();
    assert_eq!((upstream.count(), answers.len(), tokens.len()), (1, 10_000, 1));
    assert!(answers.iter().flatten().all(|served| served.source == Source::Exchanged));
    assert_eq!(world.get("a").await.unwrap().source, Source::Cache);
}

#[tokio::test(start_paused = true)]
async fn promise_01_all_waiters_share_its_error() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Fails(Failure::Rejected));
    let answers = world.crowd("a", 1_000, secs(10)).join_all().await;
    assert!(answers.iter().all(|answer| reason(answer) == Some(Reason::CredentialRejected)));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn promise_01_a_failing_upstream_gets_four_exchanges_in_five_seconds_however_many_ask() {
    let (world, upstream, provider) = World::of_one();
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    for _ in 0..200 {
        let asked = Instant::now();
        let answers = world.crowd("a", 50, ms(300)).join_all().await;
        assert!(answers.iter().all(Result::is_err));
        assert!(asked.elapsed() <= ms(301), "past the deadline: {:?}", asked.elapsed());
        pass(ms(100)).await;
    }
    let fullest = super::world::fullest(&upstream.times(), secs(5));
    assert!((2..=4).contains(&fullest), "{fullest} exchanges in five seconds");
    assert_eq!(provider.most_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn promise_01_renewals_reports_and_callers_together_make_one_flight_at_a_time() {
    let (world, upstream, provider) = World::of_one();
    upstream.answers(Outcome::Token(secs(60)));
    upstream.takes(secs(5));
    for _ in 0..40 {
        let mut crowd = world.crowd("a", 20, secs(10));
        if let Some(Ok(served)) = crowd.join_next().await.map(Result::unwrap) {
            let (engine, rejected) = (world.engine.clone(), served.token.fingerprint);
            crowd.spawn(async move { engine.report(&name("a"), rejected, until(Instant::now() + secs(10))).await });
        }
        crowd.join_all().await;
        pass(secs(7)).await;
    }
    assert_eq!(provider.most_in_flight(), 1);
    assert!(upstream.count() > 5);
}

#[tokio::test(start_paused = true)]
async fn promise_02_callers_with_short_deadlines_change_nothing_and_those_after_them_succeed() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(ms(200));
    let answers = world.crowd("a", 100, ms(50)).join_all().await;
    assert!(answers.iter().all(|answer| reason(answer) == Some(Reason::Deadline)));
    pass(ms(100)).await;
    let answers = world.crowd("a", 100, ms(100)).join_all().await;
    assert!(answers.iter().all(Result::is_ok), "the flight that the first callers began serves the later ones");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn promise_02_a_caller_that_goes_away_changes_nothing() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(ms(200));
    let mut crowd = world.crowd("a", 10, secs(10));
    pass(ms(100)).await;
    assert_eq!(world.waiters("a"), 10);
    crowd.shutdown().await;
    assert_eq!(world.waiters("a"), 0, "a caller that is gone takes no place");
    assert_eq!(upstream.in_flight(), 1);
    pass(ms(101)).await;
    assert_eq!(world.get("a").await.unwrap().source, Source::Cache);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn promise_02_a_caller_waits_at_most_its_own_deadline() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Hangs);
    for patience in [ms(1), ms(70), secs(3)] {
        let asked = Instant::now();
        let answer = world.get_within("a", patience).await;
        assert!(answer.is_err());
        assert!(asked.elapsed() <= patience + ms(1), "{:?} of {patience:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn promise_02_a_flight_ends_at_its_own_limit() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Hangs);
    let answer = world.get_within("a", secs(30)).await;
    assert_eq!(reason(&answer), Some(Reason::UpstreamUnavailable));
    assert_eq!(upstream.times()[0].elapsed(), limits().timeout);
    assert_eq!(upstream.in_flight(), 0, "the request is dropped");
}

#[tokio::test(start_paused = true)]
async fn promise_03_a_dead_upstream_delays_no_other() {
    let world = World::new();
    let dead = world.upstream("dead", Limits { max_concurrent: count(4), ..limits() });
    let alive = world.upstream("alive", limits());
    dead.answers(Outcome::Hangs);
    let mut lost = tokio::task::JoinSet::new();
    for n in 0..50 {
        world.workspace(&dead, &format!("dead/{n}"));
        world.workspace(&alive, &format!("alive/{n}"));
        lost.spawn({
            let engine = world.engine.clone();
            async move { engine.get(&name(&format!("dead/{n}")), Duration::ZERO, until(Instant::now() + secs(5))).await }
        });
    }
    pass(ms(100)).await;
    assert_eq!(dead.in_flight(), 4);
    for n in 0..50 {
        let asked = Instant::now();
        assert!(world.get(&format!("alive/{n}")).await.is_ok());
        assert_eq!(asked.elapsed(), ms(50), "the healthy upstream's own latency and nothing more");
    }
    assert!(lost.join_all().await.iter().all(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn promise_03_concurrency_is_capped_per_upstream_and_each_has_its_own_cap() {
    let world = World::new();
    let (one, other) = (
        world.upstream("one", Limits { max_concurrent: count(5), ..limits() }),
        world.upstream("other", Limits { max_concurrent: count(3), ..limits() }),
    );
    let mut everybody = tokio::task::JoinSet::new();
    for n in 0..40 {
        for upstream in [&one, &other] {
            let workspace = format!("{}/{n}", upstream.name);
            world.workspace(upstream, &workspace);
            let engine = world.engine.clone();
            everybody.spawn(async move {
                engine.get(&name(&workspace), Duration::ZERO, until(Instant::now() + secs(9))).await
            });
        }
    }
    assert!(everybody.join_all().await.iter().all(Result::is_ok));
    assert_eq!((one.most_in_flight(), other.most_in_flight()), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn promise_12_no_more_callers_wait_than_the_limit() {
    let world = World::with(token_broker::engine::Settings { max_waiters: 100, ..settings() });
    let upstream = world.upstream("one", limits());
    world.workspace(&upstream, "a");
    upstream.takes(secs(1));
    let answers = world.crowd("a", 250, secs(10)).join_all().await;
    let turned_away: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!((answers.len() - turned_away.len(), turned_away.len()), (100, 150));
    assert!(turned_away.iter().all(|e| e.reason == Reason::CallerThrottled && e.retry_after.is_some()));
    assert_eq!(world.waiters("a"), 0, "every place is given back");
    assert!(world.crowd("a", 250, secs(10)).join_all().await.iter().all(Result::is_ok), "a hit needs no place");
}

#[tokio::test(start_paused = true)]
async fn promise_12_no_more_workspaces_than_the_limit() {
    let world = World::with(token_broker::engine::Settings { max_workspaces: 2, ..settings() });
    let upstream = world.upstream("one", limits());
    world.workspace(&upstream, "a");
    world.workspace(&upstream, "b");
    let new = |workspace: &str, at: &str| Workspace {
        name: name(workspace),
        upstream: UpstreamName::parse(at).unwrap(),
        keep_warm: KeepWarm::WhileUsed,
        provider: Arc::new(upstream.provider(workspace)),
    };
    assert_eq!(world.engine.put(new("c", "one")), Err(PutError::Full(2)));
    assert_eq!(world.engine.put(new("a", "one")), Err(PutError::Exists(name("a"))));
    assert!(world.engine.delete(&name("b")));
    let nowhere = UpstreamName::parse("nowhere").unwrap();
    assert_eq!(world.engine.put(new("c", "nowhere")), Err(PutError::UnknownUpstream(nowhere)));
    assert_eq!(world.engine.put(new("c", "one")), Ok(()));
    assert_eq!(world.engine.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn promise_12_unknown_names_cost_no_memory_and_no_exchange() {
    let (world, upstream, _) = World::of_one();
    let fingerprint = world.fingerprint("a").await;
    for n in 0..1_000 {
        let unknown = format!("unknown/{n}");
        assert_eq!(reason(&world.get(&unknown).await), Some(Reason::WorkspaceUnknown));
        assert_eq!(reason(&world.report(&unknown, fingerprint).await), Some(Reason::WorkspaceUnknown));
        assert!(world.engine.snapshot(&name(&unknown)).is_none());
        assert!(!world.engine.freeze(&name(&unknown)));
        assert!(!world.engine.unfreeze(&name(&unknown)));
        assert!(!world.engine.delete(&name(&unknown)));
        assert!(!world.engine.rekey(&name(&unknown), Arc::new(upstream.provider(&unknown))));
    }
    assert_eq!((world.engine.len(), upstream.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn promise_12_flights_are_bounded_for_background_work_too() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { max_concurrent: count(10), ..limits() });
    upstream.takes(secs(1));
    for n in 0..30 {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    world.workspace(&upstream, "late");
    pass(ms(100)).await;
    assert_eq!(upstream.in_flight(), 8, "background work leaves a fifth of the slots to waiters");
    let asked = Instant::now();
    assert!(world.get("late").await.is_ok());
    assert_eq!(asked.elapsed(), secs(1), "a waiter gets one of them at once");
    pass(HOUR / 60).await;
    assert_eq!(upstream.most_in_flight(), 9);
    assert_eq!(upstream.count(), 31);
}
