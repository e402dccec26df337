//! One Workspace: its plan, its published token, who waits for it. Every change goes through the one short lock; a hit
//! takes none.

use super::dispatch::Dispatch;
use super::plan::{Held, Plan, Rules};
use super::{Origin, Served, Source};
use crate::clock::Now;
use crate::error::Error;
use crate::provider::Provider;
use crate::token::{Fingerprint, Token, WorkspaceName};
use arc_swap::ArcSwapOption;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One Workspace.
pub(super) struct Entry {
    pub(super) name: WorkspaceName,
    pub(super) dispatch: Arc<Dispatch>,
    published: ArcSwapOption<Published>,
    core: Mutex<Core>,
    created: Instant,
    /// Milliseconds from `created` to the last read, plus one; zero: never read.
    last_read: AtomicU64,
    /// How much it is asked for; halved with every new token.
    uses: AtomicU64,
    waiters: AtomicUsize,
}

/// What the lock protects.
pub(super) struct Core {
    pub(super) plan: Plan,
    pub(super) provider: Arc<dyn Provider>,
    /// The next timer that is set.
    pub(super) timer: Option<Instant>,
    /// Ends the flight under way when its answer is not wanted any more.
    cancel: Option<CancellationToken>,
    /// Set once the entry is out of the map: nothing may start any more.
    pub(super) deleted: bool,
    /// What the token in hand adds to the upstream's scheduled logins.
    pub(super) demand: u64,
    pub(super) reporters: Reporters,
    /// Made for the first who waits: most Workspaces have nobody, and it is large.
    landing: Option<watch::Sender<Option<Landed>>>,
}

/// Who reported the token in hand: nobody, one, or more than one.
#[derive(Debug, Default)]
pub(super) struct Reporters {
    first: Option<(Fingerprint, Origin)>,
    several: bool,
}

/// A token and when its renewal is due, read together without a lock.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) token: Arc<Token>,
    pub(super) held: Held,
}

/// What a flight brought for those who waited.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    /// A token in hand: ask again.
    Token,
    /// No token.
    Failed(Error),
    /// The Workspace changed meanwhile: ask again.
    Discarded,
}

impl Entry {
    pub(super) fn new(name: WorkspaceName, rules: Rules, dispatch: Arc<Dispatch>, provider: Arc<dyn Provider>) -> Self {
        let core = Core {
            plan: Plan::new(rules),
            provider,
            timer: None,
            cancel: None,
            deleted: false,
            demand: 0,
            reporters: Reporters::default(),
            landing: None,
        };
        Self {
            name,
            dispatch,
            published: ArcSwapOption::empty(),
            core: Mutex::new(core),
            created: Instant::now(),
            last_read: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
        }
    }

    /// The lock. A panic while it is held leaves the plan as it was between two assignments: good enough to go on.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, if it can be served to this caller without any decision: long enough valid, and not due.
    pub(super) fn hit(&self, now: Now, min_validity: Duration) -> Option<Served> {
        let published = self.published.load();
        let published = published.as_ref()?;
        let validity = &published.held.validity;
        let good =
            validity.is_servable(now) && validity.remaining(now) >= min_validity && !published.held.renewal_is_due(now);
        good.then(|| published.served(Source::Cache))
    }

    pub(super) fn published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Only ever called with the lock held, so that it never disagrees with the plan.
    pub(super) fn publish(&self, published: Option<Published>) {
        self.published.store(published.map(Arc::new));
    }

    /// Somebody reads it. Gives how long nobody had.
    pub(super) fn touch(&self, now: Instant) -> Duration {
        let idle = self.idle_for(now);
        let since = now.saturating_duration_since(self.created).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        self.last_read.store(since, Ordering::Relaxed);
        self.uses.fetch_add(1, Ordering::Relaxed);
        idle
    }

    /// How long nobody has read it.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        match self.last_read.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            read => {
                let read = self.created + Duration::from_millis(read - 1);
                now.saturating_duration_since(read)
            }
        }
    }

    pub(super) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Old popularity fades.
    pub(super) fn fade(&self) {
        self.uses.store(self.uses() / 2, Ordering::Relaxed);
    }

    /// A place among the waiters, given back on drop.
    pub(super) fn wait(self: &Arc<Self>, limit: usize) -> Option<Waiting> {
        let waiting = Waiting(Arc::clone(self));
        (self.waiters.fetch_add(1, Ordering::Relaxed) < limit).then_some(waiting)
    }

    pub(super) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }
}

impl Published {
    pub(super) fn served(&self, source: Source) -> Served {
        Served { token: Arc::clone(&self.token), held: self.held, source }
    }
}

impl Core {
    /// Remembers a report of the token in hand. True: it is the one that makes the token disputed.
    pub(super) fn note_report(&mut self, rejected: Fingerprint, by: Origin, now: Now) -> bool {
        self.plan.serves(rejected, now) && self.reporters.add(rejected, by)
    }

    /// What the next landing brings. Taken under the lock, so none is missed.
    pub(super) fn next_landing(&mut self) -> watch::Receiver<Option<Landed>> {
        self.landing.get_or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Tells everybody who waits. Those who come after wait for the next landing.
    pub(super) fn announce(&mut self, landed: Landed) {
        if let Some(waited_for) = self.landing.take() {
            waited_for.send_replace(Some(landed));
        }
    }

    /// What ends the flight that starts now.
    pub(super) fn flight_ends_by(&mut self) -> CancellationToken {
        self.cancel.get_or_insert_default().clone()
    }

    /// Ends the flight under way, if there is one, and lets later ones run.
    pub(super) fn cancel_flight(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
        }
    }
}

impl Reporters {
    fn add(&mut self, rejected: Fingerprint, by: Origin) -> bool {
        match self.first {
            Some((reported, first)) if reported == rejected => {
                first != by && !std::mem::replace(&mut self.several, true)
            }
            Some(_) | None => {
                *self = Self { first: Some((rejected, by)), several: false };
                false
            }
        }
    }

    /// Whether at least two callers say that the upstream rejects this token.
    pub(super) fn dispute(&self, token: Fingerprint) -> bool {
        self.several && self.first.is_some_and(|(reported, _)| reported == token)
    }
}

/// One caller who waits.
pub(super) struct Waiting(Arc<Entry>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}
