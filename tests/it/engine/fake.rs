//! An upstream that does what it is told: what it answers, after how long, and who asked when.

use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use token_broker::provider::{Failure, FetchError, Fetched, Provider};
use token_broker::secret::AccessToken;
use token_broker::token::Presentation;
use tokio::time::{Instant, sleep};

/// What an exchange comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A new token that lives so long.
    Token(Duration),
    /// The same token as before, with so much left.
    Same(Duration),
    /// No token.
    Fails(Failure),
    /// No answer, ever.
    Hangs,
    /// A bug in the provider, while it waits for the answer.
    Panics,
    /// A bug in the provider, before it has even begun to wait.
    PanicsAtOnce,
}

/// One request that reached the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) workspace: String,
    pub(super) at: Instant,
}

/// One upstream. Clones are the same upstream.
#[derive(Debug, Clone)]
pub(super) struct FakeUpstream {
    pub(super) name: String,
    state: Arc<Mutex<State>>,
}

/// The way to the upstream with one Workspace's credential. Clones share what they were told.
#[derive(Debug, Clone)]
pub(super) struct FakeProvider {
    upstream: FakeUpstream,
    workspace: String,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct State {
    default: Outcome,
    latency: Duration,
    calls: Vec<Call>,
    in_flight: usize,
    most_in_flight: usize,
    minted: u64,
}

#[derive(Debug, Default)]
struct Own {
    specials: VecDeque<Outcome>,
    default: Option<Outcome>,
    latency: Option<Duration>,
    last: String,
    in_flight: usize,
    most_in_flight: usize,
}

impl FakeUpstream {
    pub(super) fn new(name: &str) -> Self {
        let state = State {
            default: Outcome::Token(Duration::from_secs(14_400)),
            latency: Duration::from_millis(50),
            calls: Vec::new(),
            in_flight: 0,
            most_in_flight: 0,
            minted: 0,
        };
        Self { name: name.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on, for every Workspace that has nothing of its own.
    pub(super) fn answers(&self, outcome: Outcome) {
        self.state().default = outcome;
    }

    pub(super) fn takes(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub(super) fn provider(&self, workspace: &str) -> FakeProvider {
        FakeProvider { upstream: self.clone(), workspace: workspace.to_owned(), own: Arc::default() }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(super) fn count(&self) -> usize {
        self.state().calls.len()
    }

    pub(super) fn times(&self) -> Vec<Instant> {
        self.state().calls.iter().map(|call| call.at).collect()
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    pub(super) fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl FakeProvider {
    /// From now on, whatever the upstream does for others.
    pub(super) fn answers(&self, outcome: Outcome) {
        self.own().default = Some(outcome);
    }

    /// Once, before anything else; several are answered in their order.
    pub(super) fn then(&self, outcome: Outcome) -> &Self {
        self.own().specials.push_back(outcome);
        self
    }

    pub(super) fn takes(&self, latency: Duration) {
        self.own().latency = Some(latency);
    }

    pub(super) fn count(&self) -> usize {
        self.times().len()
    }

    pub(super) fn times(&self) -> Vec<Instant> {
        let calls = self.upstream.calls();
        calls.into_iter().filter(|call| call.workspace == self.workspace).map(|call| call.at).collect()
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.own().most_in_flight
    }

    fn begin(&self) -> (Outcome, Duration, Flying) {
        let mut state = self.upstream.state();
        let mut own = self.own();
        state.calls.push(Call { workspace: self.workspace.clone(), at: Instant::now() });
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        own.in_flight += 1;
        own.most_in_flight = own.most_in_flight.max(own.in_flight);
        let outcome = own.specials.pop_front().or(own.default).unwrap_or(state.default);
        (outcome, own.latency.unwrap_or(state.latency), Flying(self.clone()))
    }

    fn fetched(&self, lifetime: Duration, anew: bool) -> Fetched {
        let mut state = self.upstream.state();
        let mut own = self.own();
        if anew || own.last.is_empty() {
            state.minted += 1;
            own.last = format!("{}-{}", self.workspace, state.minted);
        }
        Fetched { value: AccessToken::new(own.last.clone()), presentation: Presentation::bearer(), lifetime }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap()
    }
}

impl Provider for FakeProvider {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let (outcome, latency, flying) = self.begin();
        assert!(outcome != Outcome::PanicsAtOnce, "told to panic at once");
        Box::pin(async move {
            let _flying = flying;
            sleep(latency).await;
            match outcome {
                Outcome::Token(lifetime) => Ok(self.fetched(lifetime, true)),
                Outcome::Same(left) => Ok(self.fetched(left, false)),
                Outcome::Fails(kind) => Err(FetchError::new(kind, "told to fail")),
                Outcome::Hangs => pending().await,
                Outcome::Panics | Outcome::PanicsAtOnce => panic!("told to panic"),
            }
        })
    }
}

/// Counts a request as under way until it is over or dropped.
struct Flying(FakeProvider);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.upstream.state().in_flight -= 1;
        self.0.own().in_flight -= 1;
    }
}
