//! What the upstream sees: exchanges, their order and their ends.

use super::{Exchange, Held, Minted, Oracle, Outcome, Rule};
use std::time::Duration;
use token_broker::failure::Failure;
use token_broker::token::Fingerprint;
use tokio::time::Instant;

/// The least time between the starts of two attempts after a failure that may be over soon.
const TRANSIENT_REST: Duration = Duration::from_millis(1_500);
const REJECTED_REST: Duration = Duration::from_secs(300);
/// More tries than this to replace one and the same token, with nobody asking, is a loop: halving what is left of ten
/// days takes 20.
const MOST_VAIN_TRIES: u32 = 30;

impl Oracle {
    pub(in super::super) fn exchange_started(&mut self, workspace: usize, incarnation: u64, key: u64) -> usize {
        let now = Instant::now();
        let site = self.known[workspace].upstream;
        let flying_there: usize = self.known.iter().filter(|known| known.upstream == site).map(|k| k.flying).sum();
        let known = &self.known[workspace];
        let wrong = [
            (Rule::Withdrawn, !known.exists || known.incarnation != incarnation, "of a deleted workspace"),
            (Rule::Withdrawn, known.frozen, "of a frozen workspace"),
            (Rule::WrongToken, known.key != key, "with a credential that was replaced"),
            (Rule::Crowd, known.flying > 0, "beside another of the same workspace"),
            (Rule::Crowd, flying_there >= self.sites[site].max_concurrent, "beyond the upstream's cap"),
            (Rule::NoRest, known.rest_until.is_some_and(|rest| now < rest), "before the rest after a failure is over"),
        ];
        let rest = known.rest_until.map(|rest| rest.saturating_duration_since(now));
        for (rule, _, what) in wrong.into_iter().filter(|(_, wrong, _)| *wrong) {
            self.object(rule, format!("an exchange {what}: {workspace}, rest {rest:?}"));
        }
        let known = &mut self.known[workspace];
        known.flying += 1;
        known.exchanges += 1;
        known.last_start = Some(now);
        let (epoch, stepped_ms) = (known.epoch, self.stepped_ms);
        self.exchanges.push(Exchange { workspace, epoch, started: now, stepped_ms, ended: false });
        self.exchanges.len() - 1
    }

    /// The truth about a token, which the engine is not told.
    pub(in super::super) fn minted(&mut self, fingerprint: Fingerprint, workspace: usize, dies: Instant) {
        self.minted.insert(fingerprint, Minted { workspace, dies });
    }

    pub(in super::super) fn exchange_ended(&mut self, exchange: usize, outcome: Outcome) {
        let now = Instant::now();
        let Exchange { workspace, epoch, started, .. } = self.exchanges[exchange];
        let site = self.known[workspace].upstream;
        self.known[workspace].flying -= 1;
        self.exchanges[exchange].ended = true;
        let live = self.known[workspace].exists && self.known[workspace].epoch == epoch;
        let timed_out = now >= started + self.sites[site].timeout;
        let gave_up = now >= started + TRANSIENT_REST && self.may_be_down(site);
        if live && matches!(outcome, Outcome::Dropped) && !timed_out && !gave_up {
            self.object(Rule::Abandoned, format!("an exchange of {workspace} was dropped for no reason"));
        }
        let silent = matches!(outcome, Outcome::Failed(Failure::Unreachable))
            || timed_out
            || gave_up && matches!(outcome, Outcome::Dropped);
        if !silent {
            self.counted[site].push(started);
        }
        if !live {
            return;
        }
        match outcome {
            Outcome::Token { fingerprint, lifetime } => self.accept(exchange, fingerprint, lifetime),
            Outcome::Failed(failure) => self.failed(workspace, failure, started),
            Outcome::Dropped => self.failed(workspace, Failure::Unreachable, started),
        }
    }

    /// A probe does not wait as long as any exchange may.
    fn may_be_down(&self, site: usize) -> bool {
        let transient = |failure| matches!(failure, Failure::Unreachable | Failure::Unavailable | Failure::Malformed);
        self.known.iter().any(|known| known.upstream == site && known.last_failure.is_some_and(transient))
    }

    /// What is not wanted any more is dropped. Called when the engine has come to rest.
    pub(in super::super) fn check_flying(&mut self) {
        let unwanted = |exchange: &&Exchange| !exchange.ended && exchange.epoch != self.known[exchange.workspace].epoch;
        let texts: Vec<String> = self.exchanges.iter().filter(unwanted).map(|e| format!("{e:?} goes on")).collect();
        for text in texts {
            self.object(Rule::Unwanted, text);
        }
    }

    fn accept(&mut self, exchange: usize, fingerprint: Fingerprint, lifetime: Duration) {
        let Exchange { workspace, started, stepped_ms, .. } = self.exchanges[exchange];
        let same = self.known[workspace].held.filter(|held| held.fingerprint == fingerprint);
        let held = if let Some(held) = same {
            // What was said before about the end stands, unless less is said now.
            Held { end: held.end.min(started + lifetime), stepped_ms: self.stepped_ms, ..held }
        } else {
            let margin = self.serve_margin.min(lifetime / 10);
            Held { fingerprint, end: started + lifetime, margin, stepped_ms }
        };
        if self.left(&held) <= held.margin {
            return self.failed(workspace, Failure::Malformed, started);
        }
        let asked = self.asks.values().any(|ask| ask.workspace == Some(workspace));
        let known = &mut self.known[workspace];
        known.vain_tries = if same.is_some() && !asked { known.vain_tries + 1 } else { 0 };
        known.learned = if same.is_some() { known.learned } else { Some(lifetime) };
        known.held = Some(held);
        known.rest_until = None;
        known.last_failure = None;
        if known.vain_tries > MOST_VAIN_TRIES {
            self.object(Rule::Loop, format!("{workspace} tries again and again to replace one token"));
        }
    }

    fn failed(&mut self, workspace: usize, failure: Failure, started: Instant) {
        let now = Instant::now();
        let known = &mut self.known[workspace];
        known.last_failure = Some(failure);
        known.rest_until = Some(match failure {
            Failure::Unreachable | Failure::Unavailable | Failure::Malformed => started + TRANSIENT_REST,
            Failure::Throttled { retry_after } => now + retry_after.unwrap_or_default().max(TRANSIENT_REST),
            Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch => now + REJECTED_REST,
        });
    }
}
