//! A name and a password, as several simulators ask for them.

use std::fmt;

/// Somebody who logs in with a password that is sent as it is. Users of the simulated emnify are
/// [`User`](super::User)s.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Often an e-mail address.
    pub username: String,
    /// The password.
    pub password: String,
}

impl Login {
    /// Somebody with this name and password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}
