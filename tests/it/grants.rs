//! The grants of tests whose subject is something else.

use token_broker::policy::{Action, CallerPattern, Grant, Policy, WorkspacePattern};

/// Everything to whoever comes over loopback.
pub(crate) fn all_to_loopback() -> Policy {
    policy_for("loopback", &["**"])
}

/// These Workspaces to these callers.
pub(crate) fn policy_for(caller: &str, workspaces: &[&str]) -> Policy {
    let workspaces = workspaces.iter().map(|pattern| WorkspacePattern::parse(pattern).unwrap()).collect();
    let caller = CallerPattern::parse(caller).unwrap();
    Policy::new(vec![Grant { caller, workspaces, actions: Action::ALL.into_iter().collect() }])
}
