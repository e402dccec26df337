//! What a new configuration changes in the one that is in force. Pure; takes time in proportion to both.
//!
//! A [`Standing`] is a configuration without its secrets: marks stand in for them, so that what is in force can be
//! compared with what is to come without a second copy of any secret.

mod issuers;

pub use issuers::IssuerChange;

use super::{Config, Engine, Flow, Listener, LogFormat, Server, Upstream, Workspace};
use crate::audit;
use crate::health::Rule;
use crate::http;
use crate::lifetime::Bounds;
use crate::limits;
use crate::policy::Grant;
use crate::provider::exchange::Fields;
use crate::secret::{Broken, LongLivedSecret, Mark, MarkKey, Sealed};
use crate::token::WorkspaceName;
use crate::upstream::{Budget, KeepWarm, UpstreamName};
use issuers::IssuerStanding;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A configuration as it is in force, secrets left out.
#[derive(Debug)]
pub struct Standing {
    server: Server,
    listeners: Vec<Listener>,
    format: LogFormat,
    level: String,
    engine: Engine,
    health: Rule,
    issuers: HashMap<String, IssuerStanding>,
    limits: limits::Settings,
    audit: audit::Settings,
    upstreams: HashMap<UpstreamName, UpstreamStanding>,
    workspaces: HashMap<WorkspaceName, WorkspaceStanding>,
    grants: Vec<Grant>,
}

#[derive(Debug, PartialEq)]
struct UpstreamStanding {
    limits: UpstreamLimits,
    reach: Reach,
}

#[derive(Debug, PartialEq)]
struct UpstreamLimits {
    max_concurrent: NonZeroUsize,
    budget: Budget,
    renew_at: f64,
    timeout: Duration,
}

/// All that an exchange with an upstream is made of, but for the credential.
#[derive(Debug, PartialEq)]
struct Reach {
    base_url: Url,
    bounds: Bounds,
    token_lifetime: Option<Duration>,
    timeout: Duration,
    connect_timeout: Duration,
    allow_private: Vec<String>,
    proxy: Option<Url>,
    ca_pem: Option<Mark>,
    client_identity: Option<Mark>,
}

#[derive(Debug, PartialEq)]
struct WorkspaceStanding {
    upstream: UpstreamName,
    flow: Arc<Flow>,
    /// All that its tokens are for: the parameters and the extra ones.
    purpose: Mark,
    keep_warm: KeepWarm,
    credential: Mark,
}

/// What becomes of an upstream. One that is not listed stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamChange {
    /// It is new.
    Added,
    /// Its limits, how it is reached, or both are others.
    Changed {
        /// Budget, concurrency, renewal or the time limit.
        limits: bool,
        /// Address, certificates, time limits, plausible lifetimes: its exchanges are to be made anew.
        reach: bool,
    },
    /// It is gone.
    Removed,
}

/// What becomes of a Workspace. One that is not listed stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceChange {
    /// It is new.
    Added,
    /// It is bound to another upstream or another kind of one, takes another flow or gives other parameters, or its
    /// tokens are to travel or to be told apart in another way: the one in hand is for something else.
    Rebound,
    /// For the same as before; what is given differs, the rest stays.
    Changed {
        /// The credential is another.
        credential: bool,
        /// Its flow is described in another way.
        recipe: bool,
        /// Whether it is renewed when nobody asks, if that changed.
        keep_warm: Option<KeepWarm>,
    },
    /// It is gone.
    Removed,
}

/// All that a new configuration changes.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each part that is taken up as a whole, or not at all")]
pub struct Changes {
    /// The issuers that change, each once.
    pub issuers: HashMap<String, IssuerChange>,
    /// The upstreams that change, each once.
    pub upstreams: HashMap<UpstreamName, UpstreamChange>,
    /// The Workspaces that change, each once.
    pub workspaces: HashMap<WorkspaceName, WorkspaceChange>,
    /// Whether the limits of the engine are others.
    pub engine: bool,
    /// Whether those of callers are.
    pub limits: bool,
    /// Whether something else is logged.
    pub level: bool,
    /// Whether other callers may do other things.
    pub grants: bool,
    /// Whether the audit has other terms.
    pub audit: Option<audit::Terms>,
    /// The keys whose new values count only after a restart.
    pub restart: Vec<&'static str>,
}

impl Standing {
    /// What a configuration amounts to. Both of those that are compared must have their marks from one key.
    pub fn of(config: &Config, key: &MarkKey) -> Self {
        let upstreams = config.upstreams.iter();
        let workspaces = config.workspaces.iter();
        let issuers = config.issuers.iter();
        Self {
            issuers: issuers.map(|one| (one.name().to_owned(), IssuerStanding::of(one, key))).collect(),
            upstreams: upstreams.map(|one| (one.name.clone(), UpstreamStanding::of(one, key))).collect(),
            workspaces: workspaces.map(|one| (one.name.clone(), WorkspaceStanding::of(one, key))).collect(),
            grants: config.grants.iter().map(|one| one.grant.clone()).collect(),
            ..Self::without_workspaces(config)
        }
    }

    /// These settings, and nobody to serve yet.
    pub fn without_workspaces(config: &Config) -> Self {
        Self {
            server: config.server.clone(),
            listeners: config.listeners.clone(),
            format: config.log.format,
            level: config.log.level.as_str().to_owned(),
            engine: config.engine.clone(),
            health: config.health,
            issuers: HashMap::new(),
            limits: config.limits.clone(),
            audit: config.audit.clone(),
            upstreams: HashMap::new(),
            workspaces: HashMap::new(),
            grants: Vec::new(),
        }
    }

    /// What is to be done so that `next` is in force.
    pub fn changes_to(&self, next: &Self) -> Changes {
        Changes {
            issuers: compare(&self.issuers, &next.issuers, IssuerStanding::change_to),
            upstreams: compare(&self.upstreams, &next.upstreams, UpstreamStanding::change_to),
            workspaces: compare(&self.workspaces, &next.workspaces, WorkspaceStanding::change_to),
            engine: Engine { max_watches: self.engine.max_watches, ..next.engine.clone() } != self.engine,
            limits: self.limits != next.limits,
            level: self.level != next.level,
            grants: self.grants != next.grants,
            audit: Some(next.audit.terms).filter(|terms| *terms != self.audit.terms),
            restart: self.restart_for(next),
        }
    }

    /// The same with what can't change while the process runs taken from `running`.
    #[must_use]
    pub fn bound_as(mut self, running: &Self) -> Self {
        self.server = Server { reload_interval: self.server.reload_interval, ..running.server.clone() };
        self.listeners.clone_from(&running.listeners);
        self.format = running.format;
        self.health = running.health;
        self.audit = audit::Settings { terms: self.audit.terms, ..running.audit.clone() };
        self.engine.max_watches = running.engine.max_watches;
        self
    }

    /// How many Workspaces there are.
    pub fn workspaces(&self) -> usize {
        self.workspaces.len()
    }

    /// The settings of the server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn restart_for(&self, next: &Self) -> Vec<&'static str> {
        let old = &self.server;
        // Each by its name, so that none that comes later is forgotten.
        let Server {
            grpc_listen,
            probe_listen,
            max_connections,
            max_connections_per_peer,
            drain_timeout,
            reload_interval: _,
        } = &next.server;
        let keys = [
            ("server.grpc_listen", old.grpc_listen != *grpc_listen),
            ("server.probe_listen", old.probe_listen != *probe_listen),
            ("listeners", !same_listeners(&self.listeners, &next.listeners)),
            ("server.max_connections", old.max_connections != *max_connections),
            ("server.max_connections_per_peer", old.max_connections_per_peer != *max_connections_per_peer),
            ("server.drain_timeout", old.drain_timeout != *drain_timeout),
            ("log.format", self.format != next.format),
            ("health.max_unhealthy", self.health != next.health),
            ("audit.sinks", self.audit.stdout != next.audit.stdout || self.audit.file != next.audit.file),
            ("engine.max_watches", self.engine.max_watches != next.engine.max_watches),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Whether they are the same, wherever in the file they stand.
fn same_listeners(one: &[Listener], other: &[Listener]) -> bool {
    let same = |(one, other): (&Listener, &Listener)| {
        let Listener { name, address, callers, tls, place: _ } = one;
        (name, address, callers, tls) == (&other.name, &other.address, &other.callers, &other.tls)
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

impl Changes {
    /// How many Workspaces go.
    pub fn removed(&self) -> usize {
        self.workspaces.values().filter(|change| **change == WorkspaceChange::Removed).count()
    }
}

/// A kind of thing whose changes are told.
trait Change: Sized {
    const ADDED: Self;
    const REMOVED: Self;
}

impl Change for UpstreamChange {
    const ADDED: Self = Self::Added;
    const REMOVED: Self = Self::Removed;
}

impl Change for WorkspaceChange {
    const ADDED: Self = Self::Added;
    const REMOVED: Self = Self::Removed;
}

fn compare<N, S, C>(old: &HashMap<N, S>, new: &HashMap<N, S>, change: fn(&S, &S) -> Option<C>) -> HashMap<N, C>
where
    N: Clone + Eq + std::hash::Hash,
    C: Change,
{
    let gone = old.keys().filter(|name| !new.contains_key(name)).map(|name| (name.clone(), C::REMOVED));
    let there = new.iter().filter_map(|(name, new)| {
        let change = old.get(name).map_or(Some(C::ADDED), |old| change(old, new))?;
        Some((name.clone(), change))
    });
    gone.chain(there).collect()
}

impl UpstreamStanding {
    fn of(upstream: &Upstream, key: &MarkKey) -> Self {
        let http::Options { timeout, connect_timeout, allow_private, proxy, ca_pem, client_identity_pem } =
            &upstream.http;
        let limits = UpstreamLimits {
            max_concurrent: upstream.max_concurrent,
            budget: upstream.budget,
            renew_at: upstream.renew_at,
            timeout: *timeout,
        };
        let reach = Reach {
            base_url: upstream.base_url.clone(),
            bounds: upstream.bounds,
            token_lifetime: upstream.token_lifetime,
            timeout: *timeout,
            connect_timeout: *connect_timeout,
            allow_private: allow_private.clone(),
            proxy: proxy.clone(),
            ca_pem: ca_pem.as_ref().map(|pem| key.mark_bytes(pem)),
            client_identity: client_identity_pem.as_ref().map(|_sealed| {
                marked(upstream.http.open_identity(), |pem| key.mark_all(pem.iter().map(|pem| ("", pem))))
            }),
        };
        Self { limits, reach }
    }

    fn change_to(&self, next: &Self) -> Option<UpstreamChange> {
        let (limits, reach) = (self.limits != next.limits, self.reach != next.reach);
        (limits || reach).then_some(UpstreamChange::Changed { limits, reach })
    }
}

impl WorkspaceStanding {
    fn of(workspace: &Workspace, key: &MarkKey) -> Self {
        let Workspace { name, upstream, flow, fields, keep_warm, place: _ } = workspace;
        let Fields { secrets, parameters, extra } = fields;
        // The empty name stands between the two.
        let parts = parameters.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let parts = parts.chain([""]).chain(extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        Self {
            upstream: upstream.clone(),
            flow: Arc::clone(flow),
            purpose: key.mark_parts(parts),
            keep_warm: *keep_warm,
            credential: marked(opened(name, secrets), |secrets| {
                key.mark_all(secrets.iter().map(|(name, secret)| (*name, secret)))
            }),
        }
    }

    /// What a token is for.
    fn binding(&self) -> (&UpstreamName, &'static str, &str, Mark) {
        (&self.upstream, self.flow.kind, &self.flow.name, self.purpose)
    }

    fn change_to(&self, next: &Self) -> Option<WorkspaceChange> {
        if self.binding() != next.binding() || !self.flow.recipe.hands_out_as(&next.flow.recipe) {
            return Some(WorkspaceChange::Rebound);
        }
        let credential = self.credential != next.credential;
        // Those of a preset are one and the same; those of a description are made anew by each reading.
        let recipe = self.flow.recipe != next.flow.recipe;
        let keep_warm = Some(next.keep_warm).filter(|next| *next != self.keep_warm);
        let changes = credential || recipe || keep_warm.is_some();
        changes.then_some(WorkspaceChange::Changed { credential, recipe, keep_warm })
    }
}

fn opened<'s>(
    owner: &WorkspaceName,
    secrets: &'s BTreeMap<String, Sealed>,
) -> Result<Vec<(&'s str, LongLivedSecret)>, Broken> {
    secrets.iter().map(|(name, sealed)| Ok((name.as_str(), sealed.open(owner.as_str(), name)?))).collect()
}

/// The mark of what was opened. What does not open is like nothing: it counts as changed, and shows where it is used.
fn marked<S>(opened: Result<S, Broken>, mark: impl FnOnce(S) -> Mark) -> Mark {
    opened.map_or_else(|Broken| MarkKey::random().mark_bytes(b""), mark)
}

#[cfg(test)]
mod tests;
