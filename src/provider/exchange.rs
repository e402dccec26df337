//! Carries a recipe out: the requests of one Workspace, and what their answers mean.
//!
//! Promises, each a test:
//! * One attempt: a refresh where there is a refresh token, the login where there is none or where it is refused, the
//!   switch where the recipe has one. All of it ends within the one timeout of the upstream.
//! * A refresh token that is for one use is forgotten before it is sent. Any other is kept until it is refused.
//! * A new refresh token takes the place of the old one before the token is handed out.
//! * Nothing of an upstream's text gets out but the token and what the recipe says travels with it.
//! * What can be wrong with a Workspace shows when it is made.

mod attempt;
mod expiry;
pub mod explain;
mod given;
mod json;
mod memory;
mod read;
mod sign;
mod write;

pub use given::{MAX_PARAMETER, MAX_SECRET};

use crate::http::{self, Client};
use crate::lifetime::Bounds;
use crate::provider::recipe::{Body, Expiry, Recipe, Stage};
use crate::provider::{FetchError, Fetched, Provider};
use crate::secret::{Broken, Sealed};
use crate::token::WorkspaceName;
use attempt::Attempt;
use explain::Listener;
use futures_util::future::BoxFuture;
use given::{Env, Given, Keys, Opened};
use memory::Memory;
use sign::Signer;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use write::Draft;

/// What a Workspace gives, by the names of its recipe.
#[derive(Debug, Default)]
pub struct Fields {
    /// The secrets of its credential, sealed for the Workspace by these names.
    pub secrets: BTreeMap<String, Sealed>,
    /// Its parameters, defaults not filled in.
    pub parameters: BTreeMap<String, String>,
    /// What is added to the body of requests that allow it.
    pub extra: BTreeMap<String, String>,
}

/// Exchanges the credential of one Workspace as its recipe says.
pub struct Exchange {
    upstream: Arc<Upstream>,
    recipe: Arc<Recipe>,
    given: Given,
    signers: Box<[(Stage, Signer)]>,
    memory: Memory,
}

/// Why a Workspace does not fit its recipe. Names fields, never what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that the recipe requires is not given.
    #[error("{0} is missing")]
    Missing(String),
    /// A field that the recipe does not have.
    #[error("{0} is no field of this flow")]
    Unknown(String),
    /// A field whose value can't be used.
    #[error("{name} {why}")]
    Value {
        /// Which one.
        name: String,
        /// What is wrong with it, as the rest of a sentence.
        why: &'static str,
    },
    /// Extra parameters where no request takes them.
    #[error("this flow takes no extra parameters")]
    Extra,
    /// An extra parameter that the request has already.
    #[error("the extra parameter {0} is one that the flow sends itself")]
    ExtraTwice(String),
    /// Nothing says how long a token lives.
    #[error("the answers of this flow do not say how long a token lives: token_lifetime must")]
    Lifetime,
    /// The base URL.
    #[error("the URL {0}")]
    Url(#[from] http::Error),
    /// A request could not be written.
    #[error("the {stage} can't be written: {why}")]
    Request {
        /// Which one.
        stage: &'static str,
        /// Why, in our own words.
        why: String,
    },
}

impl Error {
    /// The key of the Workspace that is to blame, if it is one, and the rest of a sentence about it.
    pub fn blamed(&self, recipe: &Recipe) -> Option<(String, String)> {
        match self {
            Self::Value { name, why } if recipe.secret(name).is_some() => {
                Some((format!("credential.{name}"), (*why).to_owned()))
            }
            Self::Value { name, why } if recipe.parameter(name).is_some() => {
                Some((format!("parameters.{name}"), (*why).to_owned()))
            }
            Self::ExtraTwice(name) => {
                let key = format!("extra_parameters.{}", name.escape_debug());
                Some((key, "is one that the flow sends itself".to_owned()))
            }
            Self::Extra => Some(("extra_parameters".to_owned(), self.to_string())),
            Self::Missing(_)
            | Self::Unknown(_)
            | Self::Value { .. }
            | Self::Lifetime
            | Self::Url(_)
            | Self::Request { .. } => None,
        }
    }
}

/// What an upstream is to all of its Workspaces.
#[derive(Debug)]
pub struct Upstream {
    /// Speaks to it.
    pub client: Arc<Client>,
    /// Where it is; the path ends with `/`.
    pub base: Url,
    /// Which lifetimes are plausible.
    pub bounds: Bounds,
    /// The life of its tokens as configured: one more source.
    pub token_lifetime: Option<Duration>,
}

// === impl Exchange ===

impl Exchange {
    /// The exchange of one Workspace. All that can be wrong with its fields shows here.
    pub fn new(
        upstream: Arc<Upstream>,
        recipe: Arc<Recipe>,
        owner: WorkspaceName,
        fields: Fields,
    ) -> Result<Self, Error> {
        upstream.client.check_url(&upstream.base)?;
        if upstream.token_lifetime.is_none() && recipe.needs_lifetime() {
            return Err(Error::Lifetime);
        }
        check_extra(&recipe, &fields.extra)?;
        let assertions = recipe.steps().filter_map(|(_, step)| step.request.assertion.as_ref());
        let names: Vec<&str> = assertions.map(|assertion| assertion.key.as_str()).collect();
        let (given, keys) = Given::new(&recipe, owner, fields, &names)?;
        let signers = signers(&recipe, &given, &keys)?;
        let exchange = Self { upstream, recipe, given, signers, memory: Memory::default() };
        exchange.rehearse()?;
        Ok(exchange)
    }

    /// The same as [`Provider::exchange`], telling a listener of each step.
    pub async fn exchange_aloud(&self, listener: Listener<'_>) -> Result<Fetched, FetchError> {
        self.attempt(Some(listener)).await
    }

    /// Whether its next attempt begins with a refresh.
    pub fn has_refresh_token(&self) -> bool {
        self.recipe.refresh.is_some() && self.memory.grant().is_some()
    }

    async fn attempt(&self, listener: Option<Listener<'_>>) -> Result<Fetched, FetchError> {
        Attempt::new(self, listener).run().await
    }

    /// Writes each request once, with something in the place of what only an exchange knows.
    fn rehearse(&self) -> Result<(), Error> {
        let opened = self.open(None).map_err(|broken| unwritten(Stage::Login, broken.into()))?;
        for (stage, step) in self.recipe.steps() {
            let env = Env { assertion: Some("-"), ..self.env(&opened) };
            let env = match stage {
                Stage::Login => env,
                Stage::Refresh | Stage::Switch => Env { refresh_token: Some("-"), token: Some("-"), ..env },
            };
            let written = write::endpoint(&step.request, &env, &self.upstream.base).and_then(|url| {
                self.upstream.client.check_url(&url)?;
                let endpoint = url.to_string();
                let env = Env { endpoint: &endpoint, ..env };
                if let (Some(assertion), Some(signer)) = (&step.request.assertion, self.signer(stage)) {
                    signer.unsigned(assertion, &env, 0)?;
                }
                Draft::new(&step.request, &env, url)?.into_request()
            });
            written.map_err(|error| unwritten(stage, error))?;
            for expiry in &step.answer.expiry {
                if let Expiry::Asked(name, _) = expiry
                    && env.parameter(name).is_some_and(|text| expiry::digits(&text).is_none())
                {
                    return Err(Error::Value { name: name.clone(), why: "is not a whole number" });
                }
            }
        }
        Ok(())
    }

    /// The secrets, for as long as a request takes to write.
    fn open(&self, refresh_token: Option<&Sealed>) -> Result<Opened, Broken> {
        self.given.open(&self.recipe, refresh_token)
    }

    fn env<'a>(&'a self, opened: &'a Opened) -> Env<'a> {
        Env::new(&self.recipe, &self.given, opened)
    }

    fn signer(&self, stage: Stage) -> Option<&Signer> {
        self.signers.iter().find(|(of, _)| *of == stage).map(|(_, signer)| signer)
    }
}

impl Provider for Exchange {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(self.attempt(None))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("base", &self.upstream.base.as_str()).finish_non_exhaustive()
    }
}

fn check_extra(recipe: &Recipe, extra: &BTreeMap<String, String>) -> Result<(), Error> {
    if extra.is_empty() {
        return Ok(());
    }
    let mut taken = false;
    for (_, step) in recipe.steps().filter(|(_, step)| step.request.extra) {
        taken = true;
        let is_sent = |name: &&String| match &step.request.body {
            Body::Empty => false,
            Body::Json(members) => members.iter().any(|(member, _)| member == *name),
            Body::Form(pairs) => pairs.iter().any(|(pair, _)| pair == *name),
        };
        if let Some(name) = extra.keys().find(is_sent) {
            return Err(Error::ExtraTwice(name.clone()));
        }
    }
    if taken { Ok(()) } else { Err(Error::Extra) }
}

fn signers(recipe: &Recipe, given: &Given, keys: &Keys) -> Result<Box<[(Stage, Signer)]>, Error> {
    let opened = Opened::default();
    let env = Env::new(recipe, given, &opened);
    let mut signers = Vec::new();
    for (stage, step) in recipe.steps() {
        if let Some(assertion) = &step.request.assertion {
            let key = keys.get(&assertion.key).ok_or_else(|| Error::Missing(assertion.key.clone()))?;
            signers.push((stage, Signer::new(assertion, &env, key)?));
        }
    }
    Ok(signers.into())
}

fn unwritten(stage: Stage, error: write::Error) -> Error {
    match error {
        write::Error::Missing(missing) => Error::Missing(missing.0),
        write::Error::Path { name, why } => Error::Value { name, why },
        write::Error::Number(name) => Error::Value { name, why: "is not a whole number" },
        error => Error::Request { stage: stage.as_str(), why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a million Workspaces cost beside their fields.
    #[test]
    fn an_exchange_is_small() {
        let size = size_of::<Exchange>();
        assert!(size <= 128, "{size} bytes");
    }
}
