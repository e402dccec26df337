//! Who asks for tokens, and what each may do. Pure.

use super::assertion::{BadKey, PublicKey};
use super::form::TOKEN_EXCHANGE;
use std::fmt;
use std::time::Duration;

/// A way to authenticate a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `client_secret_basic`: id and secret, each form-encoded, in an `Authorization` header.
    Basic,
    /// `client_secret_post`: both in the body.
    Body,
    /// `private_key_jwt` (RFC 7523 §2.2).
    PrivateKeyJwt,
}

/// What a token is asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// The client's own authority.
    ClientCredentials,
    /// A token of an earlier answer.
    RefreshToken,
    /// A signed assertion (RFC 7523 §2.1).
    JwtBearer,
    /// Another token (RFC 8693).
    TokenExchange,
    /// A user's name and password.
    Password,
}

impl Grant {
    const ALL: [Self; 5] =
        [Self::ClientCredentials, Self::RefreshToken, Self::JwtBearer, Self::TokenExchange, Self::Password];

    /// The grant with this `grant_type`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "client_credentials" => Self::ClientCredentials,
            "refresh_token" => Self::RefreshToken,
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => Self::JwtBearer,
            TOKEN_EXCHANGE => Self::TokenExchange,
            "password" => Self::Password,
            _ => return None,
        })
    }
}

/// Whether an answer says how long its token lives, which is only recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// `expires_in`.
    #[default]
    Said,
    /// Nothing but the JWT's `exp`.
    Unsaid,
}

/// A client of the simulated authorization server. A new one may use every grant and every way to authenticate, as far
/// as it has a secret or a key, has no scopes, and may name any target.
#[derive(Clone)]
pub struct Client {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) methods: Vec<Method>,
    pub(super) grants: Vec<Grant>,
    pub(super) scopes: Vec<String>,
    /// `None`: any.
    pub(super) targets: Option<Vec<String>>,
    pub(super) lifetime: Duration,
    pub(super) expiry: Expiry,
}

impl Client {
    /// A client that can't authenticate yet. Its tokens live for an hour.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: None,
            keys: Vec::new(),
            methods: vec![Method::Basic, Method::Body, Method::PrivateKeyJwt],
            grants: Grant::ALL.to_vec(),
            scopes: Vec::new(),
            targets: None,
            lifetime: Duration::from_secs(3_600),
            expiry: Expiry::Said,
        }
    }

    /// The secret that it authenticates with.
    #[must_use]
    pub fn secret(self, secret: impl Into<String>) -> Self {
        Self { secret: Some(secret.into()), ..self }
    }

    /// Another public key (PEM; RSA, P-256 or Ed25519) that its assertions may be signed with.
    pub fn key(mut self, pem: &str) -> Result<Self, BadKey> {
        self.keys.push(PublicKey::parse(pem)?);
        Ok(self)
    }

    /// The only ways in which it may authenticate.
    #[must_use]
    pub fn methods(self, methods: &[Method]) -> Self {
        Self { methods: methods.to_vec(), ..self }
    }

    /// The only grants that it may use.
    #[must_use]
    pub fn grants(self, grants: &[Grant]) -> Self {
        Self { grants: grants.to_vec(), ..self }
    }

    /// The scopes that it may ask for, and gets where it asks for none.
    #[must_use]
    pub fn scopes(self, scopes: &[&str]) -> Self {
        Self { scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(), ..self }
    }

    /// The only audiences and resources that it may name.
    #[must_use]
    pub fn targets(self, targets: &[&str]) -> Self {
        Self { targets: Some(targets.iter().map(|&target| target.to_owned()).collect()), ..self }
    }

    /// How long its tokens live, in whole seconds, and whether the answer says so.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration, expiry: Expiry) -> Self {
        Self { lifetime, expiry, ..self }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("methods", &self.methods)
            .field("grants", &self.grants)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
