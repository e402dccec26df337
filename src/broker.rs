//! Authorise, then act: the one way to a token, for every face of the broker.
//!
//! The policy is asked on every call, before anything that could tell whether a Workspace exists. Must not know which
//! face asks.

use crate::engine::{Call, Engine, Interest, Origin, Served, Watch};
use crate::error::{Error, Reason};
use crate::health::Health;
use crate::identity::Caller;
use crate::policy::{Action, Decision, Policy};
use crate::token::{Fingerprint, WorkspaceName};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose token.
    pub workspace: WorkspaceName,
    /// How long it must still be valid.
    pub min_validity: Duration,
    /// Until when the caller waits.
    pub deadline: Instant,
}

/// What a caller reports.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whose token.
    pub workspace: WorkspaceName,
    /// The token that the upstream rejected.
    pub rejected: Fingerprint,
    /// Until when the caller waits.
    pub deadline: Instant,
}

/// The broker behind its faces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    engine: Engine,
    policy: Policy,
    /// Keyed anew by every process, so that nobody can choose to be taken for another.
    origins: RandomState,
}

impl Broker {
    /// Hands out the engine's tokens to whom the policy lets.
    pub fn new(engine: Engine, policy: Policy) -> Self {
        Self { engine, policy, origins: RandomState::new() }
    }

    /// The token, if the caller may have it.
    pub async fn authorise_then_get(&self, caller: &Caller, ask: &Ask) -> Result<Served, Error> {
        self.authorise(caller, Action::Get, &ask.workspace)?;
        self.engine.get(&ask.workspace, ask.min_validity, self.call(caller, ask.deadline)).await
    }

    /// The replacement of a rejected token, if the caller may ask for it.
    pub async fn authorise_then_report(&self, caller: &Caller, report: &Report) -> Result<Served, Error> {
        self.authorise(caller, Action::Report, &report.workspace)?;
        self.engine.report(&report.workspace, report.rejected, self.call(caller, report.deadline)).await
    }

    /// Follows the tokens of Workspaces, if the caller may have all of them. None may stand twice.
    pub fn authorise_then_watch(&self, caller: &Caller, workspaces: Vec<WorkspaceName>) -> Result<Watch, Error> {
        workspaces.iter().try_for_each(|name| self.authorise(caller, Action::Watch, name))?;
        self.engine.watch(workspaces, Interest::Use, self.origin(caller))
    }

    /// Whether a Workspace is well. `None` if there is none, or the caller may not know: which of the two nobody
    /// learns.
    pub fn authorise_then_health(&self, caller: &Caller, workspace: &WorkspaceName) -> Option<Health> {
        self.authorise(caller, Action::Health, workspace).ok()?;
        self.engine.health(workspace)
    }

    /// Says when to ask for the health of a Workspace again; it need not exist. `None` if the caller may not know, and
    /// then it takes no place among the watches.
    pub fn authorise_then_watch_health(
        &self,
        caller: &Caller,
        workspace: &WorkspaceName,
    ) -> Result<Option<Watch>, Error> {
        match self.policy.decide(caller, Action::Health, workspace) {
            Decision::Deny => Ok(None),
            Decision::Allow => {
                let origin = self.origin(caller);
                self.engine.watch(vec![workspace.clone()], Interest::Status, origin).map(Some)
            }
        }
    }

    fn authorise(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Result<(), Error> {
        match self.policy.decide(caller, action, workspace) {
            Decision::Deny => Err(Error::new(Reason::CallerForbidden)),
            Decision::Allow => Ok(()),
        }
    }

    fn call(&self, caller: &Caller, deadline: Instant) -> Call {
        Call { deadline, origin: self.origin(caller) }
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin(self.origins.hash_one(caller))
    }
}
