//! Who exists at the simulated emnify: organisations and their application tokens. No I/O.
//!
//! An application token is found by its text alone, as at the real one; whether it may be used is asked separately, so
//! that a revoked token can be told from an unknown one.

use super::expiry::Expiry;
use super::network::Network;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// The first id that an application token gets.
const FIRST_TOKEN_ID: u64 = 1_001;
/// How many application tokens may be made in all.
const MAX_TOKENS: usize = 10_000;

/// An organisation, which emnify also calls a Workspace.
#[derive(Clone)]
pub struct Organisation {
    /// `esc.org`.
    pub id: u64,
    /// `esc.orgName`.
    pub name: String,
    /// The texts of its application tokens: their ids follow the order, over all organisations, from 1001.
    pub application_tokens: Vec<String>,
    /// How long its JWTs live, in whole seconds. Per organisation at the real one: 14,400 s and 604,800 s were seen.
    pub lifetime: Duration,
    /// How many endpoints (devices) it has.
    pub endpoints: u64,
}

impl Organisation {
    /// An organisation with one application token and three endpoints.
    pub fn new(id: u64, name: impl Into<String>, application_token: impl Into<String>, lifetime: Duration) -> Self {
        Self { id, name: name.into(), application_tokens: vec![application_token.into()], lifetime, endpoints: 3 }
    }
}

impl fmt::Debug for Organisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Organisation")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("application_tokens", &self.application_tokens.len())
            .field("lifetime", &self.lifetime)
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

/// `status.id` of an application token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Status {
    Activated,
    Revoked,
}

impl Status {
    pub(super) fn from_id(id: u64) -> Option<Self> {
        match id {
            0 => Some(Self::Activated),
            1 => Some(Self::Revoked),
            _ => None,
        }
    }

    pub(super) fn id(self) -> u64 {
        match self {
            Self::Activated => 0,
            Self::Revoked => 1,
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Activated => "Activated",
            Self::Revoked => "Revoked",
        }
    }
}

/// What is known of an application token, its text apart.
#[derive(Debug)]
pub(in crate::sandbox) struct ApplicationToken {
    pub(in crate::sandbox) id: u64,
    pub(in crate::sandbox) organisation: u64,
    pub(super) description: Option<String>,
    pub(super) created: SystemTime,
    pub(in crate::sandbox) status: Status,
    pub(super) expiry: Option<Expiry>,
    pub(super) network: Option<Network>,
}

/// What a new application token is to be.
#[derive(Debug, Clone, Default)]
pub(in crate::sandbox) struct Wanted {
    pub(super) description: Option<String>,
    pub(super) expiry: Option<Expiry>,
    pub(super) network: Option<Network>,
}

impl ApplicationToken {
    /// Whether it logs anybody in, at this time and from this address.
    pub(super) fn works(&self, at: SystemTime, from: IpAddr) -> bool {
        self.status == Status::Activated
            && self.expiry.as_ref().is_none_or(|expiry| at < expiry.at())
            && self.network.is_none_or(|network| network.contains(from))
    }
}

/// All organisations and application tokens.
#[derive(Default)]
pub(in crate::sandbox) struct Accounts {
    organisations: BTreeMap<u64, Organisation>,
    tokens: BTreeMap<u64, ApplicationToken>,
    by_text: HashMap<String, u64>,
}

impl Accounts {
    pub(in crate::sandbox) fn new(organisations: &[Organisation], at: SystemTime) -> Self {
        let mut accounts = Self::default();
        for organisation in organisations {
            accounts.add(organisation.clone(), at);
        }
        accounts
    }

    /// Adds an organisation or replaces what is known of it; application tokens only get more.
    pub(in crate::sandbox) fn add(&mut self, organisation: Organisation, at: SystemTime) {
        for text in &organisation.application_tokens {
            let wanted = Wanted { description: Some("configured".to_owned()), ..Wanted::default() };
            self.insert(organisation.id, text.clone(), wanted, at);
        }
        self.organisations.insert(organisation.id, organisation);
    }

    /// Whether no more application tokens can be made.
    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= MAX_TOKENS
    }

    /// The id that the next application token gets.
    pub(super) fn next_id(&self) -> u64 {
        self.tokens.last_key_value().map_or(FIRST_TOKEN_ID, |(id, _)| id + 1)
    }

    /// Stores an application token under the next id.
    pub(super) fn insert(&mut self, organisation: u64, text: String, wanted: Wanted, at: SystemTime) -> u64 {
        let id = self.next_id();
        let Wanted { description, expiry, network } = wanted;
        self.by_text.insert(text, id);
        self.tokens.insert(
            id,
            ApplicationToken { id, organisation, description, created: at, status: Status::Activated, expiry, network },
        );
        id
    }

    pub(in crate::sandbox) fn organisation(&self, id: u64) -> Option<&Organisation> {
        self.organisations.get(&id)
    }

    /// The application token with this text, whatever its state.
    pub(in crate::sandbox) fn by_text(&self, text: &str) -> Option<&ApplicationToken> {
        self.tokens.get(self.by_text.get(text)?)
    }

    pub(in crate::sandbox) fn of(&self, organisation: u64) -> impl Iterator<Item = &ApplicationToken> {
        self.tokens.values().filter(move |token| token.organisation == organisation)
    }

    pub(in crate::sandbox) fn token_mut(&mut self, id: u64) -> Option<&mut ApplicationToken> {
        self.tokens.get_mut(&id)
    }

    /// Revokes every application token of an organisation; `false` if it has none.
    pub(in crate::sandbox) fn revoke_all(&mut self, organisation: u64) -> bool {
        let mut any = false;
        for token in self.tokens.values_mut() {
            if token.organisation == organisation {
                token.status = Status::Revoked;
                any = true;
            }
        }
        any
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("organisations", &self.organisations)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
