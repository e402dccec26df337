//! Everything that the sandbox knows and that changes, behind one lock. No I/O, no clock of its own.

use super::Settings;
use super::counters::Counters;
use super::emnify::{Account, Accounts, Users};
use super::faults::{Faults, Met, Route};
use super::issued::{Issued, Owner};
use super::jwt::{Claims, Key, Refusal};
use super::limits::{Limits, Lockout, Window};
use super::oauth2::{self, Consent, Server};
use super::odd::Odd;
use axum::http::HeaderValue;
use sha2::{Digest as _, Sha384};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How many accounts and addresses are watched at once.
const MAX_WATCHED: usize = 10_000;

/// Whether the `api_key` claim holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiKey {
    /// 40 alphanumerics, as recorded until 2024; new with every login, so that no two tokens are the same. Whether they
    /// change at the real one is not known.
    #[default]
    PerLogin,
    /// Nothing in it, as newer tokens seem to have it: then two logins within a second give the same token.
    Empty,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) key: Key,
    pub(super) accounts: Accounts,
    pub(super) users: Users,
    pub(super) faults: Faults,
    pub(super) counters: Counters,
    pub(super) limits: Limits,
    pub(super) issued: Issued,
    pub(super) oauth2: Server,
    pub(super) odd: Odd,
    lockouts: HashMap<Account, Lockout>,
    windows: HashMap<IpAddr, Window>,
    minted: u64,
}

impl World {
    pub(super) fn new(settings: Settings, at: SystemTime) -> Self {
        let consents = settings.oauth2.consents.clone();
        let mut world = Self {
            key: Key::new(&settings.signing_key),
            accounts: Accounts::new(&settings.organisations, at),
            users: Users::new(&settings.users),
            faults: Faults::default(),
            counters: Counters::default(),
            limits: settings.limits,
            issued: Issued::default(),
            oauth2: Server::new(&settings.oauth2),
            odd: Odd::default(),
            lockouts: HashMap::new(),
            windows: HashMap::new(),
            minted: 0,
            settings,
        };
        for Consent { client, subject, refresh_token } in consents {
            oauth2::grant_refresh_token(&mut world, &client, &subject, Some(refresh_token), at);
        }
        world
    }

    /// What a request that has just arrived meets.
    pub(super) fn arrived(&mut self, route: Option<Route>, organisation: Option<u64>, at_ms: u64) -> Met {
        if let Some(route) = route {
            self.counters.arrived(route, organisation, at_ms);
        }
        self.faults.take(organisation, route)
    }

    /// Counts a login of this address, or says for how long it may make none.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Self { windows, limits, .. } = self;
        if windows.len() >= MAX_WATCHED {
            windows.retain(|_, window| !window.is_empty(now, limits));
        }
        windows.entry(address).or_default().admit(now, limits)
    }

    pub(super) fn is_locked(&self, account: &Account, now: Instant) -> bool {
        self.lockouts.get(account).is_some_and(|lockout| lockout.is_locked(now))
    }

    pub(super) fn failed(&mut self, account: Account, now: Instant) {
        if self.lockouts.len() >= MAX_WATCHED {
            self.lockouts.retain(|_, lockout| lockout.is_locked(now));
        }
        let lockout = self.lockouts.entry(account).or_default();
        lockout.failed(now, &self.limits);
    }

    pub(super) fn succeeded(&mut self, account: &Account) {
        if let Some(lockout) = self.lockouts.get_mut(account) {
            lockout.succeeded();
        }
    }

    /// A new `auth_token` of an organisation that exists.
    pub(super) fn mint(&mut self, owner: Owner, subject: Option<String>, at: SystemTime) -> Option<String> {
        let life = self.accounts.organisation(owner.organisation)?.lifetime.as_secs();
        let purpose = Purpose::Authentication;
        let jwt = self.sign(purpose, owner, subject, at, life)?;
        let exp = unix_seconds(at).saturating_add(life);
        self.issued.remember(owner, &jwt, exp);
        Some(jwt)
    }

    /// A JWT for any purpose, living so many seconds.
    pub(super) fn sign(
        &mut self,
        purpose: Purpose,
        owner: Owner,
        subject: Option<String>,
        at: SystemTime,
        life: u64,
    ) -> Option<String> {
        let organisation = self.accounts.organisation(owner.organisation)?;
        let iat = unix_seconds(at);
        let claims = Claims {
            sub: subject,
            aud: purpose.audience().to_owned(),
            app: owner.application_token,
            api_key: api_key(self.settings.api_key, self.minted),
            organisation: organisation.id,
            organisation_name: organisation.name.clone(),
            iss: "spc-frontend001@spc-frontend".to_owned(),
            exp: iat.saturating_add(life),
            iat,
        };
        self.minted += 1;
        Some(self.key.sign(&claims))
    }

    /// A number that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    /// The claims of a token that is good for this purpose now.
    pub(super) fn verify(&self, purpose: Purpose, token: &str, at: SystemTime) -> Result<Claims, Refusal> {
        let claims = self.key.verify(token, unix_seconds(at))?;
        if claims.aud != purpose.audience() || self.issued.is_rejected(token) {
            return Err(Refusal::Rejected);
        }
        Ok(claims)
    }
}

/// What a JWT of the sandbox is for. The real one's refresh and MFA tokens were never recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Authentication,
    Refresh,
    SecondFactor,
}

impl Purpose {
    fn audience(self) -> &'static str {
        match self {
            // Recorded: a path, and not the endpoint's own.
            Self::Authentication => "/api/v1/authentication",
            Self::Refresh => "/api/v1/refresh",
            Self::SecondFactor => "/api/v1/mfa",
        }
    }
}

/// Whole seconds since 1970, fractions cut off, as in claims and in `Date`.
pub(super) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A time as HTTP writes it (RFC 9110 §5.6.7), where it can: years 1970 to 9999.
pub(super) fn http_date(at: SystemTime) -> Option<HeaderValue> {
    const LAST_SECOND: u64 = 253_402_300_799;
    let writable = unix_seconds(at) <= LAST_SECOND && at >= SystemTime::UNIX_EPOCH;
    let text = writable.then(|| httpdate::fmt_http_date(at))?;
    HeaderValue::from_str(&text).ok()
}

fn api_key(form: ApiKey, nth: u64) -> String {
    match form {
        ApiKey::Empty => String::new(),
        ApiKey::PerLogin => alphanumerics(nth).take(40).collect(),
    }
}

/// An endless text that looks random and is the same for the same number.
pub(super) fn alphanumerics(number: u64) -> impl Iterator<Item = char> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0_u64..)
        .flat_map(move |block| {
            let seed = [number.to_be_bytes(), block.to_be_bytes()].concat();
            <[u8; 48]>::from(Sha384::digest(seed))
        })
        .filter_map(|byte| ALPHABET.get(usize::from(byte) % ALPHABET.len()))
        .map(|letter| char::from(*letter))
}
