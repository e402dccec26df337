//! Which configuration is in force, and what came of the last attempt to change it.

use super::{Problem, Problems};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// More problems than this are counted, not kept: one mistake can spoil 100,000 Workspaces.
const SHOWN: usize = 20;

/// What became of the attempts to load a configuration. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    record: Mutex<Record>,
    gauges: Gauges,
}

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// How many configurations were accepted, that of the start included.
    pub generation: u64,
    /// When the one in force was accepted.
    pub accepted_at: Option<SystemTime>,
    /// When the last attempt was made.
    pub attempted_at: Option<SystemTime>,
    /// What was wrong with the last attempt, the first few; none: it was accepted.
    pub problems: Vec<Problem>,
    /// How many more problems there were.
    pub more_problems: usize,
    /// The keys whose new values count only after a restart.
    pub restart: Vec<&'static str>,
}

#[derive(Debug, Clone, Default)]
struct Gauges {
    generation: Gauge<u64, AtomicU64>,
    successful: Gauge,
    accepted: Gauge<f64, AtomicU64>,
    attempted: Gauge<f64, AtomicU64>,
    loads: Family<Outcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl History {
    /// Makes the handles and adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Gauges::default();
        let Gauges { generation, successful, accepted, attempted, loads } = gauges.clone();
        registry.register("config_generation", "Configurations accepted since the start", generation);
        registry.register(
            "config_last_reload_successful",
            "Whether the last attempt to load a configuration was accepted (1) or refused (0)",
            successful,
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was accepted, in seconds since 1970",
            accepted,
        );
        registry.register(
            "config_last_reload_attempt_timestamp_seconds",
            "When a configuration was last loaded or refused, in seconds since 1970",
            attempted,
        );
        registry.register("config_loads", "Attempts to load a configuration, by outcome", loads);
        Self(Arc::new(Shared { record: Mutex::default(), gauges }))
    }

    /// A configuration is in force from now on. `restart`: the keys whose new values are not.
    pub fn accepted(&self, at: SystemTime, restart: Vec<&'static str>) {
        let mut record = self.lock();
        let generation = record.generation + 1;
        *record = Record { generation, accepted_at: Some(at), attempted_at: Some(at), restart, ..Record::default() };
        let gauges = &self.0.gauges;
        gauges.generation.set(generation);
        gauges.accepted.set(since_epoch(at));
        self.attempted(at, true);
    }

    /// A configuration was refused; the one in force stays.
    pub fn refused(&self, at: SystemTime, problems: &Problems) {
        let mut record = self.lock();
        record.attempted_at = Some(at);
        record.problems = problems.iter().take(SHOWN).cloned().collect();
        record.more_problems = problems.iter().len() - record.problems.len();
        self.attempted(at, false);
    }

    /// How things stand now.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    fn attempted(&self, at: SystemTime, successful: bool) {
        let gauges = &self.0.gauges;
        gauges.attempted.set(since_epoch(at));
        gauges.successful.set(i64::from(successful));
        let outcome = if successful { "accepted" } else { "refused" };
        gauges.loads.get_or_create(&Outcome { outcome }).inc();
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;
    use prometheus_client::encoding::text::encode;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn problems(count: usize) -> Problems {
        let problem = Problem { key: "a".to_owned(), place: Place::Line(1), text: "b".to_owned() };
        Problems::new(vec![problem; count]).unwrap()
    }

    #[test]
    fn the_last_good_one_and_the_last_error_are_both_told() {
        let mut registry = Registry::default();
        let history = History::register(&mut registry);
        history.accepted(at(1), Vec::new());
        history.refused(at(2), &problems(25));
        let record = history.record();
        assert_eq!((record.generation, record.accepted_at, record.attempted_at), (1, Some(at(1)), Some(at(2))));
        assert_eq!((record.problems.len(), record.more_problems), (20, 5));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "config_generation 1",
            "config_last_reload_successful 0",
            "config_last_reload_success_timestamp_seconds 1.0",
            "config_last_reload_attempt_timestamp_seconds 2.0",
            "config_loads_total{outcome=\"refused\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        history.accepted(at(3), vec!["log.format"]);
        let record = history.record();
        assert_eq!((record.generation, record.problems.len(), record.more_problems), (2, 0, 0));
        assert_eq!(record.restart, ["log.format"]);
    }
}
