use super::super::roster;
use super::*;
use crate::bearer::{self, Issuers};
use crate::broker::Broker;
use crate::config::Environment;
use crate::engine::{Engine, Metrics};
use crate::policy::Policy;
use crate::revision::Revisions;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A configuration file that somebody writes, and what follows it.
struct Followed {
    _directory: TempDir,
    path: PathBuf,
    writes: usize,
    reloader: Reloader,
}

impl Followed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token-broker.toml");
        fs::write(&path, "").unwrap();
        let source = Source::new(&path, Environment::default());
        let Loaded { config, files } = source.load();
        let config = config.unwrap();
        let (clock, history) = (Clock::system(), History::default());
        let counted = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let engine = Engine::new(clock.clone(), Supervisor::new(), roster::settings(&config), counted);
        let told = bearer::Metrics::register(&mut prometheus_client::registry::Registry::default());
        let issuers = Issuers::new(clock.clone(), Revisions::default(), Supervisor::new(), told);
        let broker = Broker::new(engine.clone(), Policy::default(), Revisions::default());
        let mut roster = Roster::new(engine, broker, issuers, &config);
        roster.install(roster.prepare(config).unwrap());
        history.accepted(clock.now().wall, Vec::new());
        let (filter, pending, rest) = (Filter::of_nobody(), None, Duration::ZERO);
        let audit = Audit::none();
        let reloader = Reloader { source, files, roster, history, audit, clock, filter, pending, rest };
        Self { _directory: directory, path, writes: 0, reloader }
    }

    /// Writes another file, whose size differs from that of the one before.
    fn write(&mut self) {
        self.writes += 1;
        fs::write(&self.path, format!("#{}\n", " ".repeat(self.writes))).unwrap();
    }

    /// Looks, and says how things stand: the number of configurations accepted, and of problems told.
    fn look(&mut self, asked: Asked) -> (u64, usize) {
        self.reloader.look(asked);
        let record = self.reloader.history.record();
        (record.generation, record.problems.len())
    }
}

#[tokio::test]
async fn the_last_write_is_taken_up_when_it_came_just_before_the_patience_was_over() {
    let mut followed = Followed::new();
    while followed.reloader.history.record().problems.is_empty() {
        followed.write();
        followed.look(Asked::ByTime);
        assert!(followed.writes < 100, "nothing was told");
    }
    assert_eq!(followed.look(Asked::ByTime), (2, 0));
    assert!(followed.reloader.pending.is_none());
}

#[tokio::test]
async fn a_writer_that_never_rests_is_told_once_and_looked_at_less_often() {
    let mut followed = Followed::new();
    let mut attempts = Vec::new();
    for _ in 0..50 {
        followed.write();
        assert_eq!(followed.look(Asked::ByTime).0, 1);
        attempts.push(followed.reloader.history.record().attempted_at);
    }
    attempts.dedup();
    assert_eq!(attempts.len(), 2, "the start, and one refusal");
    let interval = followed.reloader.roster.standing().server().reload_interval;
    assert!(followed.reloader.pause() >= Some(interval) && interval > SETTLE);
}
