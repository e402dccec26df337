//! Authorise, then get: the one way to a token, for every face of the broker.
//!
//! The policy is asked on every call, before anything that could tell whether a Workspace exists. Must not know which
//! face asks.

use crate::engine::{Engine, Served};
use crate::error::{Error, Reason};
use crate::identity::Caller;
use crate::policy::{Action, Decision, Policy};
use crate::token::WorkspaceName;
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

/// The broker behind its faces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    engine: Engine,
    policy: Policy,
}

impl Broker {
    /// Hands out the engine's tokens to whom the policy lets.
    pub fn new(engine: Engine, policy: Policy) -> Self {
        Self { engine, policy }
    }

    /// The token, if the caller may have it.
    pub async fn authorise_then_get(&self, caller: &Caller, ask: &Ask) -> Result<Served, Error> {
        match self.policy.decide(caller, Action::Get, &ask.workspace) {
            Decision::Deny => Err(Error::new(Reason::CallerForbidden)),
            Decision::Allow => self.engine.get(&ask.workspace, ask.min_validity, ask.deadline).await,
        }
    }
}
