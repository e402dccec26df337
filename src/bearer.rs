//! Callers by their bearer tokens: JWTs of configured issuers, verified with the keys that those publish.
//!
//! Promises, each a test:
//! * Nothing is believed before the signature holds, by a key of the issuer that `iss` names, with an algorithm that is
//!   listed for that issuer and fits the key. There is no symmetric algorithm and no `none`.
//! * What is cheap to judge is judged first; few signatures are verified at once; a refused token leaves nothing in
//!   memory.
//! * What was verified counts until `exp`, or until its key is no longer published, or its issuer is configured in
//!   another way, whichever comes first; whoever holds on to it is told by [`Revisions`].
//! * Where there are no keys to judge by, the answer is that, and not that the token is wrong.
//!
//! Refusals are constants; neither they nor the log hold a word of a token.

mod claims;
mod evidence;
mod fetch;
mod issuer;
mod keys;
mod memory;
mod metrics;
mod pace;
mod token;

pub use claims::{LEEWAY, LONGEST_LIFE, Rule};
pub use fetch::{LARGEST_FILE, Place};
pub use keys::{Algorithm, KeySet, MOST_KEYS, Unusable};
pub use memory::MOST as MOST_REMEMBERED;
pub use metrics::Metrics;
pub use token::LONGEST as LONGEST_TOKEN;

use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::http;
use crate::identity::{Authenticated, Bearer};
use crate::revision::Revisions;
use crate::supervisor::Supervisor;
use arc_swap::ArcSwap;
use evidence::Proof;
use fetch::{File, Kind, Remote, Source};
use futures_util::future::BoxFuture;
use issuer::{Issuer, Keeper};
use memory::{Digest, Memory, Remembered};
use metrics::Outcome;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use token::Token;
use tokio::sync::Semaphore;
use url::Url;

/// How many tokens may wait for their signature to be verified.
const MOST_QUEUED: usize = 1_024;

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The token is of no use, for this reason.
    Invalid(&'static str),
    /// It can't be told now.
    Unavailable {
        /// When it may be told.
        retry_after: Duration,
    },
}

/// One issuer as it is configured.
#[derive(Debug)]
pub struct Settings {
    /// What its tokens must say.
    pub rule: Rule,
    /// How they may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub place: Place,
    /// How they are reached.
    pub http: http::Options,
    /// The file of the token that is shown to get them.
    pub token_file: Option<PathBuf>,
    /// How often they are fetched.
    pub refresh_interval: Duration,
    /// How long they count while they can't be fetched.
    pub keys_outlive: Duration,
}

/// An issuer with all that it takes, not yet in force.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    source: Box<dyn Source>,
}

/// The issuers that are in force, and what was verified. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Issuers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// By `iss`.
    known: ArcSwap<HashMap<String, Known>>,
    memory: Arc<Memory>,
    /// The right to verify a signature, so that a flood of bad ones leaves time for everything else.
    verifying: Semaphore,
    queue: Semaphore,
    clock: Clock,
    revisions: Revisions,
    supervisor: Supervisor,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Known {
    issuer: Arc<Issuer>,
    place: Place,
}

/// What is in force in one listener: all issuers, or some.
#[derive(Debug, Clone)]
pub struct Accepting {
    shared: Arc<Shared>,
    /// Their names.
    only: Option<Vec<String>>,
}

// === impl Refusal ===

impl Refusal {
    /// What the caller is told; the reason is for the log.
    fn told(self) -> Error {
        match self {
            Self::Invalid(why) => {
                tracing::debug!("not authenticated: {why}");
                Error::new(Reason::CallerUnauthenticated)
            }
            Self::Unavailable { retry_after } => Error::retry(Reason::CallerUnverifiable, retry_after),
        }
    }
}

// === impl Settings ===

impl Settings {
    /// What its keys are asked for with; all that can fail. `None` where they are in a file.
    pub fn check(&self) -> Result<Option<http::Client>, http::Error> {
        let (Place::Url(url) | Place::Discovery(url)) = &self.place else { return Ok(None) };
        let client = http::Client::new(&self.http)?;
        client.check_url(url)?;
        Ok(Some(client))
    }

    /// With what [`Self::check`] gave.
    pub fn prepared(self, client: Option<http::Client>) -> Prepared {
        let remote =
            |client, url: &Url, kind| Remote { client, url: url.clone(), kind, token_file: self.token_file.clone() };
        let source: Box<dyn Source> = match (&self.place, client) {
            (Place::Url(url), Some(client)) => Box::new(remote(client, url, Kind::Keys)),
            (Place::Discovery(url), Some(client)) => {
                Box::new(remote(client, url, Kind::Document(self.rule.issuer.clone())))
            }
            (Place::File(file), _) => Box::new(File(file.clone())),
            // Nobody to ask: as an issuer that never answers.
            (Place::Url(_) | Place::Discovery(_), None) => Box::new(File(PathBuf::new())),
        };
        Prepared { settings: self, source }
    }
}

// === impl Issuers ===

impl Issuers {
    /// None yet.
    pub fn new(clock: Clock, revisions: Revisions, supervisor: Supervisor, metrics: Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Shared {
            known: ArcSwap::default(),
            memory: Arc::new(Memory::new(MOST_REMEMBERED)),
            verifying: Semaphore::new((cores / 2).max(1)),
            queue: Semaphore::new(MOST_QUEUED),
            clock,
            revisions,
            supervisor,
            metrics,
        }))
    }

    /// Puts these in force, in the place of those of the same name, and takes away those of the names in `gone`. Their
    /// keys are fetched from now on; within a runtime. What the old ones verified no longer counts.
    pub fn install(&self, put: Vec<Prepared>, gone: &[String]) {
        if put.is_empty() && gone.is_empty() {
            return;
        }
        let Shared { known, memory, clock, revisions, metrics, supervisor, .. } = &*self.0;
        let replaced = |name: &str| gone.iter().any(|gone| gone == name) || put.iter().any(|new| *new.name() == *name);
        let old = known.load_full();
        let (ending, mut next): (Vec<_>, HashMap<_, _>) = {
            let (ending, staying): (Vec<_>, Vec<_>) =
                old.iter().partition(|(_, known)| replaced(&known.issuer.rule.name));
            (ending, staying.into_iter().map(|(iss, known)| (iss.clone(), known.clone())).collect())
        };
        let mut keepers = Vec::with_capacity(put.len());
        for Prepared { settings, source } in put {
            let Settings { rule, algorithms, place, refresh_interval, keys_outlive, .. } = settings;
            // The same keys from the same place need not be waited for.
            let before = old.get(&rule.issuer).filter(|old| old.place == place && old.issuer.rule.name == rule.name);
            let keys = before.and_then(|old| old.issuer.copied_keys());
            let issuer = Arc::new(Issuer::new(rule, algorithms, keys));
            next.insert(issuer.rule.issuer.clone(), Known { issuer: Arc::clone(&issuer), place });
            keepers.push(Keeper {
                issuer,
                source,
                interval: refresh_interval,
                keys_outlive,
                clock: clock.clone(),
                revisions: revisions.clone(),
                metrics: metrics.clone(),
                memory: Arc::clone(memory),
            });
        }
        known.store(Arc::new(next));
        for (_, known) in ending {
            known.issuer.close();
        }
        for name in gone {
            metrics.forget(name);
        }
        memory.sweep(clock.now().wall);
        revisions.moved();
        for keeper in keepers {
            supervisor.spawn("keys of an issuer", keeper.run(supervisor.clone()));
        }
    }

    /// What a listener asks: all issuers, also those that come later, or those of these names only.
    pub fn accepting(&self, only: Option<Vec<String>>) -> Accepting {
        Accepting { shared: Arc::clone(&self.0), only }
    }

    /// How many tokens are remembered.
    pub fn remembered(&self) -> usize {
        self.0.memory.len()
    }
}

impl Prepared {
    fn name(&self) -> &str {
        &self.settings.rule.name
    }
}

// === impl Accepting ===

impl Bearer for Accepting {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Error>> {
        if let Some(authenticated) = self.remembered(token) {
            return Box::pin(std::future::ready(Ok(authenticated)));
        }
        Box::pin(async { self.verified(token).await.map_err(Refusal::told) })
    }
}

impl Accepting {
    /// Whose token this is, if it was verified before and nothing has changed since.
    fn remembered(&self, token: &str) -> Option<Authenticated> {
        let Shared { memory, metrics, clock, .. } = &*self.shared;
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let remembered = memory.find(&Digest::of(token), clock.now().wall)?;
        self.takes(&remembered.issuer).then(|| {
            metrics.told(Outcome::Remembered);
            remembered.authenticated
        })
    }

    /// Whose token this is. May wait for an issuer's keys, for about ten seconds at most.
    pub async fn judge(&self, token: &str) -> Result<Authenticated, Refusal> {
        match self.remembered(token) {
            Some(authenticated) => Ok(authenticated),
            None => self.verified(token).await,
        }
    }

    async fn verified(&self, token: &str) -> Result<Authenticated, Refusal> {
        let verified = self.verify(token).await;
        self.shared.metrics.told(match verified {
            Ok(_) => Outcome::Verified,
            Err(Refusal::Invalid(_)) => Outcome::Refused,
            Err(Refusal::Unavailable { .. }) => Outcome::Unavailable,
        });
        verified
    }

    fn takes(&self, issuer: &str) -> bool {
        self.only.as_ref().is_none_or(|names| names.iter().any(|name| name == issuer))
    }

    async fn verify(&self, text: &str) -> Result<Authenticated, Refusal> {
        let Shared { known, memory, clock, .. } = &*self.shared;
        let token = Token::read(text).map_err(Refusal::Invalid)?;
        let iss = claims::issuer(&token.claims).map_err(Refusal::Invalid)?;
        let known = known.load().get(iss).filter(|known| self.takes(&known.issuer.rule.name)).cloned();
        let issuer = known.ok_or(Refusal::Invalid("the token's issuer is not trusted here"))?.issuer;
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(Refusal::Invalid("the token's algorithm is not allowed for its issuer"));
        }
        let claimed = issuer.rule.judge(&token.claims, clock.now().wall).map_err(Refusal::Invalid)?;
        let key = issuer.key_of(&token, clock.now().mono).await?;
        let verified = {
            let _place = self.shared.queue.try_acquire().or(Err(BUSY))?;
            let _right = self.shared.verifying.acquire().await.or(Err(BUSY))?;
            key.verifies(token.signed, token.signature, token.algorithm)
        };
        if !verified {
            return Err(Refusal::Invalid("the token's signature does not hold"));
        }
        let evidence = Arc::new(Proof::new(key, claimed.expires));
        let authenticated = Authenticated { caller: claimed.caller, evidence };
        let issuer = Arc::clone(&issuer.rule.name);
        memory.put(Digest::of(text), Remembered { issuer, authenticated: authenticated.clone() }, clock.now().wall);
        Ok(authenticated)
    }
}

const BUSY: Refusal = Refusal::Unavailable { retry_after: Duration::from_secs(1) };
