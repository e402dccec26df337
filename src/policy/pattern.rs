//! Patterns of callers: a first part, in which each fits one name.

use crate::identity::{Caller, Invalid};

/// Which callers are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerPattern(Caller);

impl CallerPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Caller::parse(text).map(Self)
    }

    /// Whether it fits this caller.
    pub fn fits(&self, caller: &Caller) -> bool {
        self.0 == *caller
    }
}
