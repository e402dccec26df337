//! What is counted of the listeners' TLS: handshakes that failed, when certificates end, what came of reading them again.

use crate::identity::certificate;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::CertificateError;
use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

type Moment = Gauge<f64, AtomicU64>;

/// The families of all listeners.
#[derive(Debug, Clone)]
pub struct Metrics {
    failed: Family<Failed, Counter>,
    ends: Family<Ends, Moment>,
    reloads: Family<Outcome, Counter>,
    stale: Family<Of, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    listener: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ends {
    listener: String,
    certificate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    listener: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    listener: String,
}

/// The handles of one listener.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    failures: Failures,
    ends: Option<EndsOf>,
    accepted: Counter,
    refused: Counter,
    stale: Gauge,
}

/// Made only where there is something that ends: a 0 would look as if it had.
#[derive(Debug, Clone)]
struct EndsOf {
    family: Family<Ends, Moment>,
    listener: String,
}

#[derive(Debug, Clone, Default)]
struct Failures {
    no_certificate: Counter,
    certificate: Counter,
    identity: Counter,
    alpn: Counter,
    protocol: Counter,
    rejected: Counter,
    closed: Counter,
    abandoned: Counter,
}

/// Counts how a handshake ended; dropped before that, it was abandoned: the listener's patience was over.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    failures: &'a Failures,
    ended: bool,
}

impl Metrics {
    /// Makes the families and adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self {
            failed: Family::default(),
            ends: Family::default(),
            reloads: Family::default(),
            stale: Family::default(),
        };
        let help = "TLS handshakes that came to nothing, by the reason";
        registry.register("tls_handshakes_failed", help, this.failed.clone());
        let help = "When what a listener's TLS stands on ends, in seconds since 1970: its certificate, the client CA \
                    and the revocation list that end first";
        registry.register("certificate_expiry_timestamp_seconds", help, this.ends.clone());
        let help = "Readings of a listener's TLS files after a change, by what came of them";
        registry.register("tls_reloads", help, this.reloads.clone());
        let help = "1 while a listener's TLS files can't be used and what was read before them is in force";
        registry.register("tls_files_refused", help, this.stale.clone());
        this
    }

    /// The handles of the listener of this name.
    pub fn of(&self, listener: &str) -> Counters {
        let name = || listener.to_owned();
        let outcome = |outcome| self.reloads.get_or_create_owned(&Outcome { listener: name(), outcome });
        Counters {
            failures: Failures::of(|reason| self.failed.get_or_create_owned(&Failed { listener: name(), reason })),
            ends: Some(EndsOf { family: self.ends.clone(), listener: name() }),
            accepted: outcome("accepted"),
            refused: outcome("refused"),
            stale: self.stale.get_or_create_owned(&Of { listener: name() }),
        }
    }
}

impl Failures {
    fn of(counter: impl Fn(&'static str) -> Counter) -> Self {
        Self {
            no_certificate: counter("no_certificate"),
            certificate: counter("certificate"),
            identity: counter("identity"),
            alpn: counter("alpn"),
            protocol: counter("protocol"),
            rejected: counter("rejected_by_peer"),
            closed: counter("closed"),
            abandoned: counter("abandoned"),
        }
    }

    fn by(&self, error: &io::Error) -> &Counter {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::NoCertificatesPresented) => &self.no_certificate,
            Some(rustls::Error::InvalidCertificate(error)) if is_of_identity(error) => &self.identity,
            Some(rustls::Error::InvalidCertificate(_)) => &self.certificate,
            Some(rustls::Error::NoApplicationProtocol) => &self.alpn,
            Some(rustls::Error::AlertReceived(_)) => &self.rejected,
            Some(_) => &self.protocol,
            None if error.kind() == ErrorKind::InvalidData => &self.protocol,
            None => &self.closed,
        }
    }
}

fn is_of_identity(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if other.0.downcast_ref::<certificate::Error>().is_some())
}

impl Counters {
    pub(super) fn handshake(&self) -> Handshake<'_> {
        Handshake { failures: &self.failures, ended: false }
    }

    pub(super) fn ends(&self, server: SystemTime, client_ca: Option<SystemTime>, revocations: Option<SystemTime>) {
        for (certificate, end) in [("server", Some(server)), ("client_ca", client_ca), ("crl", revocations)] {
            self.ends.iter().for_each(|ends| ends.set(certificate, end));
        }
    }

    pub(super) fn accepted(&self) {
        self.accepted.inc();
        self.stale.set(0);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
        self.stale.set(1);
    }
}

impl EndsOf {
    fn set(&self, certificate: &'static str, end: Option<SystemTime>) {
        let labels = Ends { listener: self.listener.clone(), certificate };
        match end {
            Some(end) => {
                self.family.get_or_create_owned(&labels).set(seconds(end));
            }
            None => {
                self.family.remove(&labels);
            }
        }
    }
}

impl Handshake<'_> {
    pub(super) fn ended(mut self, failure: Option<&io::Error>) {
        self.ended = true;
        if let Some(error) = failure {
            self.failures.by(error).inc();
        }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.failures.abandoned.inc();
        }
    }
}

fn seconds(moment: SystemTime) -> f64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
