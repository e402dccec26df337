//! What must not be.

use std::fmt;

/// What the oracle can object to. The letters are those of the list in `tests/it/model.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Rule {
    Expired,
    WrongToken,
    ValidNotServed,
    Crowd,
    Late,
    NoRest,
    OverBudget,
    Generation,
    Withdrawn,
    Report,
    Loop,
    Abandoned,
    Unwanted,
    WrongAnswer,
    Stuck,
    Stale,
}

/// Something that must not be.
#[derive(Debug)]
pub(in super::super) struct Objection {
    pub(in super::super) rule: Rule,
    pub(in super::super) text: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
