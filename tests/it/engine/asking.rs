//! What callers may ask beyond "a token": more validity, and another token than the one the upstream rejects.

use super::fake::Outcome;
use super::world::{Answer, HOUR, MINUTE, World, limits, ms, name, pass, reason, secs, until};
use token_broker::engine::Source;
use token_broker::engine::plan::State;
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::token::Fingerprint;
use tokio::task::JoinSet;
use tokio::time::Instant;

async fn all_report(world: &World, size: usize, rejected: Fingerprint) -> Vec<Answer> {
    let mut crowd = JoinSet::new();
    for _ in 0..size {
        let engine = world.engine.clone();
        crowd.spawn(async move { engine.report(&name("a"), rejected, until(Instant::now() + secs(9))).await });
    }
    crowd.join_all().await
}

#[tokio::test(start_paused = true)]
async fn min_validity_that_the_token_does_not_meet_starts_one_exchange_for_all() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let first = world.fingerprint("a").await;
    pass(20 * MINUTE).await;
    assert_eq!(world.get_valid("a", 39 * MINUTE).await.unwrap().token.fingerprint, first);
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let engine = world.engine.clone();
        crowd.spawn(async move { engine.get(&name("a"), 50 * MINUTE, until(Instant::now() + secs(9))).await });
    }
    for answer in crowd.join_all().await {
        let served = answer.unwrap();
        assert!(served.token.fingerprint != first && served.source == Source::Exchanged);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn min_validity_starts_at_most_one_exchange_per_gap() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    for _ in 0..100 {
        let answer = world.get_valid("a", 59 * MINUTE + ms(59_950)).await;
        if let Err(error) = answer {
            assert_eq!(error.reason, Reason::RenewalTooSoon);
            assert!(error.retry_after.is_some_and(|after| after > ms(0) && after <= secs(10)), "{error:?}");
        }
        pass(ms(300)).await;
    }
    assert!(super::world::least_gap(&upstream.times()) >= secs(10));
    assert!(upstream.count() >= 3, "after the gap it is tried again: {}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn the_gap_is_a_tenth_of_a_short_life() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(secs(50)));
    world.get("a").await.unwrap();
    pass(secs(6)).await;
    assert!(world.get_valid("a", secs(48)).await.is_ok());
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn min_validity_above_what_the_upstream_gives_is_refused_without_an_exchange() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    assert_eq!(reason(&world.get_valid("a", 2 * HOUR).await), Some(Reason::LifetimeUnsatisfiable), "learned by trying");
    assert_eq!(upstream.count(), 1);
    pass(20 * MINUTE).await;
    let error = world.get_valid("a", HOUR + ms(1)).await.unwrap_err();
    assert_eq!((error.reason, error.retry_after), (Reason::LifetimeUnsatisfiable, None));
    assert_eq!(upstream.count(), 1);
    assert!(world.get("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_report_of_another_token_gets_the_current_one_at_once() {
    let (world, upstream, _) = World::of_one();
    let old = world.fingerprint("a").await;
    pass(secs(11)).await;
    let current = world.report("a", old).await.unwrap().token.fingerprint;
    assert_ne!(current, old);
    let asked = Instant::now();
    for answer in all_report(&world, 100, old).await {
        let served = answer.unwrap();
        assert_eq!((served.token.fingerprint, served.source), (current, Source::Cache));
    }
    assert_eq!((upstream.count(), asked.elapsed()), (2, secs(0)));
}

#[tokio::test(start_paused = true)]
async fn all_reporters_share_one_flight() {
    let (world, upstream, _) = World::of_one();
    let old = world.fingerprint("a").await;
    pass(secs(11)).await;
    let answers = all_report(&world, 500, old).await;
    let new = world.fingerprint("a").await;
    assert_ne!(new, old);
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|served| served.token.fingerprint == new)));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_report_never_withdraws_a_token() {
    let (world, upstream, _) = World::of_one();
    let old = world.fingerprint("a").await;
    pass(secs(11)).await;
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    assert_eq!(reason(&world.report("a", old).await), Some(Reason::UpstreamUnavailable));
    assert_eq!((world.fingerprint("a").await, world.state("a")), (old, State::Fresh));
    upstream.answers(Outcome::Hangs);
    pass(secs(5)).await;
    let engine = world.engine.clone();
    let mut reporter = JoinSet::new();
    reporter.spawn(async move { engine.report(&name("a"), old, until(Instant::now() + secs(9))).await });
    pass(ms(100)).await;
    let asked = Instant::now();
    assert_eq!((world.fingerprint("a").await, asked.elapsed()), (old, secs(0)));
}

#[tokio::test(start_paused = true)]
async fn reports_of_one_workspace_are_bounded_and_ever_more() {
    let (world, upstream, _) = World::of_one();
    let mut current = world.fingerprint("a").await;
    let began = Instant::now();
    while began.elapsed() < 20 * MINUTE {
        match world.report("a", current).await {
            Ok(served) => current = served.token.fingerprint,
            Err(error) => {
                assert_eq!(error.reason, Reason::ReportThrottled);
                assert!(error.retry_after.is_some_and(|after| after <= secs(320)), "{error:?}");
            }
        }
        pass(ms(500)).await;
    }
    assert!(super::world::least_gap(&upstream.times()) >= secs(10));
    assert!((5..=9).contains(&upstream.count()), "{}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_by_plan_forgives_earlier_reports() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let mut current = world.fingerprint("a").await;
    for _ in 0..4 {
        pass(secs(161)).await;
        current = world.report("a", current).await.unwrap().token.fingerprint;
    }
    pass(secs(11)).await;
    assert_eq!(reason(&world.report("a", current).await), Some(Reason::ReportThrottled));
    pass(35 * MINUTE).await;
    let renewed = world.fingerprint("a").await;
    assert_ne!(renewed, current);
    pass(secs(11)).await;
    assert!(world.report("a", renewed).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_still_rejected() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).answers(Outcome::Same(HOUR));
    let token = world.fingerprint("a").await;
    pass(secs(11)).await;
    for answer in all_report(&world, 20, token).await {
        let error = answer.unwrap_err();
        assert_eq!(error.reason, Reason::TokenStillRejected);
        assert!(error.retry_after.is_some());
    }
    assert_eq!((provider.count(), world.fingerprint("a").await), (2, token));
}

#[tokio::test(start_paused = true)]
async fn a_report_without_a_token_in_hand_is_a_call_for_one() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(MINUTE));
    let old = world.fingerprint("a").await;
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    pass(MINUTE).await;
    upstream.answers(Outcome::Token(HOUR));
    pass(MINUTE + secs(5)).await;
    assert_ne!(world.report("a", old).await.unwrap().token.fingerprint, old);
    assert!(world.engine.freeze(&name("a")));
    assert_eq!(reason(&world.report("a", old).await), Some(Reason::WorkspaceFrozen));
}

#[tokio::test(start_paused = true)]
async fn a_report_is_charged_to_the_upstreams_budget() {
    let world = World::new();
    let tight = token_broker::engine::Limits { budget: super::world::budget(4, HOUR), ..limits() };
    let upstream = world.upstream("one", tight);
    world.workspace(&upstream, "a");
    let token = world.fingerprint("a").await;
    pass(secs(11)).await;
    assert_eq!(reason(&world.report("a", token).await), Some(Reason::UpstreamThrottled));
    assert_eq!((upstream.count(), world.fingerprint("a").await), (1, token));
}
