//! Secrets as types: no `Display`, no `Serialize`, no `Clone`, a constant `Debug`, zeroed when dropped.
//!
//! The only way to the text is `expose`, which is easy to search for; the architecture test lists the files that may
//! call it.

use secrecy::{ExposeSecret, SecretString};
use std::fmt;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(SecretString);

        impl $name {
            /// Takes the secret over.
            pub fn new(text: impl Into<String>) -> Self {
                Self(SecretString::from(text.into()))
            }

            /// The secret itself. Whoever calls this answers for where it goes.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret! {
    /// A short-lived token as an upstream gave it: what callers come for.
    AccessToken
}
secret! {
    /// A long-lived secret of a Workspace: an application token, a password, a client secret. Never leaves the broker.
    LongLivedSecret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing() {
        let secret = LongLivedSecret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "LongLivedSecret(redacted)");
    }
}
