//! Carries a recipe out: the requests of one Workspace, and what their answers mean.
//!
//! Promises, each a test:
//! * One attempt: a refresh where there is a refresh token, the login where there is none or where it is refused, the
//!   switch where the recipe has one. All of it ends within the one timeout of the upstream.
//! * A refresh token that is for one use is forgotten before it is sent. Any other is kept until it is refused.
//! * A new refresh token takes the place of the old one before the token is handed out.
//! * Nothing of an upstream's text gets out but the token and what the recipe says travels with it.
//! * What can be wrong with a Workspace shows when it is made.

mod expiry;
pub mod explain;
mod given;
mod json;
mod memory;
mod read;
mod sign;
mod write;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::http::{self, Client, Request, Response};
use crate::lifetime::Bounds;
use crate::provider::recipe::{Body, Expiry, REFRESH_TOKEN, Recipe, Refresh, Stage, Step};
use crate::provider::{FetchError, Fetched, Provider};
use crate::secret::{AccessToken, LongLivedSecret};
use explain::{Answered, Event, Listener};
use futures_util::future::BoxFuture;
use given::{Env, Given, Keys, Shown};
use memory::Memory;
use read::Terms;
use sign::Signer;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::Instant;
use url::Url;
use write::Draft;

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

/// One attempt.
struct Attempt<'a> {
    exchange: &'a Exchange,
    deadline: Instant,
    listener: Option<Listener<'a>>,
}

/// What the broker itself puts into a request.
#[derive(Clone, Copy, Default)]
struct Carried<'a> {
    refresh_token: Option<&'a str>,
    token: Option<&'a str>,
}

/// What came of a step.
struct Came {
    grant: Option<LongLivedSecret>,
    outcome: Result<Got, FetchError>,
}

enum Got {
    /// What is handed out.
    Fetched(Fetched),
    /// What is switched with.
    Token(AccessToken),
}

// === impl Exchange ===

impl Exchange {
    /// The exchange of one Workspace. All that can be wrong with its fields shows here.
    pub fn new(upstream: Arc<Upstream>, recipe: Arc<Recipe>, fields: Fields) -> Result<Self, Error> {
        upstream.client.check_url(&upstream.base)?;
        if upstream.token_lifetime.is_none() && recipe.needs_lifetime() {
            return Err(Error::Lifetime);
        }
        check_extra(&recipe, &fields.extra)?;
        let assertions = recipe.steps().filter_map(|(_, step)| step.request.assertion.as_ref());
        let names: Vec<&str> = assertions.map(|assertion| assertion.key.as_str()).collect();
        let (given, keys) = Given::new(&recipe, fields, &names)?;
        let signers = signers(&recipe, &given, &keys)?;
        let exchange = Self { upstream, recipe, given, signers, memory: Memory::default() };
        exchange.rehearse()?;
        Ok(exchange)
    }

    /// The same as [`Provider::exchange`], telling a listener of each step.
    pub async fn exchange_aloud(&self, listener: Listener<'_>) -> Result<Fetched, FetchError> {
        self.attempt(Some(listener)).await
    }

    async fn attempt(&self, listener: Option<Listener<'_>>) -> Result<Fetched, FetchError> {
        let deadline = self.upstream.client.deadline();
        Attempt { exchange: self, deadline, listener }.run().await
    }

    /// Writes each request once, with something in the place of what only an exchange knows.
    fn rehearse(&self) -> Result<(), Error> {
        let carried = Carried { refresh_token: Some("-"), token: Some("-") };
        for (stage, step) in self.recipe.steps() {
            let env = Env { assertion: Some("-"), ..self.env(carried) };
            let written = write::endpoint(&step.request, &env, &self.upstream.base).and_then(|url| {
                self.upstream.client.check_url(&url)?;
                let endpoint = url.to_string();
                Draft::new(&step.request, &Env { endpoint: &endpoint, ..env }, url)?.into_request()
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

    fn env<'a>(&'a self, carried: Carried<'a>) -> Env<'a> {
        Env { refresh_token: carried.refresh_token, token: carried.token, ..Env::new(&self.recipe, &self.given) }
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
    let env = Env::new(recipe, given);
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

// === impl Attempt ===

impl Attempt<'_> {
    async fn run(&self) -> Result<Fetched, FetchError> {
        let token = match self.first().await? {
            Got::Fetched(fetched) => return Ok(fetched),
            Got::Token(token) => token,
        };
        let Some(step) = &self.exchange.recipe.switch else {
            return Err(FetchError::new(Failure::Malformed, "there is nothing to switch with the token"));
        };
        let carried = Carried { token: Some(token.expose()), ..Carried::default() };
        match self.step(Stage::Switch, step, carried).await.outcome? {
            Got::Fetched(fetched) => Ok(fetched),
            Got::Token(_) => Err(FetchError::new(Failure::Malformed, "the switch is not the last step")),
        }
    }

    /// The refresh, if there is something to refresh with; else, or where that is refused, the login.
    async fn first(&self) -> Result<Got, FetchError> {
        if let Some(refresh) = &self.exchange.recipe.refresh
            && let Some(outcome) = self.refresh(refresh).await
        {
            match outcome {
                Err(error) if error.kind == Failure::Rejected => {
                    tracing::debug!("the refresh token is refused: the login follows");
                }
                outcome => return outcome,
            }
        }
        self.login().await
    }

    async fn refresh(&self, refresh: &Refresh) -> Option<Result<Got, FetchError>> {
        let memory = &self.exchange.memory;
        let grant = if refresh.single_use { memory.take() } else { memory.grant() }?;
        let carried = Carried { refresh_token: Some(grant.expose()), ..Carried::default() };
        let Came { grant: newer, outcome } = self.step(Stage::Refresh, &refresh.step, carried).await;
        match (newer, &outcome) {
            (Some(newer), Ok(_)) => memory.keep(newer),
            (None, Ok(_)) => memory.succeeded(),
            (_, Err(error)) => memory.failed(error.kind),
        }
        Some(outcome)
    }

    async fn login(&self) -> Result<Got, FetchError> {
        let Exchange { recipe, memory, .. } = self.exchange;
        if !self.exchange.rotates() {
            let Came { grant, outcome } = self.step(Stage::Login, &recipe.login, Carried::default()).await;
            if let Some(grant) = grant.filter(|_| recipe.refresh.is_some() && outcome.is_ok()) {
                memory.keep(grant);
            }
            return outcome;
        }
        if let Some(newer) = memory.grant() {
            let outcome = self.login_with(Some(newer.expose())).await;
            if !matches!(&outcome, Err(error) if error.kind == Failure::Rejected) {
                return outcome;
            }
            tracing::debug!("the newer refresh token is refused: the configured one follows");
            drop(memory.take());
        }
        self.login_with(None).await
    }

    /// A login whose credential is a refresh token: this one, or the one that is configured.
    async fn login_with(&self, newer: Option<&str>) -> Result<Got, FetchError> {
        let Exchange { recipe, memory, .. } = self.exchange;
        let carried = Carried { refresh_token: newer, ..Carried::default() };
        let Came { grant, outcome } = self.step(Stage::Login, &recipe.login, carried).await;
        // Also beside a token that is of no use: the old refresh token may be spent. Never one of another tenant.
        let is_foreign = matches!(&outcome, Err(error) if error.kind == Failure::TenantMismatch);
        if let Some(grant) = grant.filter(|grant| !is_foreign && self.exchange.is_another(grant, newer)) {
            memory.keep(grant);
            if memory.first_warning() {
                tracing::warn!(
                    "the upstream rotates refresh tokens: after a restart only the configured one is known, \
                     which it may refuse by then. That needs a store"
                );
            }
        }
        outcome
    }

    async fn step(&self, stage: Stage, step: &Step, carried: Carried<'_>) -> Came {
        let request = match self.write(stage, step, carried) {
            Ok(request) => request,
            Err(error) => {
                return Came { grant: None, outcome: Err(FetchError::new(Failure::Malformed, error.to_string())) };
            }
        };
        tracing::debug!(step = stage.as_str(), "asks the upstream");
        match self.exchange.upstream.client.send_by(request, self.deadline).await {
            Ok(response) => self.read(stage, step, &response),
            Err(error) => {
                let error = read::unanswered(&step.answer, &error);
                self.tell_answer(stage, None, Vec::new, &Err(error.clone()));
                Came { grant: None, outcome: Err(error) }
            }
        }
    }

    fn write(&self, stage: Stage, step: &Step, carried: Carried<'_>) -> Result<Request, write::Error> {
        let exchange = self.exchange;
        let env = exchange.env(carried);
        let url = write::endpoint(&step.request, &env, &exchange.upstream.base)?;
        let endpoint = url.to_string();
        let env = Env { endpoint: &endpoint, ..env };
        let signed = match (&step.request.assertion, exchange.signer(stage)) {
            (Some(assertion), Some(signer)) => Some(signer.sign(assertion, &env, local_time())?),
            _ => None,
        };
        let env = Env { assertion: signed.as_ref().map(|jwt| jwt.as_str()), ..env };
        if let Some(listener) = self.listener {
            let masked = Env { shown: Shown::Masked, ..env };
            listener(explain::sent(stage, &Draft::new(&step.request, &masked, url.clone())?));
        }
        Draft::new(&step.request, &env, url)?.into_request()
    }

    fn read(&self, stage: Stage, step: &Step, response: &Response) -> Came {
        let exchange = self.exchange;
        let opened = match read::open(&step.answer, response) {
            Ok(opened) => opened,
            Err(error) => {
                let members = || json::parse(&response.body).map(|json| explain::members(&json)).unwrap_or_default();
                self.tell_answer(stage, Some(response), members, &Err(error.clone()));
                return Came { grant: None, outcome: Err(error) };
            }
        };
        let grant = opened.grant();
        let is_last = exchange.recipe.switch.is_none() || stage == Stage::Switch;
        let outcome = opened.token().and_then(|token| {
            if !is_last {
                return Ok(Got::Token(token));
            }
            let Upstream { bounds, token_lifetime, .. } = *exchange.upstream;
            let env = exchange.env(Carried::default());
            let terms = Terms { env, bounds, configured: token_lifetime, local: local_time() };
            opened.finish(token, &terms).map(Got::Fetched)
        });
        let members = || opened.json().map(explain::members).unwrap_or_default();
        self.tell_answer(stage, Some(response), members, &outcome);
        Came { grant, outcome }
    }

    fn tell_answer(
        &self,
        stage: Stage,
        response: Option<&Response>,
        members: impl FnOnce() -> Vec<String>,
        outcome: &Result<Got, FetchError>,
    ) {
        let (status, body_bytes) = (response.map(|r| r.head.status), response.map(|r| r.body.len()));
        let result = outcome.as_ref().err().map_or("a token", |error| error.kind.as_str());
        tracing::debug!(step = stage.as_str(), status, body.bytes = body_bytes, result, "the upstream's answer");
        if let Some(listener) = self.listener {
            let outcome = match outcome {
                Ok(Got::Fetched(fetched)) => format!("a token for {} s", fetched.lifetime.as_secs()),
                Ok(Got::Token(_)) => "a token to go on with".to_owned(),
                Err(error) => format!("{}: {}", error.kind.as_str(), error.detail),
            };
            listener(Event::Answered(Answered { stage, status, body_bytes, members: members(), outcome }));
        }
    }
}

impl Exchange {
    /// Whether the credential itself is a refresh token, in whose place the upstream may put another.
    fn rotates(&self) -> bool {
        self.recipe.refresh.is_none() && self.recipe.secret(REFRESH_TOKEN).is_some()
    }

    /// Whether this is another refresh token than the one that was sent.
    fn is_another(&self, grant: &LongLivedSecret, newer: Option<&str>) -> bool {
        let sent = newer.or_else(|| self.given.secret(&self.recipe, REFRESH_TOKEN));
        sent != Some(grant.expose())
    }
}

/// In Unix seconds.
fn local_time() -> i64 {
    let since = Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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
