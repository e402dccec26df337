//! What a listener counts: connections that it does not take. Handles are made once; every label is one of a few: the
//! names of listeners are the configuration's, which a restart alone changes.

use super::admission::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::io;

/// The counters of all listeners.
#[derive(Debug, Clone)]
pub struct Metrics(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    listener: String,
    reason: &'static str,
}

/// The counters of one listener.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    full: Counter,
    peer_full: Counter,
    too_fast: Counter,
    no_descriptor: Counter,
    system: Counter,
}

impl Metrics {
    /// Makes the family and adds it to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let refused = Family::default();
        let help = "Connections that were not taken, and tries to accept that failed, by the limit that was reached";
        registry.register("connections_refused", help, refused.clone());
        Self(refused)
    }

    /// The counters of the listener of this name.
    pub fn of(&self, listener: &str) -> Refused {
        let reason = |reason| self.0.get_or_create_owned(&Labels { listener: listener.to_owned(), reason });
        Refused {
            full: reason("max_connections"),
            peer_full: reason("max_connections_per_peer"),
            too_fast: reason("peer_connection_rate"),
            no_descriptor: reason("file_descriptors"),
            system: reason("system"),
        }
    }
}

impl Refused {
    pub(super) fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.full.inc(),
            Refusal::PeerFull => self.peer_full.inc(),
            Refusal::TooFast => self.too_fast.inc(),
        };
    }

    /// A try to accept that failed for want of something that the system has.
    pub(super) fn not_accepted(&self, error: &io::Error) {
        if is_out_of_descriptors(error) {
            self.no_descriptor.inc()
        } else {
            self.system.inc()
        };
    }
}

/// EMFILE, the process's own limit, and ENFILE, the system's (errno(3)). std has no kind for them.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
