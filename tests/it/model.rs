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
//!
//! `TOKEN_BROKER_MODEL_SEED=n` runs one sequence, `TOKEN_BROKER_MODEL_SEQUENCES=n` runs so many.

mod event;
mod oracle;
mod upstream;
mod world;

use oracle::Rule;
use std::collections::BTreeSet;
use world::{Run, Sabotage, run, run_vigil};

const FIRST_SEED: u64 = 20_260_000;
const SEQUENCES: u64 = 10_000;

#[test]
fn the_engine_keeps_to_the_naive_model() {
    let one = number_from("TOKEN_BROKER_MODEL_SEED");
    let count = number_from("TOKEN_BROKER_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let seeds = one.map_or(FIRST_SEED..FIRST_SEED + count, |seed| seed..seed + 1);
    let (mut exchanges, mut served, mut refused) = (0, 0, 0);
    let mut reasons = BTreeSet::new();
    for seed in seeds {
        let run = run(seed, Sabotage::None);
        assert!(run.objections.is_empty(), "{}", tell(seed, &run));
        exchanges += run.exchanges;
        served += run.served;
        refused += run.refused;
        reasons.extend(run.reasons);
    }
    if one.is_none() && count >= 1_000 {
        // The sequences reach what they are for.
        let per_sequence = |number: u64| number / count;
        assert!(per_sequence(served) >= 3, "{served} served");
        assert!(per_sequence(refused) >= 1, "{refused} refused");
        assert!(per_sequence(exchanges.try_into().unwrap()) >= 5, "{exchanges} exchanges");
        assert_eq!(reasons, refusals(), "every refusal of the engine occurs");
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
    ];
    for (sabotage, rule) in wrongs {
        let objects = |seed: u64| run(seed, sabotage).objections.iter().any(|objection| objection.rule == rule);
        assert!((FIRST_SEED..FIRST_SEED + 300).any(objects), "{sabotage:?} goes unnoticed by {rule:?}");
    }
}

fn refusals() -> BTreeSet<&'static str> {
    use token_broker::error::Reason;
    let never = [Reason::RequestInvalid, Reason::CallerForbidden, Reason::Draining, Reason::Bug];
    Reason::ALL.iter().filter(|reason| !never.contains(reason)).map(|reason| reason.as_str()).collect()
}

fn tell(seed: u64, run: &Run) -> String {
    let objections: Vec<String> = run.objections.iter().map(ToString::to_string).collect();
    format!("seed {seed}\n  {}\nobjections\n  {}\n", run.trace.join("\n  "), objections.join("\n  "))
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
