//! What watchers see.

use super::fake::Outcome;
use super::world::{HOUR, MINUTE, World, budget, fullest, leap, limits, ms, name, pass, secs, settings};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use token_broker::engine::plan::BREAKER_OPEN;
use token_broker::engine::{Interest, Origin, View, Watch};
use token_broker::engine::{Limits, Settings};
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longer than anything that a watcher waits for here.
const LONG: Duration = Duration::from_secs(2 * 86_400);
/// The clock of timers counts milliseconds, and rounds up.
const TICKS: Duration = Duration::from_millis(5);

fn watch(world: &World, names: &[&str]) -> Watch {
    world.engine.watch(names.iter().copied().map(name).collect(), Interest::Use, Origin(1)).unwrap()
}

/// The next thing that is told: the Workspace, and the reason if it is withdrawn.
async fn told(watch: &mut Watch) -> (String, Option<Reason>) {
    let (workspace, view) = timeout(LONG, watch.next()).await.expect("nothing is told");
    let reason = match view {
        View::Token(served) => {
            assert_eq!(served.token.workspace, workspace);
            None
        }
        View::Withdrawn(error) => Some(error.reason),
    };
    (workspace.to_string(), reason)
}

/// Waits until this is told, whatever is told before it.
async fn until_told(watch: &mut Watch, wanted: Option<Reason>) {
    while told(watch).await.1 != wanted {}
}

/// Whether nothing is told for this long.
async fn is_quiet(watch: &mut Watch, time: Duration) -> bool {
    timeout(time, watch.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn the_first_look_at_every_workspace_comes_at_once() {
    let (world, upstream, _) = World::of_one();
    world.workspace(&upstream, "b");
    world.get("b").await.unwrap();
    let began = Instant::now();
    let mut watch = watch(&world, &["a", "b", "nowhere"]);
    assert_eq!(told(&mut watch).await, ("a".to_owned(), Some(Reason::TokenPending)));
    assert_eq!(told(&mut watch).await, ("b".to_owned(), None));
    assert_eq!(told(&mut watch).await, ("nowhere".to_owned(), Some(Reason::WorkspaceUnknown)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(told(&mut watch).await, ("a".to_owned(), None), "watching brings a token about");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_renewal_is_told_once_and_watching_keeps_warm() {
    let (world, upstream, _) = World::of_one();
    let mut watch = watch(&world, &["a"]);
    assert_eq!(told(&mut watch).await.1, Some(Reason::TokenPending));
    for renewals in 1..=20 {
        assert_eq!(told(&mut watch).await.1, None);
        assert_eq!(upstream.count(), renewals);
    }
    drop(watch);
    let before = upstream.count();
    leap(HOUR * 48).await;
    assert!(upstream.count() <= before + 1, "nobody uses it any more");
}

#[tokio::test(start_paused = true)]
async fn who_looks_late_sees_the_newest_state_only() {
    let (world, _, _) = World::of_one();
    let mut late = watch(&world, &["a"]);
    for _ in 0..5 {
        assert!(world.engine.freeze(&name("a")));
        assert!(world.engine.unfreeze(&name("a")));
        world.get("a").await.unwrap();
    }
    assert_eq!(told(&mut late).await.1, None);
    assert!(is_quiet(&mut late, secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_comes_to_be_is_told() {
    let (world, upstream, _) = World::of_one();
    let mut watch = watch(&world, &["later"]);
    assert_eq!(told(&mut watch).await.1, Some(Reason::WorkspaceUnknown));
    assert!(is_quiet(&mut watch, secs(60)).await);
    world.workspace(&upstream, "later");
    assert_eq!(told(&mut watch).await.1, Some(Reason::TokenPending));
    assert_eq!(told(&mut watch).await.1, None);
    assert!(world.engine.delete(&name("later")));
    assert_eq!(told(&mut watch).await.1, Some(Reason::WorkspaceUnknown));
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_successor_is_withdrawn_when_it_ends() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let began = Instant::now();
    let mut watch = watch(&world, &["a"]);
    until_told(&mut watch, None).await;
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    assert_eq!(told(&mut watch).await.1, Some(Reason::UpstreamUnavailable));
    let end = began + HOUR - secs(5);
    assert!(Instant::now() >= end && Instant::now() <= end + TICKS, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_that_of_the_stricter_clock() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let began = Instant::now();
    world.get("a").await.unwrap();
    // Too little to be seen as a step.
    world.clock.step_wall_ms(400);
    upstream.answers(Outcome::Hangs);
    let mut watch = watch(&world, &["a"]);
    assert_eq!(told(&mut watch).await.1, None);
    assert!(told(&mut watch).await.1.is_some());
    let end = began + HOUR - secs(5) - ms(400);
    assert!(Instant::now() >= end && Instant::now() <= end + TICKS, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_wall_clock_withdraws_and_gives_back() {
    let (world, upstream, _) = World::of_one();
    let mut watch = watch(&world, &["a"]);
    until_told(&mut watch, None).await;
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    let five_hours = 5 * 3_600_000;
    for _ in 0..3 {
        // The clocks are compared once a second.
        pass(secs(2)).await;
        world.clock.step_wall_ms(five_hours);
        let stepped = Instant::now();
        assert!(told(&mut watch).await.1.is_some());
        assert!(stepped.elapsed() <= secs(1) + TICKS, "{:?}", stepped.elapsed());
        pass(secs(3)).await;
        world.clock.step_wall_ms(-five_hours);
        let stepped = Instant::now();
        until_told(&mut watch, None).await;
        assert!(stepped.elapsed() <= secs(1) + TICKS, "{:?}", stepped.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_wall_clock_brings_the_successor() {
    let (world, upstream, _) = World::of_one();
    let mut watch = watch(&world, &["a"]);
    until_told(&mut watch, None).await;
    world.clock.step_wall_ms(5 * 3_600_000);
    let stepped = Instant::now();
    until_told(&mut watch, None).await;
    assert!(stepped.elapsed() <= secs(2), "{:?}", stepped.elapsed());
    assert_eq!(upstream.count(), 2);
}

/// Nobody but the watcher is there to ask again.
#[tokio::test(start_paused = true)]
async fn after_an_outage_longer_than_the_token_its_successor_is_told_soon() {
    // What can't be understood is no outage: nothing but the back-off ends.
    let rows = [(Failure::Unreachable, secs(2)), (Failure::Unavailable, secs(2)), (Failure::Malformed, secs(61))];
    for (failure, soon) in rows {
        let (world, upstream, _) = World::of_one();
        upstream.answers(Outcome::Token(HOUR));
        let mut watch = watch(&world, &["a"]);
        until_told(&mut watch, None).await;
        upstream.answers(Outcome::Fails(failure));
        assert!(told(&mut watch).await.1.is_some(), "{failure:?}");
        assert!(timeout(HOUR, until_told(&mut watch, None)).await.is_err(), "{failure:?}");
        upstream.answers(Outcome::Token(HOUR));
        let recovered = Instant::now();
        until_told(&mut watch, None).await;
        assert!(recovered.elapsed() <= soon, "{failure:?}: {:?}", recovered.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_many_each_is_told_soon() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let names: Vec<String> = (0..50).map(|n| format!("w/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        world.workspace(&upstream, name);
    }
    upstream.answers(Outcome::Fails(Failure::Unreachable));
    let mut watch = watch(&world, &names);
    let mut withdrawn = HashSet::new();
    while let Ok((_, view)) = timeout(HOUR, watch.next()).await {
        let View::Withdrawn(error) = view else { panic!("{view:?}") };
        withdrawn.insert(error.reason);
    }
    assert!(withdrawn.contains(&Reason::UpstreamUnavailable), "{withdrawn:?}");
    let before = upstream.count();
    pass(MINUTE).await;
    assert!(upstream.count() - before <= 41, "one probe at a time: {}", upstream.count() - before);
    upstream.answers(Outcome::Token(HOUR));
    let recovered = Instant::now();
    let mut served = HashSet::new();
    while served.len() < names.len() {
        let (workspace, reason) = told(&mut watch).await;
        if reason.is_none() {
            served.insert(workspace);
        }
    }
    assert!(recovered.elapsed() <= secs(3), "{:?}", recovered.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_does_is_told_at_once() {
    let (world, upstream, provider) = World::of_one();
    let mut watch = watch(&world, &["a"]);
    until_told(&mut watch, None).await;
    let began = Instant::now();
    assert!(world.engine.freeze(&name("a")));
    assert_eq!(told(&mut watch).await.1, Some(Reason::WorkspaceFrozen));
    assert_eq!(began.elapsed(), secs(0));
    assert!(is_quiet(&mut watch, HOUR).await);
    assert!(world.engine.unfreeze(&name("a")));
    assert_eq!(told(&mut watch).await.1, Some(Reason::TokenPending));
    assert_eq!(told(&mut watch).await.1, None);
    provider.answers(Outcome::Fails(Failure::Rejected));
    assert!(world.engine.delete(&name("a")));
    assert_eq!(told(&mut watch).await.1, Some(Reason::WorkspaceUnknown));
    let anew = world.put(&upstream, "a", KeepWarm::WhileUsed);
    assert_eq!(told(&mut watch).await.1, Some(Reason::TokenPending));
    assert_eq!(told(&mut watch).await.1, None);
    assert_eq!(anew.count(), upstream.count());
    assert!(world.engine.rekey(&name("a"), Arc::new(upstream.provider("a"))));
    assert_eq!(told(&mut watch).await.1, None, "the token in hand is given out until the new one comes");
    assert!(is_quiet(&mut watch, MINUTE).await);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_is_told_and_not_tried_again_and_again() {
    let (world, upstream, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::Rejected));
    let mut watch = watch(&world, &["a"]);
    assert_eq!(told(&mut watch).await.1, Some(Reason::TokenPending));
    assert_eq!(told(&mut watch).await.1, Some(Reason::CredentialRejected));
    // Each attempt may be told as under way; its end is.
    while timeout(HOUR, watch.next()).await.is_ok() && upstream.count() < 12 {}
    assert!(super::world::least_gap(&upstream.times()) >= BREAKER_OPEN);
    // Mended at the upstream, with the credential as it was.
    provider.answers(Outcome::Token(HOUR));
    let mended = Instant::now();
    until_told(&mut watch, None).await;
    assert!(mended.elapsed() <= BREAKER_OPEN.mul_f64(1.2), "{:?}", mended.elapsed());
    provider.answers(Outcome::Fails(Failure::Rejected));
    until_told(&mut watch, Some(Reason::CredentialRejected)).await;
    assert!(world.engine.rekey(&name("a"), Arc::new(upstream.provider("a"))));
    let rekeyed = Instant::now();
    until_told(&mut watch, None).await;
    assert!(rekeyed.elapsed() <= secs(1), "{:?}", rekeyed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_workspaces_get_their_tokens_as_the_budget_allows() {
    let world = World::new();
    let tight = Limits { budget: budget(100, secs(300)), ..limits() };
    let upstream = world.upstream("one", tight);
    let names: Vec<String> = (0..1_000).map(|n| format!("w/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        world.workspace(&upstream, name);
    }
    upstream.answers(Outcome::Token(24 * HOUR));
    let began = Instant::now();
    let mut watch = watch(&world, &names);
    let mut reasons = HashSet::new();
    for _ in 0..names.len() {
        reasons.insert(told(&mut watch).await.1);
    }
    assert_eq!(began.elapsed(), secs(0), "the first look at all of them");
    assert_eq!(reasons, HashSet::from([Some(Reason::TokenPending), Some(Reason::UpstreamThrottled)]));
    let mut served = HashSet::new();
    while served.len() < names.len() {
        let (workspace, reason) = told(&mut watch).await;
        if reason.is_none() {
            served.insert(workspace);
        }
    }
    assert!(fullest(&upstream.times(), secs(300)) <= 100);
    assert_eq!(upstream.count(), 1_000);
    assert!(began.elapsed() <= 70 * MINUTE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn more_watches_than_are_allowed_are_refused_until_some_end() {
    let world = World::with(Settings { max_watches: 5, ..settings() });
    let upstream = world.upstream("one", limits());
    for name in ["a", "b", "c"] {
        world.workspace(&upstream, name);
    }
    let try_watch =
        |names: &[&str]| world.engine.watch(names.iter().copied().map(name).collect(), Interest::Use, Origin(1));
    let first = try_watch(&["a", "b", "c"]).unwrap();
    let second = try_watch(&["a", "b"]).unwrap();
    for names in [&["a"][..], &["a", "b", "c", "d", "e", "f"]] {
        let error = try_watch(names).unwrap_err();
        assert_eq!(error.reason, Reason::CallerThrottled);
        assert!(error.retry_after.is_some());
    }
    drop(second);
    assert!(try_watch(&["a", "b", "c"]).is_err());
    let third = try_watch(&["a", "b"]).unwrap();
    drop((first, third));
    assert!(try_watch(&["a", "b", "c", "nowhere", "d"]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_watches_for_the_status_changes_nothing() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let names = || vec![name("a"), name("nowhere")];
    let mut status = world.engine.watch(names(), Interest::Status, Origin(1)).unwrap();
    assert_eq!(told(&mut status).await.1, Some(Reason::TokenPending));
    assert_eq!(told(&mut status).await.1, Some(Reason::WorkspaceUnknown));
    assert!(is_quiet(&mut status, 6 * HOUR).await);
    assert_eq!(upstream.count(), 0);
    // It hears of what others bring about, and of its end.
    world.get("a").await.unwrap();
    assert_eq!(told(&mut status).await.1, None);
    timeout(6 * HOUR, until_told(&mut status, Some(Reason::TokenPending))).await.unwrap();
    assert!(upstream.count() <= 3, "nobody uses it: {}", upstream.count());
    let before = upstream.count();
    assert!(is_quiet(&mut status, 6 * HOUR).await);
    drop(status);
    pass(6 * HOUR).await;
    assert_eq!(upstream.count(), before);
}

#[tokio::test(start_paused = true)]
async fn one_that_changes_all_the_time_holds_up_no_other() {
    let (world, upstream, _) = World::of_one();
    world.workspace(&upstream, "b");
    let mut watch = watch(&world, &["a", "b"]);
    let mut seen = HashSet::new();
    for turn in 0..6 {
        let _there = if turn % 2 == 0 { world.engine.freeze(&name("a")) } else { world.engine.unfreeze(&name("a")) };
        seen.insert(told(&mut watch).await.0);
    }
    assert!(seen.contains("b"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_are_told_once_of_one_login() {
    let (world, upstream, _) = World::of_one();
    let first = world.fingerprint("a").await;
    let mut crowd = JoinSet::new();
    for _ in 0..1_000 {
        let mut watch = watch(&world, &["a"]);
        crowd.spawn(async move {
            assert_eq!(told(&mut watch).await.1, None);
            let (_, View::Token(served)) = watch.next().await else { panic!("withdrawn") };
            assert!(is_quiet(&mut watch, MINUTE).await);
            served.token.fingerprint
        });
    }
    pass(secs(11)).await;
    let second = world.report("a", first).await.unwrap().token.fingerprint;
    assert!(crowd.join_all().await.into_iter().all(|fingerprint| fingerprint == second));
    assert_eq!(upstream.count(), 2);
}

/// Through many short lives, with an upstream that fails now and then: never a token that is over.
#[tokio::test(start_paused = true)]
async fn what_a_watcher_gets_can_be_used_then() {
    let (world, upstream, provider) = World::of_one();
    upstream.answers(Outcome::Token(MINUTE));
    let mut watch = watch(&world, &["a"]);
    let mut generations = Vec::new();
    for turn in 0..200 {
        if turn % 3 == 0 {
            for _ in 0..turn % 7 {
                provider.then(Outcome::Fails(Failure::Unreachable));
            }
        }
        if let (_, View::Token(served)) = timeout(LONG, watch.next()).await.unwrap() {
            assert!(served.is_servable(world.clock.now()));
            generations.push(served.token.generation);
        }
        pass(secs(turn % 50)).await;
    }
    assert!(generations.is_sorted() && generations.len() > 20, "{generations:?}");
}
