//! The JWTs that were issued lately: which may be handed out again, and which are rejected by order. No I/O.

use crate::secret::AccessToken;
use crate::token::Fingerprint;
use std::collections::VecDeque;
use std::fmt;

/// How many are remembered; the oldest is forgotten, and with it that it was rejected.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Issued(VecDeque<Entry>);

/// What a JWT was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) organisation: u64,
    /// `None`: for a user.
    pub(super) application_token: Option<u64>,
}

struct Entry {
    /// `None`: only known by its fingerprint.
    made: Option<Made>,
    fingerprint: String,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Rejected,
}

struct Made {
    owner: Owner,
    jwt: String,
    /// Unix seconds.
    exp: u64,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("fingerprint", &self.fingerprint)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Issued {
    pub(super) fn remember(&mut self, owner: Owner, jwt: &str, exp: u64) {
        self.push(Entry {
            fingerprint: fingerprint(jwt),
            standing: Standing::Good,
            made: Some(Made { owner, jwt: jwt.to_owned(), exp }),
        });
    }

    /// The newest JWT made for the same that outlives `until` (Unix seconds).
    pub(super) fn newest(&self, owner: Owner, until: u64) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .filter_map(|entry| entry.made.as_ref())
            .find(|made| made.owner == owner)
            .filter(|made| made.exp > until)
            .map(|made| made.jwt.as_str())
    }

    pub(super) fn is_rejected(&self, jwt: &str) -> bool {
        let fingerprint = fingerprint(jwt);
        self.0.iter().any(|entry| entry.standing == Standing::Rejected && entry.fingerprint == fingerprint)
    }

    /// Rejects this JWT.
    pub(super) fn use_up(&mut self, jwt: &str) {
        self.reject(&fingerprint(jwt));
    }

    /// Rejects the JWT with this fingerprint, whether it is remembered or not.
    pub(super) fn reject(&mut self, fingerprint: &str) {
        let entry = self.0.iter_mut().find(|entry| entry.fingerprint == fingerprint);
        match entry {
            Some(entry) => entry.standing = Standing::Rejected,
            None => self.push(Entry { made: None, fingerprint: fingerprint.to_owned(), standing: Standing::Rejected }),
        }
    }

    /// Rejects all that were made for an organisation; says how many are.
    pub(super) fn reject_all(&mut self, organisation: u64) -> usize {
        let own = self
            .0
            .iter_mut()
            .filter(|entry| entry.made.as_ref().is_some_and(|made| made.owner.organisation == organisation));
        own.map(|entry| entry.standing = Standing::Rejected).count()
    }

    fn push(&mut self, entry: Entry) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }
}

fn fingerprint(jwt: &str) -> String {
    Fingerprint::of(&AccessToken::new(jwt)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { organisation: 1, application_token: Some(7) };

    #[test]
    fn the_newest_of_the_same_owner_comes_again_while_it_lives_long_enough() {
        let mut issued = Issued::default();
        let user = Owner { application_token: None, ..OWNER };
        issued.remember(OWNER, "old", 300);
        issued.remember(OWNER, "new", 200);
        issued.remember(user, "of a user", 400);
        assert_eq!(issued.newest(OWNER, 199), Some("new"));
        assert_eq!(issued.newest(OWNER, 200), None);
    }

    #[test]
    fn a_token_that_was_never_issued_can_be_rejected() {
        let mut issued = Issued::default();
        issued.reject(&fingerprint("foreign"));
        assert!(issued.is_rejected("foreign"));
        assert!(!issued.is_rejected("another"));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut issued = Issued::default();
        issued.reject("oldest");
        for nth in 1..MAX_REMEMBERED {
            issued.push(Entry { made: None, fingerprint: nth.to_string(), standing: Standing::Good });
        }
        assert!(issued.0.iter().any(|entry| entry.fingerprint == "oldest"));
        issued.reject("newest");
        assert_eq!(issued.0.len(), MAX_REMEMBERED);
        assert!(!issued.0.iter().any(|entry| entry.fingerprint == "oldest"));
    }
}
