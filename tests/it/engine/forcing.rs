//! What one caller may force, and when a token counts as disputed.

use super::fake::{FakeUpstream, Outcome};
use super::world::{HOUR, MINUTE, World, limits, ms, name, pass, reason, secs};
use token_broker::engine::{Call, Interest, Origin};
use token_broker::error::Reason;
use token_broker::token::Fingerprint;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const ONE: Origin = Origin(1);
const OTHER: Origin = Origin(2);
/// What one caller may force at once.
const BURST: usize = 10;

fn by(origin: Origin) -> Call {
    Call { deadline: Instant::now() + secs(9), origin }
}

/// Twenty Workspaces with a token that is old enough to be reported.
async fn of_twenty() -> (World, FakeUpstream, Vec<(String, Fingerprint)>) {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    upstream.answers(Outcome::Token(HOUR));
    let mut tokens = Vec::new();
    for n in 0..20 {
        let workspace = format!("w/{n}");
        world.workspace(&upstream, &workspace);
        tokens.push((workspace.clone(), world.fingerprint(&workspace).await));
    }
    pass(11 * MINUTE).await;
    (world, upstream, tokens)
}

#[tokio::test(start_paused = true)]
async fn one_caller_forces_so_many_exchanges_and_no_other_pays_for_it() {
    let (world, upstream, tokens) = of_twenty().await;
    let mut answers = Vec::new();
    for (workspace, token) in &tokens {
        answers.push(world.engine.report(&name(workspace), *token, by(ONE)).await);
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), BURST);
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.reason, Reason::ReportThrottled);
        assert!(error.retry_after.is_some_and(|after| after > ms(0) && after <= secs(6)), "{error:?}");
    }
    let (workspace, token) = &tokens[BURST];
    assert!(world.engine.report(&name(workspace), *token, by(OTHER)).await.is_ok(), "another caller");
    assert!(world.engine.get(&name(workspace), secs(0), by(ONE)).await.is_ok(), "what is in hand is free");
    let (workspace, token) = &tokens[0];
    assert!(world.engine.report(&name(workspace), *token, by(ONE)).await.is_ok(), "and so is what was replaced");
    assert_eq!(upstream.count(), 20 + BURST + 1);
    pass(secs(6)).await;
    let (workspace, token) = &tokens[BURST + 1];
    assert!(world.engine.report(&name(workspace), *token, by(ONE)).await.is_ok(), "one more after a while");
}

#[tokio::test(start_paused = true)]
async fn more_validity_than_the_token_has_is_paid_for_like_a_report() {
    let (world, upstream, tokens) = of_twenty().await;
    let mut refused = 0;
    for (workspace, _) in &tokens {
        if let Err(error) = world.engine.get(&name(workspace), 55 * MINUTE, by(ONE)).await {
            assert_eq!(error.reason, Reason::CallerThrottled);
            assert!(error.retry_after.is_some_and(|after| after <= secs(6)), "{error:?}");
            refused += 1;
        }
    }
    assert_eq!((refused, upstream.count()), (20 - BURST, 20 + BURST));
    assert!(world.engine.get(&name(&tokens[19].0), 55 * MINUTE, by(OTHER)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_joins_an_exchange_pays_nothing() {
    let (world, upstream, tokens) = of_twenty().await;
    for (workspace, token) in tokens.iter().take(BURST) {
        world.engine.report(&name(workspace), *token, by(ONE)).await.unwrap();
    }
    let (workspace, token) = (name(&tokens[BURST].0), tokens[BURST].1);
    let mut crowd = JoinSet::new();
    for origin in [OTHER, ONE, ONE, ONE] {
        let (engine, workspace) = (world.engine.clone(), workspace.clone());
        crowd.spawn(async move { engine.report(&workspace, token, by(origin)).await });
        // In this order.
        pass(ms(1)).await;
    }
    assert!(crowd.join_all().await.iter().all(Result::is_ok));
    assert_eq!(upstream.count(), 20 + BURST + 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_refused_is_refused_without_an_exchange_or_a_charge() {
    let (world, upstream, _) = World::of_one();
    let token = world.fingerprint("a").await;
    for _ in 0..100 {
        // Too soon after the last exchange.
        let answer = world.engine.report(&name("a"), token, by(ONE)).await;
        assert_eq!(reason(&answer), Some(Reason::ReportThrottled));
    }
    pass(secs(11)).await;
    assert!(world.engine.report(&name("a"), token, by(ONE)).await.is_ok());
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cold_workspace_is_nobodys_to_pay_for() {
    let world = World::new();
    let upstream = world.upstream("one", limits());
    for n in 0..50 {
        world.workspace(&upstream, &format!("w/{n}"));
        let unseen = Fingerprint::parse("MuKcNVrA5JdLBEuiqcxaYQ").unwrap();
        assert!(world.engine.report(&name(&format!("w/{n}")), unseen, by(ONE)).await.is_ok());
    }
    assert_eq!(upstream.count(), 50);
}

fn is_disputed(world: &World) -> bool {
    world.engine.snapshot(&name("a")).unwrap().is_disputed
}

#[tokio::test(start_paused = true)]
async fn two_callers_dispute_a_token_until_another_lands() {
    let (world, upstream, provider) = World::of_one();
    upstream.answers(Outcome::Token(HOUR));
    let mut status = world.engine.watch(vec![name("a")], Interest::Status, ONE).unwrap();
    let token = world.fingerprint("a").await;
    provider.answers(Outcome::Same(HOUR));
    pass(secs(11)).await;
    for _ in 0..3 {
        drop(world.engine.report(&name("a"), token, by(ONE)).await.unwrap_err());
        assert!(!is_disputed(&world), "one caller may be wrong");
        pass(secs(400)).await;
    }
    while timeout(ms(1), status.changed()).await.is_ok() {}
    // Refused, and heard all the same.
    drop(world.engine.report(&name("a"), token, by(OTHER)).await);
    assert!(is_disputed(&world));
    assert!(timeout(ms(1), status.changed()).await.is_ok(), "who watches the status looks again");
    assert_eq!(world.fingerprint("a").await, token, "it is served all the same");
    provider.answers(Outcome::Token(HOUR));
    pass(HOUR).await;
    assert_ne!(world.fingerprint("a").await, token);
    assert!(!is_disputed(&world));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_served_is_not_disputed() {
    let (world, _, _) = World::of_one();
    let old = world.fingerprint("a").await;
    pass(secs(11)).await;
    world.report("a", old).await.unwrap();
    for origin in [ONE, OTHER, Origin(3)] {
        world.engine.report(&name("a"), old, by(origin)).await.unwrap();
    }
    assert!(!is_disputed(&world), "it was replaced long ago");
    let current = world.fingerprint("a").await;
    drop((
        world.engine.report(&name("a"), current, by(ONE)).await,
        world.engine.report(&name("a"), current, by(OTHER)).await,
    ));
    assert!(is_disputed(&world));
    assert!(world.engine.freeze(&name("a")));
    assert!(!is_disputed(&world), "there is none");
}
