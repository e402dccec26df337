//! Authorise, then act: the one way to a token, for every face of the broker.
//!
//! The limits of the caller come first, so that a flood asks the policy nothing. The policy is asked on every call,
//! before anything that could tell whether a Workspace exists. Must not know which face asks.

mod presence;
mod watching;

pub use presence::Presence;
pub use watching::Watching;

use crate::engine::{Call, Engine, Interest, Origin, Served, Watch};
use crate::error::{Error, Reason};
use crate::health::Health;
use crate::identity::{Authenticated, Caller};
use crate::limits::{Limits, Permit};
use crate::policy::{Action, Decision, Policy};
use crate::revision::Revisions;
use crate::token::{Fingerprint, WorkspaceName};
use presence::Turns;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
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
    limits: Limits,
    /// Of the policy, and of all that callers are believed by.
    revisions: Revisions,
    turns: Arc<Turns>,
}

impl Broker {
    /// Hands out the engine's tokens to whom the policy lets.
    pub fn new(engine: Engine, policy: Policy) -> Self {
        Self {
            engine,
            policy,
            origins: RandomState::new(),
            limits: Limits::default(),
            revisions: Revisions::default(),
            turns: Arc::default(),
        }
    }

    /// With these limits of what callers may take.
    #[must_use]
    pub fn limited_by(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Open streams are judged again whenever these move.
    #[must_use]
    pub fn revised_by(self, revisions: Revisions) -> Self {
        Self { revisions, ..self }
    }

    /// The token, if the caller may have it.
    pub async fn authorise_then_get(&self, caller: &Caller, ask: &Ask) -> Result<Served, Error> {
        let _permit = self.limits.admit(caller, Action::Get)?;
        self.authorise(caller, Action::Get, &ask.workspace)?;
        self.engine.get(&ask.workspace, ask.min_validity, self.call(caller, ask.deadline)).await
    }

    /// The replacement of a rejected token, if the caller may ask for it.
    pub async fn authorise_then_report(&self, caller: &Caller, report: &Report) -> Result<Served, Error> {
        let _permit = self.limits.admit(caller, Action::Report)?;
        self.authorise(caller, Action::Report, &report.workspace)?;
        self.engine.report(&report.workspace, report.rejected, self.call(caller, report.deadline)).await
    }

    /// Follows the tokens of Workspaces, if the caller may have all of them. None may stand twice.
    pub fn authorise_then_watch(
        &self,
        proven: &Authenticated,
        workspaces: Vec<WorkspaceName>,
    ) -> Result<Watching, Error> {
        let (caller, permit) = (&proven.caller, self.limits.admit(&proven.caller, Action::Watch)?);
        // Before the policy is asked: what changes meanwhile is seen.
        let presence = self.presence(proven, permit);
        workspaces.iter().try_for_each(|name| self.authorise(caller, Action::Watch, name))?;
        let watch = self.engine.watch(workspaces, Interest::Use, self.origin(caller))?;
        Ok(Watching::new(self.clone(), presence, watch))
    }

    /// The place of one call about health, or of a stream of it. The looks that follow are part of it.
    pub fn admit_to_health(&self, caller: &Caller) -> Result<Permit, Error> {
        self.limits.admit(caller, Action::Health)
    }

    /// The caller of a stream that begins.
    pub fn presence(&self, proven: &Authenticated, permit: Permit) -> Presence {
        let clock = self.engine.clock().clone();
        Presence::new(proven.clone(), permit, clock, self.revisions.clone(), &self.turns)
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
        match self.decide(caller, Action::Health, workspace) {
            Decision::Deny => Ok(None),
            Decision::Allow => {
                let origin = self.origin(caller);
                self.engine.watch(vec![workspace.clone()], Interest::Status, origin).map(Some)
            }
        }
    }

    /// Whether the caller may still know.
    pub fn may_know_health(&self, caller: &Caller, workspace: &WorkspaceName) -> bool {
        self.decide(caller, Action::Health, workspace) == Decision::Allow
    }

    fn authorise(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Result<(), Error> {
        match self.decide(caller, action, workspace) {
            Decision::Deny => Err(Error::new(Reason::CallerForbidden)),
            Decision::Allow => Ok(()),
        }
    }

    fn decide(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Decision {
        self.policy.decide(caller, action, workspace)
    }

    fn call(&self, caller: &Caller, deadline: Instant) -> Call {
        Call { deadline, origin: self.origin(caller) }
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin(self.origins.hash_one(caller))
    }
}
