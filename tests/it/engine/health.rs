//! The census of Workspaces, and the rule over it.

use super::fake::Outcome;
use super::world::{HOUR, MINUTE, World, name, pass, secs, settings};
use std::time::Duration;
use token_broker::engine::{Interest, Origin, Settings};
use token_broker::health::{Census, Health, Rule};
use token_broker::provider::Failure;
use token_broker::upstream::KeepWarm;
use tokio::sync::watch;
use tokio::time::timeout;

/// As many Workspaces as one broker may have.
const MOST: u32 = 100_000;

async fn turned(verdict: &mut watch::Receiver<Health>) -> Health {
    timeout(HOUR, verdict.changed()).await.expect("no change").expect("nobody judges any more");
    *verdict.borrow_and_update()
}

fn census(in_use: u32, unhealthy: u32) -> Census {
    Census { in_use, unhealthy }
}

#[tokio::test(start_paused = true)]
async fn the_census_counts_what_is_used_and_what_of_it_is_unwell() {
    let (world, upstream, _) = World::of_one();
    for idle in ["b", "c", "d"] {
        world.workspace(&upstream, idle);
    }
    assert_eq!(world.engine.census().await, census(0, 0));
    world.get("a").await.unwrap();
    assert_eq!(world.engine.census().await, census(1, 0));
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    world.get("b").await.unwrap_err();
    world.put(&upstream, "warm", KeepWarm::Always);
    pass(secs(1)).await;
    assert_eq!(world.engine.census().await, census(3, 2));
    world.engine.freeze(&name("b"));
    assert_eq!(world.engine.census().await, census(2, 1));
    pass(9 * HOUR).await;
    assert_eq!(world.engine.census().await, census(1, 1), "the one that is kept warm is always in use");
}

#[tokio::test(start_paused = true)]
async fn watching_in_order_to_use_is_use_and_watching_health_is_not() {
    let (world, upstream, _) = World::of_one();
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    world.get("a").await.unwrap_err();
    let status = world.engine.watch(vec![name("a")], Interest::Status, Origin(1)).unwrap();
    pass(30 * MINUTE).await;
    assert_eq!(world.engine.census().await, census(0, 0));
    assert_eq!(world.engine.health(&name("a")), Some(Health::Serving));
    let using = world.engine.watch(vec![name("a")], Interest::Use, Origin(1)).unwrap();
    assert_eq!(world.engine.census().await, census(1, 1));
    assert_eq!(world.engine.health(&name("a")), Some(Health::NotServing));
    drop((status, using));
}

#[tokio::test(start_paused = true)]
async fn the_verdict_comes_within_a_second_and_is_taken_back() {
    let (world, upstream, _) = World::of_one();
    let mut verdict = world.engine.judge(Rule { max_unhealthy: 0.0 });
    assert_eq!(*verdict.borrow_and_update(), Health::Serving);
    pass(secs(10)).await;
    assert!(!verdict.has_changed().unwrap(), "only a turn is told");
    upstream.answers(Outcome::Fails(Failure::Unavailable));
    world.get("a").await.unwrap_err();
    let told = timeout(Duration::from_millis(1_001), turned(&mut verdict)).await;
    assert_eq!(told, Ok(Health::NotServing));
    upstream.answers(Outcome::Token(HOUR));
    assert_eq!(turned(&mut verdict).await, Health::Serving, "tried again without any call");
}

/// Nobody is left to send: the rule off costs no task.
#[tokio::test(start_paused = true)]
async fn a_rule_that_nothing_can_break_takes_no_census() {
    let (world, _, _) = World::of_one();
    let verdict = world.engine.judge(Rule { max_unhealthy: 1.0 });
    assert!(verdict.has_changed().is_err());
    assert_eq!(*verdict.borrow(), Health::Serving);
}

#[tokio::test(start_paused = true)]
async fn the_census_ends_with_the_drain() {
    let (world, _, _) = World::of_one();
    let mut verdict = world.engine.judge(Rule { max_unhealthy: 0.5 });
    pass(secs(10)).await;
    let ended = async { while verdict.changed().await.is_ok() {} };
    let (_, ended) = tokio::join!(world.supervisor.shutdown(secs(5)), timeout(secs(1), ended));
    assert!(ended.is_ok(), "it goes on");
    assert!(timeout(secs(1), world.supervisor.failed()).await.is_err(), "and that is no failure");
}

/// Other tasks get their turn in between: see `docs/measurements.md` for how long it takes.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figure is what docs/measurements.md quotes")]
async fn a_hundred_thousand_are_counted_bit_by_bit() {
    let world = World::with(Settings { max_workspaces: usize::MAX, ..settings() });
    let upstream = world.upstream("one", super::world::limits());
    for n in 0..MOST {
        world.put(&upstream, &format!("w{n}"), KeepWarm::Always);
    }
    let begun = tokio::time::Instant::now();
    let mut turns = 0_u32;
    let counting = world.engine.census();
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::select! {
        biased;
        counted = counting => counted,
        () = others => unreachable!("it never ends"),
    };
    println!("a census of {MOST}: {:?}, {turns} turns for others", begun.elapsed());
    assert_eq!(counted.in_use, MOST);
    assert!(turns >= 100, "{turns}");
}
