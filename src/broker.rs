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
use arc_swap::ArcSwap;
use presence::Turns;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
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
    policy: Arc<ArcSwap<InForce>>,
    revisions: Revisions,
    /// Keyed anew by every process, so that nobody can choose to be taken for another.
    origins: RandomState,
    limits: Limits,
    turns: Arc<Turns>,
}

/// The policy by which calls are decided.
#[derive(Debug)]
struct InForce {
    policy: Arc<Policy>,
    edition: Edition,
}

/// How many policies there were before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edition(u64);

impl Broker {
    /// Hands out the engine's tokens to whom the policy lets; tells of another policy by these revisions.
    pub fn new(engine: Engine, policy: Policy, revisions: Revisions) -> Self {
        let first = InForce { policy: Arc::new(policy), edition: Edition(0) };
        let (policy, limits) = (Arc::new(ArcSwap::from_pointee(first)), Limits::default());
        Self { engine, policy, revisions, origins: RandomState::new(), limits, turns: Arc::default() }
    }

    /// With these limits of what callers may take.
    #[must_use]
    pub fn limited_by(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What callers may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Puts another policy in force: the next call is decided by it, and so is one that is under way before it gets a
    /// token. Whoever holds on to a decision hears of it.
    pub fn put_in_force(&self, policy: &Arc<Policy>) {
        self.policy.rcu(|before| {
            let Edition(count) = before.edition;
            InForce { policy: Arc::clone(policy), edition: Edition(count.wrapping_add(1)) }
        });
        self.revisions.moved();
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.load().policy)
    }

    /// Hears of every change in what callers are judged by, from here on.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// The token, if the caller may have it: when it asks, and still when there is a token.
    pub async fn authorise_then_get(&self, caller: &Caller, ask: &Ask) -> Result<Served, Error> {
        let _permit = self.limits.admit(caller, Action::Get)?;
        let edition = self.authorise(caller, Action::Get, &ask.workspace)?;
        let served = self.engine.get(&ask.workspace, ask.min_validity, self.call(caller, ask.deadline)).await?;
        self.authorise_again(edition, caller, Action::Get, &ask.workspace)?;
        Ok(served)
    }

    /// The replacement of a rejected token, if the caller may ask for it: before and after, as above.
    pub async fn authorise_then_report(&self, caller: &Caller, report: &Report) -> Result<Served, Error> {
        let _permit = self.limits.admit(caller, Action::Report)?;
        let edition = self.authorise(caller, Action::Report, &report.workspace)?;
        let call = self.call(caller, report.deadline);
        let served = self.engine.report(&report.workspace, report.rejected, call).await?;
        self.authorise_again(edition, caller, Action::Report, &report.workspace)?;
        Ok(served)
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
        workspaces.iter().try_for_each(|name| self.authorise(caller, Action::Watch, name).map(drop))?;
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
        if self.authorise(caller, Action::Health, workspace).is_err() {
            return Ok(None);
        }
        self.engine.watch(vec![workspace.clone()], Interest::Status, self.origin(caller)).map(Some)
    }

    /// Whether the caller may still do this: for streams, which were let in and are judged again.
    pub fn still_may(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> bool {
        self.authorise(caller, action, workspace).is_ok()
    }

    /// By which policy it was decided.
    fn authorise(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Result<Edition, Error> {
        let in_force = self.policy.load();
        match in_force.policy.decide(caller, action, workspace) {
            Decision::Deny => Err(Error::new(Reason::CallerForbidden)),
            Decision::Allow { grant: _ } => Ok(in_force.edition),
        }
    }

    /// Meanwhile another policy may have come into force, and with it another tenant behind the name.
    fn authorise_again(
        &self,
        edition: Edition,
        caller: &Caller,
        action: Action,
        workspace: &WorkspaceName,
    ) -> Result<(), Error> {
        if self.policy.load().edition == edition {
            return Ok(());
        }
        self.authorise(caller, action, workspace).map(drop)
    }

    fn call(&self, caller: &Caller, deadline: Instant) -> Call {
        Call { deadline, origin: self.origin(caller) }
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin(self.origins.hash_one(caller))
    }
}
