//! The caller of an open stream, for as long as it is let in.
//!
//! Promises: whoever's evidence no longer counts is told so at the next look, when it ends by itself at that moment,
//! and when anything changes at once; what else follows from a change is due within [`SPREAD`] of it, at another moment
//! for each stream, so that a thousand of them do not look at all their Workspaces in one go.

use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::identity::Authenticated;
use crate::limits::Permit;
use crate::revision::Revisions;
use crate::supervisor::at;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Within what time of a change all streams have begun to look again.
const SPREAD: Duration = Duration::from_millis(500);

/// The golden ratio of the numbers of 32 bits: multiples of it lie apart from each other as evenly as can be, however
/// many there are.
const GOLDEN: u32 = 0x9E37_79B9;

/// One stream's caller.
#[derive(Debug)]
pub struct Presence {
    proven: Authenticated,
    clock: Clock,
    /// Keeps what is subscribed to alive.
    _revisions: Revisions,
    moved: watch::Receiver<u64>,
    /// How long after a change this stream looks.
    delay: Duration,
    due: Option<Instant>,
    _permit: Permit,
}

/// Gives every stream its moment.
#[derive(Debug, Default)]
pub(super) struct Turns(AtomicU32);

impl Turns {
    fn next(&self) -> Duration {
        let part = self.0.fetch_add(GOLDEN, Ordering::Relaxed);
        SPREAD.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

impl Presence {
    /// From here on; what changed before has been looked at.
    pub(super) fn new(
        proven: Authenticated,
        permit: Permit,
        clock: Clock,
        revisions: Revisions,
        turns: &Turns,
    ) -> Self {
        let (moved, delay) = (revisions.subscribe(), turns.next());
        Self { proven, clock, _revisions: revisions, moved, delay, due: None, _permit: permit }
    }

    /// What time it is judged by.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether that is still believed.
    pub fn check(&self) -> Result<(), Error> {
        let is_believed = self.proven.is_believed(self.clock.now().wall);
        is_believed.then_some(()).ok_or_else(|| Error::new(Reason::CallerUnauthenticated))
    }

    /// Waits until it is time to judge again what the caller may do. Fails when it is not believed any more. Can be
    /// dropped and called again: nothing is lost.
    pub async fn judged_again(&mut self) -> Result<(), Error> {
        loop {
            self.check()?;
            let (ends, due) = (self.ends(), self.due);
            tokio::select! {
                biased;
                () = at(ends) => {}
                Ok(()) = self.moved.changed() => self.due = self.due.or_else(|| Some(Instant::now() + self.delay)),
                () = at(due) => {
                    self.due = None;
                    return Ok(());
                }
            }
        }
    }

    fn ends(&self) -> Option<Instant> {
        let now = self.clock.now();
        let left = self.proven.evidence.ends()?.duration_since(now.wall).unwrap_or_default();
        now.mono.checked_add(left)
    }
}
