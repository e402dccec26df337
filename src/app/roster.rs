//! The broker as it is configured: which upstreams and Workspaces its engine has, who may do what with them, and how a
//! new configuration becomes theirs.
//!
//! Promises: whatever can fail is made before anything is changed; what a configuration does not change is not touched;
//! no call gets by an old grant what is new, nor by a new grant what is old; the work is in proportion to the number of
//! Workspaces.

use super::issuers;
use crate::bearer::Issuers;
use crate::broker::Broker;
use crate::config::{
    Changes, Config, Directives, Flow, Place, Problem, Problems, Standing, Upstream, UpstreamChange, Workspace,
    WorkspaceChange,
};
use crate::engine::{self, Engine};
use crate::http;
use crate::limits;
use crate::policy::Policy;
use crate::provider::Provider;
use crate::provider::exchange::{self, Exchange, Fields};
use crate::secret::MarkKey;
use crate::token::WorkspaceName;
use crate::upstream::{KeepWarm, UpstreamName};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The engine and the broker over it, and the configuration that they have now.
pub(super) struct Roster {
    engine: Engine,
    issuers: Issuers,
    broker: Broker,
    key: MarkKey,
    standing: Standing,
    reached: HashMap<UpstreamName, Arc<exchange::Upstream>>,
}

/// All that a new configuration takes, made and not yet in force.
pub(super) struct Prepared {
    pub(super) changes: Changes,
    pub(super) level: Directives,
    standing: Standing,
    settings: engine::Settings,
    reached: HashMap<UpstreamName, Arc<exchange::Upstream>>,
    limits: Vec<(UpstreamName, engine::Limits)>,
    steps: Vec<Step>,
    issuers: issuers::Steps,
    policy: Arc<Policy>,
    callers: limits::Settings,
}

/// What is done to one Workspace.
enum Step {
    Put(engine::Workspace),
    Replace(engine::Workspace),
    Rekey(WorkspaceName, Arc<dyn Provider>),
    Reprovide(WorkspaceName, Arc<dyn Provider>),
    KeepWarm(WorkspaceName, KeepWarm),
}

/// What can't be seen from the configuration alone: whether its certificates, proxies and addresses are of use.
pub(super) fn rehearse(config: &Config) -> Result<(), Problems> {
    let upstreams = config.upstreams.iter().enumerate();
    let problems = upstreams.filter_map(|(position, upstream)| reached(position, upstream).err());
    Problems::new(problems.collect()).map_or(Ok(()), Err)
}

/// As [`rehearse`], and whether each Workspace fits its flow: whether its key signs, and its requests can be written.
pub(super) fn rehearse_whole(config: Config) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut found = HashMap::with_capacity(config.upstreams.len());
    for (position, upstream) in config.upstreams.iter().enumerate() {
        match reached(position, upstream) {
            Ok(reached) => drop(found.insert(upstream.name.clone(), Arc::new(reached))),
            Err(problem) => problems.push(problem),
        }
    }
    for (position, workspace) in config.workspaces.into_iter().enumerate() {
        let Workspace { name, upstream, flow, fields, place, .. } = workspace;
        if let Some(reached) = found.get(&upstream) {
            let made = exchange_of(reached, &flow, name, fields);
            problems.extend(made.err().map(|misfit| problem_of(position, place, misfit)));
        }
    }
    Problems::new(problems).map_or(Ok(()), Err)
}

pub(super) fn exchange_of(
    reached: &Arc<exchange::Upstream>,
    flow: &Flow,
    owner: WorkspaceName,
    fields: Fields,
) -> Result<Exchange, Misfit> {
    Exchange::new(Arc::clone(reached), Arc::clone(&flow.recipe), owner, fields).map_err(|error| {
        match error.blamed(&flow.recipe) {
            Some((key, text)) => Misfit { key: format!(".{key}"), text },
            None => Misfit { key: String::new(), text: error.to_string() },
        }
    })
}

/// Why a Workspace does not fit its flow, and which of its keys is to blame, a dot before it; empty for none of them.
pub(super) struct Misfit {
    key: String,
    text: String,
}

pub(super) fn problem_of(position: usize, place: Place, misfit: Misfit) -> Problem {
    let Misfit { key, text } = misfit;
    Problem { key: format!("workspaces[{position}]{key}"), place, text }
}

/// The engine's part of a configuration.
pub(super) fn settings(config: &Config) -> engine::Settings {
    engine::Settings {
        serve_margin: config.engine.serve_margin,
        min_gap: config.engine.min_gap,
        max_waiters: config.engine.max_waiters_per_workspace,
        max_workspaces: config.engine.max_workspaces,
        max_watches: config.engine.max_watches,
        seed: fastrand::u64(..),
    }
}

impl Roster {
    /// An engine that has the settings of this configuration and nothing else, and a broker that lets nobody.
    pub(super) fn new(engine: Engine, broker: Broker, issuers: Issuers, config: &Config) -> Self {
        let standing = Standing::without_workspaces(config);
        Self { engine, broker, issuers, key: MarkKey::random(), standing, reached: HashMap::new() }
    }

    /// What is in force.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Makes all that a configuration takes. Nothing changes yet.
    pub(super) fn prepare(&self, config: Config) -> Result<Prepared, Problems> {
        let next = Standing::of(&config, &self.key);
        let changes = self.standing.changes_to(&next);
        let (standing, settings) = (next.bound_as(&self.standing), settings(&config));
        let policy = Arc::new(config.policy());
        let Config { issuers, upstreams, workspaces, log, limits: callers, .. } = config;
        let mut problems = Vec::new();
        let issuers = issuers::prepare(issuers, &changes, &mut problems);
        let mut reached = HashMap::with_capacity(upstreams.len());
        let mut limits_of = Vec::new();
        for (position, upstream) in upstreams.iter().enumerate() {
            match self.reach(position, upstream, &changes) {
                Ok(found) => drop(reached.insert(upstream.name.clone(), found)),
                Err(problem) => problems.push(problem),
            }
            limits_of.extend(wants_limits(&changes, &upstream.name).then(|| (upstream.name.clone(), limits(upstream))));
        }
        let mut steps = Vec::new();
        for (position, workspace) in workspaces.into_iter().enumerate() {
            let place = workspace.place.clone();
            match steps_for(workspace, &changes, &reached) {
                Ok(wanted) => steps.extend(wanted.into_iter().flatten()),
                Err(misfit) => problems.push(problem_of(position, place, misfit)),
            }
        }
        if let Some(problems) = Problems::new(problems) {
            return Err(problems);
        }
        let (level, limits) = (log.level, limits_of);
        Ok(Prepared { changes, level, standing, settings, reached, limits, steps, issuers, policy, callers })
    }

    /// Puts it in force. Calls that come meanwhile find each Workspace as it was or as it will be, and are let only if
    /// they were before and will be.
    pub(super) fn install(&mut self, prepared: Prepared) -> Changes {
        let Prepared { changes, standing, settings, reached, limits, steps, issuers, policy, callers, .. } = prepared;
        let Self { engine, broker, .. } = self;
        if changes.limits {
            broker.limits().configure(&callers);
        }
        if changes.grants {
            broker.put_in_force(&Arc::new(broker.policy().and(Arc::clone(&policy))));
        }
        issuers.take(&self.issuers);
        if changes.engine {
            engine.configure(settings);
        }
        for (name, limits) in limits {
            if !engine.change_upstream(&name, limits) {
                engine.add_upstream(name, limits);
            }
        }
        // Before others are put in, whose places they may hold.
        for (name, _) in changes.workspaces.iter().filter(|(_, change)| **change == WorkspaceChange::Removed) {
            engine.delete(name);
        }
        for step in steps {
            step.take(engine);
        }
        for (name, _) in changes.upstreams.iter().filter(|(_, change)| **change == UpstreamChange::Removed) {
            engine.remove_upstream(name);
        }
        if changes.grants {
            broker.put_in_force(&policy);
        }
        self.standing = standing;
        self.reached = reached;
        changes
    }

    /// The client of an upstream: the one that there is, unless it is to be reached in another way.
    fn reach(
        &self,
        position: usize,
        upstream: &Upstream,
        changes: &Changes,
    ) -> Result<Arc<exchange::Upstream>, Problem> {
        let made = self.reached.get(&upstream.name).filter(|_| !is_reached_anew(changes, &upstream.name));
        made.map_or_else(|| reached(position, upstream).map(Arc::new), |made| Ok(Arc::clone(made)))
    }
}

/// How an upstream is reached.
pub(super) fn reached(position: usize, upstream: &Upstream) -> Result<exchange::Upstream, Problem> {
    let made = http::Client::new(&upstream.http).and_then(|client| {
        client.check_url(&upstream.base_url)?;
        Ok(client)
    });
    let client = made.map_err(|error| Problem {
        key: format!("upstreams[{position}]{}", blamed(&error, upstream)),
        place: upstream.place.clone(),
        text: error.to_string(),
    })?;
    let Upstream { base_url, bounds, token_lifetime, .. } = upstream;
    let (client, base) = (Arc::new(client), base_url.clone());
    Ok(exchange::Upstream { client, base, bounds: *bounds, token_lifetime: *token_lifetime })
}

/// The key of the upstream that is to blame, a dot before it.
fn blamed(error: &http::Error, upstream: &Upstream) -> &'static str {
    match error {
        http::Error::AllowPrivate => ".allow_private",
        http::Error::Url(_) => ".url",
        http::Error::Proxy(_) => ".proxy",
        http::Error::Ca => ".ca_file",
        http::Error::Identity => ".client_certificate",
        http::Error::Build => match (&upstream.http.ca_pem, &upstream.http.client_identity_pem) {
            (Some(_), None) => ".ca_file",
            (None, Some(_)) => ".client_certificate",
            (Some(_), Some(_)) | (None, None) => "",
        },
    }
}

impl Step {
    fn take(self, engine: &Engine) {
        let done = match self {
            Self::Put(workspace) => engine.put(workspace),
            Self::Replace(workspace) => engine.replace(workspace),
            Self::Rekey(name, provider) => {
                engine.rekey(&name, provider);
                Ok(())
            }
            Self::Reprovide(name, provider) => {
                engine.reprovide(&name, provider);
                Ok(())
            }
            Self::KeepWarm(name, keep_warm) => {
                engine.keep_warm(&name, keep_warm);
                Ok(())
            }
        };
        if let Err(error) = done {
            // The configuration was checked for all that leads here.
            tracing::error!(%error, "a bug: a workspace could not be put in");
        }
    }
}

/// What a configuration asks for one Workspace: nothing, mostly.
fn steps_for(
    workspace: Workspace,
    changes: &Changes,
    reached: &HashMap<UpstreamName, Arc<exchange::Upstream>>,
) -> Result<[Option<Step>; 2], Misfit> {
    let change = changes.workspaces.get(&workspace.name).copied();
    let anew = is_reached_anew(changes, &workspace.upstream);
    if change.is_none() && !anew {
        return Ok([None, None]);
    }
    let Workspace { name, upstream, flow, fields, keep_warm, place: _ } = workspace;
    let Some(found) = reached.get(&upstream) else {
        // Reported where the upstream stands.
        return Ok([None, None]);
    };
    let provider: Arc<dyn Provider> = Arc::new(exchange_of(found, &flow, name.clone(), fields)?);
    let whole = |provider| engine::Workspace { name: name.clone(), upstream, keep_warm, provider };
    Ok(match change {
        Some(WorkspaceChange::Added) => [Some(Step::Put(whole(provider))), None],
        Some(WorkspaceChange::Rebound) => [Some(Step::Replace(whole(provider))), None],
        Some(WorkspaceChange::Changed { credential, recipe, keep_warm }) => {
            let warmth = keep_warm.map(|keep_warm| Step::KeepWarm(name.clone(), keep_warm));
            let exchange = match (credential, recipe || anew) {
                (true, _) => Some(Step::Rekey(name, provider)),
                (false, true) => Some(Step::Reprovide(name, provider)),
                (false, false) => None,
            };
            [warmth, exchange]
        }
        Some(WorkspaceChange::Removed) => [None, None],
        None => [Some(Step::Reprovide(name, provider)), None],
    })
}

fn is_reached_anew(changes: &Changes, upstream: &UpstreamName) -> bool {
    matches!(changes.upstreams.get(upstream), Some(UpstreamChange::Changed { reach: true, .. }))
}

fn wants_limits(changes: &Changes, upstream: &UpstreamName) -> bool {
    matches!(
        changes.upstreams.get(upstream),
        Some(UpstreamChange::Added | UpstreamChange::Changed { limits: true, .. })
    )
}

fn limits(upstream: &Upstream) -> engine::Limits {
    engine::Limits {
        max_concurrent: upstream.max_concurrent,
        budget: upstream.budget,
        renew_at: upstream.renew_at,
        // The client ends an exchange by itself; this is for a provider that does not.
        timeout: upstream.http.timeout + Duration::from_secs(1),
    }
}
