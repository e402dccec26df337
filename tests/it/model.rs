//! The engine against a naive model: random sequences of events on paused time.
//!
//! After every step, and at the very moment of every answer and every exchange, the oracle checks:
//!
//! * `Expired`: no token is served that is over, or nearly, by the upstream's own truth.
//! * `WrongToken`: what is served is the current token of the asked Workspace: the last one that an exchange brought
//!   with the newest credential, or the one before until then.
//! * `ValidNotServed`: while a token is valid, whoever asks for no more gets it at once, whatever else goes on.
//! * `Crowd`: one exchange at a time per Workspace, and no more than the cap per upstream.
//! * `Late`: everybody has an answer by the deadline.
//! * `NoRest`: a failed exchange is followed by the rest that its kind asks for.
//! * `OverBudget`: no window holds more answered exchanges than the upstream allows.
//! * `Generation`: the generations of a Workspace only grow, across delete and re-creation too.
//! * `Withdrawn`: deleted, unknown and frozen Workspaces get that answer, and no exchange.
//! * `Report`: a report of another token gets the current one at once, a report of the current one never gets it back.
//! * `Loop`: exchanges are for a reason.
//! * `Abandoned`: an exchange under way is dropped at its time limit, as a probe that finds silence, or when it is not wanted
//!   any more, for nothing else.
//! * `Unwanted`: and when it is not wanted any more, it is dropped.
//! * `WrongAnswer`: a refusal says what is the case.
//! * `Stuck`: once all is well again, every Workspace is served and nobody is counted as waiting.
//! * `Stale`: what a watcher was told last is what a call would get, and a token is one when it is told.
//!
//! `TOKEN_BROKER_MODEL_SEED=n` runs one sequence, `TOKEN_BROKER_MODEL_SEQUENCES=n` runs so many.

mod event;
mod oracle;
mod upstream;
mod world;

use oracle::Rule;
use std::collections::BTreeSet;
use std::thread;
use world::{Run, Sabotage, run, run_vigil};

const FIRST_SEED: u64 = 20_260_000;
const SEQUENCES: u64 = 10_000;
/// Threads that share the sequences.
const WORKERS: u64 = 2;

#[test]
fn the_engine_keeps_to_the_naive_model() {
    let one = number_from("TOKEN_BROKER_MODEL_SEED");
    let count = number_from("TOKEN_BROKER_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let seeds = one.map_or(FIRST_SEED..FIRST_SEED + count, |seed| seed..seed + 1);
    let share = |worker: u64| seeds.clone().filter(move |seed| seed % WORKERS == worker);
    let tallies: Vec<Result<Tally, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || play(share(worker)))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        let Tally { exchanges, served, refused, reasons } = tally.unwrap_or_else(|trace| panic!("{trace}"));
        all.exchanges += exchanges;
        all.served += served;
        all.refused += refused;
        all.reasons.extend(reasons);
    }
    if one.is_none() && count >= 1_000 {
        all.check_reach(count);
    }
}

#[test]
fn the_same_token_again_and_again_is_no_loop() {
    for seed in FIRST_SEED..FIRST_SEED + 20 {
        let run = run_vigil(seed);
        assert!(run.objections.is_empty(), "{}", tell(seed, &run));
        assert!(run.exchanges > 5, "only {} exchanges", run.exchanges);
    }
}

#[test]
fn the_oracle_objects_when_something_is_wrong() {
    let wrongs = [
        (Sabotage::ShortLives, Rule::Expired),
        (Sabotage::HiddenDelete, Rule::Withdrawn),
        (Sabotage::HiddenFreeze, Rule::Withdrawn),
        (Sabotage::HiddenRekey, Rule::WrongToken),
        (Sabotage::SharedAccount, Rule::WrongToken),
        (Sabotage::LatePatience, Rule::Late),
        (Sabotage::WrongLimits, Rule::Crowd),
        (Sabotage::WrongLimits, Rule::OverBudget),
        (Sabotage::WrongReports, Rule::Report),
        (Sabotage::StrayRequest, Rule::NoRest),
        (Sabotage::StrayRequest, Rule::Abandoned),
        (Sabotage::NeverWell, Rule::Stuck),
        (Sabotage::HiddenRekey, Rule::Unwanted),
        (Sabotage::HiddenStep, Rule::ValidNotServed),
        (Sabotage::OneGeneration, Rule::Generation),
        (Sabotage::OtherFailures, Rule::WrongAnswer),
        (Sabotage::HiddenFreeze, Rule::Stale),
        (Sabotage::HiddenStep, Rule::Stale),
        (Sabotage::DeafWatcher, Rule::Stale),
    ];
    for (sabotage, rule) in wrongs {
        let objects = |seed: u64| run(seed, sabotage).objections.iter().any(|objection| objection.rule == rule);
        assert!((FIRST_SEED..FIRST_SEED + 300).any(objects), "{sabotage:?} goes unnoticed by {rule:?}");
    }
}

/// What the sequences reached.
#[derive(Debug, Default)]
struct Tally {
    exchanges: u64,
    served: u64,
    refused: u64,
    reasons: BTreeSet<&'static str>,
}

impl Tally {
    /// The sequences reach what they are for.
    fn check_reach(&self, sequences: u64) {
        assert!(self.served >= 3 * sequences, "{self:?}");
        assert!(self.refused >= sequences, "{self:?}");
        assert!(self.exchanges >= 5 * sequences, "{self:?}");
        assert_eq!(self.reasons, refusals(), "every refusal of the engine occurs");
    }
}

/// Up to the first sequence with an objection, which is told.
fn play(seeds: impl Iterator<Item = u64>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for seed in seeds {
        let run = run(seed, Sabotage::None);
        if !run.objections.is_empty() {
            return Err(tell(seed, &run));
        }
        tally.exchanges += run.exchanges;
        tally.served += run.served;
        tally.refused += run.refused;
        tally.reasons.extend(run.reasons);
    }
    Ok(tally)
}

fn refusals() -> BTreeSet<&'static str> {
    use token_broker::error::Reason;
    let never = [
        Reason::RequestInvalid,
        Reason::CallerUnauthenticated,
        Reason::CallerUnverifiable,
        Reason::CallerForbidden,
        Reason::TokenPending,
        Reason::AuditUnavailable,
        Reason::Draining,
        Reason::Bug,
    ];
    Reason::ALL.iter().filter(|reason| !never.contains(reason)).map(|reason| reason.as_str()).collect()
}

fn tell(seed: u64, run: &Run) -> String {
    let objections: Vec<String> = run.objections.iter().map(ToString::to_string).collect();
    format!("seed {seed}\n  {}\nobjections\n  {}\n", run.trace.join("\n  "), objections.join("\n  "))
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
