//! What callers see: tokens, refusals, and when.

use super::{Ask, Known, Oracle, Rule, Want};
use std::time::Duration;
use token_broker::engine::{Served, Source};
use token_broker::error::{Error, Reason};
use token_broker::failure::Failure;
use token_broker::token::Fingerprint;
use tokio::time::Instant;

impl Oracle {
    /// Called at the moment of asking. `None`: a name that never was.
    pub(in super::super) fn asked(&mut self, workspace: Option<usize>, want: Want, patience: Duration) -> u64 {
        let at = Instant::now();
        let valid = workspace.and_then(|workspace| self.valid(workspace));
        let due = valid.map(|held| held.fingerprint).filter(|fingerprint| match want {
            Want::Token { min_validity } => min_validity.is_zero(),
            Want::Replacement { rejected } => rejected != *fingerprint,
        });
        if let Some(workspace) = workspace {
            self.known[workspace].nudges += 1;
        }
        self.asked += 1;
        let (deadline, stepped_ms) = (at + patience, self.stepped_ms);
        self.asks.insert(self.asked, Ask { workspace, want, at, deadline, due, stepped_ms });
        self.asked
    }

    pub(in super::super) fn went_away(&mut self, ask: u64) -> bool {
        self.asks.remove(&ask).is_some()
    }

    pub(in super::super) fn is_waiting(&self, ask: u64) -> bool {
        self.asks.contains_key(&ask)
    }

    pub(in super::super) fn anybody_waits(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Nobody waits beyond the deadline. Called between steps.
    pub(in super::super) fn check_waiting(&mut self) {
        let now = Instant::now();
        let late: Vec<String> = self
            .asks
            .values()
            .filter(|ask| now > ask.deadline)
            .map(|ask| format!("still no answer to {ask:?}"))
            .collect();
        for text in late {
            self.object(Rule::Late, text);
        }
    }

    pub(in super::super) fn answered(&mut self, ask: u64, answer: &Result<Served, Error>) {
        let Some(ask) = self.asks.remove(&ask) else { return };
        let now = Instant::now();
        if now > ask.deadline {
            self.object(Rule::Late, format!("{:?} after the deadline: {ask:?}", now - ask.deadline));
        }
        match (ask.workspace, answer) {
            (Some(workspace), Ok(served)) => self.check_served(workspace, &ask, served),
            (None, Ok(_)) => self.object(Rule::Withdrawn, "an unknown name got a token"),
            (workspace, Err(error)) => self.check_refusal(workspace, &ask, error),
        }
        if let Some(due) = ask.due {
            let got = answer.as_ref().ok().map(|served| served.token.fingerprint);
            let rule = match ask.want {
                Want::Token { .. } => Rule::ValidNotServed,
                Want::Replacement { .. } => Rule::Report,
            };
            if got != Some(due) || now != ask.at {
                let reason = answer.as_ref().err().map(|error| error.reason);
                self.object(rule, format!("a valid token was not served at once but {reason:?}: {ask:?}"));
            }
        }
    }

    fn check_served(&mut self, workspace: usize, ask: &Ask, served: &Served) {
        let now = Instant::now();
        self.served += 1;
        let fingerprint = served.token.fingerprint;
        let known = &self.known[workspace];
        if !known.exists || known.frozen {
            self.object(Rule::Withdrawn, format!("a token after the withdrawal of {workspace}"));
        }
        if self.held(workspace) != Some(fingerprint) {
            self.object(Rule::WrongToken, format!("a token that is not the current one of {workspace}"));
        }
        match self.minted.get(&fingerprint) {
            Some(minted) if minted.workspace == workspace => {
                let left = minted.dies.saturating_duration_since(now);
                let margin = self.known[workspace].held.map_or(Duration::ZERO, |held| held.margin);
                if left <= margin {
                    self.object(Rule::Expired, format!("a token with {left:?} left in truth: {ask:?}"));
                }
            }
            _ => self.object(Rule::WrongToken, format!("a token of another workspace: {ask:?}")),
        }
        if self.valid(workspace).is_none() {
            self.object(Rule::Expired, format!("a token that is over by the stricter clock: {ask:?}"));
        }
        let left = self.known[workspace].held.map(|held| self.left(&held)).unwrap_or_default();
        match ask.want {
            Want::Token { min_validity } if left < min_validity => {
                self.object(Rule::WrongAnswer, format!("{left:?} left: {ask:?}"));
            }
            Want::Replacement { rejected } if rejected == fingerprint => {
                self.object(Rule::Report, format!("the rejected token for its replacement: {ask:?}"));
            }
            Want::Token { .. } | Want::Replacement { .. } => {}
        }
        if served.source == Source::Exchanged && ask.due.is_some() {
            self.object(Rule::ValidNotServed, format!("a valid token was waited for: {ask:?}"));
        }
        self.check_generation(workspace, served.token.generation, fingerprint);
    }

    fn check_generation(&mut self, workspace: usize, generation: u64, fingerprint: Fingerprint) {
        let served = self.known[workspace].served;
        let good = served.is_none_or(|(last, of)| generation > last || generation == last && of == fingerprint);
        if !good {
            self.object(Rule::Generation, format!("generation {generation} of {workspace} is not the largest"));
        }
        self.known[workspace].served = Some((generation, fingerprint));
    }

    fn check_refusal(&mut self, workspace: Option<usize>, ask: &Ask, error: &Error) {
        let now = Instant::now();
        *self.refused.entry(error.reason).or_default() += 1;
        let wrong = match workspace.map(|workspace| &self.known[workspace]).filter(|known| known.exists) {
            None => error.reason != Reason::WorkspaceUnknown || now != ask.at && workspace.is_none(),
            Some(known) if known.frozen => error.reason != Reason::WorkspaceFrozen,
            Some(known) => self.is_wrong(known, ask, error),
        };
        if wrong {
            let here = workspace.is_some_and(|workspace| self.exists(workspace) && !self.is_frozen(workspace));
            let rule = if here { Rule::WrongAnswer } else { Rule::Withdrawn };
            self.object(rule, format!("{:?} in answer to {ask:?}", error.reason));
        }
        let valid = workspace.and_then(|workspace| self.valid(workspace));
        // A wall clock stepped back may make a token valid again: who waits already is not told.
        let stepped_back = self.stepped_ms < ask.stepped_ms;
        if let (Some(held), Want::Token { min_validity }) = (valid, ask.want)
            && min_validity.is_zero()
            && !stepped_back
        {
            self.object(Rule::ValidNotServed, format!("{:?} beside {held:?}: {ask:?}", error.reason));
        }
    }

    /// Whether this can't be said of a Workspace that is there and not frozen.
    fn is_wrong(&self, known: &Known, ask: &Ask, error: &Error) -> bool {
        let now = Instant::now();
        let held = known.held.filter(|held| self.left(held) > held.margin);
        match error.reason {
            Reason::Deadline => now != ask.deadline,
            Reason::CredentialRejected => known.last_failure != Some(Failure::Rejected),
            Reason::TenantMismatch => known.last_failure != Some(Failure::TenantMismatch),
            Reason::UpstreamMalformed => known.last_failure != Some(Failure::Malformed),
            Reason::LifetimeUnsatisfiable => match ask.want {
                Want::Token { min_validity } => {
                    known.learned.is_none_or(|life| min_validity + self.serve_margin.min(life / 10) <= life)
                }
                Want::Replacement { .. } => true,
            },
            Reason::RenewalTooSoon => held.is_none() || known.last_start.is_none_or(|last| now >= last + self.min_gap),
            Reason::ReportThrottled | Reason::TokenStillRejected => {
                !matches!(ask.want, Want::Replacement { rejected } if Some(rejected) == held.map(|h| h.fingerprint))
            }
            Reason::UpstreamUnavailable | Reason::UpstreamThrottled | Reason::CallerThrottled => {
                error.retry_after.is_none()
            }
            _ => true,
        }
    }
}
