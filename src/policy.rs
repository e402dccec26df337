//! Who may do what. Pure.
//!
//! A policy is a list of grants. What no grant allows is denied; nothing is forbidden but in this way, so that the
//! order of the grants means nothing. It is asked on every call, before the cache: patterns are found by what they
//! begin with, and nothing is remembered of a decision.

mod glob;
mod index;
mod lint;
mod pattern;

pub use lint::{Finding, lint};
pub use pattern::{CallerPattern, InvalidPattern, Width, WorkspacePattern};

use crate::identity::Caller;
use crate::token::WorkspaceName;
use index::Index;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a caller wants to do with a Workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Get its token.
    Get,
    /// Follow its token.
    Watch,
    /// Say that the upstream rejects its token.
    Report,
    /// Learn whether it has a token.
    Health,
}

/// A set of actions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions(u8);

/// One line of policy: these callers may do this with these Workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub caller: CallerPattern,
    /// With which Workspaces.
    pub workspaces: Vec<WorkspacePattern>,
    /// What.
    pub actions: Actions,
}

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow {
        /// The first of the grants that allow it, by its position in the policy.
        grant: usize,
    },
    /// Refuse, with the same answer as for a name that does not exist.
    Deny,
}

/// A grant that almost allows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    /// Its position in the policy.
    pub grant: usize,
    /// Whether it is for this caller.
    pub caller: bool,
    /// Whether it is for this Workspace.
    pub workspace: bool,
    /// Whether it is for this action.
    pub action: bool,
}

/// The policy: grants, found by callers and then by Workspaces.
#[derive(Debug, Default)]
pub struct Policy {
    grants: Vec<Grant>,
    callers: Index<Index<Right>>,
    /// What must allow it as well.
    also: Option<Arc<Self>>,
}

/// What one grant allows with the Workspaces of one of its patterns.
#[derive(Debug, Clone, Copy)]
struct Right {
    grant: usize,
    actions: Actions,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Get, Self::Watch, Self::Report, Self::Health];

    /// As the configuration calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Watch => "watch",
            Self::Report => "report",
            Self::Health => "health",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Get => 1,
            Self::Watch => 2,
            Self::Report => 4,
            Self::Health => 8,
        }
    }
}

impl Actions {
    /// Whether this one is among them.
    pub const fn contain(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether all of those are among them.
    pub const fn cover(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Action::ALL.into_iter().filter(|action| self.contain(*action))).finish()
    }
}

impl Policy {
    /// These grants, and no more.
    pub fn new(grants: Vec<Grant>) -> Self {
        let mut rights: BTreeMap<&str, (&CallerPattern, Vec<_>)> = BTreeMap::new();
        for (position, Grant { caller, workspaces, actions }) in grants.iter().enumerate() {
            let right = Right { grant: position, actions: *actions };
            let (_, of_caller) = rights.entry(caller.as_str()).or_insert_with(|| (caller, Vec::new()));
            of_caller.extend(workspaces.iter().map(|pattern| (pattern.glob().clone(), right)));
        }
        let rights = rights.into_values().map(|(caller, rights)| (caller.glob().clone(), Index::new(rights)));
        let callers = Index::new(rights);
        Self { grants, callers, also: None }
    }

    /// Allows what both allow.
    #[must_use]
    pub fn and(&self, other: Arc<Self>) -> Self {
        Self { also: Some(other), ..Self::new(self.grants.clone()) }
    }

    /// The grants, in their order.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Decides one request.
    pub fn decide(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Decision {
        let of_caller = self.callers.fitting(caller.as_str().as_bytes());
        let rights = of_caller.flat_map(|workspaces| workspaces.fitting(workspace.as_str().as_bytes()));
        let first = rights.filter(|right| right.actions.contain(action)).map(|right| right.grant).min();
        let Some(grant) = first else {
            return Decision::Deny;
        };
        match self.also.as_ref().map(|also| also.decide(caller, action, workspace)) {
            Some(Decision::Deny) => Decision::Deny,
            Some(Decision::Allow { .. }) | None => Decision::Allow { grant },
        }
    }

    /// The grants that come nearest to allowing a request: those in which only one thing does not fit, else those that
    /// are for this caller, else none.
    pub fn misses(&self, caller: &Caller, action: Action, workspace: &WorkspaceName) -> Vec<Miss> {
        let judged = self.grants.iter().enumerate().map(|(position, grant)| Miss {
            grant: position,
            caller: grant.caller.fits(caller),
            workspace: grant.workspaces.iter().any(|pattern| pattern.fits(workspace)),
            action: grant.actions.contain(action),
        });
        let (near, far): (Vec<_>, Vec<_>) = judged.partition(|miss| miss.wrong() == 1);
        if near.is_empty() { far.into_iter().filter(|miss| miss.caller && miss.wrong() > 0).collect() } else { near }
    }
}

impl Miss {
    fn wrong(self) -> usize {
        [self.caller, self.workspace, self.action].into_iter().filter(|fits| !fits).count()
    }
}

#[cfg(test)]
mod tests;
