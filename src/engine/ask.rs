//! Asking for a token: at once where it can, by waiting for a flight where it must.

use super::entry::{Entry, Landed};
use super::plan::{Answer, MIN_RETRY, Urgency, Want};
use super::queue::Outlook;
use super::{Engine, Served, Source, unknown};
use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::token::{Fingerprint, WorkspaceName};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What tells callers apart. Whose it is the engine does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

/// The circumstances of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Until when the caller waits.
    pub deadline: Instant,
    /// Who pays for an exchange that only this call makes necessary.
    pub origin: Origin,
}

/// What a decision under the lock left to do.
enum Step {
    Done(Result<Served, Error>),
    Gone,
    Renew(Urgency, Served),
    Refused { error: Error, probe: Option<Instant> },
    Wait { queued: bool, landing: watch::Receiver<Option<Landed>> },
}

impl Engine {
    /// The token of a Workspace, with at least `min_validity` left.
    pub async fn get(&self, name: &WorkspaceName, min_validity: Duration, call: Call) -> Result<Served, Error> {
        let entry = self.entry(name).ok_or_else(unknown)?;
        let now = self.0.clock.now();
        let idle = entry.touch(now.mono);
        let served = match entry.hit(now, min_validity) {
            Some(served) => Ok(served),
            None => self.decide_until_done(name, Want::Token { min_validity }, call).await,
        };
        if served.is_err() {
            self.tell_if_missed(&entry, idle);
        }
        self.checked(name, served)
    }

    /// The replacement for a token that the upstream rejects. Never withdraws a token: others go on being served.
    pub async fn report(&self, name: &WorkspaceName, rejected: Fingerprint, call: Call) -> Result<Served, Error> {
        let entry = self.entry(name).ok_or_else(unknown)?;
        let now = self.0.clock.now();
        let idle = entry.touch(now.mono);
        if entry.core().note_report(rejected, call.origin, now) {
            self.0.watchers.tell(name);
        }
        let served = self.decide_until_done(name, Want::Replacement { rejected }, call).await;
        if served.is_err() {
            self.tell_if_missed(&entry, idle);
        }
        let served = self.checked(name, served)?;
        if served.token.fingerprint == rejected {
            return Err(Error::retry(Reason::TokenStillRejected, self.settings().min_gap));
        }
        Ok(served)
    }

    /// Who is refused after so long may be the first to want it again: what it has not, is missed from now on.
    pub(super) fn tell_if_missed(&self, entry: &Entry, idle: Duration) {
        let was_wanted = entry.core().plan.is_wanted(idle);
        if !was_wanted {
            self.0.watchers.tell(&entry.name);
        }
    }

    /// Asks the plan, does what it says, and asks again after every landing, until it says serve or refuse.
    async fn decide_until_done(&self, name: &WorkspaceName, mut want: Want, call: Call) -> Result<Served, Error> {
        let mut source = Source::Cache;
        loop {
            let entry = self.entry(name).ok_or_else(unknown)?;
            let now = self.0.clock.now();
            let (queued, landing) = match self.step(&entry, now, source, (want, call.origin)) {
                Step::Done(done) => return done,
                Step::Gone if self.is_current(name, &entry) => return Err(unknown()),
                // Another may have taken its place.
                Step::Gone => continue,
                Step::Renew(urgency, served) => {
                    entry.dispatch.enqueue(&entry, urgency, now.mono);
                    return Ok(served);
                }
                Step::Refused { error, probe } => {
                    if let Some(from) = probe {
                        entry.dispatch.want_probe(&entry, from);
                    }
                    return Err(error);
                }
                Step::Wait { queued, landing } => (queued, landing),
            };
            if queued && self.0.supervisor.is_draining() {
                // The driver has turned away who waited, or is about to: nothing starts any more.
                return Err(Error::retry(Reason::Draining, MIN_RETRY));
            }
            if queued {
                let outlook = entry.dispatch.enqueue(&entry, Urgency::Waiting, now.mono);
                worth_waiting(outlook, call.deadline, now.mono)?;
            }
            match self.wait(&entry, landing, call.deadline).await? {
                Landed::Token | Landed::Discarded => source = Source::Exchanged,
                Landed::Failed(error) => return Err(error),
            }
            // Reported once is enough: after the flight, whatever stands is the answer.
            want = want.after_a_flight();
        }
    }

    fn step(&self, entry: &Entry, now: Now, source: Source, (want, origin): (Want, Origin)) -> Step {
        let mut core = entry.core();
        if core.deleted {
            return Step::Gone;
        }
        if core.plan.would_be_forced(now, want)
            && let Err(wait) = self.0.forced.charge(origin, now.mono)
        {
            return Step::Refused { error: Error::retry(want.too_often(), wait), probe: None };
        }
        let answer = core.plan.answer(now, want);
        let served = || {
            let published = entry.published();
            published.map(|published| published.served(source)).ok_or_else(|| Error::new(Reason::Bug))
        };
        match answer {
            Answer::Serve => Step::Done(served()),
            Answer::ServeAndRenew(urgency) => match served() {
                Ok(served) => Step::Renew(urgency, served),
                Err(bug) => Step::Done(Err(bug)),
            },
            Answer::Refuse { error, probe } => Step::Refused { error, probe },
            Answer::Wait => Step::Wait { queued: core.plan.is_queued(), landing: core.next_landing() },
        }
    }

    async fn wait(
        &self,
        entry: &Arc<Entry>,
        mut landing: watch::Receiver<Option<Landed>>,
        deadline: Instant,
    ) -> Result<Landed, Error> {
        let Some(_waiting) = entry.wait(self.settings().max_waiters) else {
            return Err(Error::retry(Reason::CallerThrottled, Duration::from_secs(1)));
        };
        let landed = timeout_at(deadline, landing.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(landed)) => Ok(landed.clone().unwrap_or(Landed::Discarded)),
            // The entry is gone, and with it the sender: the next look finds that out.
            Ok(Err(_closed)) => Ok(Landed::Discarded),
            Err(_elapsed) => Err(Error::new(Reason::Deadline)),
        }
    }

    /// What leaves is for the Workspace that was asked for, and not expired.
    fn checked(&self, name: &WorkspaceName, served: Result<Served, Error>) -> Result<Served, Error> {
        let served = served?;
        if served.token.workspace != *name {
            tracing::error!(workspace.name = %name, "a token of another workspace was about to be served");
            return Err(Error::new(Reason::Bug));
        }
        if !served.is_servable(self.0.clock.now()) {
            return Err(Error::retry(Reason::UpstreamUnavailable, MIN_RETRY));
        }
        self.0.metrics.served(served.source);
        Ok(served)
    }
}

/// Nobody is kept waiting for what can't come before the deadline.
pub(super) fn worth_waiting(outlook: Outlook, deadline: Instant, now: Instant) -> Result<(), Error> {
    match outlook {
        Outlook::Soon => Ok(()),
        Outlook::Throttled(wait) if now + wait <= deadline => Ok(()),
        Outlook::Throttled(wait) => Err(Error::retry(Reason::UpstreamThrottled, wait)),
        Outlook::Down => Err(Error::retry(Reason::UpstreamUnavailable, MIN_RETRY)),
    }
}
