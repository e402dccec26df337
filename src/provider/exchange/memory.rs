//! The refresh token of one Workspace, between two exchanges. Kept in memory alone: after a restart the login follows.

use crate::failure::Failure;
use crate::secret::Sealed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// After so many answers in a row that said "not now", the login is tried instead: a refresh that is configured at a
/// wrong path would keep a Workspace from its token for ever.
const PATIENCE: u8 = 3;

/// Locked for a look or a change, never across an await.
#[derive(Default)]
pub(super) struct Memory(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    grant: Option<Arc<Sealed>>,
    unavailable: u8,
    warned: bool,
}

impl Memory {
    /// The refresh token; stays.
    pub(super) fn grant(&self) -> Option<Arc<Sealed>> {
        self.lock().grant.clone()
    }

    /// The refresh token; is gone, whatever comes of its use.
    pub(super) fn take(&self) -> Option<Arc<Sealed>> {
        self.lock().grant.take()
    }

    /// This one is of no use, if it is still what is kept.
    pub(super) fn forget(&self, grant: &Arc<Sealed>) {
        let mut kept = self.lock();
        kept.grant = kept.grant.take().filter(|kept| !Arc::ptr_eq(kept, grant));
    }

    /// A new one takes the place of the old.
    pub(super) fn keep(&self, grant: Sealed) {
        let mut kept = self.lock();
        kept.grant = Some(Arc::new(grant));
        kept.unavailable = 0;
    }

    /// What a failed refresh means to the refresh token: one that was refused, or that brought what can't be used, is
    /// no good any more; one whose answer was lost, or put off, may be.
    pub(super) fn failed(&self, kind: Failure) {
        let mut kept = self.lock();
        match kind {
            Failure::Rejected | Failure::Malformed | Failure::TenantMismatch => kept.grant = None,
            Failure::Unavailable => {
                kept.unavailable = kept.unavailable.saturating_add(1);
                if kept.unavailable >= PATIENCE {
                    kept.grant = None;
                    kept.unavailable = 0;
                }
            }
            Failure::Unreachable | Failure::Throttled { .. } | Failure::LockedOut => {}
        }
    }

    /// A refresh went well.
    pub(super) fn succeeded(&self) {
        self.lock().unavailable = 0;
    }

    /// Whether this is the first time that somebody asks.
    pub(super) fn first_warning(&self) -> bool {
        !std::mem::replace(&mut self.lock().warned, true)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
