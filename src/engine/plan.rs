//! Every decision about one Workspace: serve, wait, renew when, back off how long, forget. Pure.
//!
//! A [`Plan`] is a value: events go in with the time and a random number, a decision comes out, nothing else happens.
//! It knows no token, only its fingerprint and its validity. The drivers (`engine`, `engine::flight`) act on the
//! decisions; the upstream's queue (`engine::queue`) decides when a flight that is asked for may start.

mod decision;
mod operator;
mod trouble;

use super::schedule;
use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::failure::Failure;
use crate::token::{Fingerprint, Validity};
use crate::upstream::KeepWarm;
use std::time::Duration;
use tokio::time::Instant;
use trouble::Trouble;

pub use decision::{Answer, Arrival, Arrived, Chance, Held, Landing, Rules, State, Tick, Ticket, Urgency, Want};
pub use trouble::{BREAKER_OPEN, MIN_RETRY};

/// A Workspace that nobody has asked for in this time, or in a whole lifetime of its token, is let go.
const IDLE_AFTER: Duration = Duration::from_secs(600);
/// A token that lives shorter is no use to anybody, and keeping it fresh would be a loop of exchanges.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// From this fraction of the life on a renewal counts like a waiting caller.
const URGENT_FROM: f64 = 0.8;
/// What is kept of the learned floor with every renewal that went well.
const UNLEARN: f64 = 0.9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Grounded,
    Queued,
    Flying,
}

/// The state of one Workspace.
#[derive(Debug, Clone)]
pub struct Plan {
    rules: Rules,
    held: Option<Held>,
    flight: Flight,
    trouble: Option<Trouble>,
    last_attempt: Option<Instant>,
    last_landing: Option<Instant>,
    /// The longest life that the upstream is known to give: that of its newest token.
    learned_lifetime: Option<Duration>,
    /// Renewal before this fraction of the life brought nothing: the same token again, or a refusal.
    renew_floor: f64,
    /// Exchanges that reports brought about since a renewal by plan.
    reported_in_a_row: u32,
    /// The flight that is asked for is for a report.
    report_pending: bool,
    /// A new credential waits for the old one's flight to land.
    rekeyed: bool,
    frozen: bool,
    /// Counts what makes an answer under way worthless.
    epoch: u64,
    /// Counts the ways in which exchanges were made.
    way: u64,
}

impl Plan {
    /// A Workspace without a token.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            held: None,
            flight: Flight::Grounded,
            trouble: None,
            last_attempt: None,
            last_landing: None,
            learned_lifetime: None,
            renew_floor: 0.0,
            reported_in_a_row: 0,
            report_pending: false,
            rekeyed: false,
            frozen: false,
            epoch: 0,
            way: 0,
        }
    }

    /// Somebody asks.
    pub fn answer(&mut self, now: Now, want: Want) -> Answer {
        match want {
            Want::Token { min_validity } => self.ask(now, min_validity),
            Want::Replacement { rejected } => self.report(now, rejected),
        }
    }

    /// Whether nothing but this wish would bring about an exchange: there is a token that serves everybody else, and no
    /// flight is asked for.
    pub fn would_be_forced(&self, now: Now, want: Want) -> bool {
        let needless = self.flight == Flight::Grounded && self.servable(now).is_some();
        needless && self.clone().answer(now, want) == Answer::Wait
    }

    /// Whether the token with this fingerprint is the one that is served.
    pub fn serves(&self, fingerprint: Fingerprint, now: Now) -> bool {
        self.servable(now).is_some_and(|held| held.fingerprint == fingerprint)
    }

    /// Somebody asks for a token with at least `min_validity` left.
    pub fn ask(&mut self, now: Now, min_validity: Duration) -> Answer {
        if self.frozen {
            return refuse(Error::new(Reason::WorkspaceFrozen));
        }
        if self.servable(now).is_some_and(|held| held.validity.remaining(now) >= min_validity) {
            return self.serve(now);
        }
        if self.learned_lifetime.is_some_and(|longest| min_validity > longest) {
            return refuse(Error::new(Reason::LifetimeUnsatisfiable));
        }
        let gap = match self.servable(now) {
            Some(_) => self.gap_left(now, self.min_gap()),
            None => Duration::ZERO,
        };
        self.wait_for_exchange(now, Error::retry(Reason::RenewalTooSoon, gap))
    }

    /// Somebody says that the upstream rejects the token with this fingerprint.
    pub fn report(&mut self, now: Now, rejected: Fingerprint) -> Answer {
        let Some(held) = self.servable(now).filter(|_| !self.frozen) else {
            return self.ask(now, Duration::ZERO);
        };
        if held.fingerprint != rejected {
            return self.serve(now);
        }
        let doubled = self.min_gap() * 2_u32.pow(self.reported_in_a_row.min(5));
        let gap = self.gap_left(now, doubled);
        let was_grounded = self.flight == Flight::Grounded;
        let answer = self.wait_for_exchange(now, Error::retry(Reason::ReportThrottled, gap));
        if was_grounded && answer == Answer::Wait {
            self.reported_in_a_row += 1;
            self.report_pending = true;
        }
        answer
    }

    /// A timer fired, or the wall clock was stepped. `idle` is the time since the last read.
    pub fn tick(&mut self, now: Now, idle: Duration) -> Tick {
        if self.frozen || self.flight == Flight::Flying {
            return Tick::Rest;
        }
        if self.flight == Flight::Queued {
            return self.tick_in_queue(now);
        }
        match self.next_due() {
            // Whether it is wanted counts when it is due: until then, somebody may read it.
            Some(due) if now.mono < due && !self.renewal_is_due(now) => Tick::Later(due),
            Some(_) | None if !self.is_wanted(idle) => Tick::Rest,
            Some(due) if self.in_back_off(now) => Tick::Later(due),
            Some(_) | None => {
                self.flight = Flight::Queued;
                Tick::Renew(self.urgency(now))
            }
        }
    }

    /// A renewal that waits in the queue becomes urgent as the end comes near.
    fn tick_in_queue(&self, now: Now) -> Tick {
        match (self.next_due(), self.urgency(now)) {
            (Some(_), Urgency::Waiting) => Tick::Renew(Urgency::Waiting),
            (Some(due), Urgency::Background) => Tick::Later(due),
            (None, _) => Tick::Rest,
        }
    }

    /// The queue says that the flight may start, in a back-off too if it is a probe. `None`: it is not wanted any more,
    /// may not be tried again yet, or one is under way.
    pub fn start(&mut self, now: Now) -> Option<Ticket> {
        // Grounded and out of trouble: a place in the queue that outlived the flight it was for.
        let wanted = self.flight == Flight::Queued || self.trouble.is_some();
        if self.frozen || self.flight == Flight::Flying || !wanted {
            return None;
        }
        if !self.may_probe(now) {
            self.flight = Flight::Grounded;
            return None;
        }
        self.flight = Flight::Flying;
        // It flies with the newest credential.
        self.rekeyed = false;
        self.last_attempt = Some(now.mono);
        let reported = std::mem::take(&mut self.report_pending);
        let retrying = self.trouble.as_ref().is_some_and(Trouble::is_transient);
        Some(Ticket { started: now, retrying, epoch: self.epoch, way: self.way, reported })
    }

    /// The flight came back.
    pub fn landed(&mut self, now: Now, ticket: Ticket, arrival: Arrival, chance: Chance) -> Landing {
        self.flight = Flight::Grounded;
        self.last_landing = Some(now.mono);
        if ticket.epoch != self.epoch {
            self.try_new_credential();
            return Landing::Discarded;
        }
        match arrival {
            Err(_) if ticket.way != self.way => self.try_new_way(ticket),
            Ok(arrived) => self.arrived(now, ticket, arrived, chance),
            Err(failure) => self.failed(now, failure, chance),
        }
    }

    /// Whether a flight stands in the queue and has not started.
    pub fn is_queued(&self) -> bool {
        self.flight == Flight::Queued
    }

    /// Whether nothing is under way and nothing stands in the queue.
    pub fn is_at_rest(&self) -> bool {
        self.flight == Flight::Grounded
    }

    /// When the next timer should fire: the end of a back-off, the renewal, or, while that waits in the queue, the
    /// moment from which it is urgent.
    pub fn next_due(&self) -> Option<Instant> {
        if self.flight == Flight::Queued {
            return self.held.map(|held| schedule::at_fraction(held.validity, URGENT_FROM));
        }
        let retry = self.trouble.as_ref().map(Trouble::retry_at);
        retry.or_else(|| self.held.map(|held| held.renew_at))
    }

    /// How the Workspace stands.
    pub fn state(&self, now: Now) -> State {
        let rejected = self.trouble.as_ref().is_some_and(Trouble::is_rejection);
        match self.servable(now) {
            _ if self.frozen => State::Frozen,
            Some(_) | None if rejected => State::Rejected,
            Some(_) if self.renewal_is_due(now) => State::Stale,
            Some(_) => State::Fresh,
            None if self.trouble.is_some() => State::Expired,
            None if self.flight != Flight::Grounded => State::Warming,
            None => State::Idle,
        }
    }

    fn serve(&mut self, now: Now) -> Answer {
        let urgency = self.urgency(now);
        match self.flight {
            Flight::Grounded if self.renewal_is_due(now) && !self.in_back_off(now) => {
                self.flight = Flight::Queued;
                Answer::ServeAndRenew(urgency)
            }
            // Once more, so that it moves forward.
            Flight::Queued if urgency == Urgency::Waiting => Answer::ServeAndRenew(urgency),
            Flight::Grounded | Flight::Queued | Flight::Flying => Answer::Serve,
        }
    }

    /// Joins the flight, or asks for one, unless a failure that is remembered or a gap forbids it.
    fn wait_for_exchange(&mut self, now: Now, too_soon: Error) -> Answer {
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| self.is_answered_by(trouble, now)) {
            let probe = trouble.is_outage() && self.flight == Flight::Grounded;
            return Answer::Refuse { error: trouble.error(now.mono), probe: probe.then(|| self.rested_at(now)) };
        }
        if self.flight != Flight::Grounded {
            return Answer::Wait;
        }
        if too_soon.retry_after.is_some_and(|gap| !gap.is_zero()) {
            return refuse(too_soon);
        }
        self.flight = Flight::Queued;
        Answer::Wait
    }

    /// A failure that is remembered is the answer, also while an attempt finds out whether the upstream is back: an
    /// upstream that is slow to fail, or silent, would otherwise keep everybody waiting for each attempt in turn.
    fn is_answered_by(&self, trouble: &Trouble, now: Now) -> bool {
        now.mono < trouble.retry_at() || (self.flight == Flight::Flying && trouble.is_transient())
    }

    fn arrived(&mut self, now: Now, ticket: Ticket, arrived: Arrived, chance: Chance) -> Landing {
        let same = self.held.filter(|held| held.fingerprint == arrived.fingerprint);
        let validity = match same {
            Some(held) => vouched_again(held.validity, ticket, arrived.lifetime, now),
            None => Validity::new(ticket.started, arrived.lifetime, self.rules.serve_margin),
        };
        if !validity.is_servable(now) || validity.lifetime < SHORTEST_LIFE {
            // The token in hand once more, at its end: the answer is well-formed, and the next one may be another.
            let failure = if same.is_some() { Failure::Unavailable } else { Failure::Malformed };
            return self.failed(now, failure, chance);
        }
        self.trouble = None;
        let renew_at = match same {
            Some(_) => self.after_no_progress(validity, now),
            None => self.after_progress(ticket, validity, chance),
        };
        let held = Held { validity, renew_at, fingerprint: arrived.fingerprint };
        self.held = Some(held);
        match same {
            Some(_) => Landing::Kept(held),
            None => Landing::Replaced(held),
        }
    }

    fn failed(&mut self, now: Now, failure: Failure, chance: Chance) -> Landing {
        let left = self.servable(now).map(|held| held.validity.remaining(now).saturating_sub(held.validity.margin));
        if let (Failure::Rejected, Some(held)) = (failure, self.servable(now)) {
            self.renew_floor = schedule::later_than(held.validity, now);
        }
        let trouble = Trouble::after(self.trouble.take(), failure, now.mono, left, chance.random);
        let error = trouble.error(now.mono);
        self.trouble = Some(trouble);
        Landing::Failed(error)
    }

    /// A new token: plan its renewal, and unlearn a little of what earlier refusals taught.
    fn after_progress(&mut self, ticket: Ticket, validity: Validity, chance: Chance) -> Instant {
        self.learned_lifetime = Some(validity.lifetime);
        if !ticket.reported {
            self.reported_in_a_row = 0;
        }
        let renew_at = schedule::renew_at(validity, self.renew_floor, chance);
        self.renew_floor *= UNLEARN;
        renew_at
    }

    /// The upstream gave the same token again: remember to ask later in its life, and ask next when half of what is
    /// left is over, so that a long life is not spent asking. Not sooner than a gap from now, nor later than the moment
    /// from which the token can't be served.
    fn after_no_progress(&mut self, validity: Validity, now: Now) -> Instant {
        self.renew_floor = schedule::later_than(validity, now);
        let end = validity.started.mono + validity.lifetime.saturating_sub(validity.margin);
        let half = end.saturating_duration_since(now.mono) / 2;
        (now.mono + half.max(self.min_gap()).max(MIN_RETRY)).min(end)
    }

    fn servable(&self, now: Now) -> Option<Held> {
        self.held.filter(|held| held.validity.is_servable(now))
    }

    fn renewal_is_due(&self, now: Now) -> bool {
        self.held.is_some_and(|held| held.renewal_is_due(now))
    }

    /// No back-off, or one that a recovered upstream ends and that has lasted a little.
    fn may_probe(&self, now: Now) -> bool {
        let rested = now.mono >= self.rested_at(now);
        self.trouble.as_ref().is_none_or(|trouble| now.mono >= trouble.retry_at() || (trouble.is_outage() && rested))
    }

    /// When the last attempt is long enough over for a probe; not before now.
    fn rested_at(&self, now: Now) -> Instant {
        self.last_attempt.map_or(now.mono, |last| now.mono.max(last + MIN_RETRY))
    }

    fn in_back_off(&self, now: Now) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| now.mono < trouble.retry_at())
    }

    /// Near the end of the life a renewal counts like a waiting caller.
    fn urgency(&self, now: Now) -> Urgency {
        match self.held {
            Some(held) if held.validity.remaining(now) > held.validity.lifetime.mul_f64(1.0 - URGENT_FROM) => {
                Urgency::Background
            }
            Some(_) => Urgency::Waiting,
            None => Urgency::Background,
        }
    }

    /// Whether its token is renewed, nobody having read it for this long.
    pub fn is_wanted(&self, idle: Duration) -> bool {
        let lifetime = self.held.map(|held| held.validity.lifetime).unwrap_or_default();
        match self.rules.keep_warm {
            KeepWarm::Always => true,
            KeepWarm::WhileUsed => idle <= lifetime.max(IDLE_AFTER),
        }
    }

    fn min_gap(&self) -> Duration {
        let tenth = self.held.map(|held| held.validity.lifetime / 10);
        tenth.map_or(self.rules.min_gap, |tenth| self.rules.min_gap.min(tenth))
    }

    fn gap_left(&self, now: Now, gap: Duration) -> Duration {
        // From the landing, or a slow upstream would be asked again and again for what it can't give.
        let since = self.last_landing.map(|last| now.mono.saturating_duration_since(last));
        since.map_or(Duration::ZERO, |since| gap.saturating_sub(since))
    }
}

fn refuse(error: Error) -> Answer {
    Answer::Refuse { error, probe: None }
}

/// The same token once more. Its end stays where it was on the monotonic clock, or moves nearer; the wall end is taken
/// anew, because a stepped wall clock may have declared it over while the upstream still vouches for it.
fn vouched_again(held: Validity, ticket: Ticket, left: Duration, now: Now) -> Validity {
    let end = held.deadline().min(ticket.started.mono + left);
    let age = now.mono.saturating_duration_since(held.started.mono);
    let wall = now.wall.checked_sub(age).unwrap_or(now.wall);
    let lifetime = end.saturating_duration_since(held.started.mono);
    Validity { started: Now { mono: held.started.mono, wall }, lifetime, ..held }
}
