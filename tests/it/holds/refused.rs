//! One Workspace is refused or throttled for long; the others at the same upstream don't notice.
//!
//! In real time here; the same promises on paused time are in the engine's tests.

use super::load::{Answer, Fleet, Times, reasons};
use super::stand::{Setup, Stand, generous, workspace};
use super::{Form, millis, report, secs};
use bytes::Bytes;
use std::time::Duration;
use token_broker::sandbox::{self, Fault, Scope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

const WORKSPACES: u16 = 20;
const DEADLINE: Duration = secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_401_for_ten_minutes_costs_three_logins_and_nobody_else() {
    let form = Form::of_process();
    let span = form.pick(secs(5), secs(600));
    let seen = run(form, span, answer(401, None)).await;
    report("401", format_args!("{WORKSPACES} workspaces for {span:?}: {seen}"));
    assert_eq!((seen.others_failed, seen.expired), (0, 0));
    assert!((1..=3).contains(&seen.logins.len()), "{:?}", seen.logins);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_is_left_alone_for_as_long_as_it_says() {
    const WANTED: u64 = 30;
    let form = Form::of_process();
    let span = form.pick(secs(5), secs(75));
    let seen = run(form, span, answer(429, Some(WANTED))).await;
    report("429", format_args!("Retry-After: {WANTED}, {WORKSPACES} workspaces for {span:?}: {seen}"));
    assert_eq!((seen.others_failed, seen.expired), (0, 0));
    let gaps = seen.logins.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().is_none_or(|least| least >= WANTED * 1_000), "{:?}", seen.logins);
    assert_eq!(seen.logins.len(), form.pick(1, 3), "{:?}", seen.logins);
}

fn answer(status: u16, retry_after: Option<u64>) -> Fault {
    let retry_after = retry_after.map(|seconds| seconds.to_string());
    Fault::Answer(sandbox::Answer { status, body: Bytes::new(), retry_after })
}

/// What was seen of Workspace 1 and of the others.
struct Seen {
    /// When its logins arrived, in milliseconds from the first.
    logins: Vec<u64>,
    refusals: String,
    took: Times,
    others: usize,
    others_failed: usize,
    others_took: Times,
    expired: usize,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { logins, refusals, took, others, others_failed, others_took, expired } = self;
        write!(
            f,
            "{} logins for the one, at {logins:?} ms; its callers got {refusals} in {took}; of {others} calls for the \
             others {others_failed} failed ({others_took}); {expired} expired tokens handed out",
            logins.len()
        )
    }
}

async fn run(form: Form, span: Duration, fault: Fault) -> Seen {
    let life = form.pick(secs(10), secs(60));
    let setup = Setup {
        lifetimes: vec![life; usize::from(WORKSPACES)],
        // Short lives cost many logins: the budget is not what this is about.
        upstream: "shortest_lifetime = \"5s\"\nbudget = { logins = 10000, per = \"5m\" }",
        limits: generous(),
        ..Setup::default()
    };
    let stand = Stand::start(setup).await;
    stand.control.set_fault(Scope::ALL, Fault::Latency(millis(50)));
    stand.control.set_fault(Scope::organisation(1), fault);
    let fleet = Fleet::connect(stand.address, &stand.control, 1_000, 1).await;

    let (stop, stopped) = watch::channel(false);
    let (mut of_one, mut of_others) = (JoinSet::new(), JoinSet::new());
    for nth in 0..10 {
        of_one.spawn(fleet.caller(nth, &workspace(1), DEADLINE).keep_calling(millis(100), stopped.clone()));
    }
    for organisation in 2..=WORKSPACES {
        let caller = fleet.caller(organisation.into(), &workspace(organisation.into()), DEADLINE);
        of_others.spawn(caller.keep_calling(millis(100), stopped.clone()));
    }
    let logins = watch_logins(&stand, span).await;
    stop.send_replace(true);
    let one: Vec<_> = of_one.join_all().await.into_iter().flatten().collect();
    let others: Vec<_> = of_others.join_all().await.into_iter().flatten().collect();
    judge(logins, &one, &others)
}

/// When Workspace 1 logged in, to 10 ms.
async fn watch_logins(stand: &Stand, span: Duration) -> Vec<u64> {
    let (mut first, mut logins) = (None, Vec::new());
    let mut look = interval(millis(10));
    let end = Instant::now() + span;
    while Instant::now() < end {
        let now = look.tick().await;
        let total = usize::try_from(stand.logins(1)).unwrap();
        if total > logins.len() {
            let since = now - *first.get_or_insert(now);
            logins.resize(total, u64::try_from(since.as_millis()).unwrap());
        }
    }
    logins
}

fn judge(logins: Vec<u64>, one: &[Answer], others: &[Answer]) -> Seen {
    Seen {
        logins,
        refusals: reasons(one.iter().filter_map(|answer| answer.result.as_ref().err())),
        took: Times::of(one.iter().map(Answer::took)),
        others: others.len(),
        others_failed: others.iter().filter(|answer| answer.result.is_err()).count(),
        others_took: Times::of(others.iter().map(Answer::took)),
        expired: others.iter().chain(one).filter(|answer| answer.is_expired()).count(),
    }
}
