use super::*;
use std::num::NonZeroU32;

struct Rig {
    queue: Queue,
    now: Instant,
}

fn name(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Rig {
    fn new(max_concurrent: usize, logins: u32) -> Self {
        let budget = Budget { logins: NonZeroU32::new(logins).unwrap(), per: Duration::from_secs(300) };
        let now = Instant::now();
        Self { queue: Queue::new(NonZeroUsize::new(max_concurrent).unwrap(), budget, now), now }
    }

    fn ask(&mut self, workspace: &str, urgency: Urgency, uses: u64) -> &mut Self {
        self.queue.enqueue(&name(workspace), urgency, uses);
        self
    }

    /// Who may start now.
    fn start(&mut self) -> Vec<Launch> {
        let mut started = Vec::new();
        while let Next::Start(launch) = self.queue.next(self.now) {
            started.push(launch);
        }
        started
    }

    fn starts(&mut self) -> Vec<String> {
        self.start().into_iter().map(|launch| launch.workspace.to_string()).collect()
    }

    fn land(&mut self, launches: &[Launch], failure: Option<Failure>) {
        for launch in launches {
            self.queue.landed(self.now, launch, Duration::from_millis(50), failure);
        }
    }

    /// An upstream that three Workspaces found down.
    fn down() -> Self {
        let mut rig = Self::new(10, 1_000);
        rig.ask("x", Urgency::Waiting, 0).ask("y", Urgency::Waiting, 0).ask("z", Urgency::Waiting, 0);
        let launches = rig.start();
        rig.land(&launches, Some(Failure::Unreachable));
        rig
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_first_then_the_most_used_then_the_earliest() {
    let mut rig = Rig::new(10, 1_000);
    rig.ask("unused", Urgency::Background, 0).ask("used", Urgency::Background, 1_000);
    rig.ask("early", Urgency::Waiting, 1).ask("late", Urgency::Waiting, 1).ask("much", Urgency::Waiting, 64);
    assert_eq!(rig.starts(), ["much", "early", "late", "used", "unused"]);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_has_one_place_and_only_moves_forward() {
    let mut rig = Rig::new(10, 1_000);
    rig.ask("a", Urgency::Background, 0).ask("b", Urgency::Waiting, 0).ask("c", Urgency::Waiting, 8);
    rig.ask("a", Urgency::Waiting, 64).ask("a", Urgency::Background, 1).ask("c", Urgency::Background, 0);
    assert_eq!(rig.starts(), ["a", "c", "b"]);
    assert_eq!(rig.queue.next(rig.now), Next::Idle);
}

#[tokio::test(start_paused = true)]
async fn who_is_taken_out_does_not_start() {
    let mut rig = Rig::new(10, 1_000);
    rig.ask("a", Urgency::Waiting, 0).ask("b", Urgency::Waiting, 0);
    rig.queue.remove(&name("a"));
    rig.queue.want_probe(&name("c"), 0, rig.now);
    rig.queue.remove(&name("c"));
    assert_eq!(rig.starts(), ["b"]);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}

#[tokio::test(start_paused = true)]
async fn slots_are_given_back_by_every_way_of_ending() {
    let mut rig = Rig::new(1, 1_000);
    for end in 0..4 {
        rig.ask("a", Urgency::Waiting, 0);
        let launches = rig.start();
        assert_eq!(launches.len(), 1, "{end}");
        match end {
            0 => rig.land(&launches, None),
            1 => rig.land(&launches, Some(Failure::Rejected)),
            2 => rig.queue.called_off(&launches[0]),
            _ => rig.queue.aborted(rig.now, &launches[0]),
        }
    }
    rig.ask("a", Urgency::Waiting, 0);
    assert_eq!(rig.starts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_ending_costs() {
    let rows = [
        (None, 1),
        (Some(Failure::Unreachable), 0),
        (Some(Failure::Unavailable), 1),
        (Some(Failure::Malformed), 1),
        (Some(Failure::Rejected), 1),
        (Some(Failure::LockedOut), 1),
        (Some(Failure::TenantMismatch), 1),
        (Some(Failure::Throttled { retry_after: None }), 1),
    ];
    for (failure, cost) in rows {
        let mut rig = Rig::new(100, 16);
        rig.ask("a", Urgency::Waiting, 0);
        let launches = rig.start();
        rig.land(&launches, failure);
        for n in 0..10 {
            rig.ask(&format!("w{n}"), Urgency::Waiting, 0);
        }
        assert_eq!(rig.start().len(), 4 - cost, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_outlook_counts_those_ahead() {
    let mut rig = Rig::new(100, 4);
    rig.ask("a", Urgency::Waiting, 0);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
    rig.ask("b", Urgency::Waiting, 0);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Throttled(Duration::from_secs(100)), "3 in 300 s");
    rig.ask("c", Urgency::Background, 0);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Throttled(Duration::from_secs(100)));
}

#[tokio::test(start_paused = true)]
async fn one_workspace_in_trouble_is_not_the_upstream() {
    let mut rig = Rig::new(10, 1_000);
    for _ in 0..10 {
        rig.ask("a", Urgency::Waiting, 0);
        let launches = rig.start();
        rig.land(&launches, Some(Failure::Unavailable));
    }
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}

#[tokio::test(start_paused = true)]
async fn one_workspace_in_trouble_leaves_alone_what_is_kept_for_callers() {
    let mut rig = Rig::new(10, 100);
    for _ in 0..100 {
        rig.queue.want_probe(&name("a"), 1, rig.now);
        let launches = rig.start();
        rig.land(&launches, Some(Failure::Unavailable));
        rig.now += MIN_RETRY;
    }
    for workspace in ["b", "c", "d", "e", "f"] {
        rig.ask(workspace, Urgency::Waiting, 1);
    }
    assert_eq!(rig.start().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_gets_one_probe_at_a_time() {
    let mut rig = Rig::down();
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Down);
    rig.ask("a", Urgency::Waiting, 0).ask("b", Urgency::Waiting, 0);
    let probe = rig.start();
    assert_eq!(probe.len(), 1);
    rig.now += ms(5_000);
    assert_eq!(rig.start(), [], "one is under way");
    rig.land(&probe, Some(Failure::Unreachable));
    let probe = rig.start();
    assert_eq!(probe.len(), 1, "the last one began long ago");
    rig.land(&probe, Some(Failure::Unreachable));
    rig.ask("c", Urgency::Waiting, 0);
    assert_eq!(rig.queue.next(rig.now), Next::At(rig.now + MIN_RETRY));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_succeeds_lets_everybody_in_who_was_asked_for() {
    let mut rig = Rig::down();
    for workspace in ["a", "b", "c"] {
        rig.queue.want_probe(&name(workspace), 1, rig.now);
    }
    let probe = rig.start();
    rig.land(&probe, None);
    assert_eq!(rig.starts().len(), 2);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_probe_costs_the_next_one_nothing() {
    let mut rig = Rig::down();
    rig.ask("a", Urgency::Waiting, 0).ask("b", Urgency::Waiting, 0);
    let probe = rig.start();
    rig.queue.aborted(rig.now, &probe[0]);
    assert_eq!(rig.start().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn any_answer_but_a_transient_failure_shows_that_the_upstream_is_up() {
    for failure in [None, Some(Failure::Rejected), Some(Failure::Throttled { retry_after: None })] {
        let mut rig = Rig::down();
        rig.ask("a", Urgency::Waiting, 0);
        let probe = rig.start();
        rig.land(&probe, failure);
        assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_forgotten_after_a_minute_without_a_try() {
    let mut rig = Rig::down();
    rig.now += DOWN_MEMORY.checked_sub(ms(1)).unwrap();
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Down);
    rig.now += ms(1);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}

#[tokio::test(start_paused = true)]
async fn two_throttled_workspaces_pause_the_upstream_for_the_longest_time_named() {
    let mut rig = Rig::new(10, 1_000);
    for (workspace, seconds) in [("a", 300), ("b", 200), ("c", 1), ("d", 1)] {
        rig.ask(workspace, Urgency::Waiting, 0);
        let launches = rig.start();
        let throttled = Failure::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        rig.land(&launches, Some(throttled));
    }
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Throttled(Duration::from_secs(300)));
    assert_eq!(rig.queue.next(rig.now), Next::At(rig.now + Duration::from_secs(300)));
    rig.now += Duration::from_secs(300);
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}

#[tokio::test(start_paused = true)]
async fn one_throttled_workspace_pauses_nobody_else() {
    let mut rig = Rig::new(10, 1_000);
    for _ in 0..3 {
        rig.ask("a", Urgency::Waiting, 0);
        let launches = rig.start();
        rig.land(&launches, Some(Failure::Throttled { retry_after: Some(Duration::from_secs(60)) }));
    }
    assert_eq!(rig.queue.outlook(rig.now), Outlook::Soon);
}
