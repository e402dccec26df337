//! One issuer: what its tokens must say, its keys, and the task that keeps them fresh.
//!
//! Promises: keys that were good are replaced by good ones only; while none can be got they stay, for `keys_outlive` at
//! the most; a key that the issuer no longer publishes stops counting at once, and whoever holds on to what it verified
//! is told; however many tokens name unknown keys, the issuer is asked for their sake once in ten seconds.

use super::Refusal;
use super::claims::Rule;
use super::fetch::{Failure, Source};
use super::keys::{Algorithm, Key, KeySet, Unfit};
use super::memory::Memory;
use super::metrics::Metrics;
use super::pace::{Answer, EARLY_GAP, Early, pause};
use super::token::Token;
use crate::clock::Clock;
use crate::http::Cause;
use crate::revision::Revisions;
use crate::supervisor::{Supervisor, at};
use arc_swap::ArcSwapOption;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How many callers may wait for a look at an issuer's keys.
const MOST_WAITING: usize = 256;

/// How long one waits at most. Its own deadline may come first.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a look may take at most; the configuration allows a minute.
const LONGEST_LOOK: Duration = Duration::from_secs(70);

/// What is said to whoever comes before there are keys.
const SOON: Duration = Duration::from_secs(1);

/// An issuer that is in force.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) rule: Rule,
    pub(super) algorithms: Vec<Algorithm>,
    keys: ArcSwapOption<KeySet>,
    state: Mutex<State>,
    /// The last look that is over, and whether it brought keys.
    looks: watch::Sender<(u64, bool)>,
    wanted: Notify,
    waiting: Semaphore,
    closed: CancellationToken,
    /// Nobody keeps the keys any more.
    left: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    early: Early,
    /// When the look began that brought the keys, be it by the keeper before.
    looked: Option<Instant>,
    /// It is no longer configured in this way: nothing may be published any more.
    closed: bool,
}

/// What keeps the keys fresh.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) issuer: Arc<Issuer>,
    pub(super) source: Box<dyn Source>,
    pub(super) interval: Duration,
    /// How long keys count that can't be fetched again.
    pub(super) keys_outlive: Duration,
    pub(super) clock: Clock,
    pub(super) revisions: Revisions,
    pub(super) metrics: Metrics,
    pub(super) memory: Arc<Memory>,
}

// === impl Issuer ===

impl Issuer {
    /// `keys`: with the moment in which they were looked at.
    pub(super) fn new(rule: Rule, algorithms: Vec<Algorithm>, keys: Option<(KeySet, Instant)>) -> Self {
        let (keys, looked) = keys.unzip();
        Self {
            rule,
            algorithms,
            keys: ArcSwapOption::from_pointee(keys),
            state: Mutex::new(State { looked, ..State::default() }),
            looks: watch::Sender::new((0, false)),
            wanted: Notify::new(),
            waiting: Semaphore::new(MOST_WAITING),
            closed: CancellationToken::new(),
            left: CancellationToken::new(),
        }
    }

    /// Copies of the keys, which have verified nothing, and are no fresher than these.
    pub(super) fn copied_keys(&self) -> Option<(KeySet, Instant)> {
        let state = self.state();
        self.keys.load().as_ref().map(|keys| keys.anew()).zip(state.looked)
    }

    /// What it verified counts no more, and it verifies nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.closed.cancel();
        if let Some(keys) = self.keys.swap(None) {
            keys.distrust();
        }
    }

    /// The key that the token is to be verified with; waits for a look at the issuer's keys if it is a new one.
    pub(super) async fn key_of(&self, token: &Token<'_>, now: Instant) -> Result<Arc<Key>, Refusal> {
        let kid = token.kid.as_deref();
        match (self.select(kid, token.algorithm)?, kid) {
            (Ok(key), _) => return Ok(key),
            (Err(Unfit::Unknown), Some(kid)) => self.look_for(kid, now).await?,
            (Err(unfit), _) => return Err(Refusal::Invalid(unfit.why())),
        }
        self.select(kid, token.algorithm)?.map_err(|unfit| {
            if let (Unfit::Unknown, Some(kid)) = (unfit, kid) {
                self.state().early.note_absent(kid);
            }
            Refusal::Invalid(unfit.why())
        })
    }

    fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Result<Arc<Key>, Unfit>, Refusal> {
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Refusal::Unavailable { retry_after: SOON })?;
        Ok(keys.select(kid, algorithm).map(Arc::clone))
    }

    /// `Ok`: the keys were looked at since.
    async fn look_for(&self, kid: &str, now: Instant) -> Result<(), Refusal> {
        let mut looks = self.looks.subscribe();
        let answer = self.state().early.ask(kid, now);
        let look = match answer {
            Answer::Absent => return Err(Refusal::Invalid(Unfit::Unknown.why())),
            Answer::TooSoon(retry_after) => return Err(Refusal::Unavailable { retry_after }),
            Answer::Begin(look) => {
                self.wanted.notify_one();
                look
            }
            Answer::Join(look) => look,
        };
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(Refusal::Unavailable { retry_after: SOON });
        };
        let over = timeout(PATIENCE, looks.wait_for(|(ended, _)| *ended >= look));
        let brought = tokio::select! {
            over = over => matches!(over, Ok(Ok(ended)) if ended.1),
            // At the drain, or because the issuer is configured in another way: there will be no look.
            () = self.left.cancelled() => false,
        };
        if brought { Ok(()) } else { Err(Refusal::Unavailable { retry_after: EARLY_GAP }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unfit {
    fn why(self) -> &'static str {
        match self {
            Self::Unknown => "the issuer has no key of the name that the token gives, or the token gives none",
            Self::Algorithm => "the key is not for the algorithm of the token",
            Self::Ambiguous => "more than one key of the issuer could be meant",
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Until the issuer is closed or the drain begins: streams are told of keys that go until then.
    pub(super) async fn run(self, supervisor: Supervisor) {
        let _left = self.issuer.left.clone().drop_guard();
        let mut failures: u32 = 0;
        let mut good_until = self.good_until();
        loop {
            let looked = tokio::select! {
                () = supervisor.draining() => return,
                () = self.issuer.closed.cancelled() => return,
                looked = self.look() => looked,
            };
            if looked {
                (failures, good_until) = (0, self.good_until());
            } else {
                failures = failures.saturating_add(1);
            }
            let next = Instant::now() + pause(self.interval, failures, fastrand::f64());
            let outlived = tokio::select! {
                () = supervisor.draining() => return,
                () = self.issuer.closed.cancelled() => return,
                () = self.issuer.wanted.notified() => false,
                () = at(Some(next)) => false,
                () = at(good_until) => true,
            };
            if outlived {
                good_until = None;
                self.drop_keys();
            }
        }
    }

    /// Until when the keys that there are count without another look.
    fn good_until(&self) -> Option<Instant> {
        let looked = self.issuer.state().looked;
        looked.filter(|_| self.issuer.keys.load().is_some()).map(|looked| looked + self.keys_outlive)
    }

    /// One look at the issuer's keys; whether it brought some.
    async fn look(&self) -> bool {
        let Self { issuer, metrics, .. } = self;
        let name: &str = &issuer.rule.name;
        let begun = self.clock.now().mono;
        issuer.state().early.begin();
        // A source has limits of its own; one that hangs all the same must not keep keys in force.
        let fetched = timeout(LONGEST_LOOK, self.source.fetch()).await;
        let brought = match fetched.unwrap_or(Err(Failure::NoAnswer(Cause::Timeout))) {
            Ok(keys) => {
                metrics.fetched(name, "ok");
                self.publish(keys, begun);
                true
            }
            Err(failure) => {
                metrics.fetched(name, failure.label());
                let has_keys = issuer.keys.load().is_some();
                tracing::warn!(issuer = name, %failure, has_keys, "the keys of an issuer could not be fetched");
                false
            }
        };
        let ended = issuer.state().early.end();
        issuer.looks.send_replace((ended, brought));
        brought
    }

    fn publish(&self, keys: KeySet, looked: Instant) {
        let Self { issuer, metrics, revisions, clock, memory, .. } = self;
        let mut state = issuer.state();
        if state.closed {
            return;
        }
        state.looked = Some(looked);
        let old = issuer.keys.load_full();
        let next = Arc::new(match &old {
            Some(old) => keys.continuing(old),
            None => keys,
        });
        issuer.keys.store(Some(Arc::clone(&next)));
        drop(state);
        let (mut gone, mut came) = (0, next.len());
        if let Some(old) = &old {
            gone = old.gone_in(&next).inspect(|key| key.distrust()).count();
            came = next.gone_in(old).count();
        }
        let now = clock.now().wall;
        metrics.fresh(&issuer.rule.name, next.len(), now);
        if gone > 0 {
            memory.sweep(now);
        }
        if gone > 0 || came > 0 {
            tracing::info!(issuer = &*issuer.rule.name, keys = next.len(), came, gone, "the keys of an issuer changed");
            revisions.moved();
        }
    }

    /// Nobody could say for too long whether they are still good.
    fn drop_keys(&self) {
        let Self { issuer, metrics, revisions, clock, memory, .. } = self;
        if let Some(keys) = issuer.keys.swap(None) {
            keys.distrust();
            memory.sweep(clock.now().wall);
            metrics.without_keys(&issuer.rule.name);
            tracing::error!(issuer = &*issuer.rule.name, "the keys of an issuer are too old to be trusted");
            revisions.moved();
        }
    }
}

#[cfg(test)]
mod tests;
