//! The listeners of a configuration: each bound, with its one means, its limits and its counters.

use super::Error;
use crate::bearer::Issuers;
use crate::clock::Clock;
use crate::config::{self, Callers, Config, ListenAddress, Problem, Problems, TlsFiles};
use crate::grpc::{self, Means, Parts};
use crate::listener::{self, Address, Limits, Listener, Metrics, Protocol};
use crate::readiness::Readiness;
use crate::revision::Revisions;
use crate::supervisor::Supervisor;
use crate::{telemetry, tls};
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections of orchestrators and scrapers at once: anybody may reach that listener, so it must not eat up the file
/// descriptors, and no single one of them all the places.
const PROBE_CONNECTIONS: usize = 64;
const PROBE_CONNECTIONS_PER_PEER: usize = 32;

/// All listeners, bound and not yet serving.
pub(super) struct Listeners {
    /// There is one at least.
    grpc: Vec<Bound>,
    probe: Listener,
}

/// What callers are judged by, and when.
pub(super) struct Judges {
    pub(super) revisions: Revisions,
    pub(super) clock: Clock,
}

struct Bound {
    listener: Listener,
    means: Means,
    tls: Option<tls::Server>,
    name: String,
    kind: &'static str,
}

/// Whether the files of the listeners' TLS are of use.
pub(super) fn rehearse(config: &Config) -> Result<(), Problems> {
    let judges = Judges { revisions: Revisions::default(), clock: Clock::system() };
    let problems = config.listeners.iter().enumerate().filter_map(|(position, listener)| {
        let error = secure(listener, &judges).err()?;
        Some(Problem {
            key: format!("listeners[{position}].tls"),
            place: listener.place.clone(),
            text: error.to_string(),
        })
    });
    Problems::new(problems.collect()).map_or(Ok(()), Err)
}

impl Listeners {
    /// Binds them all, so that a conflict shows before anything is served.
    pub(super) async fn bind(
        config: &Config,
        judges: &Judges,
        issuers: &Issuers,
        metrics: &telemetry::metrics::Metrics,
        readiness: &Readiness,
    ) -> Result<Self, Error> {
        let counted = &metrics.register(Metrics::register);
        let of_tls = metrics.register(tls::Metrics::register);
        let (mut grpc, mut limits) = (Vec::new(), connection_limits(config).into_iter());
        let mut next = || limits.next().unwrap_or_default();
        if let Some(address) = config.server.grpc_listen {
            let address = Address::Tcp(address);
            let listener = listen("grpc", address, Protocol::Http2, next(), counted).await?;
            let means = Means::Loopback;
            grpc.push(Bound { listener, means, tls: None, name: "grpc".to_owned(), kind: "loopback" });
        }
        for configured in &config.listeners {
            let tls = secure(configured, judges)?.map(|tls| {
                let report = readiness.report(format!("tls of {}", configured.name));
                tls.observed(&configured.name, of_tls.of(&configured.name), report)
            });
            let address = address_of(configured);
            let mut listener = listen(&configured.name, address, Protocol::Http2, next(), counted).await?;
            if let Some(tls) = &tls {
                listener = listener.secured(tls.clone());
            }
            let means = means(&configured.callers, issuers);
            grpc.push(Bound { listener, means, tls, name: configured.name.clone(), kind: configured.kind() });
        }
        let address = Address::Tcp(config.server.probe_listen);
        let probe = listen("probe", address, Protocol::Either, next(), counted).await?;
        Ok(Self { grpc, probe })
    }

    /// The first TCP port on which gRPC is served.
    pub(super) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.iter().find_map(|bound| bound.listener.local_addr())
    }

    /// Where the probes are answered.
    pub(super) fn probe_address(&self) -> Option<SocketAddr> {
        self.probe.local_addr()
    }

    /// The first listener for gRPC, as it is told.
    pub(super) fn first(&self) -> String {
        self.grpc.first().map(|bound| bound.listener.address().to_string()).unwrap_or_default()
    }

    /// Serves on all of them; `told` is what the probe listener tells over HTTP, and `probes` its own supervisor.
    pub(super) fn start(self, parts: &Parts, supervisor: &Supervisor, told: Router, probes: &Supervisor) {
        let Self { grpc, probe } = self;
        let told = told.merge(grpc::probes(parts.clone(), probes.clone()));
        probes.spawn_critical("probe listener", probe.run(told, probes.clone(), fastrand::u64(..)));
        for Bound { listener, means, tls, name, kind } in grpc {
            let address = listener.address();
            tracing::info!(listener = name, %address, callers = kind, tls = tls.is_some(), "listening");
            let routes = grpc::routes(parts.clone(), means);
            let run = listener.run(routes, supervisor.clone(), fastrand::u64(..));
            supervisor.spawn_critical("gRPC listener", run);
            if let Some(tls) = tls {
                supervisor.spawn_critical("TLS files", tls.follow(tls::LOOK_EVERY, supervisor.clone()));
            }
        }
    }
}

async fn listen(
    name: &str,
    address: Address,
    protocol: Protocol,
    limits: Limits,
    counted: &Metrics,
) -> Result<Listener, Error> {
    let shown = address.to_string();
    let bound = Listener::bind(address, protocol, limits).await;
    let bound = bound.map_err(|source| Error::Bind { address: shown, source })?;
    Ok(bound.counting(name, counted.of(name)))
}

fn address_of(listener: &config::Listener) -> Address {
    match &listener.address {
        ListenAddress::Tcp(address) => Address::Tcp(*address),
        ListenAddress::Unix { path, mode } => Address::Unix { path: path.clone(), mode: *mode },
    }
}

fn means(callers: &Callers, issuers: &Issuers) -> Means {
    match callers {
        Callers::Loopback => Means::Loopback,
        Callers::Certificate { .. } | Callers::PeerCredentials => Means::Channel,
        Callers::ForwardedCertificate { proxies, trust_domains } => {
            Means::ForwardedCertificate { proxies: proxies.clone(), trust_domains: trust_domains.clone() }
        }
        Callers::Bearer { issuers: named } => {
            let only = (!named.is_empty()).then(|| named.clone());
            Means::Bearer(Arc::new(issuers.accepting(only)))
        }
    }
}

fn secure(listener: &config::Listener, judges: &Judges) -> Result<Option<tls::Server>, tls::Error> {
    let Some(TlsFiles { certificate, key, client_ca, crl }) = listener.tls.clone() else { return Ok(None) };
    let clients = match &listener.callers {
        Callers::Certificate { trust_domains } | Callers::ForwardedCertificate { trust_domains, .. } => {
            tls::Clients::Required { trust_domains: trust_domains.clone() }
        }
        Callers::Loopback | Callers::PeerCredentials | Callers::Bearer { .. } => tls::Clients::None,
    };
    let files = tls::Files { certificate, key, client_ca, crl };
    tls::Server::new(files, clients, judges.revisions.clone(), judges.clock.clone()).map(Some)
}

/// Those of each gRPC listener in turn, and of the probe listener. A connection that was asked to go is not cut before
/// the drain is over, or a longer drain would be none.
fn connection_limits(config: &Config) -> Vec<Limits> {
    let (server, limits) = (&config.server, Limits::default());
    let many = Limits {
        max_connections: server.max_connections,
        max_connections_per_peer: server.max_connections_per_peer,
        grace: limits.grace.max(server.drain_timeout),
        ..limits
    };
    let few = Limits {
        max_connections: PROBE_CONNECTIONS,
        max_connections_per_peer: PROBE_CONNECTIONS_PER_PEER,
        ..Limits::default()
    };
    let count = usize::from(server.grpc_listen.is_some()) + config.listeners.len();
    let mut all = vec![many; count];
    all.push(few);
    listener::fit(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn no_connection_is_cut_before_the_drain_is_over() {
        let least = Limits::default().grace;
        for (drain, grace) in [(0, least), (10, least.max(Duration::from_secs(10))), (600, Duration::from_secs(600))] {
            let config = Config::parse(
                &format!("[server]\ndrain_timeout = \"{drain}s\""),
                Path::new("."),
                &Environment::default(),
            );
            let limits = connection_limits(&config.unwrap());
            assert_eq!((limits.len(), limits[0].grace), (2, grace));
        }
    }
}
