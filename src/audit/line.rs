//! A line on its way to a sink, and who waits for it.

use super::pairs::{Pair, Standing};
use std::sync::Arc;

/// A line on its way.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) body: Arc<[u8]>,
    /// Who waits for it.
    pub(super) pair: Option<Arc<Pair>>,
}

impl Line {
    pub(super) fn is_wanted(&self) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.standing() != Standing::GivenUp)
    }

    pub(super) fn written(&self) {
        if let Some(pair) = &self.pair {
            pair.written();
        }
    }
}
