//! Reports of a token that the upstream rejects: one login for a thousand who report at once, and a bound for one client
//! that never stops.

use super::load::{Answer, Fleet, Refusal, Times, Wire, reasons};
use super::stand::{Setup, Stand, generous, workspace};
use super::{Form, millis, report, secs};
use std::collections::BTreeSet;
use std::time::Duration;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{GetTokenRequest, ReportRejectedTokenRequest, ReportRejectedTokenResponse};
use token_broker::sandbox::{Fault, Scope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::Status;

const WORKSPACES: u16 = 20;

async fn get(client: &mut TokenServiceClient<Wire>) -> String {
    let request = GetTokenRequest { workspace: workspace(1), min_validity: None };
    client.get_token(request).await.unwrap().into_inner().token.unwrap().fingerprint
}

async fn reported(
    mut client: TokenServiceClient<Wire>,
    fingerprint: String,
) -> Result<ReportRejectedTokenResponse, Status> {
    let request = ReportRejectedTokenRequest { workspace: workspace(1), fingerprint, upstream_status: 401 };
    client.report_rejected_token(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_report_one_token_cause_one_login() {
    let form = Form::of_process();
    let (repetitions, callers, latency) = (form.pick(1, 5), 1_000, form.pick(millis(300), millis(500)));
    // Exchanges that callers force are a second apart, doubling.
    let environment = vec![("TOKEN_BROKER__ENGINE__MIN_GAP", "500ms".to_owned())];
    let stand =
        Stand::start(Setup { lifetimes: vec![secs(14_400)], environment, limits: generous(), ..Setup::default() })
            .await;
    let fleet = Fleet::connect(stand.address, &stand.control, callers, 10).await;
    let mut first = fleet.client(0);
    let mut rejected = get(&mut first).await;
    stand.control.set_fault(Scope::ALL, Fault::Latency(latency));
    let (mut after, mut cached) = (Vec::new(), Vec::new());
    for repetition in 0_u32..repetitions {
        sleep(millis(600) * 2_u32.pow(repetition)).await;
        stand.control.reject_token(&rejected);
        let logins = stand.logins(1);
        let (tokens, times) = all_report(&fleet, callers, &rejected).await;
        assert_eq!(stand.logins(1), logins + 1);
        assert!(tokens.len() == 1 && !tokens.contains(&rejected), "{tokens:?}");
        after.extend(times.into_iter().map(|took| took.saturating_sub(latency)));
        // What so many answers at once cost in any case.
        cached.extend(all_report(&fleet, callers, &rejected).await.1);
        assert_eq!(stand.logins(1), logins + 1, "late reports get what is there");
        rejected = tokens.into_iter().next().unwrap();
    }
    let (after, cached) = (Times::of(after), Times::of(cached));
    report(
        "report",
        format_args!(
            "{repetitions} x {callers} callers report one token, upstream latency {latency:?}: 1 login each, one new \
             token; answered, beyond that latency, after {after}; the same reports once more, from the cache: {cached}"
        ),
    );
    form.check_time("all", after.percentile(100), millis(100));
}

async fn all_report(fleet: &Fleet, callers: usize, rejected: &str) -> (BTreeSet<String>, Vec<Duration>) {
    let mut crowd = JoinSet::new();
    for nth in 0..callers {
        let (client, rejected) = (fleet.client(nth), rejected.to_owned());
        crowd.spawn(async move {
            let sent = Instant::now();
            let answer = reported(client, rejected).await.unwrap();
            (answer.token.unwrap().fingerprint, sent.elapsed())
        });
    }
    crowd.join_all().await.into_iter().unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reports_for_ever_harms_nobody() {
    const PER_SECOND: u64 = 1_000;
    let form = Form::of_process();
    let span = form.pick(secs(4), secs(120));
    let setup =
        Setup { lifetimes: vec![secs(14_400); usize::from(WORKSPACES)], limits: generous(), ..Setup::default() };
    let stand = Stand::start(setup).await;
    let fleet = Fleet::connect(stand.address, &stand.control, 1_000, 4).await;
    // On a connection of its own: those who share one would wait for its streams, which is not the broker's doing.
    let endless = Fleet::connect(stand.address, &stand.control, 1, 1).await;
    let (stop, stopped) = watch::channel(false);
    let mut others = JoinSet::new();
    for organisation in 1..=WORKSPACES {
        // Those of the same Workspace too.
        let caller = fleet.caller(organisation.into(), &workspace(organisation.into()), form.pick(secs(10), secs(1)));
        others.spawn(caller.keep_calling(millis(20), stopped.clone()));
    }
    let (sent, refused) = report_for_ever(endless.client(0), span, PER_SECOND).await;
    stop.send_replace(true);
    let answers: Vec<Answer> = others.join_all().await.into_iter().flatten().collect();
    let failed = answers.iter().filter(|answer| answer.result.is_err()).count();
    let took = Times::of(answers.iter().map(Answer::took));
    report(
        "reports without end",
        format_args!(
            "{sent} reports of whatever token is current in {span:?}: {} logins, the first among them; {refused}; of {} \
             calls of {WORKSPACES} others {failed} failed ({took})",
            stand.logins(1),
            answers.len()
        ),
    );
    assert_eq!(failed, 0, "{}", reasons(answers.iter().filter_map(|answer| answer.result.as_ref().err())));
    assert!(stand.logins(1) <= 1 + bound(span), "{} logins", stand.logins(1));
    assert!((2..=WORKSPACES).all(|organisation| stand.logins(organisation.into()) == 1));
}

/// What reports of one Workspace can cause: gaps of 10 s, doubling up to 32 times that.
fn bound(span: Duration) -> u64 {
    let (mut gap, mut at, mut exchanges) = (secs(10), secs(10), 0);
    while at <= span {
        exchanges += 1;
        gap = (gap * 2).min(secs(320));
        at += gap;
    }
    exchanges
}

/// Says of every token that it is rejected, at this pace. How often, and what the broker said to that.
async fn report_for_ever(mut client: TokenServiceClient<Wire>, span: Duration, per_second: u64) -> (usize, String) {
    let mut pace = interval(secs(1) / u32::try_from(per_second).unwrap());
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (end, mut reports) = (Instant::now() + span, JoinSet::new());
    let mut current = get(&mut client).await;
    let (mut sent, mut refusals) = (0, Vec::new());
    while Instant::now() < end {
        pace.tick().await;
        reports.spawn(reported(client.clone(), current.clone()));
        sent += 1;
        while let Some(answer) = reports.try_join_next() {
            match answer.unwrap() {
                Ok(answer) => current = answer.token.unwrap().fingerprint,
                Err(status) => refusals.push(Refusal::read(&status)),
            }
        }
    }
    (sent, reasons(refusals.iter()))
}
