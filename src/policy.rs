//! Who may do what. Pure.
//!
//! Until callers can be told apart there is one rule: whoever reaches the loopback listener may ask for every
//! Workspace. It is asked on every call all the same, before the cache, so that every face already goes the one way.

use crate::identity::Caller;
use crate::token::WorkspaceName;

/// What a caller wants to do with a Workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Action {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Watch => "watch",
            Self::Report => "report",
            Self::Health => "health",
        }
    }
}

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Refuse, with the same answer as for a name that does not exist.
    Deny,
}

/// The policy in force.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy;

impl Policy {
    /// Decides one request.
    pub fn decide(self, caller: &Caller, _action: Action, _workspace: &WorkspaceName) -> Decision {
        match caller.as_str() {
            "loopback" => Decision::Allow,
            _ => Decision::Deny,
        }
    }
}
