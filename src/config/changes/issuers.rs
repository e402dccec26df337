//! What a new configuration changes in the issuers.

use super::Change;
use crate::bearer::{Algorithm, Place, Rule, Settings};
use crate::config::Issuer;
use crate::http;
use crate::secret::{Mark, MarkKey};
use std::path::PathBuf;
use std::time::Duration;

/// What becomes of an issuer. One that is not listed stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerChange {
    /// It is new.
    Added,
    /// Something about it is another: what it verified counts no more.
    Changed,
    /// It is gone.
    Removed,
}

#[derive(Debug, PartialEq)]
pub(super) struct IssuerStanding {
    rule: Rule,
    algorithms: Vec<Algorithm>,
    keys: Place,
    token_file: Option<PathBuf>,
    refresh_interval: Duration,
    keys_outlive: Duration,
    timeout: Duration,
    allow_private: Vec<String>,
    ca_pem: Option<Mark>,
}

impl Change for IssuerChange {
    const ADDED: Self = Self::Added;
    const REMOVED: Self = Self::Removed;
}

impl IssuerStanding {
    pub(super) fn of(issuer: &Issuer, key: &MarkKey) -> Self {
        // Each by its name, so that none that comes later is forgotten.
        let Settings { rule, algorithms, place, http, token_file, refresh_interval, keys_outlive } = &issuer.settings;
        // The others can't be set.
        let http::Options { timeout, allow_private, ca_pem, connect_timeout: _, proxy: _, client_identity_pem: _ } =
            http;
        Self {
            rule: rule.clone(),
            algorithms: algorithms.clone(),
            keys: place.clone(),
            token_file: token_file.clone(),
            refresh_interval: *refresh_interval,
            keys_outlive: *keys_outlive,
            timeout: *timeout,
            allow_private: allow_private.clone(),
            ca_pem: ca_pem.as_ref().map(|pem| key.mark_bytes(pem)),
        }
    }

    pub(super) fn change_to(&self, next: &Self) -> Option<IssuerChange> {
        (self != next).then_some(IssuerChange::Changed)
    }
}
