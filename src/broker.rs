//! Authorise, then act: the one way to a token, for every face of the broker.
//!
//! The policy is asked on every call, before anything that could tell whether a Workspace exists. Must not know which
//! face asks.

use crate::audit::{Audit, By, Denial, Face, Release, Via};
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
    audit: Audit,
    /// Keyed anew by every process, so that nobody can choose to be taken for another.
    origins: RandomState,
}

impl Broker {
    /// Hands out the engine's tokens to whom the policy lets, once the audit has it.
    pub fn new(engine: Engine, policy: Policy, audit: Audit) -> Self {
        Self { engine, policy, audit, origins: RandomState::new() }
    }

    /// What refusals are counted by that nobody asks the broker about.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The token, if the caller may have it.
    pub async fn authorise_then_get(&self, caller: &Caller, ask: &Ask, via: &Via) -> Result<Served, Error> {
        self.authorise(caller, Action::Get, &ask.workspace, via)?;
        let served = self.engine.get(&ask.workspace, ask.min_validity, self.call(caller, ask.deadline)).await?;
        self.record(caller, &served, Face::Get, via).await?;
        Ok(served)
    }

    /// The replacement of a rejected token, if the caller may ask for it.
    pub async fn authorise_then_report(&self, caller: &Caller, report: &Report, via: &Via) -> Result<Served, Error> {
        self.authorise(caller, Action::Report, &report.workspace, via)?;
        let served = self.engine.report(&report.workspace, report.rejected, self.call(caller, report.deadline)).await?;
        self.record(caller, &served, Face::Report, via).await?;
        Ok(served)
    }

    /// Follows the tokens of Workspaces, if the caller may have all of them. None may stand twice. Each token goes
    /// through [`Self::record_told`] before it is told.
    pub fn authorise_then_watch(
        &self,
        caller: &Caller,
        workspaces: Vec<WorkspaceName>,
        via: &Via,
    ) -> Result<Watch, Error> {
        workspaces.iter().try_for_each(|name| self.authorise(caller, Action::Watch, name, via))?;
        self.engine.watch(workspaces, Interest::Use, self.origin(caller))
    }

    /// Has the audit take down that a token is told on a stream. On an error it must not be.
    pub async fn record_told(&self, caller: &Caller, served: &Served, via: &Via) -> Result<(), Error> {
        self.record(caller, served, Face::Watch, via).await
    }

    /// Whether a Workspace is well. `None` if there is none, or the caller may not know: which of the two nobody
    /// learns.
    pub fn authorise_then_health(&self, caller: &Caller, workspace: &WorkspaceName, via: &Via) -> Option<Health> {
        self.authorise(caller, Action::Health, workspace, via).ok()?;
        self.engine.health(workspace)
    }

    /// Says when to ask for the health of a Workspace again; it need not exist. `None` if the caller may not know, and
    /// then it takes no place among the watches.
    pub fn authorise_then_watch_health(
        &self,
        caller: &Caller,
        workspace: &WorkspaceName,
        via: &Via,
    ) -> Result<Option<Watch>, Error> {
        if self.authorise(caller, Action::Health, workspace, via).is_err() {
            return Ok(None);
        }
        let origin = self.origin(caller);
        self.engine.watch(vec![workspace.clone()], Interest::Status, origin).map(Some)
    }

    fn authorise(&self, caller: &Caller, action: Action, workspace: &WorkspaceName, via: &Via) -> Result<(), Error> {
        match self.policy.decide(caller, action, workspace) {
            Decision::Deny => Err(self.denied(caller, action, workspace, via, Reason::CallerForbidden)),
            Decision::Allow => Ok(()),
        }
    }

    /// Has the audit count a refusal.
    fn denied(&self, caller: &Caller, action: Action, workspace: &WorkspaceName, via: &Via, reason: Reason) -> Error {
        let (by, listener, action) = (By::Caller(caller), &via.listener, action.as_str());
        self.audit.denied(&Denial { by, reason, action, listener, workspace: Some(workspace) });
        Error::new(reason)
    }

    async fn record(&self, caller: &Caller, served: &Served, face: Face, via: &Via) -> Result<(), Error> {
        let (token, validity) = (&served.token, &served.held.validity);
        let (workspace, fingerprint) = (&token.workspace, token.fingerprint);
        self.audit.release(&Release { caller, workspace, fingerprint, face, validity, via }).await
    }

    fn call(&self, caller: &Caller, deadline: Instant) -> Call {
        Call { deadline, origin: self.origin(caller) }
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin(self.origins.hash_one(caller))
    }
}
