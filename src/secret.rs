//! Secrets as types: no `Display`, no `Serialize`, no `Clone`, a constant `Debug`, zeroed when dropped. What rests in
//! memory for long is [`Sealed`].
//!
//! The only way to the text is `expose`, which is easy to search for; the architecture test lists the files that may
//! call it. What can be done with a secret, and what the compiler refuses:
//!
//! ```
//! use token_broker::secret::{AccessToken, LongLivedSecret, MarkKey, Sealed};
//! let secret = LongLivedSecret::new("hunter2");
//! let sealed = Sealed::new(&secret, "team/a", "password");
//! assert_eq!(format!("{secret:?} {sealed:?}"), "LongLivedSecret(redacted) Sealed(redacted)");
//! assert_eq!(sealed.open("team/a", "password")?.expose(), secret.expose());
//! # Ok::<(), token_broker::secret::Broken>(())
//! ```
//!
//! `Display`:
//!
//! ```compile_fail,E0277
//! println!("{}", token_broker::secret::AccessToken::new("t"));
//! ```
//! ```compile_fail,E0277
//! println!("{}", token_broker::secret::LongLivedSecret::new("s"));
//! ```
//! ```compile_fail,E0277
//! fn shown(secret: token_broker::secret::Sealed) -> String { format!("{secret}") }
//! ```
//!
//! `Serialize`:
//!
//! ```compile_fail,E0277
//! let _ = serde_json::to_string(&token_broker::secret::AccessToken::new("t"));
//! ```
//! ```compile_fail,E0277
//! let _ = serde_json::to_string(&token_broker::secret::LongLivedSecret::new("s"));
//! ```
//! ```compile_fail,E0277
//! fn written(secret: token_broker::secret::Sealed) { let _ = serde_json::to_string(&secret); }
//! ```
//!
//! `Clone`:
//!
//! ```compile_fail,E0599
//! let _ = token_broker::secret::AccessToken::new("t").clone();
//! ```
//! ```compile_fail,E0599
//! let _ = token_broker::secret::LongLivedSecret::new("s").clone();
//! ```
//! ```compile_fail,E0599
//! fn another(secret: token_broker::secret::Sealed) { let _ = secret.clone(); }
//! ```

mod sealed;

pub use sealed::{Broken, Sealed, shortfall};

use rustls::crypto::aws_lc_rs::default_provider;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
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
    /// A long-lived secret of a Workspace: an application token, a password, a client secret. Never leaves the broker,
    /// and is readable only while it is read or written: what rests is [`Sealed`].
    LongLivedSecret
}

/// What two secrets, or two files that hold some, are compared by: the same exactly if they are, and of no use to
/// whoever has not got the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark([u8; 16]);

/// What marks are made with. Marks of different keys can't be compared.
#[derive(Clone)]
pub struct MarkKey([u8; 32]);

impl MarkKey {
    /// A key that is this process's own, from the random numbers that TLS connections are made with.
    ///
    /// # Panics
    ///
    /// Where the system has no random numbers to give, and no connection can be made either.
    #[expect(clippy::expect_used, reason = "asked for at the start only, which must not succeed without it")]
    pub fn random() -> Self {
        let mut key = [0; 32];
        default_provider().secure_random.fill(&mut key).expect("the system gives no random numbers");
        Self(key)
    }

    /// The mark of a secret.
    pub fn mark(&self, secret: &LongLivedSecret) -> Mark {
        self.mark_bytes(secret.expose().as_bytes())
    }

    /// The mark of secrets by their names.
    pub fn mark_all<'s>(&self, secrets: impl Iterator<Item = (&'s str, &'s LongLivedSecret)>) -> Mark {
        self.mark_parts(secrets.flat_map(|(name, secret)| [name, secret.expose()]))
    }

    /// The mark of texts in this order. Where one ends and the next begins counts.
    pub fn mark_parts<'s>(&self, parts: impl Iterator<Item = &'s str>) -> Mark {
        let mut digest = Sha256::new().chain_update(self.0);
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            digest.update(length.to_be_bytes());
            digest.update(part);
        }
        Self::first_half(digest)
    }

    /// The mark of what a file holds.
    pub fn mark_bytes(&self, content: &[u8]) -> Mark {
        Self::first_half(Sha256::new().chain_update(self.0).chain_update(content))
    }

    fn first_half(digest: Sha256) -> Mark {
        let digest: [u8; 32] = digest.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(digest.split_at(16).0);
        Mark(first)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(redacted)")
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing() {
        let secret = LongLivedSecret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "LongLivedSecret(redacted)");
    }

    #[test]
    fn marks_tell_secrets_apart_and_say_nothing() {
        let (key, other) = (MarkKey::random(), MarkKey::random());
        let mark = key.mark(&LongLivedSecret::new("hunter2"));
        assert_eq!(mark, key.mark_bytes(b"hunter2"));
        assert_ne!(mark, key.mark(&LongLivedSecret::new("hunter3")));
        assert_ne!(mark, other.mark(&LongLivedSecret::new("hunter2")));
        assert_eq!(format!("{mark:?} {key:?}"), "Mark(redacted) MarkKey(redacted)");
        let parts = |parts: [&'static str; 2]| key.mark_parts(parts.into_iter());
        assert_eq!(parts(["ab", "c"]), parts(["ab", "c"]));
        assert_ne!(parts(["ab", "c"]), parts(["a", "bc"]));
        let all = |text| key.mark_all([("password", &LongLivedSecret::new(text))].into_iter());
        assert_eq!(all("hunter2"), parts(["password", "hunter2"]));
        assert_ne!(all("hunter2"), all("hunter3"));
    }
}
