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
use crate::http;
use crate::identity::Authenticated;
use crate::revision::Revisions;
use crate::supervisor::Supervisor;
use ::http::HeaderMap;
use ::http::header::AUTHORIZATION;
use arc_swap::ArcSwap;
use evidence::Proof;
use fetch::{File, Kind, Remote, Source};
use futures_util::future::BoxFuture;
use issuer::{Issuer, Keeper};
use memory::{Digest, Memory, Remembered};
use metrics::Outcome;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use token::Token;
use tokio::sync::Semaphore;

/// How many tokens may wait for their signature to be verified.
const MOST_QUEUED: usize = 1_024;

/// Who finds out whose a bearer token is.
pub trait Authenticate: fmt::Debug + Send + Sync {
    /// Whose token this is. May wait for an issuer's keys, for about ten seconds at most.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Refusal>>;
}

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
#[derive(Debug)]
struct Accepting {
    shared: Arc<Shared>,
    /// Their names.
    only: Option<Vec<String>>,
}

/// The token of a request (RFC 6750 §2.1): exactly one `authorization` header, whose scheme is `Bearer` in whatever
/// case (RFC 9110 §11.1), one or more spaces, and a token without a blank.
pub fn credentials(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (all.next(), all.next()) else {
        return Err(Refusal::Invalid("there must be exactly one authorization header"));
    };
    let text = header.to_str().or(Err(Refusal::Invalid("the authorization header is not ASCII")))?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let token = rest.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Invalid("the scheme of the authorization header is not Bearer"));
    }
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then_some(token).ok_or(Refusal::Invalid("the authorization header does not hold one token"))
}

// === impl Settings ===

impl Settings {
    /// Makes all of it that can fail.
    pub fn prepare(self) -> Result<Prepared, http::Error> {
        let client = || http::Client::new(&self.http);
        let (url, kind) = match &self.place {
            Place::File(file) => {
                let source = Box::new(File(file.clone()));
                return Ok(Prepared { settings: self, source });
            }
            Place::Url(url) => (url.clone(), Kind::Keys),
            Place::Discovery(url) => (url.clone(), Kind::Document(self.rule.issuer.clone())),
        };
        let client = client()?;
        client.check_url(&url)?;
        let source = Box::new(Remote { client, url, kind, token_file: self.token_file.clone() });
        Ok(Prepared { settings: self, source })
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
        ending.into_iter().for_each(|(_, known)| known.issuer.close());
        gone.iter().for_each(|name| metrics.forget(name));
        memory.sweep(clock.now().wall);
        revisions.moved();
        for keeper in keepers {
            supervisor.spawn("keys of an issuer", keeper.run(supervisor.clone()));
        }
    }

    /// What a listener asks: all issuers, also those that come later, or those of these names only.
    pub fn accepting(&self, only: Option<Vec<String>>) -> Arc<dyn Authenticate> {
        Arc::new(Accepting { shared: Arc::clone(&self.0), only })
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

impl Authenticate for Accepting {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Refusal>> {
        if token.len() > LONGEST_TOKEN {
            let refusal = Refusal::Invalid("the token is longer than 8 KiB");
            self.shared.metrics.told(Outcome::Refused);
            return Box::pin(std::future::ready(Err(refusal)));
        }
        let (digest, now) = (Digest::of(token), self.shared.clock.now().wall);
        let remembered = self.shared.memory.find(&digest, now).filter(|found| self.takes(&found.issuer));
        if let Some(found) = remembered {
            self.shared.metrics.told(Outcome::Remembered);
            return Box::pin(std::future::ready(Ok(found.authenticated)));
        }
        Box::pin(async move {
            let verified = self.verify(token, digest).await;
            self.shared.metrics.told(match verified {
                Ok(_) => Outcome::Verified,
                Err(Refusal::Invalid(_)) => Outcome::Refused,
                Err(Refusal::Unavailable { .. }) => Outcome::Unavailable,
            });
            verified
        })
    }
}

impl Accepting {
    fn takes(&self, issuer: &str) -> bool {
        self.only.as_ref().is_none_or(|names| names.iter().any(|name| name == issuer))
    }

    async fn verify(&self, text: &str, digest: Digest) -> Result<Authenticated, Refusal> {
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
        memory.put(digest, Remembered { issuer, authenticated: authenticated.clone() }, clock.now().wall);
        Ok(authenticated)
    }
}

const BUSY: Refusal = Refusal::Unavailable { retry_after: Duration::from_secs(1) };

#[cfg(test)]
mod tests;
