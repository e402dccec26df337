//! What is counted of callers' tokens and of the keys of their issuers. Labels are enums and names of issuers.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

/// The handles.
#[derive(Debug, Clone)]
pub struct Metrics {
    fetches: Family<Fetch, Counter>,
    fetched: Family<Of, Gauge<f64, AtomicU64>>,
    keys: Family<Of, Gauge>,
    remembered: Counter,
    verified: Counter,
    refused: Counter,
    unavailable: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetch {
    issuer: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    issuer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verification {
    outcome: &'static str,
}

/// What became of a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Remembered,
    Verified,
    Refused,
    Unavailable,
}

impl Metrics {
    /// Makes the handles and adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let (fetches, last_success, keys) = (Family::default(), Family::default(), Family::default());
        let verifications = Family::<Verification, Counter>::default();
        registry.register("issuer_key_fetches", "Fetches of an issuer's keys, by outcome", fetches.clone());
        let help = "When an issuer's keys were last fetched with success, in seconds since 1970";
        registry.register("issuer_keys_fetched_timestamp_seconds", help, last_success.clone());
        registry.register("issuer_keys", "Keys of an issuer that tokens are verified with", keys.clone());
        registry.register("bearer_tokens", "Tokens that callers showed, by outcome", verifications.clone());
        let of = |outcome| verifications.get_or_create_owned(&Verification { outcome });
        Self {
            fetches,
            fetched: last_success,
            keys,
            remembered: of("remembered"),
            verified: of("verified"),
            refused: of("refused"),
            unavailable: of("unavailable"),
        }
    }

    pub(super) fn told(&self, outcome: Outcome) {
        match outcome {
            Outcome::Remembered => self.remembered.inc(),
            Outcome::Verified => self.verified.inc(),
            Outcome::Refused => self.refused.inc(),
            Outcome::Unavailable => self.unavailable.inc(),
        };
    }

    pub(super) fn fetched(&self, issuer: &str, outcome: &'static str) {
        self.fetches.get_or_create(&Fetch { issuer: issuer.to_owned(), outcome }).inc();
    }

    pub(super) fn fresh(&self, issuer: &str, keys: usize, now: SystemTime) {
        let of = Of { issuer: issuer.to_owned() };
        self.fetched.get_or_create(&of).set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.keys.get_or_create(&of).set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    pub(super) fn without_keys(&self, issuer: &str) {
        self.keys.get_or_create(&Of { issuer: issuer.to_owned() }).set(0);
    }

    /// The issuer is no longer configured.
    pub(super) fn forget(&self, issuer: &str) {
        let of = Of { issuer: issuer.to_owned() };
        self.fetched.remove(&of);
        self.keys.remove(&of);
    }
}
