//! One exchange without a broker around it: for a person who tries an upstream out.

use super::roster;
use crate::config::{Config, Problems, Workspace};
use crate::provider::exchange::Exchange;
use crate::provider::exchange::explain::Listener;
use crate::provider::{FetchError, Fetched};
use std::sync::Arc;

/// The exchange of one Workspace, as the broker would make it.
#[derive(Debug)]
pub struct Trial {
    /// The name of the upstream.
    pub upstream: String,
    /// Its kind.
    pub kind: &'static str,
    /// The name of the flow.
    pub flow: String,
    /// Where the upstream is.
    pub url: String,
    exchange: Exchange,
}

impl Trial {
    /// That of the Workspace with this name, if the configuration has one.
    pub fn new(config: Config, workspace: &str) -> Result<Option<Self>, Problems> {
        let Config { upstreams, workspaces, .. } = config;
        let named = workspaces.into_iter().enumerate().find(|(_, one)| one.name.as_str() == workspace);
        let Some((position, workspace)) = named else { return Ok(None) };
        let found = upstreams.into_iter().enumerate().find(|(_, upstream)| upstream.name == workspace.upstream);
        let Some((at, upstream)) = found else { return Ok(None) };
        let reached = roster::reached(at, &upstream).map_err(Problems::from)?;
        let Workspace { name, flow, fields, place, .. } = workspace;
        let exchange = roster::exchange_of(&Arc::new(reached), &flow, name, fields);
        let exchange = exchange.map_err(|misfit| roster::problem_of(position, place, misfit))?;
        Ok(Some(Self {
            upstream: upstream.name.as_str().to_owned(),
            kind: upstream.kind.name,
            flow: flow.name.clone(),
            url: upstream.url().to_owned(),
            exchange,
        }))
    }

    /// Whether the next attempt begins with a refresh: whether the flow has one, and the last answer what it takes.
    pub fn would_refresh(&self) -> bool {
        self.exchange.has_refresh_token()
    }

    /// One attempt, telling the listener of each step. The upstream counts it as a login like any other.
    pub async fn run(&self, listener: Listener<'_>) -> Result<Fetched, FetchError> {
        self.exchange.exchange_aloud(listener).await
    }
}
