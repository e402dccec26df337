//! Bugs that others shipped, replayed: each test is named after the rule that the bug broke.

use super::fake::Outcome;
use super::world::{HOUR, MINUTE, World, fullest, least_gap, limits, ms, name, pass, reason, secs};
use proptest::prelude::{ProptestConfig, prop_assert, proptest};
use std::sync::Arc;
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::engine::Source;
use token_broker::engine::plan::{Answer, Arrived, Chance, Held, Landing, Plan, Rules, State};
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;
use token_broker::upstream::KeepWarm;

/// A failed refresh overwrote a token that was still valid: googleapis/google-cloud-rust#5809, mended in
/// googleapis/google-cloud-rust#5825.
#[tokio::test(start_paused = true)]
async fn bug_error_and_token_are_separate_state() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let good = world.fingerprint("a").await;
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    pass(45 * MINUTE).await;
    assert!(upstream.count() > 2);
    assert_eq!((world.fingerprint("a").await, world.state("a")), (good, State::Stale));
    upstream.answers(Outcome::Token(HOUR));
    pass(2 * MINUTE).await;
    assert_ne!(world.fingerprint("a").await, good, "and the error does not outlive the next token");
    assert_eq!(world.state("a"), State::Fresh);
}

/// A torn read was called permanent, and the refresher was dead from then on: googleapis/google-cloud-rust#5864,
/// googleapis/google-cloud-rust#4593.
#[tokio::test(start_paused = true)]
async fn bug_a_refresher_never_terminates() {
    let failures = [
        Failure::Unreachable,
        Failure::Unavailable,
        Failure::Malformed,
        Failure::Throttled { retry_after: None },
        Failure::Throttled { retry_after: Some(secs(60)) },
        Failure::Rejected,
        Failure::LockedOut,
        Failure::TenantMismatch,
    ];
    let others = [Outcome::Panics, Outcome::PanicsAtOnce, Outcome::Hangs, Outcome::Token(Duration::ZERO)];
    for outcome in failures.map(Outcome::Fails).into_iter().chain(others) {
        let world = World::new();
        let one_at_a_time = token_broker::engine::Limits { max_concurrent: super::world::count(1), ..limits() };
        let upstream = world.upstream("one", one_at_a_time);
        upstream.answers(outcome);
        world.put(&upstream, "a", KeepWarm::Always);
        pass(20 * MINUTE).await;
        assert!(upstream.count() >= 3, "it goes on trying: {outcome:?}");
        upstream.answers(Outcome::Token(HOUR));
        pass(secs(331)).await;
        assert_eq!(world.state("a"), State::Fresh, "{outcome:?}");
    }
}

/// What nobody can classify is transient: googleapis/google-cloud-rust#5864.
#[tokio::test(start_paused = true)]
async fn bug_unknown_is_transient() {
    for unknown in [Outcome::Fails(Failure::Malformed), Outcome::Panics, Outcome::PanicsAtOnce] {
        let (world, upstream, _) = World::of_one();
        upstream.answers(unknown);
        assert!(world.get("a").await.is_err());
        upstream.answers(Outcome::Token(HOUR));
        assert!(world.ask_for("a", secs(2), ms(100)).await.iter().any(Result::is_ok), "{unknown:?}");
    }
}

/// Everything refreshed at the same moment: googleapis/google-cloud-rust#5641.
#[tokio::test(start_paused = true)]
async fn bug_renewals_are_spread() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Token(HOUR));
    for n in 0..400 {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    pass(secs(10)).await;
    let before = upstream.count();
    pass(40 * MINUTE).await;
    let renewals = upstream.times().split_off(before);
    assert_eq!(renewals.len(), 400);
    assert!(fullest(&renewals, secs(10)) <= 30, "{} in ten seconds", fullest(&renewals, secs(10)));
}

/// An upstream that returned an identical or an expired token was asked in a loop: googleapis/google-cloud-rust#1554,
/// apache/arrow-rs#6625.
#[tokio::test(start_paused = true)]
async fn bug_an_answer_without_progress_causes_no_loop() {
    for outcome in [Outcome::Same(HOUR), Outcome::Same(MINUTE), Outcome::Same(Duration::ZERO), Outcome::Token(ms(60))] {
        let (world, _, provider) = World::of_one();
        provider.takes(ms(10));
        provider.then(Outcome::Token(10 * MINUTE)).answers(outcome);
        world.ask_for("a", 20 * MINUTE, ms(100)).await;
        let fullest = fullest(&provider.times(), secs(5));
        assert!(fullest <= 4, "{outcome:?}: {fullest} exchanges in five seconds");
        assert!(least_gap(&provider.times()) >= ms(1_000), "{outcome:?}: {:?}", least_gap(&provider.times()));
    }
}

/// The refresh was bound to a caller's context and died with it: golang/oauth2#388, stacklok/toolhive#3539.
#[tokio::test(start_paused = true)]
async fn bug_a_flight_does_not_die_with_the_caller_that_began_it() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(ms(300));
    let mut first = world.crowd("a", 1, secs(10));
    pass(ms(100)).await;
    let mut second = world.crowd("a", 1, secs(10));
    pass(ms(100)).await;
    first.abort_all();
    assert!(second.join_next().await.unwrap().unwrap().is_ok());
    assert_eq!(upstream.count(), 1);
}

/// After a 429 every retry of every caller was a request: AzureAD/microsoft-authentication-library-for-dotnet#4196.
#[tokio::test(start_paused = true)]
async fn bug_a_throttled_upstream_gets_no_convoy() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Fails(Failure::Throttled { retry_after: None }));
    for _ in 0..60 {
        for answer in world.crowd("a", 100, secs(5)).join_all().await {
            let error = answer.unwrap_err();
            assert_eq!(error.reason, Reason::UpstreamThrottled);
            assert!(error.retry_after.is_some());
        }
        pass(secs(1)).await;
    }
    assert!(upstream.count() <= 2, "{}", upstream.count());
}

/// The secret was rotated and the old one's token went on being served:
/// AzureAD/microsoft-authentication-library-for-dotnet#1709.
#[tokio::test(start_paused = true)]
async fn bug_a_new_secret_brings_a_new_token_at_once() {
    let (world, upstream, _) = World::of_one();
    let old = world.get("a").await.unwrap().token;
    let fresh = upstream.provider("fresh");
    assert!(world.engine.rekey(&name("a"), Arc::new(fresh.clone())));
    assert_eq!(world.fingerprint("a").await, old.fingerprint, "no gap meanwhile");
    pass(ms(100)).await;
    let new = world.get("a").await.unwrap();
    assert!(new.token.value.expose().starts_with("fresh-") && new.source == Source::Cache);
    assert!(new.token.generation > old.generation);
    assert_eq!(fresh.count(), 1);
}

/// A new secret that does not work leaves the old one's token where it is.
#[tokio::test(start_paused = true)]
async fn bug_a_new_secret_that_is_wrong_costs_nobody_the_token() {
    let (world, upstream, _) = World::of_one();
    let old = world.fingerprint("a").await;
    let wrong = upstream.provider("wrong");
    wrong.answers(Outcome::Fails(Failure::Rejected));
    assert!(world.engine.rekey(&name("a"), Arc::new(wrong)));
    pass(secs(1)).await;
    assert_eq!((world.fingerprint("a").await, world.state("a")), (old, State::Rejected));
}

/// A caller got 401 and the cache went on answering the same token:
/// AzureAD/microsoft-authentication-library-for-dotnet#5179.
#[tokio::test(start_paused = true)]
async fn bug_a_rejected_token_is_replaced_when_it_is_reported() {
    let (world, _, _) = World::of_one();
    let bad = world.fingerprint("a").await;
    pass(secs(11)).await;
    let good = world.report("a", bad).await.unwrap();
    assert!(good.token.fingerprint != bad && good.source == Source::Exchanged);
    assert_eq!(world.fingerprint("a").await, good.token.fingerprint);
}

/// Wanted of others: renewal without traffic, AzureAD/microsoft-authentication-library-for-dotnet#1763,
/// Azure/azure-sdk-for-net#5930, databricks/databricks-sdk-go#1135.
#[tokio::test(start_paused = true)]
async fn bug_a_token_is_renewed_without_traffic() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    world.get("a").await.unwrap();
    pass(59 * MINUTE).await;
    let served = world.get("a").await.unwrap();
    assert_eq!((served.source, upstream.count()), (Source::Cache, 2));
}

/// Generations grow over renewals, deletes and new beginnings of one name, also when the wall clock goes back.
#[tokio::test(start_paused = true)]
async fn bug_generations_only_grow() {
    let (world, upstream, _) = World::of_one();
    let mut last = 0;
    for _ in 0..10 {
        let generation = world.get("a").await.unwrap().token.generation;
        assert!(generation > last, "{generation} after {last}");
        last = generation;
        world.clock.step_wall_ms(-600_000);
        assert!(world.engine.delete(&name("a")));
        world.workspace(&upstream, "a");
    }
    assert_eq!(reason(&world.get("b").await), Some(Reason::WorkspaceUnknown));
}

fn landed(lifetime: Duration, chance: Chance) -> Option<Held> {
    let clock = Clock::simulated();
    let mut plan = Plan::new(Rules { serve_margin: secs(5), min_gap: secs(10), keep_warm: KeepWarm::Always });
    assert_eq!(plan.ask(clock.now(), Duration::ZERO), Answer::Wait);
    let ticket = plan.start(clock.now())?;
    let arrived = Arrived { fingerprint: Fingerprint::of(&AccessToken::new("t")), lifetime };
    match plan.landed(clock.now(), ticket, Ok(arrived), chance) {
        Landing::Replaced(held) => Some(held),
        Landing::Kept(_) | Landing::Discarded | Landing::Failed(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The time to refresh was held to a least delay, so that a short token went stale after it had expired:
    /// `time_to_stale` of neoeinstein/aliri.
    #[test]
    fn bug_refresh_at_is_always_before_expiry(
        millis in 1_000_u64..=730 * 86_400_000,
        renew_fraction in 0.05_f64..=0.95,
        random in 0.0_f64..1.0,
    ) {
        let held = landed(ms(millis), Chance { renew_fraction, random }).unwrap();
        let validity = held.validity;
        prop_assert!(held.renew_at > validity.started.mono);
        prop_assert!(held.renew_at < validity.deadline().checked_sub(validity.margin).unwrap());
        prop_assert!(held.refresh_after() < validity.expires_at());
        prop_assert!(held.refresh_after() > validity.started.wall + (held.renew_at - validity.started.mono));
    }

    /// The same, where the upstream gives the same token again at any moment of its life: neoeinstein/aliri and
    /// apache/arrow-rs#6625.
    #[test]
    fn bug_refresh_at_is_before_expiry_without_progress_too(
        millis in 1_000_u64..=730 * 86_400_000,
        asked_at in 0.0_f64..0.89,
        random in 0.0_f64..1.0,
    ) {
        let lifetime = ms(millis);
        let chance = Chance { renew_fraction: 0.5, random };
        let rules = Rules { serve_margin: secs(5), min_gap: secs(10), keep_warm: KeepWarm::Always };
        let mut plan = Plan::new(rules);
        let mut now = Clock::simulated().now();
        let arrived = Arrived { fingerprint: Fingerprint::of(&AccessToken::new("t")), lifetime };
        plan.ask(now, Duration::ZERO);
        let ticket = plan.start(now).unwrap();
        plan.landed(now, ticket, Ok(arrived), chance);
        now.mono += lifetime.mul_f64(asked_at);
        now.wall += lifetime.mul_f64(asked_at);
        plan.rekey();
        let ticket = plan.start(now).unwrap();
        let left = Arrived { lifetime: lifetime.mul_f64(1.0 - asked_at), ..arrived };
        let Landing::Kept(held) = plan.landed(now, ticket, Ok(left), chance) else {
            return Err(proptest::test_runner::TestCaseError::fail("not kept"));
        };
        prop_assert!(held.renew_at > now.mono);
        prop_assert!(held.renew_at < held.validity.deadline());
    }
}
