//! Promises 6 and 8: when a token is renewed, and when no longer.

use super::fake::Outcome;
use super::world::{DAY, HOUR, MINUTE, World, budget, fullest, leap, least_gap, limits, ms, pass, secs};
use std::collections::HashSet;
use std::time::Duration;
use token_broker::engine::plan::{Answer, Arrived, Chance, Plan, Rules, State, Tick, Urgency};
use token_broker::engine::{Limits, Source};
use token_broker::provider::Failure;
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;
use token_broker::upstream::KeepWarm;

#[tokio::test(start_paused = true)]
async fn promise_06_renewal_starts_at_half_the_life_give_or_take_a_tenth() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Token(HOUR));
    let providers: Vec<_> = (0..60).map(|n| world.put(&upstream, &format!("w{n}"), KeepWarm::Always)).collect();
    pass(34 * MINUTE).await;
    let after: Vec<_> = providers.iter().map(|provider| provider.times()[1] - provider.times()[0]).collect();
    let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
    assert!(*first >= 27 * MINUTE && *last <= 33 * MINUTE + secs(2), "{first:?} {last:?}");
    assert!(*last > *first + 4 * MINUTE, "spread over the whole range: {first:?} {last:?}");
    assert!(after.iter().collect::<HashSet<_>>().len() > 50, "never together");
}

#[tokio::test(start_paused = true)]
async fn promise_06_a_renewal_ahead_of_expiry_keeps_nobody_waiting() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    upstream.takes(secs(5));
    world.get("a").await.unwrap();
    for answer in world.ask_for("a", 3 * HOUR, secs(1)).await {
        assert_eq!(answer.unwrap().source, Source::Cache);
    }
    assert!((5..=8).contains(&upstream.count()), "{}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn promise_06_near_the_end_a_renewal_counts_like_a_waiting_caller() {
    let clock = token_broker::clock::Clock::simulated();
    let rules = Rules { serve_margin: secs(5), min_gap: secs(10), keep_warm: KeepWarm::Always };
    for (age, expected) in [(51, Urgency::Background), (79, Urgency::Background), (81, Urgency::Waiting)] {
        let mut plan = Plan::new(rules);
        assert_eq!(plan.ask(clock.now(), Duration::ZERO), Answer::Wait);
        let ticket = plan.start(clock.now()).unwrap();
        let arrived = Arrived { fingerprint: Fingerprint::of(&AccessToken::new("t")), lifetime: secs(100) };
        plan.landed(clock.now(), ticket, Ok(arrived), Chance { renew_fraction: 0.5, random: 0.5 });
        pass(secs(age)).await;
        assert_eq!(plan.ask(clock.now(), Duration::ZERO), Answer::ServeAndRenew(expected), "{age}");
        if expected == Urgency::Background {
            assert_eq!(plan.ask(clock.now(), Duration::ZERO), Answer::Serve, "once");
            pass(secs(81 - age)).await;
        }
        // While it stands in the queue, with readers and without.
        let moved_forward = Answer::ServeAndRenew(Urgency::Waiting);
        assert_eq!(plan.ask(clock.now(), Duration::ZERO), moved_forward, "{age}");
        assert_eq!(plan.tick(clock.now(), Duration::MAX), Tick::Renew(Urgency::Waiting), "{age}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_06_it_fits_lifetimes_from_three_minutes_to_two_years() {
    for lifetime in [3 * MINUTE, 10 * MINUTE, HOUR, 4 * HOUR, DAY, 7 * DAY, 365 * DAY, 730 * DAY] {
        let world = World::new();
        let upstream = world.upstream("one", limits());
        upstream.answers(Outcome::Token(lifetime));
        world.put(&upstream, "a", KeepWarm::Always);
        pass(secs(1)).await;
        for round in 1..=3 {
            assert_eq!(upstream.count(), round, "{lifetime:?}");
            leap(lifetime.mul_f64(0.44)).await;
            assert_eq!(upstream.count(), round, "too early: {lifetime:?}");
            leap(lifetime.mul_f64(0.12)).await;
            pass(secs(1)).await;
            assert_eq!(world.get("a").await.unwrap().source, Source::Cache);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn promise_06_the_same_token_again_causes_no_loop() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).answers(Outcome::Same(HOUR));
    let answers = world.ask_for("a", 59 * MINUTE, secs(1)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!((3..=12).contains(&provider.count()), "{}", provider.count());
    assert!(least_gap(&provider.times()) >= secs(10), "{:?}", least_gap(&provider.times()));
    let ends: HashSet<_> = answers.iter().flatten().map(|served| served.held.validity.deadline()).collect();
    assert_eq!(ends.len(), 1, "the same token ends when it always did");
}

#[tokio::test(start_paused = true)]
async fn promise_06_the_same_token_for_hours_costs_few_exchanges() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let provider = world.put(&upstream, "a", KeepWarm::Always);
    provider.then(Outcome::Token(12 * HOUR)).answers(Outcome::Same(12 * HOUR));
    pass(719 * MINUTE).await;
    assert!((5..=15).contains(&provider.count()), "{}", provider.count());
    provider.answers(Outcome::Token(12 * HOUR));
    pass(MINUTE).await;
    assert_eq!(world.get("a").await.unwrap().source, Source::Cache, "the next one came without anybody waiting");
}

#[tokio::test(start_paused = true)]
async fn promise_06_an_upstream_that_gives_a_new_token_only_late_is_asked_late_the_next_time() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).then(Outcome::Same(HOUR)).answers(Outcome::Token(HOUR));
    world.ask_for("a", 100 * MINUTE, secs(10)).await;
    let times = provider.times();
    assert!(times[3] - times[2] > 42 * MINUTE, "{:?}", times[3] - times[2]);
}

#[tokio::test(start_paused = true)]
async fn promise_06_an_upstream_that_refuses_early_renewal_is_asked_later() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).then(Outcome::Fails(Failure::Rejected)).answers(Outcome::Token(HOUR));
    let answers = world.ask_for("a", 3 * HOUR, secs(10)).await;
    assert!(answers.iter().all(Result::is_ok));
    let times = provider.times();
    assert!(times[2] - times[1] >= secs(300));
    assert!(times[3] - times[2] > 42 * MINUTE, "{:?}", times[3] - times[2]);
}

#[tokio::test(start_paused = true)]
async fn promise_06_the_planner_moves_renewals_later_when_the_budget_is_short() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { budget: budget(100, secs(300)), ..limits() });
    upstream.answers(Outcome::Token(20 * MINUTE));
    for n in 0..160 {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    pass(2 * HOUR).await;
    let before = upstream.count();
    pass(HOUR).await;
    let logins = upstream.count() - before;
    assert!((530..=610).contains(&logins), "{logins} where 960 at half the life would be, and 565 at 0.85");
    for n in 0..160 {
        assert!(matches!(world.state(&format!("w{n}")), State::Fresh | State::Stale), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn promise_08_what_nobody_ever_asked_for_is_not_fetched() {
    let (world, upstream, _) = World::of_one();
    pass(2 * HOUR).await;
    assert_eq!((upstream.count(), world.state("a")), (0, State::Idle));
}

#[tokio::test(start_paused = true)]
async fn promise_08_an_unread_workspace_is_let_go_after_a_lifetime_and_comes_back_when_asked() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    pass(58 * MINUTE).await;
    assert_eq!(upstream.count(), 2, "still wanted for a lifetime after the last read");
    pass(8 * HOUR).await;
    assert!(upstream.count() <= 4, "{}", upstream.count());
    assert_eq!(world.state("a"), State::Idle);
    let before = upstream.count();
    assert_eq!(world.get("a").await.unwrap().source, Source::Exchanged);
    pass(34 * MINUTE).await;
    assert_eq!(upstream.count(), before + 2, "renewed again");
}

#[tokio::test(start_paused = true)]
async fn promise_08_it_is_let_go_after_ten_minutes_at_the_earliest() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(3 * MINUTE));
    let began = tokio::time::Instant::now();
    world.get("a").await.unwrap();
    pass(2 * HOUR).await;
    let last = *upstream.times().last().unwrap() - began;
    assert!(last > 8 * MINUTE && last <= 10 * MINUTE + secs(1), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn promise_08_what_is_read_once_in_a_lifetime_stays_warm() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    for answer in world.ask_for("a", 12 * HOUR, 50 * MINUTE).await {
        assert_eq!(answer.unwrap().source, Source::Cache);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_08_kept_always_warm_needs_no_reader() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Token(HOUR));
    world.put(&upstream, "a", KeepWarm::Always);
    pass(8 * HOUR).await;
    assert!((14..=18).contains(&upstream.count()), "{}", upstream.count());
    assert_eq!(world.get("a").await.unwrap().source, Source::Cache);
}

#[tokio::test(start_paused = true)]
async fn promise_08_an_outage_without_readers_is_not_probed_for_ever() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    assert!(world.get("a").await.is_err());
    pass(15 * MINUTE).await;
    let before = upstream.count();
    pass(10 * HOUR).await;
    assert_eq!(upstream.count(), before);
    assert!(fullest(&upstream.times(), MINUTE) <= 7);
    upstream.answers(Outcome::Token(HOUR));
    assert!(world.ask_for("a", secs(2), ms(500)).await.iter().any(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn promise_06_what_was_learned_of_refusals_is_unlearned() {
    let (world, _, provider) = World::of_one();
    provider.then(Outcome::Token(HOUR)).then(Outcome::Same(HOUR)).answers(Outcome::Token(HOUR));
    world.ask_for("a", 8 * HOUR, secs(10)).await;
    let times = provider.times();
    let last = times[times.len() - 1] - times[times.len() - 2];
    assert!(last < 34 * MINUTE, "back at half the life: {last:?}");
}

#[tokio::test(start_paused = true)]
async fn promise_06_callers_of_a_valid_token_do_not_hasten_its_renewal_in_a_back_off() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(4 * HOUR));
    world.get("a").await.unwrap();
    pass(119 * MINUTE).await;
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    let answers = world.ask_for("a", 40 * MINUTE, ms(500)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!((20..=60).contains(&upstream.count()), "{}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn promise_06_failed_renewals_are_tried_more_densely_near_the_end() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    pass(57 * MINUTE).await;
    let before = upstream.count();
    pass(2 * MINUTE + secs(50)).await;
    let tries = upstream.count() - before;
    assert!((12..=60).contains(&tries), "{tries}, and not one a minute");
}
