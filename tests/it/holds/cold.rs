//! Ten thousand callers at once, one cold Workspace: one login, one token.

use super::load::{Answer, Fleet, Times};
use super::stand::{Setup, Stand, workspace};
use super::{Form, millis, report, secs};
use std::collections::BTreeSet;
use std::time::Duration;
use token_broker::grpc::pb::TokenSource;
use token_broker::sandbox::{Fault, Scope};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_a_cold_workspace_cause_one_login_and_get_one_token() {
    let form = Form::of_process();
    let (repetitions, callers, latency) = (form.pick(3, 20), form.pick(2_000, 10_000), form.pick(secs(1), secs(2)));
    let lifetimes = vec![secs(14_400); repetitions];
    let stand = Stand::start(Setup { lifetimes, ..Setup::default() }).await;
    stand.control.set_fault(Scope::ALL, Fault::Latency(latency));
    let fleet = Fleet::connect(stand.address, &stand.control, callers, 100).await;

    let (mut took, mut after_answer, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    let (mut waited, mut logins) = (0, Vec::new());
    for organisation in (1..).take(repetitions) {
        let start = Instant::now();
        let answers = all_at_once(&fleet, organisation, callers).await;
        let tokens: BTreeSet<_> =
            answers.iter().map(|answer| answer.result.as_ref().unwrap().fingerprint.as_str()).collect();
        assert_eq!((answers.len(), tokens.len()), (callers, 1));
        assert!(!answers.iter().any(Answer::is_expired));
        logins.push(stand.logins(organisation));
        assert_eq!(logins.last(), Some(&1));
        let from_exchange = |answer: &&Answer| answer.result.as_ref().unwrap().source == TokenSource::Exchanged;
        waited += answers.iter().filter(from_exchange).count();
        took.extend(answers.iter().map(Answer::took));
        after_answer.extend(answers.iter().map(|answer| answer.at.saturating_duration_since(start + latency)));
        // What so many answers at once cost in any case, on these cores and with these callers.
        cached.extend(all_at_once(&fleet, organisation, callers).await.iter().map(Answer::took));
    }

    let (took, after_answer, cached) = (Times::of(took), Times::of(after_answer), Times::of(cached));
    report(
        "cold",
        format_args!(
            "{repetitions} x {callers} callers on {} connections, upstream latency {latency:?}: logins {logins:?}, \
             {waited} of {} waited for the exchange, one token each; answered in {took}; after the upstream's answer \
             {after_answer}; the same calls once more, from the cache: {cached}",
            fleet.connections(),
            repetitions * callers
        ),
    );
    form.check_time("p99", took.percentile(99), latency + millis(200) + cached.percentile(99));
}

async fn all_at_once(fleet: &Fleet, organisation: u64, callers: usize) -> Vec<Answer> {
    const DEADLINE: Duration = secs(10);
    let name = workspace(organisation);
    let mut calls = JoinSet::new();
    for nth in 0..callers {
        let mut caller = fleet.caller(nth, &name, DEADLINE);
        calls.spawn(async move { caller.call().await });
    }
    calls.join_all().await
}
