//! What an operator changes while the engine runs.

use super::fake::Outcome;
use super::world::{HOUR, MINUTE, World, budget, leap, limits, ms, name, pass, reason, secs, settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use token_broker::engine::plan::State;
use token_broker::engine::{Call, Limits, Origin, PutError, Settings, Workspace};
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::{KeepWarm, UpstreamName};
use tokio::task::JoinSet;
use tokio::time::Instant;

fn upstream(text: &str) -> UpstreamName {
    UpstreamName::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_is_replaced_has_no_token_and_is_never_missing() {
    let (world, one, _) = World::of_one();
    let two = world.upstream("two", limits());
    let before = world.fingerprint("a").await;
    for (to, label) in [(&two, "two"), (&one, "one")] {
        let provider = Arc::new(to.provider(&format!("a at {label}")));
        let new = Workspace { name: name("a"), upstream: upstream(label), keep_warm: KeepWarm::WhileUsed, provider };
        world.engine.replace(new).unwrap();
        assert_eq!(world.state("a"), State::Idle);
        assert_ne!(world.fingerprint("a").await, before);
    }
    assert_eq!((one.count(), two.count()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_replaces_nothing_is_put_in_as_far_as_there_is_room() {
    let (world, one, _) = World::of_one();
    world.engine.configure(Settings { max_workspaces: 2, ..settings() });
    let replace = |workspace: &str| {
        let (name, upstream, provider) = (name(workspace), upstream("one"), Arc::new(one.provider(workspace)));
        world.engine.replace(Workspace { name, upstream, keep_warm: KeepWarm::WhileUsed, provider })
    };
    assert_eq!(replace("b"), Ok(()));
    assert!(world.get("b").await.is_ok());
    assert_eq!(replace("c"), Err(PutError::Full(2)));
    assert_eq!((replace("b"), world.engine.len()), (Ok(()), 2), "what is there takes no more room");
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_workspace_that_is_replaced_wait_for_the_new_one() {
    let (world, one, _) = World::of_one();
    one.takes(secs(5));
    let two = world.upstream("two", limits());
    two.takes(secs(1));
    let mut callers = world.crowd("a", 10, secs(10));
    pass(ms(20)).await;
    let provider = Arc::new(two.provider("a"));
    let new = Workspace { name: name("a"), upstream: upstream("two"), keep_warm: KeepWarm::WhileUsed, provider };
    world.engine.replace(new).unwrap();
    while let Some(answer) = callers.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    assert_eq!((one.in_flight(), two.count()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_gone_ends_its_driver_and_nothing_else() {
    let (world, _, _) = World::of_one();
    world.upstream("two", limits());
    assert!(world.engine.remove_upstream(&upstream("two")));
    assert!(!world.engine.remove_upstream(&upstream("two")));
    let failed = tokio::time::timeout(secs(5), world.supervisor.failed()).await;
    assert!(failed.is_err(), "a driver that is not wanted any more is no accident: {failed:?}");
    let two = world.upstream("two", limits());
    world.workspace(&two, "b");
    assert!(world.get("a").await.is_ok() && world.get("b").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_changed_budget_is_no_fresh_one() {
    let world = World::new();
    let scarce = Limits { budget: budget(8, HOUR), ..limits() };
    let one = world.upstream("one", scarce);
    for workspace in ["a", "b", "c", "d"] {
        world.workspace(&one, workspace);
    }
    assert!(world.get("a").await.is_ok() && world.get("b").await.is_ok());
    assert_eq!(reason(&world.get("c").await), Some(Reason::UpstreamThrottled));
    assert!(world.engine.change_upstream(&upstream("one"), scarce));
    assert_eq!(reason(&world.get("c").await), Some(Reason::UpstreamThrottled));
    assert!(world.engine.change_upstream(&upstream("one"), Limits { budget: budget(12, HOUR), ..scarce }));
    assert!(world.get("c").await.is_ok());
    assert_eq!(reason(&world.get("d").await), Some(Reason::UpstreamThrottled), "one more than before");
    assert!(!world.engine.change_upstream(&upstream("two"), scarce));
}

#[tokio::test(start_paused = true)]
async fn another_way_of_exchanging_keeps_the_token_and_forgives() {
    let (world, one, old) = World::of_one();
    let before = world.fingerprint("a").await;
    assert!(world.engine.reprovide(&name("a"), Arc::new(one.provider("a, anew"))));
    assert_eq!(world.fingerprint("a").await, before);
    assert_eq!(one.count(), 1, "no exchange for that");

    let refused = world.workspace(&one, "b");
    refused.answers(Outcome::Fails(Failure::Rejected));
    assert_eq!(reason(&world.get("b").await), Some(Reason::CredentialRejected));
    assert!(world.engine.reprovide(&name("b"), Arc::new(one.provider("b, anew"))));
    assert!(world.get("b").await.is_ok(), "at once, not after the breaker");
    assert_eq!((old.count(), refused.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_old_way_that_comes_late_does_not_count_against_the_new_one() {
    let (world, one, old) = World::of_one();
    old.takes(secs(5));
    old.answers(Outcome::Fails(Failure::Rejected));
    let mut callers = world.crowd("a", 10, secs(30));
    pass(secs(1)).await;
    let new = one.provider("a, anew");
    assert!(world.engine.reprovide(&name("a"), Arc::new(new.clone())));
    while let Some(answer) = callers.join_next().await {
        assert!(answer.unwrap().is_ok(), "not the breaker of the old way");
    }
    assert_eq!((old.count(), new.count(), world.state("a")), (1, 1, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_old_way_that_comes_late_is_taken() {
    let (world, one, old) = World::of_one();
    old.takes(secs(5));
    let mut callers = world.crowd("a", 10, secs(30));
    pass(secs(1)).await;
    let new = one.provider("a, anew");
    assert!(world.engine.reprovide(&name("a"), Arc::new(new.clone())));
    while let Some(answer) = callers.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    assert_eq!((old.count(), new.count(), world.state("a")), (1, 0, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn the_failures_of_the_new_way_count() {
    let (world, one, old) = World::of_one();
    let new = one.provider("a, anew");
    for provider in [&old, &new] {
        provider.takes(secs(5));
        provider.answers(Outcome::Fails(Failure::Rejected));
    }
    let mut callers = world.crowd("a", 2, secs(30));
    pass(secs(1)).await;
    assert!(world.engine.reprovide(&name("a"), Arc::new(new.clone())));
    while let Some(answer) = callers.join_next().await {
        assert_eq!(reason(&answer.unwrap()), Some(Reason::CredentialRejected));
    }
    pass(MINUTE).await;
    assert_eq!((old.count(), new.count(), world.state("a")), (1, 1, State::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_workspace_is_kept_warm_from_the_change_on() {
    let (world, one, _) = World::of_one();
    pass(MINUTE).await;
    assert_eq!(one.count(), 0);
    assert!(world.engine.keep_warm(&name("a"), KeepWarm::Always));
    pass(secs(1)).await;
    assert_eq!((one.count(), world.state("a")), (1, State::Fresh));
    assert!(world.engine.keep_warm(&name("a"), KeepWarm::WhileUsed));
    leap(240 * HOUR).await;
    assert_eq!(one.count(), 1, "let go");
}

#[tokio::test(start_paused = true)]
async fn other_limits_of_the_engine_count_at_once() {
    let (world, one, _) = World::of_one();
    one.takes(secs(1));
    world.engine.configure(Settings { max_waiters: 1, max_workspaces: 1, ..settings() });
    let mut crowd = world.crowd("a", 2, secs(10));
    let mut answers = Vec::new();
    while let Some(answer) = crowd.join_next().await {
        answers.push(reason(&answer.unwrap()));
    }
    answers.sort_by_key(Option::is_some);
    assert_eq!(answers, [None, Some(Reason::CallerThrottled)]);
    let provider = Arc::new(one.provider("b"));
    let more = Workspace { name: name("b"), upstream: upstream("one"), keep_warm: KeepWarm::WhileUsed, provider };
    assert!(world.engine.put(more).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_of_one_that_is_not_used_holds_up_no_caller() {
    let world = World::new();
    let one = world.upstream("one", Limits { budget: budget(40, HOUR), ..limits() });
    for idle in 0..30 {
        world.workspace(&one, &format!("idle/{idle}"));
    }
    world.workspace(&one, "used");
    for idle in 0..30 {
        let workspace = format!("idle/{idle}");
        assert!(world.engine.rekey(&name(&workspace), Arc::new(one.provider(&workspace))));
    }
    assert!(world.get("used").await.is_ok(), "though all credentials changed and the budget is for ten");
}

/// On real threads: a caller may have found the old one just before it was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_finds_a_workspace_missing_while_it_is_replaced() {
    let (world, one, _) = World::of_one();
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for origin in 0..4 {
        let (engine, done) = (world.engine.clone(), Arc::clone(&done));
        callers.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let call = Call { deadline: Instant::now() + secs(10), origin: Origin(origin) };
                let answer = engine.get(&name("a"), Duration::ZERO, call).await;
                assert_ne!(reason(&answer), Some(Reason::WorkspaceUnknown));
            }
        });
    }
    for _ in 0..100_000 {
        let provider = Arc::new(one.provider("a"));
        let (name, upstream) = (name("a"), upstream("one"));
        world.engine.replace(Workspace { name, upstream, keep_warm: KeepWarm::WhileUsed, provider }).unwrap();
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}
