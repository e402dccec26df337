//! Promises 4, 5, 7 and 14: what is served, and what never.

use super::fake::Outcome;
use super::world::{Answer, DAY, HOUR, MINUTE, World, limits, ms, name, pass, reason, secs, until};
use std::time::Duration;
use token_broker::engine::Source;
use token_broker::engine::plan::State;
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn promise_04_an_outage_of_the_whole_renewal_window_fails_nobody_while_the_token_is_valid() {
    for trouble in [
        Outcome::Fails(Failure::Unreachable),
        Outcome::Fails(Failure::Unavailable),
        Outcome::Fails(Failure::Throttled { retry_after: None }),
        Outcome::Hangs,
    ] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Token(10 * MINUTE));
        world.get("a").await.unwrap();
        upstream.answers(trouble);
        for answer in world.ask_for("a", secs(594), ms(500)).await {
            assert_eq!(answer.unwrap().source, Source::Cache, "{trouble:?}");
        }
        assert!(upstream.count() > 4, "it was tried: {trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_04_after_the_token_callers_are_told_at_once_and_back_within_two_seconds_of_recovery() {
    for failure in [Failure::Unreachable, Failure::Unavailable] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Token(10 * MINUTE));
        world.get("a").await.unwrap();
        upstream.answers(Outcome::Fails(failure));
        pass(secs(595)).await;
        for answer in world.ask_for("a", 2 * MINUTE, ms(100)).await {
            let error = answer.unwrap_err();
            assert_eq!(error.reason, Reason::UpstreamUnavailable);
            assert!(error.retry_after.is_some_and(|after| after <= ms(1_500)));
        }
        let asked = Instant::now();
        assert!(world.get("a").await.is_err());
        assert!(asked.elapsed() <= ms(50), "{:?}", asked.elapsed());
        assert_eq!(world.state("a"), State::Expired);
        upstream.answers(Outcome::Token(HOUR));
        assert!(world.ask_for("a", secs(2), ms(100)).await.iter().any(Result::is_ok));
    }
}

#[tokio::test(start_paused = true)]
async fn promise_04_a_bad_answer_never_replaces_a_good_token() {
    for bad in [
        Outcome::Fails(Failure::Malformed),
        Outcome::Fails(Failure::TenantMismatch),
        Outcome::Fails(Failure::Rejected),
        Outcome::Token(Duration::ZERO),
        Outcome::Token(ms(40)),
        Outcome::Panics,
        Outcome::PanicsAtOnce,
    ] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Token(HOUR));
        let good = world.fingerprint("a").await;
        upstream.answers(bad);
        pass(40 * MINUTE).await;
        assert!(upstream.count() >= 2, "{bad:?}");
        assert_eq!(world.fingerprint("a").await, good, "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_04_a_token_is_served_to_those_whose_min_validity_it_meets() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    pass(40 * MINUTE).await;
    assert!(world.get_valid("a", 19 * MINUTE).await.is_ok());
    assert_eq!(reason(&world.get_valid("a", 21 * MINUTE).await), Some(Reason::UpstreamUnavailable));
    assert!(world.get_valid("a", 19 * MINUTE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn promise_05_an_expired_token_is_never_returned() {
    for (lifetime, margin) in [(secs(60), secs(5)), (secs(20), secs(2)), (secs(3), ms(300))] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Token(lifetime));
        let served = world.get("a").await.unwrap();
        let end = served.held.validity.deadline();
        upstream.answers(Outcome::Fails(Failure::Unreachable));
        let mut last = Duration::MAX;
        while let Ok(served) = world.get("a").await {
            last = end - Instant::now();
            assert!(last > margin && served.is_servable(world.clock.now()), "{lifetime:?}: {last:?} left");
            pass(ms(10)).await;
        }
        assert!(last <= margin + ms(10), "served until the margin: {lifetime:?}: {last:?}");
        assert!(!served.is_servable(world.clock.now()), "whoever hands it on later is told that it is over");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_05_a_token_that_expired_on_its_way_is_never_returned() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(secs(8));
    upstream.answers(Outcome::Token(secs(8)));
    assert!(world.get("a").await.is_err());
    pass(ms(1)).await;
    assert!(world.engine.snapshot(&name("a")).unwrap().expires_at.is_none());
}

#[tokio::test(start_paused = true)]
async fn promise_05_steps_of_the_wall_clock_serve_no_expired_token_and_cause_no_storm() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Token(50 * MINUTE));
    let providers: Vec<_> = (0..20).map(|n| world.put(&upstream, &format!("w{n}"), KeepWarm::Always)).collect();
    pass(MINUTE).await;
    for step_ms in [3_600_000, -3_600_000, -3_600_000, 3_600_000, 10_000, -10_000, 7_200_000, -7_200_000] {
        let before: Vec<_> = providers.iter().map(super::fake::FakeProvider::count).collect();
        world.clock.step_wall_ms(step_ms);
        for _ in 0..100 {
            for n in 0..20 {
                let served = world.get(&format!("w{n}")).await.unwrap();
                let now = world.clock.now();
                assert!(served.is_servable(now));
                assert!(served.held.validity.expires_at() > now.wall && served.held.validity.deadline() > now.mono);
            }
            pass(ms(100)).await;
        }
        for (provider, before) in providers.iter().zip(before) {
            assert!(provider.count() - before <= 2, "{} logins by a step of {step_ms} ms", provider.count() - before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn promise_07_the_lifetime_comes_from_the_answer() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    for (workspace, lifetime) in [("short", 4 * HOUR), ("long", 7 * DAY), ("odd", secs(181))] {
        world.workspace(&upstream, workspace).answers(Outcome::Token(lifetime));
        let began = world.clock.now();
        let served = world.get(workspace).await.unwrap();
        assert_eq!(served.held.validity.lifetime, lifetime);
        assert_eq!(served.held.validity.expires_at(), began.wall + lifetime, "{workspace}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_07_the_lifetime_is_counted_from_before_the_request() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(secs(7));
    upstream.answers(Outcome::Token(MINUTE));
    let began = world.clock.now();
    let served = world.get("a").await.unwrap();
    assert_eq!(served.held.validity.deadline(), began.mono + MINUTE);
    assert_eq!(served.held.validity.remaining(world.clock.now()), secs(53));
}

#[tokio::test(start_paused = true)]
async fn promise_07_the_stricter_of_the_two_clocks_wins() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let first = world.fingerprint("a").await;
    world.clock.step_wall_ms(3_600_000);
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    assert_eq!(reason(&world.get("a").await), Some(Reason::UpstreamUnavailable), "over by the wall clock");
    world.clock.step_wall_ms(-7_200_000);
    assert_eq!(world.fingerprint("a").await, first, "valid by both again");
    pass(HOUR).await;
    assert!(world.get("a").await.is_err(), "over by the monotonic clock, whatever the wall clock says");
}

#[tokio::test(start_paused = true)]
async fn promise_07_a_step_of_the_wall_clock_is_seen_without_anybody_asking() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let provider = world.put(&upstream, "a", KeepWarm::Always);
    pass(secs(5)).await;
    world.clock.step_wall_ms(5 * 3_600_000);
    pass(secs(2)).await;
    assert_eq!((provider.count(), world.state("a")), (2, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn promise_14_a_token_of_another_tenant_is_refused_and_raised() {
    let (world, _, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::TenantMismatch));
    let answers: Vec<Answer> = world.crowd("a", 20, secs(5)).join_all().await;
    assert!(answers.iter().all(|answer| reason(answer) == Some(Reason::TenantMismatch)));
    assert_eq!((world.state("a"), provider.count()), (State::Rejected, 1));
}

#[tokio::test(start_paused = true)]
async fn promise_14_everybody_gets_the_token_of_the_workspace_they_asked_for() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..50 {
        let workspace = format!("w{n}");
        world.workspace(&upstream, &workspace);
        for _ in 0..20 {
            let (engine, workspace) = (world.engine.clone(), name(&workspace));
            crowd.spawn(async move {
                let answer = engine.get(&workspace, Duration::ZERO, until(Instant::now() + secs(9))).await;
                (workspace, answer)
            });
        }
    }
    for (asked, answer) in crowd.join_all().await {
        let token = answer.unwrap().token;
        assert_eq!(token.workspace, asked);
        assert!(token.value.expose().starts_with(&format!("{asked}-")));
    }
}
