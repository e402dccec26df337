//! What an operator changes while the engine runs. Whatever a change does not name is not touched: its token stays, and
//! no exchange is made for it.

use super::dispatch::Limits;
use super::entry::Entry;
use super::plan::Rules;
use super::{Engine, PutError, Settings, Workspace};
use crate::provider::Provider;
use crate::token::WorkspaceName;
use crate::upstream::{KeepWarm, UpstreamName};
use std::sync::{Arc, PoisonError};

impl Engine {
    /// Puts a Workspace into the place of the one with its name, whose token and flight are worthless from now on.
    /// Callers who wait go on waiting, for the new one; none finds the name missing. If there is none of that name, it
    /// is put in.
    pub fn replace(&self, workspace: Workspace) -> Result<(), PutError> {
        let Workspace { name, upstream, keep_warm, provider } = workspace;
        let dispatch = self.0.upstreams.get(&upstream).map(|found| Arc::clone(&found));
        let dispatch = dispatch.ok_or(PutError::UnknownUpstream(upstream))?;
        let entry = Arc::new(Entry::new(name.clone(), self.rules(keep_warm), dispatch, provider));
        // Before the map's lock, which counting needs too.
        let (taken, max) = (self.0.entries.len(), self.settings().max_workspaces);
        match self.0.entries.entry(name.clone()) {
            dashmap::Entry::Occupied(mut place) => {
                // Within the map's lock: who finds the old one gone looks here again, and waits for the new one.
                Self::withdraw(place.get(), |core| {
                    core.deleted = true;
                    core.plan.forget_token();
                });
                drop(place.insert(Arc::clone(&entry)));
            }
            dashmap::Entry::Vacant(_) if taken >= max => return Err(PutError::Full(max)),
            dashmap::Entry::Vacant(free) => drop(free.insert(Arc::clone(&entry))),
        }
        self.warm(&entry, keep_warm);
        self.0.watchers.tell(&name);
        Ok(())
    }

    /// Lets a Workspace make its exchanges in another way from now on, with the same credential. Its token stays, a
    /// flight under way lands, and what the old way brought upon it is forgiven. False: there is no such Workspace.
    pub fn reprovide(&self, name: &WorkspaceName, provider: Arc<dyn Provider>) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        {
            let mut core = entry.core();
            core.provider = provider;
            core.plan.forgive();
        }
        self.look_after(&entry, self.0.clock.now());
        self.0.watchers.tell(name);
        true
    }

    /// Changes whether a Workspace is renewed when nobody asks. False: there is no such Workspace.
    pub fn keep_warm(&self, name: &WorkspaceName, keep_warm: KeepWarm) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        entry.core().plan.set_rules(self.rules(keep_warm));
        self.warm(&entry, keep_warm);
        true
    }

    /// Changes the limits of an upstream. What was used of its budget stays used. False: there is no such upstream.
    pub fn change_upstream(&self, name: &UpstreamName, limits: Limits) -> bool {
        let found = self.0.upstreams.get(name).map(|found| Arc::clone(&found));
        found.inspect(|dispatch| dispatch.change_limits(limits, self.0.clock.now().mono)).is_some()
    }

    /// Removes an upstream, whose Workspaces are gone by now, and ends its driver. False: there is no such upstream.
    pub fn remove_upstream(&self, name: &UpstreamName) -> bool {
        let removed = self.0.upstreams.remove(name);
        removed.inspect(|(_, dispatch)| dispatch.retire()).is_some()
    }

    /// Changes what holds for every Workspace, but for the seed and the number of watches. Tokens in hand keep the
    /// margin that they came with.
    pub fn configure(&self, settings: Settings) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        for entry in &self.0.entries {
            let mut core = entry.core();
            let keep_warm = core.plan.rules().keep_warm;
            core.plan.set_rules(self.rules(keep_warm));
        }
    }

    pub(super) fn settings(&self) -> Settings {
        *self.0.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules of a Workspace by the settings in force.
    pub(super) fn rules(&self, keep_warm: KeepWarm) -> Rules {
        let Settings { serve_margin, min_gap, .. } = self.settings();
        Rules { serve_margin, min_gap, keep_warm }
    }

    /// Whether this entry is still the one of that name.
    pub(super) fn is_current(&self, name: &WorkspaceName, entry: &Arc<Entry>) -> bool {
        self.0.entries.get(name).is_some_and(|found| Arc::ptr_eq(&found, entry))
    }

    /// A Workspace that is always kept warm gets its first token without being asked for.
    pub(super) fn warm(&self, entry: &Arc<Entry>, keep_warm: KeepWarm) {
        match keep_warm {
            KeepWarm::Always => self.look_after(entry, self.0.clock.now()),
            KeepWarm::WhileUsed => {}
        }
    }
}
