//! What the engine counts. Handles are made once; labels are of bounded number.

use super::Source;
use crate::upstream::UpstreamName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// The engine's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    cached: Counter,
    exchanged: Counter,
    exchanges: Family<Exchange, Counter>,
    seconds: Family<Upstream, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    upstream: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    source: &'static str,
}

fn exchange_buckets() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Metrics {
    /// Makes the handles and adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let served = Family::<From, Counter>::default();
        let exchanges = Family::default();
        let seconds = Family::new_with_constructor(exchange_buckets as fn() -> Histogram);
        registry.register("tokens_served", "Tokens handed out, by where they came from", served.clone());
        registry.register("exchanges", "Exchanges with upstreams, by outcome", exchanges.clone());
        registry.register_with_unit("exchange", "How long exchanges took", Unit::Seconds, seconds.clone());
        // A statement each: `get_or_create` returns a guard of the family's lock, and the second would wait for the first.
        let from_cache = served.get_or_create(&From { source: "cache" }).clone();
        let from_upstream = served.get_or_create(&From { source: "exchanged" }).clone();
        Self { cached: from_cache, exchanged: from_upstream, exchanges, seconds }
    }

    pub(super) fn served(&self, source: Source) {
        match source {
            Source::Cache => self.cached.inc(),
            Source::Exchanged => self.exchanged.inc(),
        };
    }

    pub(super) fn exchanged(&self, upstream: &UpstreamName, outcome: &'static str, took: Duration) {
        let upstream = upstream.as_str().to_owned();
        self.seconds.get_or_create(&Upstream { upstream: upstream.clone() }).observe(took.as_secs_f64());
        self.exchanges.get_or_create(&Exchange { upstream, outcome }).inc();
    }
}
