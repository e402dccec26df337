//! `Watch`: the status at once, and each change.
//!
//! Promises: no status twice in a row; who reads late sees the newest; what is unknown now may come to be, so the
//! stream stays open, and so may the right to know it; who is not believed any more is told so; the drain is told, and
//! ends the stream, since an open one would hold it up; a connection that has reached its age ends it without a word,
//! before the stream is cut with it.

use super::{HealthService, Subject};
use crate::broker::Presence;
use crate::engine::Watch;
use crate::error::Error;
use crate::listener::Going;
use crate::policy::Action;
use std::future::pending;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic_health::pb::health_check_response::ServingStatus;

/// Nobody says that a Workspace is not wanted any more, after which it is well again: looked at this often until then.
const UNWANTED_YET: Duration = Duration::from_secs(60);

/// Somebody who watches one name.
#[derive(Debug)]
pub(super) struct Follower {
    service: HealthService,
    subject: Subject,
    /// Says when to look at the Workspace again. None for any other subject, and for who may not look.
    workspace: Option<Watch>,
    /// None where callers are not told apart.
    presence: Option<Presence>,
    going: Going,
    told: Option<ServingStatus>,
}

impl Follower {
    /// Refused when too much is watched already.
    pub(super) fn new(
        service: HealthService,
        subject: Subject,
        presence: Option<Presence>,
        going: Going,
    ) -> Result<Self, Error> {
        let mut follower = Self { service, subject, workspace: None, presence, going, told: None };
        follower.judge()?;
        Ok(follower)
    }

    /// Follows the Workspace for as long as the caller may. Refused when too much is watched already.
    fn judge(&mut self) -> Result<(), Error> {
        let (Subject::Workspace(asker, name), Some(broker)) = (&self.subject, &self.service.broker) else {
            return Ok(());
        };
        if self.workspace.is_none() {
            self.workspace = broker.authorise_then_watch_health(asker, name)?;
        } else if !broker.still_may(asker.caller(), Action::Health, name) {
            self.workspace = None;
        }
        Ok(())
    }

    /// The next status that differs from the last one; none after the drain, or once the connection must go.
    async fn next(&mut self) -> Result<Option<ServingStatus>, Error> {
        let mut readiness = self.service.readiness.subscribe();
        let mut overall = self.service.overall.clone();
        loop {
            self.presence.as_ref().map_or(Ok(()), Presence::check)?;
            // Before the look: what changes after it is seen next time.
            readiness.mark_unchanged();
            overall.mark_unchanged();
            let draining = self.service.supervisor.is_draining();
            let status = match self.service.status(&self.subject) {
                ServingStatus::Serving if draining => ServingStatus::NotServing,
                status => status,
            };
            if self.told.replace(status) != Some(status) {
                return Ok(Some(status));
            }
            if draining {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.service.supervisor.draining() => {}
                () = self.going.asked() => return Ok(None),
                judged = judged_again(self.presence.as_mut()) => {
                    judged?;
                    self.judge()?;
                }
                () = changed(&mut readiness) => {}
                () = changed(&mut overall) => {}
                () = looks_different(self.workspace.as_mut(), status) => {}
            }
        }
    }
}

/// The stream: its next status, and what to go on with.
pub(super) async fn next(follower: Option<Follower>) -> Option<(Result<ServingStatus, Error>, Option<Follower>)> {
    let mut follower = follower?;
    match follower.next().await {
        Ok(status) => status.map(|status| (Ok(status), Some(follower))),
        Err(error) => Some((Err(error), None)),
    }
}

async fn judged_again(presence: Option<&mut Presence>) -> Result<(), Error> {
    match presence {
        Some(presence) => presence.judged_again().await,
        None => pending().await,
    }
}

async fn changed<T: Send + Sync>(follower: &mut watch::Receiver<T>) {
    if follower.changed().await.is_err() {
        // Nobody is left to change it.
        pending::<()>().await;
    }
}

async fn looks_different(workspace: Option<&mut Watch>, status: ServingStatus) {
    let Some(workspace) = workspace else { return pending().await };
    if status == ServingStatus::NotServing {
        tokio::select! {
            _ = workspace.changed() => {}
            () = sleep(UNWANTED_YET) => {}
        }
    } else {
        workspace.changed().await;
    }
}
