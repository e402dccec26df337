//! Callers who wait less long than the upstream takes: the exchange goes on without them.

use super::load::{Answer, Fleet, Times};
use super::stand::{Setup, Stand, workspace};
use super::{Form, millis, report, secs};
use token_broker::sandbox::{Fault, Scope};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_with_short_deadlines_cause_one_login_and_those_after_it_succeed() {
    let form = Form::of_process();
    let callers = form.pick(100, 1_000);
    let (deadline, latency) = (millis(50), millis(200));
    let stand = Stand::start(Setup { lifetimes: vec![secs(14_400)], ..Setup::default() }).await;
    stand.control.set_fault(Scope::ALL, Fault::Latency(latency));
    let fleet = Fleet::connect(stand.address, &stand.control, callers, 1).await;

    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for nth in 0..callers {
        let mut caller = fleet.caller(nth, &workspace(1), deadline);
        tasks.spawn(async move {
            let mut answers = Vec::new();
            while answers.last().is_none_or(|answer: &Answer| answer.result.is_err()) {
                assert!(start.elapsed() < secs(30), "no success");
                answers.push(caller.call().await);
            }
            answers
        });
    }
    let answers: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();

    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.result.is_ok());
    let codes_are = |code| refused.iter().all(|answer| answer.result.as_ref().is_err_and(|r| r.code == code));
    assert!(codes_are(Code::DeadlineExceeded));
    assert!(!refused.is_empty());
    assert_eq!((good.len(), stand.logins(1)), (callers, 1));
    let waits = Times::of(refused.iter().map(|answer| answer.took()));
    let success = Times::of(good.iter().map(|answer| answer.at - start));
    report(
        "impatient",
        format_args!(
            "{callers} callers, deadline {deadline:?}, upstream latency {latency:?}: 1 login; {} calls ended at their \
             deadline ({waits}); every caller then succeeded, counted from the start: {success}",
            refused.len()
        ),
    );
    form.check_time("first success", success.percentile(1), latency + millis(200));
}
