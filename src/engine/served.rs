//! What leaves the engine: a token to hand out, or how a Workspace stands.

use super::plan::{Held, State};
use crate::clock::Now;
use crate::health::Standing;
use crate::token::Token;
use std::sync::Arc;
use std::time::SystemTime;

/// A token as it is handed out.
#[derive(Debug, Clone)]
pub struct Served {
    /// The token.
    pub token: Arc<Token>,
    /// Its validity and planned renewal.
    pub held: Held,
    /// Where it came from.
    pub source: Source,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From memory.
    Cache,
    /// The call waited for an exchange.
    Exchanged,
}

/// How a Workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// In one word.
    pub state: State,
    /// When the token in hand ends, by the local wall clock.
    pub expires_at: Option<SystemTime>,
    /// Whether that token may be handed out now.
    pub is_servable: bool,
    /// Whether at least two callers say that the upstream rejects that token.
    pub is_disputed: bool,
    /// Whether somebody used it lately, watches it in order to use it, or the configuration keeps it warm.
    pub is_wanted: bool,
    /// How many callers wait.
    pub waiters: usize,
}

impl Snapshot {
    /// What its health depends on.
    pub fn standing(self) -> Standing {
        let Self { state, is_servable, is_disputed, is_wanted, .. } = self;
        Standing { state, is_servable, is_disputed, is_wanted }
    }
}

impl Served {
    /// Whether it may be handed out now.
    pub fn is_servable(&self, now: Now) -> bool {
        self.held.validity.is_servable(now)
    }
}
