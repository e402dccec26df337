//! Which upstreams and Workspaces there are, and what changes about them while the broker runs.

use super::dispatch::{Dispatch, Limits};
use super::entry::{Core, Entry, Landed};
use super::plan::Urgency;
use super::{Engine, Workspace, flight};
use crate::provider::Provider;
use crate::token::WorkspaceName;
use crate::upstream::UpstreamName;
use std::sync::Arc;

/// Why a Workspace can't be put in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There is no such upstream.
    #[error("no upstream is called {0}")]
    UnknownUpstream(UpstreamName),
    /// There are too many.
    #[error("no more than {0} workspaces fit")]
    Full(usize),
    /// There is one of that name.
    #[error("there is a workspace called {0} already")]
    Exists(WorkspaceName),
}

impl Engine {
    /// Adds an upstream and starts its driver.
    pub fn add_upstream(&self, name: UpstreamName, limits: Limits) {
        let dispatch = Arc::new(Dispatch::new(name.clone(), limits, self.0.clock.now()));
        self.0.upstreams.insert(name, Arc::clone(&dispatch));
        let (supervisor, guard) = self.0.supervisor.scope();
        dispatch.driven_by(guard);
        supervisor.spawn_critical("upstream", flight::drive(self.clone(), dispatch));
    }

    /// Adds a Workspace.
    pub fn put(&self, workspace: Workspace) -> Result<(), PutError> {
        let Workspace { name, upstream, keep_warm, provider } = workspace;
        if self.0.entries.contains_key(&name) {
            return Err(PutError::Exists(name));
        }
        if self.0.entries.len() >= self.settings().max_workspaces {
            return Err(PutError::Full(self.settings().max_workspaces));
        }
        let dispatch = self.0.upstreams.get(&upstream).map(|found| Arc::clone(&found));
        let dispatch = dispatch.ok_or(PutError::UnknownUpstream(upstream))?;
        let entry = Arc::new(Entry::new(name.clone(), self.rules(keep_warm), Arc::clone(&dispatch), provider));
        match self.0.entries.entry(name) {
            dashmap::Entry::Occupied(taken) => return Err(PutError::Exists(taken.key().clone())),
            dashmap::Entry::Vacant(free) => drop(free.insert(Arc::clone(&entry))),
        }
        self.warm(&entry, keep_warm);
        self.0.watchers.tell(&entry.name);
        Ok(())
    }

    /// Gives a Workspace a new credential. The token in hand is served until the new credential has brought one, which
    /// is tried at once. False: there is no such Workspace.
    pub fn rekey(&self, name: &WorkspaceName, provider: Arc<dyn Provider>) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        let queued = {
            let mut core = entry.core();
            core.provider = provider;
            core.plan.rekey();
            core.cancel_flight();
            core.announce(Landed::Discarded);
            core.plan.is_queued()
        };
        if queued {
            // Who is not used is tried too, but holds up nobody: all credentials may change at once.
            let used = entry.waiters() > 0 || entry.published().is_some() || self.0.watchers.use_it(name);
            let urgency = if used { Urgency::Waiting } else { Urgency::Background };
            entry.dispatch.enqueue(&entry, urgency, self.0.clock.now().mono);
        }
        self.0.watchers.tell(name);
        true
    }

    /// Removes a Workspace, its token and whatever is under way. False: there was none.
    pub fn delete(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        // While it stands in the map no other of that name can come, whose place in the queue this would take away.
        Self::withdraw(&entry, |core| {
            core.deleted = true;
            core.plan.forget_token();
        });
        let removed = self.0.entries.remove_if(name, |_, found| Arc::ptr_eq(found, &entry)).is_some();
        self.0.watchers.tell(name);
        removed
    }

    /// Withdraws a Workspace until it is unfrozen. False: there is none.
    pub fn freeze(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        Self::withdraw(&entry, |core| core.plan.freeze());
        self.0.watchers.tell(name);
        true
    }

    /// Takes a withdrawal back. False: there is no such Workspace.
    pub fn unfreeze(&self, name: &WorkspaceName) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        entry.core().plan.unfreeze();
        self.look_after(&entry, self.0.clock.now());
        self.0.watchers.tell(name);
        true
    }

    pub(super) fn withdraw(entry: &Entry, change: impl FnOnce(&mut Core)) {
        let mut core = entry.core();
        change(&mut core);
        core.cancel_flight();
        entry.publish(None);
        core.announce(Landed::Discarded);
        let let_go = std::mem::take(&mut core.demand);
        // With the lock still held, so that whoever brings it back is not taken out of the queue again.
        entry.dispatch.change_demand(let_go, 0);
        entry.dispatch.remove(&entry.name);
    }
}
