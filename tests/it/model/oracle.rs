//! The naive model: what is true of every Workspace, worked out from what went in and out, and what it objects to.
//!
//! It knows nothing of how the engine decides. It is told of everything at the very moment it happens, by the fake
//! upstream and by the callers, so that it never judges by hindsight.

mod answer;
mod exchange;
mod objection;
mod told;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::failure::Failure;
use token_broker::token::Fingerprint;
use tokio::time::Instant;

pub(super) use objection::{Objection, Rule};

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
    ended: bool,
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

    pub(super) fn exchanges(&self) -> u64 {
        self.known.iter().map(|known| known.exchanges).sum()
    }

    pub(super) fn object(&mut self, rule: Rule, text: impl fmt::Display) {
        let at = self.start.elapsed();
        self.objections.push(Objection { rule, text: format!("{text}, at {at:?}") });
    }
}
