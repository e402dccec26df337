//! `Watch`: the status at once, and each change.
//!
//! Promises: no status twice in a row; who reads late sees the newest; what is unknown now may come to be, so the
//! stream stays open; the drain is told, and ends the stream, since an open one would hold it up; a connection that has
//! reached its age ends it without a word, before the stream is cut with it.

use super::{Asker, HealthService, Subject};
use crate::engine::Watch;
use crate::error::Error;
use crate::listener::Going;
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
    going: Going,
    told: Option<ServingStatus>,
}

impl Follower {
    /// Refused when too much is watched already.
    pub(super) fn new(service: HealthService, subject: Subject, going: Going) -> Result<Self, Error> {
        let workspace = match &subject {
            Subject::Workspace(Asker { caller, via }, name) => {
                service.broker.authorise_then_watch_health(caller, name, via)?
            }
            Subject::Process | Subject::Tokens | Subject::Unknown => None,
        };
        Ok(Self { service, subject, workspace, going, told: None })
    }

    /// The next status that differs from the last one; none after the drain, or once the connection must go.
    pub(super) async fn next(mut self) -> Option<(ServingStatus, Self)> {
        let mut readiness = self.service.readiness.subscribe();
        let mut overall = self.service.overall.clone();
        loop {
            // Before the look: what changes after it is seen next time.
            readiness.mark_unchanged();
            overall.mark_unchanged();
            let draining = self.service.supervisor.is_draining();
            let status = match self.service.status(&self.subject) {
                ServingStatus::Serving if draining => ServingStatus::NotServing,
                status => status,
            };
            if self.told.replace(status) != Some(status) {
                return Some((status, self));
            }
            if draining {
                return None;
            }
            tokio::select! {
                biased;
                () = self.service.supervisor.draining() => {}
                () = self.going.asked() => return None,
                () = changed(&mut readiness) => {}
                () = changed(&mut overall) => {}
                () = looks_different(self.workspace.as_mut(), status) => {}
            }
        }
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
