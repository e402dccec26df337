//! What the system is asked to deny to onlookers, for the commands that hold long-lived secrets.

use crate::secret;
use std::fmt;
use token_broker_guard::Shortfall;

/// What was asked for; something is to be said of what was not to be had.
#[must_use = "what the system does not give is never passed over in silence"]
pub(super) struct Hardened(Vec<Shortfall>);

/// Asks for it. Before the runtime starts: threads that are there already do not get all of it.
pub(super) fn harden() -> Hardened {
    Hardened(token_broker_guard::harden())
}

impl Hardened {
    /// Everything that is less well guarded than it could be.
    pub(super) fn shortfalls(&self) -> impl Iterator<Item = impl fmt::Display> {
        let key = secret::shortfall().map(str::to_owned);
        self.0.iter().map(ToString::to_string).chain(key)
    }

    /// Logs them.
    pub(super) fn warn(self) {
        for shortfall in self.shortfalls() {
            tracing::warn!(%shortfall, "secrets are less well guarded than they could be");
        }
    }
}
