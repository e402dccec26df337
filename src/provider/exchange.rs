//! Carries a recipe out: the requests of one Workspace, and what their answers mean.

use crate::failure::Failure;
use crate::http::Client;
use crate::lifetime::Bounds;
use crate::provider::recipe::Recipe;
use crate::provider::{FetchError, Fetched, Provider};
use crate::secret::LongLivedSecret;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// What a Workspace gives, by the names of its recipe.
#[derive(Debug, Default)]
pub struct Fields {
    /// The secrets of its credential.
    pub secrets: BTreeMap<String, LongLivedSecret>,
    /// Its parameters, defaults not filled in.
    pub parameters: BTreeMap<String, String>,
    /// What is added to the body of requests that allow it.
    pub extra: BTreeMap<String, String>,
}

/// Exchanges the credential of one Workspace as its recipe says.
pub struct Exchange {
    recipe: Arc<Recipe>,
}

/// Why a Workspace does not fit its recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that the recipe requires is not given.
    #[error("{0} is missing")]
    Missing(String),
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

impl Exchange {
    /// The exchange of one Workspace. All that can be wrong with its fields shows here.
    pub fn new(upstream: Arc<Upstream>, recipe: Arc<Recipe>, fields: Fields) -> Result<Self, Error> {
        drop((upstream, fields));
        Ok(Self { recipe })
    }
}

impl Provider for Exchange {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(async { Err(FetchError::new(Failure::Malformed, "not built yet")) })
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("recipe", &self.recipe).finish_non_exhaustive()
    }
}
