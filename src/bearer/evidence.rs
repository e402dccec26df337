//! Why the bearer of a verified token is believed, and for how long.

use super::keys::Key;
use crate::identity::Evidence;
use std::sync::Arc;
use std::time::SystemTime;

/// A signature that held.
#[derive(Debug)]
pub(super) struct Proof {
    key: Arc<Key>,
    expires: SystemTime,
}

impl Proof {
    pub(super) fn new(key: Arc<Key>, expires: SystemTime) -> Self {
        Self { key, expires }
    }
}

impl Evidence for Proof {
    fn holds(&self, now: SystemTime) -> bool {
        now < self.expires && self.key.is_trusted()
    }

    fn ends(&self) -> Option<SystemTime> {
        Some(self.expires)
    }
}
