//! Follows the files of a listener's TLS and takes up what changes.

use super::standing::Warned;
use super::{Error, Server};
use crate::files::Files;
use crate::supervisor::Supervisor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// How long changed files must have been left alone before they are read: whoever writes them may not be done.
const SETTLE: Duration = Duration::from_millis(100);
/// Files that change as often as this while they are looked at are reported, and looked at less often.
const MOST_TRIES: u32 = 10;
/// Files that are refused for their dates may come into their time without a change.
const TRY_AGAIN: Duration = Duration::from_secs(30);

struct Follower {
    server: Server,
    files: Files,
    /// So often a change was seen that is not taken up yet.
    pending: Option<u32>,
    warned: [Warned; 3],
    last_look: SystemTime,
    last_load: SystemTime,
}

pub(super) async fn follow(server: Server, interval: Duration, supervisor: Supervisor) {
    let follower = Arc::new(Mutex::new(Follower::new(server)));
    let mut pause = interval;
    loop {
        tokio::select! {
            biased;
            () = supervisor.draining() => return,
            () = sleep(pause) => {}
        }
        let shared = Arc::clone(&follower);
        let look = supervisor.blocking("TLS files", move || {
            let mut follower = shared.lock().unwrap_or_else(PoisonError::into_inner);
            follower.look();
            follower.pause(interval)
        });
        let next = tokio::select! {
            () = supervisor.draining() => return,
            next = look => next,
        };
        // After a panic: as if nothing had been found. What is in force is in force.
        pause = next.unwrap_or(interval);
    }
}

impl Follower {
    /// Goes on from the reading that is in force.
    fn new(server: Server) -> Self {
        let empty = Files::new(server.shared.key.clone());
        let mut read = server.shared.read.lock().unwrap_or_else(PoisonError::into_inner);
        let files = std::mem::replace(&mut *read, empty);
        drop(read);
        let last_load = server.shared.clock.now().wall;
        // What ended or began while the start went on counts too.
        let last_look = server.shared.trusted.as_ref().map_or(last_load, |trusted| trusted.trust().made);
        Self { server, files, pending: None, warned: Default::default(), last_look, last_load }
    }

    fn look(&mut self) {
        let now = self.server.shared.clock.now().wall;
        // What is about to be read anyway is not read to see whether it has settled.
        let settled = self.pending.is_some() && self.files.are_of_one_piece();
        let changed = !settled && self.files.have_changed(now);
        let ended = self.something_ended(now);
        match self.pending {
            Some(tries) if changed => self.postpone(tries),
            Some(tries) => self.load(tries),
            None if changed => self.pending = Some(1),
            None if ended || self.is_to_try_again(now) => self.load(1),
            None => {}
        }
        if ended {
            // Also where the files can't be used as they are now.
            self.server.without_what_ended(now);
        }
        self.server.tell();
        self.warn(now);
        self.last_look = now;
    }

    fn pause(&self, interval: Duration) -> Duration {
        match self.pending {
            Some(tries) if tries > MOST_TRIES => interval.max(SETTLE),
            Some(_) => SETTLE,
            None => interval,
        }
    }

    /// Whether an authority or a revocation list has ended, or an authority has come into its time.
    fn something_ended(&self, now: SystemTime) -> bool {
        let trusted = self.server.shared.trusted.as_ref();
        trusted.is_some_and(|trusted| trusted.trust().changed_between(self.last_look, now))
    }

    fn is_to_try_again(&self, now: SystemTime) -> bool {
        let since = now.duration_since(self.last_load).unwrap_or(TRY_AGAIN);
        self.server.shared.refused.load().is_some() && since >= TRY_AGAIN
    }

    fn load(&mut self, tries: u32) {
        let shared = &self.server.shared;
        self.last_load = shared.clock.now().wall;
        let mut files = Files::new(shared.key.clone());
        let before = shared.trusted.as_ref().map(|trusted| trusted.trust());
        let made = shared.maker.make(&mut files, before.as_ref());
        if !files.are_of_one_piece() {
            return self.postpone(tries);
        }
        self.pending = None;
        match made {
            Ok(material) => {
                self.files = files;
                self.server.install(material);
            }
            Err(error) => {
                self.files.update(files);
                self.server.refuse(error);
            }
        }
    }

    /// Who writes the files is not done. That it takes long is told once.
    fn postpone(&mut self, tries: u32) {
        self.pending = Some(tries.saturating_add(1));
        if tries == MOST_TRIES {
            self.server.refuse(Error::of_none("tls", "the files change again and again while they are read"));
        }
    }

    fn warn(&mut self, now: SystemTime) {
        let listener = &self.server.observer.listener;
        for (warned, (what, period)) in self.warned.iter_mut().zip(self.server.certificate().each()) {
            let Some(left) = period.and_then(|period| warned.due(period, now)) else { continue };
            let hours_left = left.as_secs() / 3600;
            if left.is_zero() {
                tracing::error!(listener, what, "it has expired: put a new one in its place");
            } else {
                tracing::warn!(listener, what, hours_left, "it ends soon and has no successor yet");
            }
        }
    }
}
