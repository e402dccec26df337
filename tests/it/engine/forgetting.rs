//! Promise 13, and what freezing, deleting and re-keying mean beside it.

use super::fake::Outcome;
use super::world::{Answer, HOUR, World, limits, ms, name, pass, reason, secs};
use std::sync::Arc;
use token_broker::engine::plan::State;
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::time::Instant;

/// A caller waits for a slow flight; `change` happens in the middle of it; what the caller gets, and when.
async fn meanwhile(world: &World, change: impl FnOnce(&World)) -> (Answer, std::time::Duration) {
    let asked = Instant::now();
    let mut caller = world.crowd("a", 1, secs(10));
    pass(ms(20)).await;
    change(world);
    let answer = caller.join_next().await.unwrap().unwrap();
    (answer, asked.elapsed())
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_workspace_deleted_during_a_flight_discards_its_result() {
    let (world, upstream, _) = World::of_one();
    let (answer, after) = meanwhile(&world, |world| assert!(world.engine.delete(&name("a")))).await;
    assert_eq!((reason(&answer), after), (Some(Reason::WorkspaceUnknown), ms(20)));
    pass(secs(1)).await;
    assert_eq!(upstream.in_flight(), 0);
    world.workspace(&upstream, "a");
    assert_eq!(world.state("a"), State::Idle, "one of the same name begins with nothing");
    world.get("a").await.unwrap();
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_workspace_made_anew_during_a_flight_gets_its_own_token() {
    let (world, upstream, old) = World::of_one();
    old.takes(secs(1));
    let (answer, _) = meanwhile(&world, |world| {
        assert!(world.engine.delete(&name("a")));
        world.workspace(&upstream, "a");
    })
    .await;
    assert!(answer.is_ok());
    assert_eq!(upstream.count(), 2, "the answer to the old one's request is not the new one's");
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_workspace_frozen_during_a_flight_discards_its_result() {
    let (world, upstream, _) = World::of_one();
    let (answer, after) = meanwhile(&world, |world| assert!(world.engine.freeze(&name("a")))).await;
    assert_eq!((reason(&answer), after), (Some(Reason::WorkspaceFrozen), ms(20)));
    pass(secs(1)).await;
    assert_eq!(world.state("a"), State::Frozen);
    assert!(world.engine.snapshot(&name("a")).unwrap().expires_at.is_none());
    assert_eq!(reason(&world.get("a").await), Some(Reason::WorkspaceFrozen));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn promise_13_frozen_and_unfrozen_during_a_flight_still_discards_its_result() {
    let (world, upstream, provider) = World::of_one();
    provider.takes(secs(1));
    let (answer, after) = meanwhile(&world, |world| {
        assert!(world.engine.freeze(&name("a")));
        assert!(world.engine.unfreeze(&name("a")));
    })
    .await;
    assert!(answer.is_ok());
    assert!(after >= secs(1) + ms(20), "the token is of an exchange begun after the freeze");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_workspace_rekeyed_during_a_flight_discards_its_result() {
    let (world, upstream, _) = World::of_one();
    upstream.takes(secs(1));
    let fresh = upstream.provider("fresh");
    let (answer, after) =
        meanwhile(&world, |world| assert!(world.engine.rekey(&name("a"), Arc::new(fresh.clone())))).await;
    assert!(answer.is_ok());
    assert_eq!((fresh.count(), after), (1, secs(1) + ms(20)), "the new credential is tried at once");
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_rejection_of_the_old_credential_says_nothing_of_the_new_one() {
    let (world, upstream, provider) = World::of_one();
    provider.answers(Outcome::Fails(Failure::Rejected));
    provider.takes(secs(1));
    let fresh = upstream.provider("fresh");
    let (answer, _) = meanwhile(&world, |world| assert!(world.engine.rekey(&name("a"), Arc::new(fresh.clone())))).await;
    assert!(answer.is_ok());
    assert_eq!(world.state("a"), State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn promise_13_what_stands_in_the_queue_is_forgotten_too() {
    let world = World::new();
    let one_at_a_time = token_broker::engine::Limits { max_concurrent: super::world::count(1), ..limits() };
    let upstream = world.upstream("one", one_at_a_time);
    upstream.takes(secs(1));
    world.workspace(&upstream, "first");
    let provider = world.workspace(&upstream, "a");
    let _first = world.crowd("first", 1, secs(10));
    let (answer, _) = meanwhile(&world, |world| assert!(world.engine.freeze(&name("a")))).await;
    assert_eq!(reason(&answer), Some(Reason::WorkspaceFrozen));
    pass(secs(5)).await;
    assert_eq!(provider.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_frozen_workspace_is_not_renewed_and_comes_back_when_it_is_unfrozen() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let provider = world.put(&upstream, "a", KeepWarm::Always);
    pass(secs(1)).await;
    assert!(world.engine.freeze(&name("a")));
    pass(5 * HOUR).await;
    assert_eq!(provider.count(), 1);
    assert!(world.engine.unfreeze(&name("a")));
    pass(secs(1)).await;
    assert_eq!((provider.count(), world.state("a")), (2, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn promise_13_kept_warm_also_when_frozen_and_unfrozen_in_the_middle_of_a_flight() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let provider = world.put(&upstream, "a", KeepWarm::Always);
    pass(ms(20)).await;
    assert!(world.engine.freeze(&name("a")));
    assert!(world.engine.unfreeze(&name("a")));
    pass(secs(5)).await;
    assert_eq!((provider.count(), world.state("a")), (2, State::Fresh), "nobody has to ask first");
}

#[tokio::test(start_paused = true)]
async fn promise_13_a_deleted_workspace_is_not_renewed() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let provider = world.put(&upstream, "a", KeepWarm::Always);
    pass(secs(1)).await;
    assert!(world.engine.delete(&name("a")));
    pass(3 * HOUR).await;
    assert_eq!(provider.count(), 1);
    assert_eq!(reason(&world.get("a").await), Some(Reason::WorkspaceUnknown));
}

#[tokio::test(start_paused = true)]
async fn draining_turns_away_who_waits_for_a_flight_that_will_not_start() {
    let world = World::new();
    let one_at_a_time = token_broker::engine::Limits { max_concurrent: super::world::count(1), ..limits() };
    let upstream = world.upstream("one", one_at_a_time);
    upstream.takes(secs(3));
    world.workspace(&upstream, "first");
    world.workspace(&upstream, "a");
    world.workspace(&upstream, "late");
    let mut flying = world.crowd("first", 1, secs(10));
    pass(ms(1)).await;
    let mut queued = world.crowd("a", 1, secs(10));
    pass(ms(10)).await;
    let mut drain = tokio::task::JoinSet::new();
    let supervisor = world.supervisor.clone();
    drain.spawn(async move { supervisor.shutdown(secs(8)).await });
    let turned_away = queued.join_next().await.unwrap().unwrap();
    assert_eq!(reason(&turned_away), Some(Reason::Draining));
    let asked = Instant::now();
    assert_eq!(reason(&world.get("late").await), Some(Reason::Draining));
    assert!(asked.elapsed() < ms(10), "at once, not at the deadline");
    assert!(flying.join_next().await.unwrap().unwrap().is_ok(), "a flight under way lands");
    assert!(world.get("first").await.is_ok(), "a token in hand is served to the end");
    assert_eq!(drain.join_next().await.unwrap().unwrap(), token_broker::supervisor::Ended::Clean);
}
