//! What happens without anybody asking: repeats and refusals are written, hung sinks are found, failures are told.

use super::pairs::SHARDS;
use super::record::Record;
use super::sink::Sink;
use super::{Audit, Inner, WhenUnavailable};
use crate::readiness::{Latch, Readiness};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// What readiness waits for while no sink works.
const LATCH: &str = "audit";
/// A hung sink is found within the limit and this part of it.
const LOOKS: u32 = 5;
/// So many repeats are written at a time, so that releases find room.
const MOST_REPEATS: usize = 1_000;

/// Watches over the sinks until [`Audit::close`]. Holds back readiness while no token could leave.
pub async fn watch(audit: Audit, readiness: Readiness) {
    let Some(inner) = audit.0 else { return };
    let mut watcher = Watcher::new(&inner, readiness);
    loop {
        watcher.look();
        let wake = watcher.next_wake();
        inner.asleep.store(!watcher.is_anxious(), Ordering::Release);
        tokio::select! {
            biased;
            () = inner.closing.notified() => return,
            () = inner.bell.notified() => {}
            () = sleep_until(wake) => {}
        }
        inner.asleep.store(false, Ordering::Release);
    }
}

struct Watcher<'a> {
    inner: &'a Inner,
    readiness: Readiness,
    held: Option<Latch>,
    sinks: Vec<Watched>,
    /// When repeats and refusals were last written.
    flushed: Instant,
    /// The shard to go on with, where not all could be written.
    rest: Option<usize>,
    /// Said once per outage.
    alarmed: bool,
}

struct Watched {
    sink: Arc<Sink>,
    was_up: bool,
    /// What it had written when it was first seen busy with what it is busy with.
    busy: Option<(u64, Instant)>,
}

impl<'a> Watcher<'a> {
    fn new(inner: &'a Inner, readiness: Readiness) -> Self {
        // Listed among the checks from the start.
        drop(readiness.latch(LATCH));
        let sinks = inner.sinks.iter().map(|sink| Watched { sink: Arc::clone(sink), was_up: true, busy: None });
        let (sinks, flushed) = (sinks.collect(), Instant::now());
        Self { inner, readiness, held: None, sinks, flushed, rest: None, alarmed: false }
    }

    fn look(&mut self) {
        let limit = self.inner.terms().timeout;
        let now = Instant::now();
        for watched in &mut self.sinks {
            watched.look_for_hung(now, limit);
            watched.tell_change(self.inner);
        }
        let any_up = self.sinks.iter().any(|watched| watched.was_up);
        self.alarm(any_up);
        if any_up && self.is_due(now) {
            self.flush(now);
        }
    }

    /// Something may hang.
    fn is_anxious(&self) -> bool {
        self.sinks.iter().any(|watched| watched.busy.is_some())
    }

    fn is_due(&self, now: Instant) -> bool {
        self.rest.is_some() || now >= self.flushed + self.inner.terms().repeats_every
    }

    fn next_wake(&self) -> Instant {
        let terms = self.inner.terms();
        let often = self.is_anxious() || self.rest.is_some();
        if often { Instant::now() + terms.timeout / LOOKS } else { self.next_flush(terms.repeats_every) }
    }

    /// Not at once while no sink works.
    fn next_flush(&self, every: Duration) -> Instant {
        (self.flushed + every).max(Instant::now() + Duration::from_millis(100))
    }

    fn alarm(&mut self, any_up: bool) {
        let policy = self.inner.terms().when_unavailable;
        match (any_up, self.alarmed) {
            (false, false) => {
                self.alarmed = true;
                match policy {
                    WhenUnavailable::Deny => {
                        tracing::error!("no audit sink works; no token leaves that was not recorded before");
                    }
                    WhenUnavailable::Allow => tracing::error!("no audit sink works; tokens leave without a record"),
                }
            }
            (true, _) => {
                self.alarmed = false;
                self.tell_unrecorded();
            }
            (false, true) => {}
        }
        let hold = !any_up && policy == WhenUnavailable::Deny;
        if hold != self.held.is_some() {
            self.held = hold.then(|| self.readiness.latch(LATCH));
        }
    }

    /// Also without an outage: a record that was too slow is given up, and its token may have left.
    fn tell_unrecorded(&self) {
        if !self.inner.has_room() {
            return;
        }
        let count = self.inner.unrecorded.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.inner.event(&Record::Unrecorded { count });
        }
    }

    fn flush(&mut self, now: Instant) {
        let start = self.rest.take().unwrap_or_else(|| {
            self.flushed = now;
            self.inner.flush_denials();
            0
        });
        self.rest = self.inner.flush_repeats(start);
    }
}

impl Watched {
    fn look_for_hung(&mut self, now: Instant, limit: Duration) {
        let progress = self.sink.progress();
        if !self.sink.is_up() || !self.sink.is_busy() {
            self.busy = None;
            return;
        }
        match self.busy {
            Some((before, since)) if before == progress => {
                if now.duration_since(since) >= limit {
                    self.sink.hung();
                }
            }
            Some(_) | None => self.busy = Some((progress, now)),
        }
    }

    fn tell_change(&mut self, inner: &Inner) {
        let (is_up, sink) = (self.sink.is_up(), self.sink.name);
        match (std::mem::replace(&mut self.was_up, is_up), is_up) {
            (true, false) => {
                tracing::error!(sink, cause = self.sink.cause(), "an audit sink failed; it is tried again");
                // To the failed one it says so itself, when it works again.
                if inner.sinks.iter().any(|sink| sink.is_up()) {
                    inner.event(&Record::SinkFailed { sink });
                }
            }
            (false, true) => tracing::info!(sink, "an audit sink works again"),
            (true, true) | (false, false) => {}
        }
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        self.sinks.iter().any(|sink| sink.has_room())
    }

    fn flush_denials(&self) {
        if !self.has_room() {
            return;
        }
        let denials = std::mem::take(&mut *self.denials.lock().unwrap_or_else(PoisonError::into_inner));
        if !denials.is_empty() {
            denials.for_each(|record| {
                self.metrics.denials.inc();
                self.push(record, None);
            });
        }
    }

    /// Writes the repeats of the shards from this one on. The one to go on with, if there is no room for more.
    fn flush_repeats(&self, from: usize) -> Option<usize> {
        let mut left = MOST_REPEATS;
        for shard in from..SHARDS {
            if left == 0 || !self.has_room() {
                return Some(shard);
            }
            let now = self.clock.now();
            let sweep = self.pairs.sweep(shard, now.mono, now.wall, left);
            left = left.saturating_sub(sweep.repeats.len());
            for repeats in &sweep.repeats {
                self.metrics.repeats.inc();
                self.push(&repeats.record(), None);
            }
            if sweep.more {
                return Some(shard);
            }
        }
        None
    }

    pub(super) async fn close(&self) {
        let limit = self.terms().timeout;
        // Each only once more: what finds no room now finds none later either.
        self.flush_denials();
        let mut rest = Some(0);
        let deadline = Instant::now() + limit;
        while let Some(shard) = rest
            && Instant::now() < deadline
        {
            rest = self.flush_repeats(shard);
            tokio::task::yield_now().await;
        }
        self.event(&Record::Stop { unrecorded: self.unrecorded.swap(0, Ordering::Relaxed) });
        self.sinks.iter().for_each(|sink| sink.close());
        let closed = async {
            while !self.sinks.iter().all(|sink| sink.is_closed()) {
                self.bell.notified().await;
            }
        };
        if timeout(limit, closed).await.is_err() {
            tracing::error!("the last audit records could not be written");
        }
    }
}
