//! Authorise, then act: the one way to a token, for every face of the broker.
//!
//! The limits of the caller come first, so that a flood asks the policy nothing. The policy is asked on every call,
//! before anything that could tell whether a Workspace exists. No token leaves without a record of it, and refusals are
//! counted. Must not know which face asks.

mod presence;
mod telling;
mod watching;

pub use presence::Presence;
pub use watching::Watching;

use crate::audit::{Audit, By, Denial, Face, Release, Via};
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

/// Who asks, and how the request came in.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who, and why that is believed.
    pub proven: Authenticated,
    /// By which listener, from where.
    pub via: Via,
}

impl Asker {
    /// The name of who asks.
    pub fn caller(&self) -> &Caller {
        &self.proven.caller
    }
}

/// The broker behind its faces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    engine: Engine,
    policy: Arc<ArcSwap<InForce>>,
    revisions: Revisions,
    audit: Audit,
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
        Self {
            engine,
            policy,
            revisions,
            audit: Audit::none(),
            origins: RandomState::new(),
            limits,
            turns: Arc::default(),
        }
    }

    /// With these limits of what callers may take.
    #[must_use]
    pub fn limited_by(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// With this record of who gets which token.
    #[must_use]
    pub fn audited_by(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// What refusals are counted by that nobody asks the broker about.
    pub fn audit(&self) -> &Audit {
        &self.audit
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

    /// The token, if the caller may have it: when it asks, and still when there is a token and a record of it.
    pub async fn authorise_then_get(&self, asker: &Asker, ask: &Ask) -> Result<Served, Error> {
        let _permit = self.admit(asker, Action::Get)?;
        let edition = self.authorise(asker, Action::Get, &ask.workspace)?;
        let call = self.call(asker.caller(), ask.deadline);
        let served = self.engine.get(&ask.workspace, ask.min_validity, call).await?;
        self.record(asker, &served, Face::Get).await?;
        self.authorise_again(edition, asker, Action::Get, &ask.workspace)?;
        Ok(served)
    }

    /// The replacement of a rejected token, if the caller may ask for it: before and after, as above.
    pub async fn authorise_then_report(&self, asker: &Asker, report: &Report) -> Result<Served, Error> {
        let _permit = self.admit(asker, Action::Report)?;
        let edition = self.authorise(asker, Action::Report, &report.workspace)?;
        let call = self.call(asker.caller(), report.deadline);
        let served = self.engine.report(&report.workspace, report.rejected, call).await?;
        self.record(asker, &served, Face::Report).await?;
        self.authorise_again(edition, asker, Action::Report, &report.workspace)?;
        Ok(served)
    }

    /// Follows the tokens of Workspaces, if the caller may have all of them. None may stand twice.
    pub fn authorise_then_watch(&self, asker: Asker, workspaces: Vec<WorkspaceName>) -> Result<Watching, Error> {
        let permit = self.admit(&asker, Action::Watch)?;
        // Before the policy is asked: what changes meanwhile is seen.
        let presence = self.presence(&asker.proven, permit);
        workspaces.iter().try_for_each(|name| self.authorise(&asker, Action::Watch, name).map(drop))?;
        let watch = self.engine.watch(workspaces, Interest::Use, self.origin(asker.caller()))?;
        Ok(Watching::new(self.clone(), asker, presence, watch))
    }

    /// The place of one call about health, or of a stream of it. The looks that follow are part of it.
    pub fn admit_to_health(&self, asker: &Asker) -> Result<Permit, Error> {
        self.admit(asker, Action::Health)
    }

    /// The caller of a stream that begins.
    pub fn presence(&self, proven: &Authenticated, permit: Permit) -> Presence {
        let clock = self.engine.clock().clone();
        Presence::new(proven.clone(), permit, clock, self.revisions.clone(), &self.turns)
    }

    /// Whether a Workspace is well. `None` if there is none, or the caller may not know: which of the two nobody
    /// learns.
    pub fn authorise_then_health(&self, asker: &Asker, workspace: &WorkspaceName) -> Option<Health> {
        self.authorise(asker, Action::Health, workspace).ok()?;
        self.engine.health(workspace)
    }

    /// Says when to ask for the health of a Workspace again; it need not exist. `None` if the caller may not know, and
    /// then it takes no place among the watches.
    pub fn authorise_then_watch_health(
        &self,
        asker: &Asker,
        workspace: &WorkspaceName,
    ) -> Result<Option<Watch>, Error> {
        if !self.still_may(asker.caller(), Action::Health, workspace) {
            return Ok(None);
        }
        let origin = self.origin(asker.caller());
        self.engine.watch(vec![workspace.clone()], Interest::Status, origin).map(Some)
    }

    /// Whether the caller may still do this: for streams, which were let in and are judged again.
    pub fn still_may(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> bool {
        self.decide(caller, action, workspace).is_some()
    }

    /// Counts what is refused.
    fn admit(&self, asker: &Asker, action: Action) -> Result<Permit, Error> {
        let admitted = self.limits.admit(asker.caller(), action);
        admitted.inspect_err(|error| self.denied(asker, action, None, error.reason))
    }

    /// By which policy it was decided. Counts what is refused.
    fn authorise(&self, asker: &Asker, action: Action, workspace: &WorkspaceName) -> Result<Edition, Error> {
        self.decide(asker.caller(), action, workspace).ok_or_else(|| {
            self.denied(asker, action, Some(workspace), Reason::CallerForbidden);
            Error::new(Reason::CallerForbidden)
        })
    }

    fn decide(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Option<Edition> {
        let in_force = self.policy.load();
        match in_force.policy.decide(caller, action, workspace) {
            Decision::Deny => None,
            Decision::Allow { grant: _ } => Some(in_force.edition),
        }
    }

    /// Meanwhile the caller's certificate or token may have ended or been revoked; and another policy may have come
    /// into force, and with it another tenant behind the name.
    fn authorise_again(
        &self,
        edition: Edition,
        asker: &Asker,
        action: Action,
        workspace: &WorkspaceName,
    ) -> Result<(), Error> {
        if !asker.proven.holds(self.engine.clock().now().wall) {
            self.denied(asker, action, Some(workspace), Reason::CallerUnauthenticated);
            return Err(Error::new(Reason::CallerUnauthenticated));
        }
        if self.policy.load().edition == edition {
            return Ok(());
        }
        self.authorise(asker, action, workspace).map(drop)
    }

    /// Has the audit count a refusal.
    fn denied(&self, asker: &Asker, action: Action, workspace: Option<&WorkspaceName>, reason: Reason) {
        let (by, listener, action) = (By::Caller(asker.caller()), &asker.via.listener, action.as_str());
        self.audit.denied(&Denial { by, reason, action, listener, workspace });
    }

    /// Has the audit take down who gets a token. On an error nobody may.
    async fn record(&self, asker: &Asker, served: &Served, face: Face) -> Result<(), Error> {
        let (token, validity) = (&served.token, &served.held.validity);
        let (caller, workspace, fingerprint) = (asker.caller(), &token.workspace, token.fingerprint);
        self.audit.release(&Release { caller, workspace, fingerprint, face, validity, via: &asker.via }).await
    }

    fn call(&self, caller: &Caller, deadline: Instant) -> Call {
        Call { deadline, origin: self.origin(caller) }
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin(self.origins.hash_one(caller))
    }
}
