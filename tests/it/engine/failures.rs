//! Promises 10 and 11: what failures mean for the next exchange, and for those who ask meanwhile.

use super::fake::Outcome;
use super::world::{HOUR, MINUTE, World, budget, fullest, least_gap, limits, ms, name, pass, secs};
use std::sync::Arc;
use std::time::Duration;
use token_broker::engine::Limits;
use token_broker::engine::plan::State;
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::time::Instant;

const TRANSIENT: [Failure; 3] = [Failure::Unreachable, Failure::Unavailable, Failure::Malformed];
const REJECTIONS: [Failure; 3] = [Failure::Rejected, Failure::LockedOut, Failure::TenantMismatch];

#[tokio::test(start_paused = true)]
async fn promise_10_a_rejected_credential_is_tried_at_most_once_in_five_minutes() {
    for failure in REJECTIONS {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Fails(failure));
        let answers = world.ask_for("a", 10 * MINUTE, ms(500)).await;
        assert!(answers.iter().all(Result::is_err));
        assert!((2..=3).contains(&upstream.count()), "{failure:?}: {}", upstream.count());
        assert!(least_gap(&upstream.times()) >= secs(300), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_10_callers_are_told_what_only_an_operator_can_mend() {
    let rows = [
        (Failure::Rejected, Reason::CredentialRejected, false),
        (Failure::TenantMismatch, Reason::TenantMismatch, false),
        (Failure::LockedOut, Reason::UpstreamThrottled, true),
    ];
    for (failure, expected, retry) in rows {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Fails(failure));
        for _ in 0..2 {
            let error = world.get("a").await.unwrap_err();
            assert_eq!((error.reason, error.retry_after.is_some()), (expected, retry), "{failure:?}");
        }
        assert_eq!(world.state("a"), State::Rejected);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_10_the_breaker_is_for_that_credential_only() {
    let (world, upstream, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::Rejected));
    for n in 0..20 {
        world.workspace(&upstream, &format!("other/{n}"));
    }
    assert!(world.get("a").await.is_err());
    for n in 0..20 {
        assert!(world.get(&format!("other/{n}")).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn promise_10_a_valid_token_is_served_while_its_credential_is_rejected() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).answers(Outcome::Fails(Failure::Rejected));
    let token = world.fingerprint("a").await;
    pass(34 * MINUTE).await;
    for served in world.ask_for("a", 25 * MINUTE, secs(10)).await {
        assert_eq!(served.unwrap().token.fingerprint, token);
    }
    assert_eq!(world.state("a"), State::Rejected, "the operator is told");
    assert!(least_gap(&provider.times()) >= secs(300));
}

#[tokio::test(start_paused = true)]
async fn promise_10_a_changed_secret_resets_the_breaker_at_once() {
    let (world, upstream, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::Rejected));
    assert!(world.get("a").await.is_err());
    let fresh = upstream.provider("fresh");
    assert!(world.engine.rekey(&name("a"), Arc::new(fresh.clone())));
    assert!(world.get("a").await.is_ok());
    assert_eq!((provider.count(), fresh.count(), world.state("a")), (1, 1, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn promise_11_a_failure_is_remembered_and_answered_at_once() {
    for failure in TRANSIENT {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Fails(failure));
        assert!(world.get("a").await.is_err());
        for _ in 0..100 {
            let asked = Instant::now();
            assert!(world.get("a").await.is_err());
            assert_eq!(asked.elapsed(), Duration::ZERO, "{failure:?}");
        }
        assert_eq!(upstream.count(), 1, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_11_what_may_pass_comes_with_a_time_to_retry() {
    for failure in [Failure::Unreachable, Failure::Unavailable] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Fails(failure));
        for answer in world.ask_for("a", MINUTE, ms(700)).await {
            let error = answer.unwrap_err();
            assert_eq!(error.reason, Reason::UpstreamUnavailable);
            assert!(error.retry_after.is_some_and(|after| after <= ms(1_500)), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn promise_11_while_callers_wait_there_is_a_probe_every_second_and_a_half() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(ms(1));
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    world.ask_for("a", 5 * MINUTE, ms(50)).await;
    assert!(least_gap(&upstream.times()) >= ms(1_500), "{:?}", least_gap(&upstream.times()));
    assert!(upstream.count() >= 180, "and not much less often: {}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn promise_11_there_is_one_probe_per_upstream_however_many_workspaces_are_asked_for() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    upstream.takes(ms(800));
    for n in 0..50 {
        world.workspace(&upstream, &format!("w{n}"));
        assert!(world.get_within(&format!("w{n}"), ms(1)).await.is_err());
    }
    pass(secs(2)).await;
    let before = upstream.count();
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        for n in 0..50 {
            assert!(world.get_within(&format!("w{n}"), ms(1)).await.is_err());
        }
        pass(ms(50)).await;
    }
    let probes = upstream.times().split_off(before);
    assert!(fullest(&probes, secs(15)) <= 11, "{} in 15 s", fullest(&probes, secs(15)));
    assert!(least_gap(&probes) >= ms(1_400), "{:?}", least_gap(&probes));
    assert!(probes.len() > 30, "{}", probes.len());
}

#[tokio::test(start_paused = true)]
async fn promise_11_the_first_success_is_within_two_seconds_of_recovery() {
    for outage in [secs(7), secs(100), 20 * MINUTE] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Fails(Failure::Unreachable));
        world.ask_for("a", outage, ms(100)).await;
        upstream.answers(Outcome::Token(HOUR));
        let answers = world.ask_for("a", secs(2), ms(100)).await;
        assert!(answers.iter().any(Result::is_ok), "after an outage of {outage:?}");
    }
}

/// The timeout is 10 s: an attempt that the silence swallowed must not hold up the one that finds the upstream back.
#[tokio::test(start_paused = true)]
async fn promise_11_a_silent_upstream_that_recovers_is_seen_within_seconds() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(MINUTE));
    assert!(world.get("a").await.is_ok());
    upstream.answers(Outcome::Hangs);
    let answers = world.ask_for("a", 5 * MINUTE, ms(100)).await;
    assert!(answers.last().is_some_and(Result::is_err));
    // One attempt in ten waits its full time, so that the recovery may be seen that much later.
    upstream.answers(Outcome::Token(HOUR));
    let recovered = Instant::now();
    while world.get("a").await.is_err() {
        pass(ms(100)).await;
    }
    assert!(recovered.elapsed() <= secs(2), "{:?}", recovered.elapsed());
}

#[tokio::test(start_paused = true)]
async fn promise_11_everybody_who_was_asked_for_is_back_soon_after_recovery() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    let names: Vec<_> = (0..40).map(|n| format!("w{n}")).collect();
    for workspace in &names {
        world.workspace(&upstream, workspace);
    }
    for _ in 0..600 {
        for workspace in &names {
            assert!(world.get_within(workspace, ms(1)).await.is_err());
        }
        pass(ms(60)).await;
    }
    upstream.answers(Outcome::Token(HOUR));
    // Who was being tried at that moment is asked for once more.
    pass(ms(60)).await;
    for workspace in &names {
        drop(world.get_within(workspace, ms(1)).await);
    }
    pass(secs(3)).await;
    for workspace in &names {
        assert!(world.get_within(workspace, ms(1)).await.is_ok(), "{workspace}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_11_the_back_off_grows_and_is_spread() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    let providers = ["a", "b"].map(|name| world.put(&upstream, name, KeepWarm::Always));
    pass(10 * MINUTE).await;
    for provider in &providers {
        assert!((8..=25).contains(&provider.count()), "{}", provider.count());
        let times = provider.times();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest > secs(40) && longest <= secs(62), "{longest:?}");
    }
    assert_ne!(providers[0].times(), providers[1].times(), "not in step");
}

/// A wrong secret looks like that at an API that says so with a success, and may be locked for being tried again.
#[tokio::test(start_paused = true)]
async fn promise_11_an_answer_that_is_not_understood_is_asked_for_ever_more_rarely() {
    let (world, upstream, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::Malformed));
    world.workspace(&upstream, "b");
    let answers = world.ask_for("a", 20 * MINUTE, ms(500)).await;
    assert!(answers.iter().all(Result::is_err));
    let times = provider.times();
    assert!((20..=32).contains(&times.len()), "{}", times.len());
    assert!(least_gap(&times[6..]) >= secs(48), "{:?}", least_gap(&times[6..]));
    assert!(world.get("b").await.is_ok(), "and nobody else pays for it");
}

#[tokio::test(start_paused = true)]
async fn promise_11_an_outage_long_over_is_not_held_against_the_first_to_ask() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    for workspace in ["a", "b", "c", "d"] {
        world.workspace(&upstream, workspace);
        assert!(world.get(workspace).await.is_err());
    }
    world.workspace(&upstream, "e");
    assert!(world.get("e").await.is_err());
    pass(HOUR).await;
    upstream.answers(Outcome::Token(HOUR));
    pass(5 * HOUR).await;
    world.workspace(&upstream, "new");
    assert!(world.get("new").await.is_ok());
    assert!(world.get("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn promise_11_attempts_without_an_answer_cost_no_budget() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { budget: budget(8, HOUR), ..limits() });
    let provider = world.workspace(&upstream, "a");
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    world.ask_for("a", 2 * MINUTE, ms(200)).await;
    assert!(provider.count() > 40, "{}", provider.count());
    upstream.answers(Outcome::Token(HOUR));
    assert!(world.ask_for("a", secs(2), ms(200)).await.iter().any(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn promise_11_attempts_with_an_answer_do_cost_budget() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { budget: budget(8, HOUR), ..limits() });
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    world.workspace(&upstream, "a");
    world.ask_for("a", 50 * MINUTE, ms(500)).await;
    assert!(upstream.count() <= 8, "{}", upstream.count());
}
