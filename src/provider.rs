//! What speaks to one kind of upstream: one exchange of a credential for a token.
//!
//! A provider makes exactly one attempt per call and classifies what came of it. It must not retry, cache, schedule or
//! know who asked: that is the engine's. It never lets an upstream's body out, in an error or a log.

pub mod exchange;
pub mod recipe;

pub use crate::failure::Failure;

use crate::secret::AccessToken;
use crate::token::Presentation;
use futures_util::future::BoxFuture;
use std::fmt;
use std::time::Duration;

/// Exchanges the credential of one Workspace; made anew when its configuration or secret changes.
pub trait Provider: fmt::Debug + Send + Sync {
    /// One attempt. The caller bounds its time, and counts the lifetime from before this call.
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>>;
}

/// What a good answer holds.
#[derive(Debug)]
pub struct Fetched {
    /// The token.
    pub value: AccessToken,
    /// How it is presented.
    pub presentation: Presentation,
    /// How long it lives, counted from before the request was sent; see [`crate::lifetime`].
    pub lifetime: Duration,
}

/// What came of an attempt that brought no token. Cloned to every waiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct FetchError {
    /// What the engine decides by.
    pub kind: Failure,
    /// For the operator's log: our own words and numbers, never the upstream's body.
    pub detail: String,
}

impl FetchError {
    /// A failure of this kind, described in our own words.
    pub fn new(kind: Failure, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}
