//! Opaque refresh tokens, which know from which they come. Pure.
//!
//! A token that was used up and comes again was stolen, or an answer was lost; the server can't tell, so all tokens
//! that come from the same first one end (RFC 9700 §4.14.2).

use std::collections::VecDeque;
use std::fmt;

/// How many are remembered; the oldest is forgotten, which ends it.
const MAX_REMEMBERED: usize = 10_000;

/// What a refresh token stands for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) client: String,
    pub(super) subject: String,
    pub(super) scope: Vec<String>,
    /// The access token that was given with it, where that matters.
    pub(super) access: Option<String>,
    /// The number of the first token of the family.
    pub(super) family: u64,
    /// Unix seconds.
    pub(super) exp: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    UsedUp,
    Ended,
}

struct Entry {
    text: String,
    holder: Holder,
    standing: Standing,
}

/// All refresh tokens of one simulator.
#[derive(Default)]
pub(super) struct Families(VecDeque<Entry>);

impl Families {
    pub(super) fn insert(&mut self, text: String, holder: Holder) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Entry { text, holder, standing: Standing::Good });
    }

    /// Whom a token is for, where it is good now and this client's. One that was used up ends its family.
    pub(super) fn present(&mut self, text: &str, client: &str, now: u64) -> Option<Holder> {
        let entry = self.0.iter().find(|entry| entry.text == text && entry.holder.client == client)?;
        let family = entry.holder.family;
        match entry.standing {
            Standing::Good => (now < entry.holder.exp).then(|| entry.holder.clone()),
            Standing::UsedUp => {
                self.end(|holder| holder.family == family);
                None
            }
            Standing::Ended => None,
        }
    }

    pub(super) fn use_up(&mut self, text: &str) {
        let entry = self.0.iter_mut().find(|entry| entry.text == text);
        if let Some(entry) = entry {
            entry.standing = Standing::UsedUp;
        }
    }

    /// Ends every token that fits; says how many did.
    pub(super) fn end(&mut self, fits: impl Fn(&Holder) -> bool) -> usize {
        let fitting = self.0.iter_mut().filter(|entry| fits(&entry.holder));
        fitting.map(|entry| entry.standing = Standing::Ended).count()
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Families").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(family: u64) -> Holder {
        let (client, subject) = ("client".to_owned(), "subject".to_owned());
        Holder { client, subject, scope: Vec::new(), access: None, family, exp: 100 }
    }

    fn is_good(families: &mut Families, text: &str) -> bool {
        families.present(text, "client", 99).is_some()
    }

    #[test]
    fn a_token_is_good_for_its_client_until_it_expires() {
        let mut families = Families::default();
        families.insert("a".to_owned(), holder(1));
        assert!(is_good(&mut families, "a"));
        assert!(families.present("a", "client", 100).is_none());
        assert!(families.present("a", "another", 99).is_none());
        assert!(families.present("b", "client", 99).is_none());
    }

    #[test]
    fn one_that_comes_again_ends_its_family_and_no_other() {
        let mut families = Families::default();
        families.insert("first".to_owned(), holder(1));
        families.insert("other".to_owned(), holder(2));
        families.use_up("first");
        families.insert("second".to_owned(), holder(1));
        assert!(is_good(&mut families, "second"));
        assert!(!is_good(&mut families, "first"));
        assert!(!is_good(&mut families, "second"));
        assert!(is_good(&mut families, "other"));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut families = Families::default();
        for nth in 0..=MAX_REMEMBERED {
            families.insert(nth.to_string(), holder(1));
        }
        assert!(!is_good(&mut families, "0"));
        assert!(is_good(&mut families, "1"));
    }
}
