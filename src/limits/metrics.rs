//! What is counted of the limits. Never by caller: callers choose how many they are.

use super::Limit;
use super::account::PerAction;
use crate::policy::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: &'static str,
    limit: &'static str,
}

/// The handles.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    throttled: PerAction<PerLimit>,
    remembered: Gauge,
    shared: Counter,
    paused: Counter,
}

/// One for each limit.
#[derive(Debug, Clone, Default)]
struct PerLimit {
    rate: Counter,
    of_caller: Counter,
    of_all: Counter,
}

impl Metrics {
    /// Adds the families.
    pub fn register(registry: &mut Registry) -> Self {
        let throttled = Family::<Labels, Counter>::default();
        let series = |action: Action, limit: Limit| {
            throttled.get_or_create_owned(&Labels { action: action.as_str(), limit: limit.as_str() })
        };
        let handles = PerAction::<()>::default().map(|action, ()| PerLimit {
            rate: series(action, Limit::Rate),
            of_caller: series(action, Limit::InFlightOfCaller),
            of_all: series(action, Limit::InFlight),
        });
        let (remembered, shared, paused) = (Gauge::default(), Counter::default(), Counter::default());
        registry.register("calls_throttled", "Calls refused by a limit, by action and limit", throttled);
        registry.register("callers_remembered", "Callers whose use of their limits is kept", remembered.clone());
        registry.register(
            "calls_of_unremembered_callers",
            "Calls that shared one account, since limits.max_callers others were busy",
            shared.clone(),
        );
        registry.register(
            "connections_paused",
            "Pauses in the reading of a connection whose caller went on although it was refused",
            paused.clone(),
        );
        Self { throttled: handles, remembered, shared, paused }
    }

    pub(super) fn throttled(&self, action: Action, limit: Limit) {
        let PerLimit { rate, of_caller, of_all } = self.throttled.of(action);
        match limit {
            Limit::Rate => rate.inc(),
            Limit::InFlightOfCaller => of_caller.inc(),
            Limit::InFlight => of_all.inc(),
        };
    }

    pub(super) fn remembered(&self, callers: usize) {
        self.remembered.set(callers.try_into().unwrap_or(i64::MAX));
    }

    pub(super) fn shared(&self) {
        self.shared.inc();
    }

    pub(super) fn paused(&self) {
        self.paused.inc();
    }

    #[cfg(test)]
    pub(super) fn pauses(&self) -> u64 {
        self.paused.get()
    }
}
