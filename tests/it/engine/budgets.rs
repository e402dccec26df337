//! Promise 9: what an upstream allows, and who gets it first.

use super::fake::Outcome;
use super::world::{
    HOUR, MINUTE, World, budget, count, fullest, least_gap, limits, ms, name, pass, reason, secs, until,
};
use token_broker::engine::Limits;
use token_broker::error::Reason;
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::time::Instant;

/// 100 logins per five minutes.
fn emnify() -> Limits {
    Limits { budget: budget(100, secs(300)), ..limits() }
}

#[tokio::test(start_paused = true)]
async fn promise_09_no_window_ever_holds_more_than_the_limit() {
    let world = World::new();
    let upstream = world.upstream("one", emnify());
    upstream.answers(Outcome::Token(20 * MINUTE));
    for n in 0..300 {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    let began = Instant::now();
    while began.elapsed() < 25 * MINUTE {
        for n in 0..300 {
            drop(world.get_within(&format!("w{n}"), ms(1)).await);
        }
        pass(secs(3)).await;
    }
    let fullest = fullest(&upstream.times(), secs(300));
    assert!((75..=100).contains(&fullest), "{fullest}");
}

#[tokio::test(start_paused = true)]
async fn promise_09_a_start_gets_a_quarter_of_which_background_work_leaves_a_fifth() {
    let world = World::new();
    let upstream = world.upstream("one", emnify());
    for n in 0..100 {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    pass(ms(500)).await;
    assert_eq!(upstream.count(), 20, "a crash loop can't use the limit up");
    for n in 0..5 {
        world.workspace(&upstream, &format!("late{n}"));
        assert!(world.get_within(&format!("late{n}"), ms(100)).await.is_ok(), "{n}");
    }
    world.workspace(&upstream, "too-late");
    let error = world.get_within("too-late", secs(1)).await.unwrap_err();
    assert_eq!(error.reason, Reason::UpstreamThrottled);
    assert!(error.retry_after.is_some_and(|after| after > secs(1) && after <= secs(4)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn promise_09_waiters_go_before_background_work() {
    let world = World::new();
    let upstream = world.upstream("one", emnify());
    for n in 0..200 {
        world.put(&upstream, &format!("w{n:03}"), KeepWarm::Always);
    }
    pass(secs(30)).await;
    let asked = Instant::now();
    world.workspace(&upstream, "late");
    assert!(world.get("late").await.is_ok());
    assert!(asked.elapsed() <= secs(4), "not behind those that nobody waits for");
}

#[tokio::test(start_paused = true)]
async fn promise_09_the_most_used_go_first_after_an_outage() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { max_concurrent: count(1), ..limits() });
    upstream.answers(Outcome::Fails(Failure::Throttled { retry_after: Some(secs(60)) }));
    for workspace in ["first", "second"] {
        world.workspace(&upstream, workspace);
        assert!(world.get(workspace).await.is_err());
    }
    let uses = [("a", 1), ("b", 300), ("c", 3), ("d", 40), ("e", 5_000)];
    for (workspace, times) in uses {
        world.workspace(&upstream, workspace);
        for _ in 0..times {
            assert!(world.get_within(workspace, ms(1)).await.is_err());
        }
    }
    upstream.answers(Outcome::Token(HOUR));
    upstream.takes(secs(1));
    let before = upstream.count();
    pass(secs(64)).await;
    let order: Vec<_> = upstream.calls().split_off(before).into_iter().map(|call| call.workspace).collect();
    assert_eq!(order.get(..4), Some(&["e", "b", "d", "c"].map(str::to_owned)[..]), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn promise_09_nobody_is_kept_waiting_for_what_cannot_come_in_time() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { budget: budget(4, HOUR), ..limits() });
    world.workspace(&upstream, "a");
    world.workspace(&upstream, "b");
    assert!(world.get("a").await.is_ok());
    let asked = Instant::now();
    let error = world.get("b").await.unwrap_err();
    assert_eq!((error.reason, asked.elapsed()), (Reason::UpstreamThrottled, secs(0)));
    let after = error.retry_after.unwrap();
    assert!(after > 10 * MINUTE && after <= 20 * MINUTE, "{after:?}");
    pass(after + secs(1)).await;
    assert!(world.get("b").await.is_ok(), "the hint was true");
}

#[tokio::test(start_paused = true)]
async fn promise_09_retry_after_is_honoured_and_other_workspaces_go_on() {
    let (world, upstream, provider) = World::of_one();
    let throttled = Failure::Throttled { retry_after: Some(secs(30)) };
    provider.then(Outcome::Fails(throttled));
    let error = world.get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::UpstreamThrottled);
    assert!(error.retry_after.is_some_and(|after| after >= secs(30) && after <= secs(33)), "{error:?}");
    for n in 0..50 {
        world.workspace(&upstream, &format!("w{n}"));
        assert!(world.get(&format!("w{n}")).await.is_ok());
    }
    world.ask_for("a", secs(40), ms(100)).await;
    assert!(least_gap(&provider.times()) >= secs(30), "none within the time that the upstream asked for");
    assert!(world.get("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn promise_09_when_a_second_workspace_is_throttled_the_upstream_rests() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Fails(Failure::Throttled { retry_after: Some(secs(30)) }));
    for workspace in ["a", "b", "c"] {
        world.workspace(&upstream, workspace);
        assert_eq!(reason(&world.get(workspace).await), Some(Reason::UpstreamThrottled));
    }
    assert_eq!(upstream.count(), 2);
    upstream.answers(Outcome::Token(HOUR));
    pass(secs(34)).await;
    for workspace in ["a", "b", "c"] {
        assert!(world.get(workspace).await.is_ok(), "{workspace}");
    }
}

/// Who waits in the queue already hears it too, and does not find out by waiting for the deadline.
#[tokio::test(start_paused = true)]
async fn promise_11_who_waits_in_the_queue_hears_that_the_upstream_is_down() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { max_concurrent: count(1), ..limits() });
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    upstream.takes(ms(100));
    let mut crowd = tokio::task::JoinSet::new();
    for workspace in ["a", "b", "c", "d", "e", "f"] {
        world.workspace(&upstream, workspace);
        crowd.spawn(world.crowd(workspace, 5, secs(9)).join_all());
    }
    let begun = Instant::now();
    let answers: Vec<_> = crowd.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers.len(), 30);
    assert!(answers.iter().all(|answer| reason(answer) == Some(Reason::UpstreamUnavailable)));
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    assert!(upstream.count() <= 4, "three failures say it, and the first probe: {}", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn promise_09_a_later_and_shorter_retry_after_does_not_end_the_rest() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    let rows = [("a", 300, 10), ("b", 300, 20), ("c", 1, 30), ("d", 1, 40)];
    let mut crowd = tokio::task::JoinSet::new();
    for (workspace, retry_after, latency) in rows {
        let provider = world.workspace(&upstream, workspace);
        provider.takes(ms(latency));
        provider.then(Outcome::Fails(Failure::Throttled { retry_after: Some(secs(retry_after)) }));
        let engine = world.engine.clone();
        crowd.spawn(async move { engine.get(&name(workspace), secs(0), until(Instant::now() + secs(9))).await });
    }
    assert!(crowd.join_all().await.iter().all(Result::is_err));
    world.workspace(&upstream, "e");
    for answer in world.ask_for("e", secs(250), secs(1)).await {
        assert_eq!(reason(&answer), Some(Reason::UpstreamThrottled));
    }
    assert_eq!(upstream.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn promise_09_old_popularity_fades() {
    let world = World::new();
    let upstream = world.upstream("one", Limits { max_concurrent: count(1), ..limits() });
    upstream.answers(Outcome::Token(HOUR));
    for workspace in ["old", "new"] {
        world.put(&upstream, workspace, KeepWarm::Always);
    }
    pass(secs(1)).await;
    for _ in 0..200 {
        assert!(world.get("old").await.is_ok());
    }
    pass(6 * HOUR).await;
    for _ in 0..8 {
        assert!(world.get("new").await.is_ok());
    }
    let before = upstream.count();
    for workspace in ["old", "new"].map(name) {
        assert!(world.engine.freeze(&workspace) && world.engine.unfreeze(&workspace));
    }
    pass(secs(1)).await;
    let order: Vec<_> = upstream.calls().split_off(before).into_iter().map(|call| call.workspace).collect();
    assert_eq!(order, ["new", "old"]);
}
