//! The upstream is down from before the renewal until after the token's end.

use super::load::{Answer, Fleet, Refusal, Times, reasons};
use super::stand::{Setup, Stand, workspace};
use super::{Form, millis, report, secs};
use std::time::Duration;
use token_broker::sandbox::{Cut, CutAt, CutBy, Fault, Scope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

const DEADLINE: Duration = secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_outlives_an_upstream_that_answers_503() {
    measure("503 after 200 ms", &[Fault::Latency(millis(200)), Fault::status(503)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_outlives_an_upstream_that_resets() {
    measure("reset", &[Fault::Cut(Cut { at: CutAt::Before, by: CutBy::Reset })]).await;
}

/// What was asked during the outage is never answered, not even after it: the broker's own timeout must end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_outlives_an_upstream_that_is_silent() {
    measure("silence", &[Fault::Latency(secs(3_600))]).await;
}

/// An outage as the callers saw it.
struct Outage {
    answers: Vec<Answer>,
    /// Until then the token could be served.
    valid_until: Instant,
    recovered: Instant,
}

async fn measure(kind: &str, faults: &[Fault]) {
    let form = Form::of_process();
    let life = form.pick(secs(6), secs(20));
    let outage = run(form, life, faults).await;
    let Outage { answers, valid_until, recovered } = &outage;

    let while_valid: Vec<_> = answers.iter().filter(|answer| answer.at < *valid_until).collect();
    let failed = while_valid.iter().filter(|answer| answer.result.is_err()).count();
    let refused: Vec<(&Answer, &Refusal)> = answers
        .iter()
        .filter(|answer| answer.at >= *valid_until)
        .filter_map(|answer| answer.result.as_ref().err().map(|refusal| (answer, refusal)))
        .collect();
    let as_promised = |refusal: &Refusal| refusal.code == Code::Unavailable && refusal.retry_after.is_some();
    let other = refused.iter().filter(|(_, refusal)| !as_promised(refusal)).count();
    let refusals = Times::of(refused.iter().map(|(answer, _)| answer.took()));
    let cached = Times::of(while_valid.iter().map(|answer| answer.took()));
    let expired = answers.iter().filter(|answer| answer.is_expired()).count();
    let back = answers.iter().filter(|answer| answer.at >= *recovered && answer.result.is_ok());
    let back = back.map(|answer| answer.at - *recovered).min().expect("no success after the recovery");
    report(
        &format!("outage ({kind})"),
        format_args!(
            "tokens of {life:?}, upstream down from the first one until {:?} past its end: {failed} of {} calls failed \
             while it was valid ({cached}); then {} refusals ({}), {other} of them not UNAVAILABLE with RetryInfo, in \
             {refusals}; {expired} expired tokens handed out; first success {:.0} ms after the recovery",
            down_after(form),
            while_valid.len(),
            refused.len(),
            reasons(refused.iter().map(|(_, refusal)| *refusal)),
            back.as_secs_f64() * 1e3
        ),
    );
    assert_eq!((failed, expired, other), (0, 0, 0));
    assert!(!while_valid.is_empty() && !refused.is_empty());
    form.check_time("p99 of refusals", refusals.percentile(99), millis(50));
    form.check_time("first success", back, secs(2));
    assert!(back <= secs(6), "first success {back:?} after the recovery");
}

fn down_after(form: Form) -> Duration {
    form.pick(secs(2), secs(10))
}

async fn run(form: Form, life: Duration, faults: &[Fault]) -> Outage {
    let (callers, pace) = (form.pick(10, 50), millis(20));
    let upstream = "shortest_lifetime = \"5s\"\ntimeout = \"1500ms\"";
    let stand = Stand::start(Setup { lifetimes: vec![life], upstream, ..Setup::default() }).await;
    let fleet = Fleet::connect(stand.address, &stand.control, callers, 4).await;
    let name = workspace(1);
    stand.control.set_fault(Scope::ALL, Fault::Latency(millis(50)));
    let first = fleet.caller(0, &name, DEADLINE).call().await;
    // A caller that keeps the token would not ask again now: the outage covers the whole renewal window.
    for fault in faults {
        stand.control.set_fault(Scope::ALL, fault.clone());
    }
    let valid_for = first.result.as_ref().unwrap().valid_for;
    // The margin in which a token counts as over: 5 s, at most a tenth of its life. Here the life is short.
    let valid_until = first.sent + valid_for - life.mul_f64(0.1).min(secs(5));

    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for nth in 0..callers {
        tasks.spawn(fleet.caller(nth, &name, DEADLINE).keep_calling(pace, stopped.clone()));
    }
    sleep_until(first.sent + life + down_after(form)).await;
    stand.control.clear();
    let recovered = Instant::now();
    sleep_until(recovered + secs(4)).await;
    stop.send_replace(true);
    let answers: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    Outage { answers, valid_until, recovered }
}
