//! What the audit counts. Handles are made once; labels are of a fixed list.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The audit's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) releases: Counter,
    pub(super) repeats: Counter,
    pub(super) denials: Counter,
    pub(super) events: Counter,
    /// Releases that were refused because no record could be written.
    pub(super) unavailable: Counter,
    /// Releases that went on without a record.
    pub(super) unrecorded: Counter,
    up: Family<Of, Gauge>,
    dropped: Family<Of, Counter>,
    seconds: Histogram,
}

/// Of one sink.
#[derive(Debug, Clone)]
pub(super) struct SinkMetrics {
    pub(super) up: Gauge,
    pub(super) dropped: Counter,
    pub(super) seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    sink: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Metrics {
    /// Makes the handles and adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let records = Family::<Kind, Counter>::default();
        let (up, dropped) = (Family::default(), Family::default());
        let seconds = Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 1.0, 10.0]);
        let (unavailable, unrecorded) = (Counter::default(), Counter::default());
        registry.register("audit_records", "Audit records given to the sinks, by kind", records.clone());
        registry.register("audit_sink_up", "Whether a sink takes audit records", up.clone());
        registry.register("audit_dropped", "Audit records that a sink lacks", dropped.clone());
        registry.register_with_unit("audit_write", "How long writes took", Unit::Seconds, seconds.clone());
        let help = "Releases that were refused because no audit record could be written";
        registry.register("audit_unavailable", help, unavailable.clone());
        let help = "Releases that went on without an audit record";
        registry.register("audit_allowed_without_record", help, unrecorded.clone());
        let of = |kind| records.get_or_create_owned(&Kind { kind });
        Self {
            releases: of("release"),
            repeats: of("repeats"),
            denials: of("denials"),
            events: of("event"),
            unavailable,
            unrecorded,
            up,
            dropped,
            seconds,
        }
    }

    pub(super) fn of(&self, sink: &'static str) -> SinkMetrics {
        let up = self.up.get_or_create_owned(&Of { sink });
        up.set(1);
        SinkMetrics { up, dropped: self.dropped.get_or_create_owned(&Of { sink }), seconds: self.seconds.clone() }
    }
}
