//! A count of changes in what callers are judged by: the policy, certificate authorities, revocation lists, the keys of
//! issuers. Whoever let a caller in and holds on to it looks again when the count moves.

use std::sync::Arc;
use tokio::sync::watch;

/// The count. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Revisions(Arc<watch::Sender<u64>>);

impl Default for Revisions {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Revisions {
    /// Something changed. Said after the change can be seen.
    pub fn moved(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Hears of every change from here on; several may be told as one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
