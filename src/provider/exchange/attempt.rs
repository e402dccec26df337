//! One attempt: up to three requests under one deadline, and what is kept of them.

use super::explain::{self, Answered, Event, Listener};
use super::given::{Env, Opened, Shown};
use super::read::{self, Terms};
use super::write::{self, Draft};
use super::{Exchange, Upstream, json};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::http::{Request, Response};
use crate::provider::recipe::{REFRESH_TOKEN, Refresh, Stage, Step};
use crate::provider::{FetchError, Fetched};
use crate::secret::{AccessToken, LongLivedSecret, Sealed};
use std::time::UNIX_EPOCH;
use tokio::time::Instant;

/// One attempt.
pub(super) struct Attempt<'a> {
    exchange: &'a Exchange,
    deadline: Instant,
    listener: Option<Listener<'a>>,
}

/// What the broker itself puts into a request.
#[derive(Clone, Copy, Default)]
pub(super) struct Carried<'a> {
    pub(super) refresh_token: Option<&'a Sealed>,
    pub(super) token: Option<&'a AccessToken>,
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

impl<'a> Attempt<'a> {
    /// An attempt that begins now.
    pub(super) fn new(exchange: &'a Exchange, listener: Option<Listener<'a>>) -> Self {
        Self { exchange, deadline: exchange.upstream.client.deadline(), listener }
    }

    pub(super) async fn run(&self) -> Result<Fetched, FetchError> {
        let token = match self.first().await? {
            Got::Fetched(fetched) => return Ok(fetched),
            Got::Token(token) => token,
        };
        let Some(step) = &self.exchange.recipe.switch else {
            return Err(FetchError::new(Failure::Malformed, "there is nothing to switch with the token"));
        };
        let carried = Carried { token: Some(&token), ..Carried::default() };
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
                    tracing::info!("the refresh token is refused: the login follows");
                }
                outcome => return outcome,
            }
        }
        self.login().await
    }

    async fn refresh(&self, refresh: &Refresh) -> Option<Result<Got, FetchError>> {
        let memory = &self.exchange.memory;
        let grant = if refresh.single_use { memory.take() } else { memory.grant() }?;
        let carried = Carried { refresh_token: Some(&grant), ..Carried::default() };
        let Came { grant: newer, outcome } = self.step(Stage::Refresh, &refresh.step, carried).await;
        match (newer, &outcome) {
            (Some(newer), Ok(_)) => memory.keep(self.exchange.given.seal(&newer)),
            (None, Ok(_)) => memory.succeeded(),
            (_, Err(error)) => memory.failed(error.kind),
        }
        Some(outcome)
    }

    async fn login(&self) -> Result<Got, FetchError> {
        let Exchange { recipe, memory, .. } = self.exchange;
        if !self.rotates() {
            let Came { grant, outcome } = self.step(Stage::Login, &recipe.login, Carried::default()).await;
            if let Some(grant) = grant.filter(|_| recipe.refresh.is_some() && outcome.is_ok()) {
                memory.keep(self.exchange.given.seal(&grant));
            }
            return outcome;
        }
        let Some(newer) = memory.grant() else {
            return self.login_with(None).await;
        };
        let outcome = self.login_with(Some(&newer)).await;
        if !matches!(&outcome, Err(error) if error.kind == Failure::Rejected) {
            return outcome;
        }
        // Kept until the configured one is proven to be better: it may be the client that is refused.
        tracing::debug!("the newer refresh token is refused: the configured one follows");
        let outcome = self.login_with(None).await;
        if outcome.is_ok() {
            memory.forget(&newer);
        }
        outcome
    }

    /// A login whose credential is a refresh token: this one, or the one that is configured.
    async fn login_with(&self, newer: Option<&Sealed>) -> Result<Got, FetchError> {
        let Exchange { recipe, memory, .. } = self.exchange;
        let carried = Carried { refresh_token: newer, ..Carried::default() };
        let Came { grant, outcome } = self.step(Stage::Login, &recipe.login, carried).await;
        // Also beside a token that is of no use: the old refresh token may be spent. Never one of another tenant.
        let is_foreign = matches!(&outcome, Err(error) if error.kind == Failure::TenantMismatch);
        if let Some(grant) = grant.filter(|grant| !is_foreign && self.is_another(grant, newer)) {
            memory.keep(self.exchange.given.seal(&grant));
            if memory.first_warning() {
                tracing::warn!(
                    "the upstream rotates refresh tokens: after a restart only the configured one is known, \
                     which it may refuse by then. That needs a store"
                );
            }
        }
        outcome
    }

    /// Sends it and reads the answer. Where there are several steps, a failure says which one it is of.
    async fn step(&self, stage: Stage, step: &Step, carried: Carried<'_>) -> Came {
        let mut came = self.sent(stage, step, carried).await;
        if let Err(error) = &mut came.outcome
            && self.has_several_steps()
        {
            error.detail = format!("{}: {}", stage.as_str(), error.detail);
        }
        came
    }

    async fn sent(&self, stage: Stage, step: &Step, carried: Carried<'_>) -> Came {
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
        // Closed when the request is written.
        let opened = exchange.open(carried.refresh_token)?;
        let env = Env { token: carried.token.map(AccessToken::expose), ..exchange.env(&opened) };
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
        let answer = match read::open(&step.answer, response) {
            Ok(answer) => answer,
            Err(error) => {
                let members = || {
                    json::parse(&response.body).map(|json| explain::members(&json, &step.answer)).unwrap_or_default()
                };
                self.tell_answer(stage, Some(response), members, &Err(error.clone()));
                return Came { grant: None, outcome: Err(error) };
            }
        };
        let grant = answer.grant();
        let is_last = exchange.recipe.switch.is_none() || stage == Stage::Switch;
        let outcome = answer.token().and_then(|token| {
            if !is_last {
                return Ok(Got::Token(token));
            }
            let Upstream { bounds, token_lifetime, .. } = *exchange.upstream;
            // What comes is read by parameters alone.
            let opened = Opened::default();
            let env = exchange.env(&opened);
            let terms = Terms { env, bounds, configured: token_lifetime, local: local_time() };
            answer.finish(token, &terms).map(Got::Fetched)
        });
        let members = || answer.json().map(|json| explain::members(json, &step.answer)).unwrap_or_default();
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
        let step = stage.as_str();
        if self.has_several_steps() {
            tracing::info!(step, status, body.bytes = body_bytes, result, "the upstream's answer");
        } else {
            tracing::debug!(step, status, body.bytes = body_bytes, result, "the upstream's answer");
        }
        if let Some(listener) = self.listener {
            let is_good = outcome.is_ok();
            let outcome = match outcome {
                Ok(Got::Fetched(fetched)) => format!("a token for {} s", fetched.lifetime.as_secs()),
                Ok(Got::Token(_)) => "a token to go on with".to_owned(),
                Err(error) => format!("{}: {}", error.kind.as_str(), error.detail),
            };
            listener(Event::Answered(Answered { stage, status, body_bytes, members: members(), is_good, outcome }));
        }
    }

    fn has_several_steps(&self) -> bool {
        self.exchange.recipe.steps().nth(1).is_some()
    }

    /// Whether the credential itself is a refresh token, in whose place the upstream may put another.
    fn rotates(&self) -> bool {
        self.exchange.recipe.refresh.is_none() && self.exchange.recipe.secret(REFRESH_TOKEN).is_some()
    }

    /// Whether this is another refresh token than the one that was sent.
    fn is_another(&self, grant: &LongLivedSecret, newer: Option<&Sealed>) -> bool {
        self.exchange.open(newer).is_ok_and(|opened| {
            let newer = opened.refresh_token.as_ref().map(LongLivedSecret::expose);
            let sent = newer.or_else(|| opened.secret(&self.exchange.recipe, REFRESH_TOKEN));
            sent != Some(grant.expose())
        })
    }
}

/// In Unix seconds.
fn local_time() -> i64 {
    let since = Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
