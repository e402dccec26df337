//! What is allowed in a policy and had better not stand there. Never claims what is not so; what takes too long to find
//! out is left out.

use super::index::Index;
use super::{Action, Grant, Policy, Width, WorkspacePattern};
use crate::token::WorkspaceName;

/// How often a pattern is held against a name before the search for those that fit nothing is given up: about a second.
const MOST_LOOKS: usize = 10_000_000;

/// What is unwise about a policy. Positions count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// There are Workspaces, and nobody may have anything of them.
    NoGrants,
    /// None of a grant's patterns fits a Workspace.
    FitsNoWorkspace {
        /// The grant.
        grant: usize,
        /// The pattern of it that fits none.
        pattern: usize,
    },
    /// All that a grant allows is allowed by another one.
    Shadowed {
        /// The grant.
        grant: usize,
        /// The other one.
        by: usize,
    },
    /// A grant is for everybody, or for all whom one authority vouches for.
    WideCaller {
        /// The grant.
        grant: usize,
        /// For whom.
        width: Width,
    },
    /// A grant hands out the tokens of all Workspaces, those to come among them.
    WideWorkspaces {
        /// The grant.
        grant: usize,
        /// The pattern that fits all.
        pattern: usize,
    },
}

/// Looks through a policy for these Workspaces.
pub fn lint<'w>(policy: &Policy, workspaces: impl IntoIterator<Item = &'w WorkspaceName>) -> Vec<Finding> {
    let mut names: Vec<&str> = workspaces.into_iter().map(WorkspaceName::as_str).collect();
    names.sort_unstable();
    let grants = policy.grants();
    if grants.is_empty() && !names.is_empty() {
        return vec![Finding::NoGrants];
    }
    let covering = Index::new(grants.iter().enumerate().map(|(at, grant)| (grant.caller.glob().clone(), at)));
    let mut looks = MOST_LOOKS;
    let mut findings = Vec::new();
    for (position, grant) in grants.iter().enumerate() {
        findings.extend(wide(position, grant));
        let patterns = grant.workspaces.iter().enumerate();
        let idle = patterns.filter(|(_, pattern)| fits_none(pattern, &names, &mut looks));
        findings.extend(idle.map(|(pattern, _)| Finding::FitsNoWorkspace { grant: position, pattern }));
        findings.extend(shadow(position, grant, grants, &covering));
    }
    findings
}

fn wide(position: usize, grant: &Grant) -> impl Iterator<Item = Finding> {
    let width = Some(grant.caller.width()).filter(|width| *width != Width::Some);
    let hands_out = grant.actions.contain(Action::Get) || grant.actions.contain(Action::Watch);
    let every = grant.workspaces.iter().position(WorkspacePattern::is_every).filter(|_| hands_out);
    let caller = width.map(|width| Finding::WideCaller { grant: position, width });
    caller.into_iter().chain(every.map(|pattern| Finding::WideWorkspaces { grant: position, pattern }))
}

/// Among the names in their order, those that a pattern may fit stand together.
fn fits_none(pattern: &WorkspacePattern, names: &[&str], looks: &mut usize) -> bool {
    let (glob, from) = (pattern.glob(), names.partition_point(|name| name.as_bytes() < pattern.glob().prefix()));
    for name in names.iter().skip(from).take_while(|name| name.as_bytes().starts_with(glob.prefix())) {
        let Some(left) = looks.checked_sub(1) else { return false };
        *looks = left;
        if glob.fits(name) {
            return false;
        }
    }
    true
}

/// One grant that allows all that this one does. Of two that allow the same the first one stays.
fn shadow(position: usize, grant: &Grant, grants: &[Grant], covering: &Index<usize>) -> Option<Finding> {
    let caller = grant.caller.glob().compiled();
    let others = covering.fitting(&caller).filter(|other| **other != position);
    let mut wider = others.filter_map(|at| Some((*at, grants.get(*at)?))).filter(|(at, other)| {
        covers(other, grant) && (*at < position || !(grant.caller.covers(&other.caller) && covers(grant, other)))
    });
    wider.next().map(|(by, _)| Finding::Shadowed { grant: position, by })
}

/// Whether a grant allows with Workspaces what another allows, whomever it is for.
fn covers(wide: &Grant, narrow: &Grant) -> bool {
    let covered = |pattern| wide.workspaces.iter().any(|wide: &WorkspacePattern| wide.covers(pattern));
    wide.actions.cover(narrow.actions) && narrow.workspaces.iter().all(covered)
}

#[cfg(test)]
mod tests;
