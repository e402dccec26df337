//! The fake upstream: does as its mood is, and tells the oracle the truth.

use super::event::{self, Mood};
use super::oracle::{Oracle, Outcome};
use fastrand::Rng;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use token_broker::failure::Failure;
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::secret::AccessToken;
use token_broker::token::{Fingerprint, Presentation};
use tokio::time::{Instant, sleep};

/// What an upstream knows of one Workspace.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) mood: Mood,
    pub(super) latency: Duration,
    /// Lies: tokens die when this part of the life that was said is over.
    pub(super) truth: f64,
    /// Lies: tells the oracle of another failure.
    pub(super) misreports: bool,
    workspace: usize,
    rng: Rng,
    minted: u64,
    last: Option<Last>,
}

#[derive(Debug, Clone)]
struct Last {
    value: String,
    lifetime: Duration,
    dies: Instant,
}

/// A credential, as the engine gets it.
pub(super) struct Fake {
    pub(super) account: Arc<Mutex<Account>>,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) workspace: usize,
    pub(super) incarnation: u64,
    pub(super) key: u64,
}

enum Draw {
    Token { value: String, lifetime: Duration },
    Mood(Mood),
}

impl Account {
    pub(super) fn new(workspace: usize, rng: Rng) -> Self {
        let latency = Duration::from_millis(50);
        Self { mood: Mood::Fresh, latency, truth: 1.0, misreports: false, workspace, rng, minted: 0, last: None }
    }

    /// What is answered this time, decided at its start.
    fn draw(&mut self, oracle: &mut Oracle) -> Draw {
        let mood = match self.mood {
            Mood::Moody => event::whim(&mut self.rng),
            mood => mood,
        };
        let now = Instant::now();
        let last = self.last.clone().filter(|last| last.dies > now + Duration::from_secs(1));
        match (mood, last) {
            (Mood::Same, Some(last)) => Draw::Token { value: last.value, lifetime: last.dies - now },
            (Mood::SameOverstated, Some(last)) => {
                // Only who holds the token already can see through the lie.
                let value = AccessToken::new(last.value.clone());
                let seen_through = oracle.held(self.workspace) == Some(Fingerprint::of(&value));
                let lifetime = if seen_through { last.lifetime } else { last.dies - now };
                Draw::Token { value: last.value, lifetime }
            }
            (Mood::Fresh | Mood::Same | Mood::SameOverstated, _) => self.mint(now, oracle),
            (mood, _) => Draw::Mood(mood),
        }
    }

    fn mint(&mut self, now: Instant, oracle: &mut Oracle) -> Draw {
        self.minted += 1;
        let value = format!("token {} of {}", self.minted, self.workspace);
        let lifetime = event::lifetime(&mut self.rng);
        let dies = now + lifetime.mul_f64(self.truth);
        oracle.minted(Fingerprint::of(&AccessToken::new(value.clone())), self.workspace, dies);
        self.last = Some(Last { value: value.clone(), lifetime, dies });
        Draw::Token { value, lifetime }
    }
}

/// One request. Tells the oracle when it is dropped before its end.
struct Request {
    oracle: Arc<Mutex<Oracle>>,
    exchange: usize,
    misreports: bool,
    ended: bool,
}

impl Request {
    fn end(mut self, outcome: Outcome) {
        self.ended = true;
        lock(&self.oracle).exchange_ended(self.exchange, outcome);
    }

    async fn answer(self, draw: Draw, latency: Duration) -> Result<Fetched, FetchError> {
        sleep(latency).await;
        match draw {
            Draw::Token { value, lifetime } => {
                let value = AccessToken::new(value);
                self.end(Outcome::Token { fingerprint: Fingerprint::of(&value), lifetime });
                Ok(Fetched { value, presentation: Presentation::bearer(), lifetime })
            }
            Draw::Mood(Mood::Fails(failure)) => {
                let told = if self.misreports { Failure::Unavailable } else { failure };
                self.end(Outcome::Failed(told));
                Err(FetchError::new(failure, "as it was told"))
            }
            Draw::Mood(Mood::Hangs) => std::future::pending().await,
            Draw::Mood(_) => self.panic(),
        }
    }

    /// Without the hook's output: these panics are no news.
    fn panic(self) -> ! {
        self.end(Outcome::Failed(Failure::Malformed));
        std::panic::resume_unwind(Box::new("as it was told"))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.oracle).exchange_ended(self.exchange, Outcome::Dropped);
        }
    }
}

impl Provider for Fake {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let (request, draw, latency) = {
            let mut account = lock(&self.account);
            let mut oracle = lock(&self.oracle);
            let exchange = oracle.exchange_started(self.workspace, self.incarnation, self.key);
            let (oracle_of_request, misreports) = (Arc::clone(&self.oracle), account.misreports);
            let request = Request { oracle: oracle_of_request, exchange, misreports, ended: false };
            (request, account.draw(&mut oracle), account.latency)
        };
        if let Draw::Mood(Mood::PanicsAtOnce) = draw {
            request.panic();
        }
        request.answer(draw, latency).boxed()
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("workspace", &self.workspace).field("key", &self.key).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics with this lock held")
}
