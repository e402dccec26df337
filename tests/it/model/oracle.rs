//! The naive model: what is true of every Workspace, worked out from what went in and out, and what it objects to.
//!
//! It knows nothing of how the engine decides. It is told of everything at the very moment it happens, by the fake
//! upstream and by the callers, so that it never judges by hindsight.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use token_broker::engine::{Served, Source};
use token_broker::error::{Error, Reason};
use token_broker::failure::Failure;
use token_broker::token::Fingerprint;
use tokio::time::Instant;

/// The least time between the starts of two attempts after a failure that may be over soon.
const TRANSIENT_REST: Duration = Duration::from_millis(1_500);
const REJECTED_REST: Duration = Duration::from_secs(300);
/// More tries than this to replace one and the same token, with nobody asking, is a loop: halving what is left of ten
/// days takes 20.
const MOST_VAIN_TRIES: u32 = 30;

/// What the oracle can object to. The letters are those of the list in `tests/it/model.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    Expired,
    WrongToken,
    ValidNotServed,
    Crowd,
    Late,
    NoRest,
    OverBudget,
    Generation,
    Withdrawn,
    Report,
    Loop,
    Abandoned,
    WrongAnswer,
    Stuck,
}

/// Something that must not be.
#[derive(Debug)]
pub(super) struct Objection {
    pub(super) rule: Rule,
    pub(super) text: String,
}

/// What an upstream was set up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub(super) max_concurrent: usize,
    pub(super) logins: usize,
    pub(super) per: Duration,
    pub(super) timeout: Duration,
}

/// How an exchange ended, as the upstream sees it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Token {
        fingerprint: Fingerprint,
        lifetime: Duration,
    },
    Failed(Failure),
    /// The request was dropped.
    Dropped,
}

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Want {
    Token { min_validity: Duration },
    Replacement { rejected: Fingerprint },
}

#[derive(Debug, Clone, Copy)]
struct Held {
    fingerprint: Fingerprint,
    end: Instant,
    margin: Duration,
    /// By how much the wall clock had been stepped when the end was worked out.
    stepped_ms: i64,
}

#[derive(Debug)]
struct Known {
    upstream: usize,
    exists: bool,
    frozen: bool,
    incarnation: u64,
    key: u64,
    /// Counts what makes an answer under way worthless.
    epoch: u64,
    held: Option<Held>,
    learned: Option<Duration>,
    flying: usize,
    last_start: Option<Instant>,
    last_failure: Option<Failure>,
    rest_until: Option<Instant>,
    served: Option<(u64, Fingerprint)>,
    vain_tries: u32,
    exchanges: u64,
    nudges: u64,
}

#[derive(Debug)]
struct Exchange {
    workspace: usize,
    epoch: u64,
    started: Instant,
    stepped_ms: i64,
}

#[derive(Debug)]
struct Minted {
    workspace: usize,
    dies: Instant,
}

#[derive(Debug)]
struct Ask {
    workspace: Option<usize>,
    want: Want,
    at: Instant,
    deadline: Instant,
    /// The token that it must get at once.
    due: Option<Fingerprint>,
    stepped_ms: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Oracle {
    start: Instant,
    serve_margin: Duration,
    min_gap: Duration,
    sites: Vec<Site>,
    known: Vec<Known>,
    exchanges: Vec<Exchange>,
    /// When the exchanges started that an upstream counts.
    counted: Vec<Vec<Instant>>,
    minted: HashMap<Fingerprint, Minted>,
    asks: HashMap<u64, Ask>,
    asked: u64,
    pub(super) stepped_ms: i64,
    pub(super) objections: Vec<Objection>,
    pub(super) served: u64,
    pub(super) refused: HashMap<Reason, u64>,
}

impl Oracle {
    pub(super) fn new(serve_margin: Duration, min_gap: Duration, sites: Vec<Site>) -> Self {
        Self {
            start: Instant::now(),
            serve_margin,
            min_gap,
            counted: sites.iter().map(|_| Vec::new()).collect(),
            sites,
            known: Vec::new(),
            exchanges: Vec::new(),
            minted: HashMap::new(),
            asks: HashMap::new(),
            asked: 0,
            stepped_ms: 0,
            objections: Vec::new(),
            served: 0,
            refused: HashMap::new(),
        }
    }

    // What is done to Workspaces.

    pub(super) fn add(&mut self, upstream: usize) {
        self.known.push(Known {
            upstream,
            exists: false,
            frozen: false,
            incarnation: 0,
            key: 0,
            epoch: 0,
            held: None,
            learned: None,
            flying: 0,
            last_start: None,
            last_failure: None,
            rest_until: None,
            served: None,
            vain_tries: 0,
            exchanges: 0,
            nudges: 0,
        });
    }

    /// Returns the incarnation and the key that it begins with.
    pub(super) fn created(&mut self, workspace: usize) -> (u64, u64) {
        let known = &mut self.known[workspace];
        known.exists = true;
        known.frozen = false;
        known.incarnation += 1;
        known.key += 1;
        known.nudges += 1;
        known.rest_until = None;
        known.last_start = None;
        known.last_failure = None;
        (known.incarnation, known.key)
    }

    pub(super) fn deleted(&mut self, workspace: usize) {
        self.known[workspace].exists = false;
        self.forget(workspace);
    }

    pub(super) fn frozen(&mut self, workspace: usize) {
        self.known[workspace].frozen = true;
        self.forget(workspace);
    }

    pub(super) fn unfrozen(&mut self, workspace: usize) {
        self.known[workspace].frozen = false;
        self.known[workspace].nudges += 1;
    }

    /// Returns the incarnation, and the key from now on.
    pub(super) fn rekeyed(&mut self, workspace: usize) -> (u64, u64) {
        let known = &mut self.known[workspace];
        known.epoch += 1;
        known.key += 1;
        known.nudges += 1;
        known.rest_until = None;
        known.last_failure = None;
        known.vain_tries = 0;
        (known.incarnation, known.key)
    }

    pub(super) fn exists(&self, workspace: usize) -> bool {
        self.known[workspace].exists
    }

    pub(super) fn is_frozen(&self, workspace: usize) -> bool {
        self.known[workspace].frozen
    }

    pub(super) fn held(&self, workspace: usize) -> Option<Fingerprint> {
        self.known[workspace].held.map(|held| held.fingerprint)
    }

    fn forget(&mut self, workspace: usize) {
        let known = &mut self.known[workspace];
        known.epoch += 1;
        known.held = None;
        known.learned = None;
        known.vain_tries = 0;
    }

    // What the upstream sees.

    pub(super) fn exchange_started(&mut self, workspace: usize, incarnation: u64, key: u64) -> usize {
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
        self.exchanges.push(Exchange { workspace, epoch: known.epoch, started: now, stepped_ms: self.stepped_ms });
        self.exchanges.len() - 1
    }

    /// The truth about a token, which the engine is not told.
    pub(super) fn minted(&mut self, fingerprint: Fingerprint, workspace: usize, dies: Instant) {
        self.minted.insert(fingerprint, Minted { workspace, dies });
    }

    pub(super) fn exchange_ended(&mut self, exchange: usize, outcome: Outcome) {
        let now = Instant::now();
        let Exchange { workspace, epoch, started, .. } = self.exchanges[exchange];
        let site = self.known[workspace].upstream;
        self.known[workspace].flying -= 1;
        let live = self.known[workspace].exists && self.known[workspace].epoch == epoch;
        let timed_out = now >= started + self.sites[site].timeout;
        if live && matches!(outcome, Outcome::Dropped) && !timed_out {
            self.object(Rule::Abandoned, format!("an exchange of {workspace} was dropped for no reason"));
        }
        let silent = matches!(outcome, Outcome::Failed(Failure::Unreachable)) || timed_out;
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

    fn accept(&mut self, exchange: usize, fingerprint: Fingerprint, lifetime: Duration) {
        let Exchange { workspace, started, stepped_ms, .. } = self.exchanges[exchange];
        let same = self.known[workspace].held.filter(|held| held.fingerprint == fingerprint);
        let held = match same {
            // What was said before about the end stands, unless less is said now.
            Some(held) => Held { end: held.end.min(started + lifetime), stepped_ms: self.stepped_ms, ..held },
            None => {
                let margin = self.serve_margin.min(lifetime / 10);
                Held { fingerprint, end: started + lifetime, margin, stepped_ms }
            }
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

    /// What is left of a token by the stricter of the two clocks.
    fn left(&self, held: &Held) -> Duration {
        let ahead = u64::try_from(self.stepped_ms - held.stepped_ms).unwrap_or_default();
        held.end.saturating_duration_since(Instant::now()).saturating_sub(Duration::from_millis(ahead))
    }

    fn valid(&self, workspace: usize) -> Option<Held> {
        let known = &self.known[workspace];
        let held = known.held.filter(|_| known.exists && !known.frozen)?;
        (self.left(&held) > held.margin).then_some(held)
    }

    // What callers see.

    /// Called at the moment of asking. `None`: a name that never was.
    pub(super) fn asked(&mut self, workspace: Option<usize>, want: Want, patience: Duration) -> u64 {
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

    pub(super) fn went_away(&mut self, ask: u64) -> bool {
        self.asks.remove(&ask).is_some()
    }

    pub(super) fn is_waiting(&self, ask: u64) -> bool {
        self.asks.contains_key(&ask)
    }

    pub(super) fn anybody_waits(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Nobody waits beyond the deadline. Called between steps.
    pub(super) fn check_waiting(&mut self) {
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

    pub(super) fn answered(&mut self, ask: u64, answer: &Result<Served, Error>) {
        let Some(ask) = self.asks.remove(&ask) else { return };
        let now = Instant::now();
        if now > ask.deadline {
            self.object(Rule::Late, format!("{:?} after the deadline: {ask:?}", now - ask.deadline));
        }
        match (ask.workspace, answer) {
            (Some(workspace), Ok(served)) => self.check_served(workspace, &ask, served),
            (None, Ok(_)) => self.object(Rule::Withdrawn, "an unknown name got a token".to_owned()),
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
        let good = self.known[workspace].served.is_none_or(|(last, of)| match of == fingerprint {
            true => generation >= last,
            false => generation > last,
        });
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
            let rule = match workspace.is_some_and(|workspace| self.exists(workspace) && !self.is_frozen(workspace)) {
                true => Rule::WrongAnswer,
                false => Rule::Withdrawn,
            };
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
                    known.learned.is_none_or(|life| min_validity <= life - self.serve_margin.min(life / 10))
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

    // When all is over.

    pub(super) fn check_budgets(&mut self) {
        let over = |(site, starts): (&Site, &mut Vec<Instant>)| {
            starts.sort_unstable();
            let full = starts.windows(site.logins + 1).find(|starts| starts[site.logins] < starts[0] + site.per);
            full.map(|starts| format!("more than {} logins in {:?} from {:?}", site.logins, site.per, starts[0]))
        };
        let texts: Vec<String> = self.sites.iter().zip(&mut self.counted).filter_map(over).collect();
        for text in texts {
            self.object(Rule::OverBudget, text);
        }
    }

    /// Exchanges are for a reason: an ask or a change, which may lead to a few each, or time: back-offs reach half a
    /// minute soon, renewals are over a minute apart, and retries are denser only near the end of a token.
    pub(super) fn check_loops(&mut self) {
        let elapsed = self.start.elapsed().as_secs();
        let bound = |known: &Known| 40 + 4 * known.nudges + elapsed / 40;
        let loops = |(index, known): (usize, &Known)| {
            let text =
                format!("{} exchanges of {index} in {elapsed} s, {} asks and changes", known.exchanges, known.nudges);
            (known.exchanges > bound(known)).then_some(text)
        };
        let texts: Vec<String> = self.known.iter().enumerate().filter_map(loops).collect();
        for text in texts {
            self.object(Rule::Loop, text);
        }
    }

    pub(super) fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    pub(super) fn object(&mut self, rule: Rule, text: String) {
        let at = self.start.elapsed();
        self.objections.push(Objection { rule, text: format!("{text}, at {at:?}") });
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
