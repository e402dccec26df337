//! What a watcher is told.

use super::{Oracle, Rule};
use token_broker::token::Fingerprint;

impl Oracle {
    /// The token that a call would get, if there is one.
    fn current(&self, workspace: usize) -> Option<Fingerprint> {
        self.valid(workspace).map(|held| held.fingerprint)
    }

    /// Whether what a watcher was told last is still so. `None` is no token.
    pub(in super::super) fn is_current(&self, workspace: usize, told: Option<Fingerprint>) -> bool {
        told == self.current(workspace)
    }

    /// Called as a token is told.
    pub(in super::super) fn told(&mut self, workspace: usize, token: Fingerprint) {
        if !self.is_current(workspace, Some(token)) {
            let current = self.current(workspace);
            self.object(Rule::Stale, format!("{token} of {workspace} was told, and {current:?} is its token"));
        }
    }

    /// Called once there was time to tell.
    pub(in super::super) fn was_told(&mut self, workspace: usize, told: Option<Fingerprint>) {
        if !self.is_current(workspace, told) {
            let current = self.current(workspace);
            self.object(Rule::Stale, format!("{told:?} of {workspace} was told last, and {current:?} is its token"));
        }
    }
}
