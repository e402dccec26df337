//! Ten thousand callers, one cold Workspace, an upstream that fails: few logins, and nobody waits in a row of others.

use super::load::{Answer, Fleet, Times, reasons};
use super::stand::{Setup, Stand, workspace};
use super::{Form, millis, report, secs};
use std::collections::VecDeque;
use std::time::Duration;
use token_broker::sandbox::{Cut, CutAt, CutBy, Fault, Scope};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Logins are counted in every span of this length.
const WINDOW: Duration = secs(5);
const DEADLINE: Duration = secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_answers_500_is_left_alone() {
    measure("500", &[Fault::Latency(millis(50)), Fault::status(500)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_resets_is_left_alone() {
    let reset = Cut { at: CutAt::Before, by: CutBy::Reset };
    measure("reset", &[Fault::Latency(millis(50)), Fault::Cut(reset)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_breaks_off_in_mid_answer_is_left_alone() {
    let cut = Cut { at: CutAt::InBody, by: CutBy::Close };
    measure("cut", &[Fault::Latency(millis(50)), Fault::Cut(cut)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_is_left_alone() {
    measure("hang", &[Fault::Hang]).await;
}

async fn measure(kind: &str, faults: &[Fault]) {
    let form = Form::of_process();
    let (callers, span) = (form.pick(1_000, 10_000), form.pick(millis(5_500), secs(20)));
    let upstream = "timeout = \"3s\"";
    let stand = Stand::start(Setup { lifetimes: vec![secs(14_400)], upstream, ..Setup::default() }).await;
    for fault in faults {
        stand.control.set_fault(Scope::ALL, fault.clone());
    }
    let fleet = Fleet::connect(stand.address, &stand.control, callers, 100).await;

    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for nth in 0..callers {
        tasks.spawn(fleet.caller(nth, &workspace(1), DEADLINE).call_as_told(start + span));
    }
    let each: Vec<_> = tasks.join_all().await;

    let first = Times::of(each.iter().filter_map(|answers| answers.first()).map(Answer::took));
    let later = Times::of(each.iter().flat_map(|answers| answers.iter().skip(1)).map(Answer::took));
    let refusals: Vec<_> = each.iter().flatten().filter_map(|answer| answer.result.as_ref().err()).collect();
    let late = each.iter().flatten().map(|answer| answer.took().saturating_sub(DEADLINE)).max().unwrap();
    let busiest = busiest(&stand.control.counters().authenticate_at_ms);
    report(
        &format!("failing ({kind})"),
        format_args!(
            "{callers} callers for {span:?}: {} logins, at most {busiest} in {WINDOW:?}; first answers {first}; later \
             ones {later}; at most {:.0} ms past the deadline of {DEADLINE:?}; {}",
            stand.logins(1),
            late.as_secs_f64() * 1e3,
            reasons(refusals.iter().copied())
        ),
    );
    assert!((1..=4).contains(&busiest), "{busiest} logins in {WINDOW:?}");
    assert_eq!(refusals.len(), each.iter().flatten().count(), "somebody got a token");
    // Ten thousand deadlines come at the same moment, and each is an answer to write and to read.
    form.check_time("past the deadline", late, secs(1));
}

/// The most logins in any span of [`WINDOW`].
fn busiest(at_ms: &VecDeque<u64>) -> usize {
    let window = u64::try_from(WINDOW.as_millis()).unwrap();
    let within = |from: u64| at_ms.iter().filter(|at| (from..from + window).contains(*at)).count();
    at_ms.iter().map(|from| within(*from)).max().unwrap_or_default()
}
