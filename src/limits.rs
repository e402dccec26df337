//! What callers may take of the broker: calls of each kind per second, calls and streams at once; and what all of them
//! may have under way together.
//!
//! Promises: no cap is ever passed; a call is let in or refused in a bounded number of steps, without allocating for a
//! caller that is known; a refusal costs the caller nothing and says when to try again; a place is given back when its
//! [`Permit`] is dropped, however that comes; memory is bounded by [`Settings::max_callers`]. Must not know what a
//! caller may do, nor whether a Workspace exists.
//!
//! The rates are `limits::rate`'s, not those of the `governor` crate: a caller has four of them and a count of places,
//! kept in one entry that is found once; their settings change while callers stand; and they tell tokio's time, which
//! tests can stop.

mod account;
mod callers;
mod line;
mod metrics;
mod rate;

pub use account::PerAction;
pub use line::Line;
pub use metrics::Metrics;

use crate::error::{Error, Reason};
use crate::identity::Caller;
use crate::policy::Action;
use account::{Account, Places};
use arc_swap::ArcSwap;
use callers::Callers;
use rate::{Rate, in_milliseconds};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When to try again while all places are taken. Nobody knows when one is given back; most calls take milliseconds, and
/// those that wait for an upstream a second or so.
const RETRY_WHEN_FULL: Duration = Duration::from_millis(250);

/// How much callers may take. Numbers below one count as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Calls and streams of all callers at once.
    pub max_in_flight: usize,
    /// Calls and streams of one caller at once.
    pub max_in_flight_per_caller: usize,
    /// How many callers are remembered.
    pub max_callers: usize,
    /// What one caller may do of each kind.
    pub rates: PerAction<Pace>,
}

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a rest.
    pub burst: u32,
}

/// Which limit refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The caller does this too often.
    Rate,
    /// The caller has too much under way.
    InFlightOfCaller,
    /// All callers together have too much under way.
    InFlight,
}

/// The limits in force, and what is taken of them. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What the rates count from.
    beginning: Instant,
    rules: ArcSwap<Rules>,
    in_flight: Places,
    callers: Callers,
    metrics: Metrics,
}

/// The settings as they are used.
#[derive(Debug, Clone, Copy)]
struct Rules {
    max_in_flight: usize,
    max_in_flight_per_caller: usize,
    max_callers: usize,
    rates: PerAction<Rate>,
}

/// The place of one call, or of one stream for as long as it is open.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Permit {
    shared: Arc<Shared>,
    account: Arc<Account>,
}

/// A refusal, and how long it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    limit: Limit,
    retry_after: Duration,
}

impl Limit {
    /// Its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::InFlightOfCaller => "in_flight_of_caller",
            Self::InFlight => "in_flight",
        }
    }
}

impl Default for Settings {
    /// Far above what a fleet asks for that keeps its tokens, and below what one caller needs to fill the broker.
    fn default() -> Self {
        Self {
            max_in_flight: 50_000,
            max_in_flight_per_caller: 20_000,
            max_callers: 20_000,
            rates: PerAction {
                get: Pace { per_second: 5_000, burst: 20_000 },
                watch: Pace { per_second: 500, burst: 5_000 },
                report: Pace { per_second: 100, burst: 2_000 },
                health: Pace { per_second: 1_000, burst: 5_000 },
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&Settings::default(), Metrics::default())
    }
}

impl Limits {
    /// Nobody has taken anything yet.
    pub fn new(settings: &Settings, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            beginning: Instant::now(),
            rules: ArcSwap::from_pointee(Rules::of(settings)),
            in_flight: Places::default(),
            callers: Callers::default(),
            metrics,
        }))
    }

    /// Other settings. What is under way stays so; nobody owes more than a burst of the new rates.
    pub fn configure(&self, settings: &Settings) {
        let (shared, rules) = (&self.0, Rules::of(settings));
        shared.rules.store(Arc::new(rules));
        let now = nanos(shared.beginning.elapsed());
        shared.callers.for_each(|account| account.forgive(&rules.rates, now));
    }

    /// Lets one call in, or one stream. The error says when to try again.
    pub fn admit(&self, caller: &Caller, action: Action) -> Result<Permit, Error> {
        self.decide(caller, action).map_err(Error::from)
    }

    /// The same for one that came by this line. Nothing is read of the line for a while if too many that came by it are
    /// refused; those that all callers together left no place for don't count, for they are not its fault.
    pub fn admit_from(&self, line: &Line, caller: &Caller, action: Action) -> Result<Permit, Error> {
        let decided = self.decide(caller, action);
        if let Err(Refusal { limit: Limit::Rate | Limit::InFlightOfCaller, .. }) = decided
            && line.refused()
        {
            self.0.metrics.paused();
        }
        decided.map_err(Error::from)
    }

    fn decide(&self, caller: &Caller, action: Action) -> Result<Permit, Refusal> {
        let shared = &self.0;
        let rules = **shared.rules.load();
        let now = nanos(shared.beginning.elapsed());
        let enter = |account: &Arc<Account>| self.enter(account, action, &rules, now);
        let entered = shared.callers.known(caller, enter).unwrap_or_else(|| {
            let (entered, arrival) = shared.callers.newcomer(caller, (rules.max_callers, now), enter);
            shared.metrics.remembered(arrival.remembered);
            if !arrival.had_room {
                shared.metrics.shared();
            }
            entered
        });
        entered.inspect_err(|refusal| shared.metrics.throttled(action, refusal.limit))
    }

    /// Calls and streams under way.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.taken()
    }

    /// Places first: they can be given back, a charge can't.
    fn enter(&self, account: &Arc<Account>, action: Action, rules: &Rules, now: u64) -> Result<Permit, Refusal> {
        let full = |limit| Refusal { limit, retry_after: RETRY_WHEN_FULL };
        if !account.in_flight().take(rules.max_in_flight_per_caller) {
            return Err(full(Limit::InFlightOfCaller));
        }
        if !self.0.in_flight.take(rules.max_in_flight) {
            account.in_flight().give_back();
            return Err(full(Limit::InFlight));
        }
        let permit = Permit { shared: Arc::clone(&self.0), account: Arc::clone(account) };
        let charged = account.charge(action, *rules.rates.of(action), now);
        charged.map_err(|wait| Refusal { limit: Limit::Rate, retry_after: in_milliseconds(wait) })?;
        Ok(permit)
    }
}

impl Rules {
    fn of(settings: &Settings) -> Self {
        let Settings { max_in_flight, max_in_flight_per_caller, max_callers, rates } = settings;
        Self {
            max_in_flight: (*max_in_flight).max(1),
            max_in_flight_per_caller: (*max_in_flight_per_caller).max(1),
            max_callers: (*max_callers).max(1),
            rates: rates.map(|_, pace| Rate::new(pace.per_second, pace.burst)),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::retry(Reason::CallerThrottled, refusal.retry_after)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.in_flight().give_back();
        self.shared.in_flight.give_back();
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
