//! Secrets at rest: encrypted under a key of this process, and bound to their place.
//!
//! The key lies in a page of its own, as far out of sight as the system allows, and is lent for one sealing or opening
//! at a time (`guard::Vault`). What is sealed can be opened only by the Workspace and under the name that it was sealed
//! for: a secret that a mistake put elsewhere does not open there, instead of going out for another tenant.

use super::LongLivedSecret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use std::fmt;
use std::sync::LazyLock;
use token_broker_guard::{KEY_LENGTH, Vault};
use zeroize::Zeroizing;

#[expect(clippy::expect_used, reason = "asked for at the start only, which must not succeed without it")]
static KEY: LazyLock<Vault> = LazyLock::new(|| {
    let fill = |key: &mut [u8; KEY_LENGTH]| rand::fill(key).expect("the system gives no random numbers");
    Vault::new(fill).expect("the system gives no page of memory")
});

/// A long-lived secret that can't be read where it lies: 28 bytes more than its text. Zeroed or not, it says nothing
/// once the process is gone.
pub struct Sealed {
    /// The nonce, the encrypted text, the tag.
    bytes: Box<[u8]>,
}

/// A sealed secret that does not open: it belongs elsewhere, or its memory was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not be opened: it belongs elsewhere, or memory is damaged")]
pub struct Broken;

/// What there is to warn of in how the key is kept.
pub fn shortfall() -> Option<&'static str> {
    KEY.kept().shortfall()
}

impl Sealed {
    /// Seals what is called `name` for its owner, mostly a Workspace.
    ///
    /// # Panics
    ///
    /// Where the system has no random numbers or no memory to give.
    #[expect(clippy::expect_used, reason = "fails for more than 64 GiB alone, which no text here can be")]
    pub fn new(secret: &LongLivedSecret, owner: &str, name: &str) -> Self {
        let text = secret.expose().as_bytes();
        let mut bytes = Zeroizing::new(vec![0; NONCE_LEN]);
        bytes.reserve_exact(text.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(text);
        let sealed = with_key(|key| {
            let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(Unspecified)?;
            let (drawn, tag) = key.seal_in_place_separate_tag(place(owner, name), text)?;
            nonce.copy_from_slice(drawn.as_ref());
            Ok(tag)
        });
        bytes.extend_from_slice(sealed.expect("a secret could not be sealed").as_ref());
        Self { bytes: std::mem::take(&mut *bytes).into_boxed_slice() }
    }

    /// The secret, for the owner and by the name that it was sealed for. Open no longer than it takes to write it.
    pub fn open(&self, owner: &str, name: &str) -> Result<LongLivedSecret, Broken> {
        let (nonce, sealed) = self.bytes.split_first_chunk::<NONCE_LEN>().ok_or(Broken)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            with_key(|key| Ok(key.open_in_place(nonce, place(owner, name), &mut text)?.len())).or(Err(Broken))?;
        text.truncate(length);
        // The same memory, so that there is one copy; shrinking to the text's length moves it, which the allocator
        // of the program zeroes.
        String::from_utf8(std::mem::take(&mut *text)).map(LongLivedSecret::new).or(Err(Broken))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(redacted)")
    }
}

/// The key as the cipher wants it, which is zeroed when it is freed.
fn with_key<R>(act: impl FnOnce(&RandomizedNonceKey) -> Result<R, Unspecified>) -> Result<R, Unspecified> {
    KEY.with_key(|key| act(&RandomizedNonceKey::new(&AES_256_GCM, key)?))
}

/// What a secret is bound to. No owner has a NUL in it, so that no two places are one.
fn place(owner: &str, name: &str) -> Aad<Vec<u8>> {
    Aad::from([owner.as_bytes(), &[0], name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "hunter2 hunter2 hunter2";

    fn sealed() -> Sealed {
        Sealed::new(&LongLivedSecret::new(TEXT), "team/a", "password")
    }

    #[test]
    fn what_was_sealed_opens_in_its_place() {
        for text in ["", "x", TEXT, &"ü".repeat(8_192)] {
            let sealed = Sealed::new(&LongLivedSecret::new(text), "team/a", "password");
            assert_eq!(sealed.open("team/a", "password").unwrap().expose(), text);
            assert_eq!(sealed.bytes.len(), text.len() + 28);
        }
    }

    #[test]
    fn it_opens_nowhere_else() {
        let sealed = sealed();
        for (owner, name) in [("team/b", "password"), ("team/a", "passwor"), ("team/", "apassword"), ("", "")] {
            assert_eq!(sealed.open(owner, name).err(), Some(Broken), "{owner} {name}");
        }
    }

    #[test]
    fn nothing_of_the_text_is_in_it_and_no_two_are_alike() {
        let (one, other) = (sealed(), sealed());
        assert_ne!(one.bytes, other.bytes);
        assert!(!one.bytes.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(format!("{one:?}"), "Sealed(redacted)");
    }

    #[test]
    fn a_changed_one_does_not_open() {
        for at in 0..sealed().bytes.len() {
            let mut sealed = sealed();
            sealed.bytes[at] ^= 1;
            assert_eq!(sealed.open("team/a", "password").err(), Some(Broken), "byte {at}");
        }
        for length in [0, 11, 12, 27] {
            let cut = Sealed { bytes: sealed().bytes[..length].into() };
            assert_eq!(cut.open("team/a", "password").err(), Some(Broken), "{length} bytes");
        }
    }
}
