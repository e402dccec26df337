//! Follows the configuration file and the secrets that it names, and takes up what changes.
//!
//! Promises: a configuration is read whole, checked whole, and only then put in force; on any problem the last good one
//! stays, and what is wrong is told once; files that change while they are read are read again; looking for changes
//! takes at most a tenth of one core, however many files there are.
//!
//! All of it blocks (files, and the parsing of up to 100,000 Workspaces), so it runs beside the tasks, one at a time.

use super::roster::Roster;
use crate::audit::{Audit, Record};
use crate::clock::Clock;
use crate::config::{Changes, Config, Files, History, Loaded, Place, Problem, Problems, Source, WorkspaceChange};
use crate::supervisor::{Hangup, Supervisor};
use crate::telemetry::logs::Filter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How long a changed file must have been left alone before it is read: whoever writes it may not be done.
const SETTLE: Duration = Duration::from_millis(100);
/// Files that change as often as this while they are looked at are reported, and looked at less often.
const MOST_TRIES: u32 = 10;
/// So many times what a look took is waited before the next one.
const REST_FROM_LOOKING: u32 = 9;
/// The same for what reading the configuration took, which happens only when something changed.
const REST_FROM_LOADING: u32 = 1;

/// What follows the configuration.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) files: Files,
    pub(super) roster: Roster,
    pub(super) history: History,
    pub(super) audit: Audit,
    pub(super) clock: Clock,
    pub(super) filter: Filter,
    /// What a change that is not taken up yet has come to.
    pub(super) pending: Option<Pending>,
    /// For how long to let the machine alone.
    pub(super) rest: Duration,
}

/// A change that was seen and waits to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    asked: Asked,
    tries: u32,
}

/// Why the configuration is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It is time again.
    ByTime,
    /// An operator sent SIGHUP.
    ByOperator,
}

/// Follows until the drain.
pub(super) async fn follow(reloader: Reloader, mut hangup: Hangup, supervisor: Supervisor) {
    let mut pause = reloader.pause();
    let reloader = Arc::new(Mutex::new(reloader));
    loop {
        let asked = tokio::select! {
            biased;
            () = supervisor.draining() => return,
            () = hangup.next() => Asked::ByOperator,
            () = elapsed(pause) => Asked::ByTime,
        };
        let shared = Arc::clone(&reloader);
        let look = supervisor.blocking("configuration", move || {
            let mut reloader = shared.lock().unwrap_or_else(PoisonError::into_inner);
            reloader.look(asked);
            reloader.pause()
        });
        let next = tokio::select! {
            () = supervisor.draining() => return,
            next = look => next,
        };
        // After a panic: as if nothing had been found. What is in force is in force.
        pause = next.unwrap_or(pause);
    }
}

/// `None`: never.
async fn elapsed(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

impl Reloader {
    /// One look at the files, and whatever follows from it.
    fn look(&mut self, asked: Asked) {
        if asked == Asked::ByOperator {
            // Whoever moved its file says so by the same signal.
            self.audit.reopen();
        }
        let begun = self.clock.now();
        // What is about to be read anyway is not read to see whether it has settled.
        let settled = self.pending.is_some() && self.files.are_of_one_piece();
        let changed = !settled && self.files.have_changed(begun.wall);
        self.rest = begun.mono.elapsed() * REST_FROM_LOOKING;
        match (asked, self.pending) {
            (Asked::ByOperator, _) => self.load(Pending { asked, tries: 1 }),
            (Asked::ByTime, Some(pending)) if changed => self.postpone(pending),
            (Asked::ByTime, Some(pending)) => self.load(pending),
            (Asked::ByTime, None) if changed => self.pending = Some(Pending { asked, tries: 1 }),
            (Asked::ByTime, None) => {}
        }
    }

    /// When to look again; `None`: when an operator asks.
    fn pause(&self) -> Option<Duration> {
        let interval = self.roster.standing().server().reload_interval;
        match self.pending {
            Some(pending) if pending.tries > MOST_TRIES => Some(interval.max(SETTLE).max(self.rest)),
            Some(_) => Some(SETTLE),
            None => Some(interval).filter(|interval| !interval.is_zero()).map(|interval| interval.max(self.rest)),
        }
    }

    fn load(&mut self, pending: Pending) {
        let begun = self.clock.now().mono;
        let Loaded { config, files } = self.source.load();
        self.rest = self.rest.max(begun.elapsed() * REST_FROM_LOADING);
        if !files.are_of_one_piece() {
            return self.postpone(pending);
        }
        self.pending = None;
        let outcome = config.and_then(|config| self.accept(config, pending.asked));
        match outcome {
            Ok(changes) => {
                self.files = files;
                self.tell_accepted(&changes);
            }
            Err(problems) => {
                self.files.update(files);
                self.tell_refused(&problems);
            }
        }
    }

    /// Who writes the files is not done. That it takes long is told once. It is tried on all the same: the last write
    /// may be over by now, and nobody would ask for it again.
    fn postpone(&mut self, pending: Pending) {
        let tries = pending.tries.saturating_add(1);
        // What an operator asked for is answered by the refusal.
        let asked = if tries > MOST_TRIES { Asked::ByTime } else { pending.asked };
        self.pending = Some(Pending { asked, tries });
        if tries == MOST_TRIES + 1 {
            self.tell_refused(&problem("the files change again and again while they are read"));
        }
    }

    /// All or nothing.
    fn accept(&mut self, config: Config, asked: Asked) -> Result<Changes, Problems> {
        let warnings = config.warnings.clone();
        let prepared = self.roster.prepare(config)?;
        let (gone, all) = (prepared.changes.removed(), self.roster.standing().workspaces());
        if asked == Asked::ByTime && gone * 2 > all {
            // A file that was cut off between two tables is valid, and would take everybody's tokens away.
            return Err(problem(&format!(
                "it removes {gone} of {all} Workspaces, more than half; if that is meant, send SIGHUP"
            )));
        }
        for warning in &warnings {
            tracing::warn!(%warning, "configuration");
        }
        let level = prepared.level.clone();
        let changes = self.roster.install(prepared);
        if let Some(terms) = changes.audit {
            self.audit.configure(terms);
        }
        if changes.level {
            self.filter.change(level.filter());
        }
        Ok(changes)
    }

    fn tell_accepted(&self, changes: &Changes) {
        let before = self.history.record();
        for key in changes.restart.iter().filter(|key| !before.restart.contains(key)) {
            tracing::warn!(key, "the new value of this setting takes effect only after a restart");
        }
        self.history.accepted(self.clock.now().wall, changes.restart.clone());
        let generation = before.generation + 1;
        self.audit.event(&Record::ConfigurationAccepted { generation });
        if changes.grants {
            self.audit.event(&Record::PolicyChanged { generation });
        }
        let count =
            |wanted: fn(&WorkspaceChange) -> bool| changes.workspaces.values().filter(|change| wanted(change)).count();
        tracing::info!(
            generation,
            workspaces.added = count(|change| *change == WorkspaceChange::Added),
            workspaces.removed = changes.removed(),
            workspaces.rebound = count(|change| *change == WorkspaceChange::Rebound),
            workspaces.credentials =
                count(|change| matches!(change, WorkspaceChange::Changed { credential: true, .. })),
            workspaces.redescribed = count(|change| matches!(change, WorkspaceChange::Changed { recipe: true, .. })),
            upstreams.changed = changes.upstreams.len(),
            grants.changed = changes.grants,
            "configuration accepted"
        );
    }

    fn tell_refused(&self, problems: &Problems) {
        self.history.refused(self.clock.now().wall, problems);
        let record = self.history.record();
        let all = record.problems.len().saturating_add(record.more_problems);
        let (generation, problems) = (record.generation, u64::try_from(all).unwrap_or(u64::MAX));
        self.audit.event(&Record::ConfigurationRefused { generation, problems });
        let shown: Vec<_> = record.problems.iter().map(ToString::to_string).collect();
        tracing::error!(
            generation = record.generation,
            problems = shown.join("; "),
            more = record.more_problems,
            "configuration refused; the last good one stays in force"
        );
    }
}

fn problem(text: &str) -> Problems {
    Problem { key: "configuration".to_owned(), place: Place::Unknown, text: text.to_owned() }.into()
}

#[cfg(test)]
mod tests;
