//! The registry of metrics and its text form.
//!
//! Each module owns a struct of handles, made once by [`Metrics::register`] and passed in. Labels are enums, or names
//! from a list that is fixed at the start; nothing that a caller can choose ever becomes a label.

use crate::clock::Clock;
use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

/// Before the name of every metric of the broker.
const PREFIX: &str = "token_broker";

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry that holds what is known from the start: the build, and when the process began.
    pub fn new(clock: &Clock) -> Self {
        let mut registry = Registry::default();
        let started = Gauge::<f64, AtomicU64>::default();
        let since_epoch = clock.now().wall.duration_since(UNIX_EPOCH);
        started.set(since_epoch.unwrap_or_default().as_secs_f64());
        // Without the prefix: dashboards know it by this name.
        registry.register("process_start_time_seconds", "When the process started, in seconds since 1970", started);
        let this = Self(Arc::new(Mutex::new(registry)));
        this.register(|registry| {
            let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
            registry.register("build", "What was built", version);
        });
        this
    }

    /// Lets a module add its families, under the broker's prefix, and keep the handles.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(self.lock().sub_registry_with_prefix(PREFIX))
    }

    /// Everything in `OpenMetrics` text, for [`CONTENT_TYPE`]. Fails only if a metric can't be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.lock())?;
        Ok(out)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[tokio::test(start_paused = true)]
    async fn modules_add_their_own_under_one_prefix() {
        let metrics = Metrics::new(&Clock::simulated());
        let tea = metrics.register(|registry| {
            let tea = Counter::<u64>::default();
            registry.register("tea", "Cups made", tea.clone());
            tea
        });
        tea.inc_by(3);
        let text = metrics.encode().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            "process_start_time_seconds 1800000000.0",
            &format!("token_broker_build_info{{version=\"{version}\"}} 1"),
            "# HELP token_broker_tea Cups made.",
            "token_broker_tea_total 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
