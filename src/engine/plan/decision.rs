//! What goes into a decision about a Workspace and what comes out of it. Pure.

use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::failure::Failure;
use crate::token::{Fingerprint, Validity};
use crate::upstream::KeepWarm;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// What an operator set for a Workspace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Less than this left counts as expired; at most a tenth of the life.
    pub serve_margin: Duration,
    /// The least time between exchanges that callers can force; at most a tenth of the life.
    pub min_gap: Duration,
    /// Whether it is renewed when nobody asks.
    pub keep_warm: KeepWarm,
}

/// Whose turn it is when not everything may start at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A renewal well ahead of expiry: nobody waits.
    Background,
    /// Somebody waits, or will soon.
    Waiting,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A token.
    Token {
        /// The least time that it must still be valid.
        min_validity: Duration,
    },
    /// Another token than the one with this fingerprint, which the upstream rejects.
    Replacement {
        /// Names it.
        rejected: Fingerprint,
    },
}

/// The answer to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Hand out the token in hand.
    Serve,
    /// Hand it out, and put a renewal of this urgency into the queue.
    ServeAndRenew(Urgency),
    /// Wait for the flight, which stands in the queue or is under way.
    Wait,
    /// Refuse.
    Refuse {
        /// What the caller is told.
        error: Error,
        /// From when on a probe, before the back-off ends, may find the upstream recovered.
        probe: Option<Instant>,
    },
}

/// What to do when a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Put a renewal into the queue.
    Renew(Urgency),
    /// Nothing yet: come back then.
    Later(Instant),
    /// Nothing at all, until somebody asks.
    Rest,
}

/// What a flight came back with, as far as decisions go.
pub type Arrival = Result<Arrived, Failure>;

/// A token that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Names it.
    pub fingerprint: Fingerprint,
    /// What is left of its life, counted from the start of the flight.
    pub lifetime: Duration,
}

/// Permission to fly; handed back on landing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// When the flight started: before the request was sent.
    pub started: Now,
    /// The last attempt failed in a way that may be over soon.
    pub retrying: bool,
    pub(super) epoch: u64,
    pub(super) way: u64,
    /// A report of a rejected token brought it about.
    pub(super) reported: bool,
}

/// What a landing means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landing {
    /// The Workspace was forgotten, re-keyed, or in vain asked for in a way that was given up meanwhile: throw the
    /// answer away.
    Discarded,
    /// A new token: publish it.
    Replaced(Held),
    /// The same token again: keep the one in hand.
    Kept(Held),
    /// No usable token: whoever waits is told this. The token in hand, if any, stays.
    Failed(Error),
}

/// The token in hand, as far as decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How long it may be served.
    pub validity: Validity,
    /// When its renewal is due, on the monotonic clock.
    pub renew_at: Instant,
    /// Names it.
    pub fingerprint: Fingerprint,
}

/// Two numbers that decisions need from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// The fraction of the life after which renewal is due: `engine::schedule`.
    pub renew_fraction: f64,
    /// Uniform in `[0, 1)`.
    pub random: f64,
}

/// How a Workspace stands, for health and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No token, and nobody asks.
    Idle,
    /// No token yet; one is being fetched.
    Warming,
    /// A valid token.
    Fresh,
    /// A valid token whose renewal is overdue.
    Stale,
    /// The token expired and no other could be had.
    Expired,
    /// The upstream refuses the credential.
    Rejected,
    /// Withdrawn by an operator.
    Frozen,
}

impl Want {
    /// What is still wanted once a flight has landed: whatever stands.
    #[must_use]
    pub fn after_a_flight(self) -> Self {
        match self {
            Self::Token { .. } => self,
            Self::Replacement { .. } => Self::Token { min_validity: Duration::ZERO },
        }
    }

    /// What a caller is told who wants it too often.
    pub fn too_often(self) -> Reason {
        match self {
            Self::Token { .. } => Reason::CallerThrottled,
            Self::Replacement { .. } => Reason::ReportThrottled,
        }
    }
}

impl Held {
    /// When a caller that keeps the token should ask again: a tenth of the remaining life after the planned renewal.
    pub fn refresh_after(&self) -> SystemTime {
        let started = self.validity.started;
        let planned = self.renew_at.saturating_duration_since(started.mono);
        let spare = self.validity.lifetime.saturating_sub(planned);
        started.wall + planned + spare / 10
    }

    /// Due by either clock: a wall clock stepped forward brings the renewal forward, as it does the expiry.
    pub fn renewal_is_due(&self, now: Now) -> bool {
        let started = self.validity.started;
        let age = self.renew_at.saturating_duration_since(started.mono);
        now.mono >= self.renew_at || now.wall >= started.wall + age
    }
}
