//! Many patterns, and quickly those that fit a name: by what they begin with, so that the time it takes depends on how
//! many of them begin as the name does, and not on how many there are.

use super::glob::Glob;
use std::collections::BTreeMap;
use std::iter::successors;

/// Patterns, each with what belongs to it.
#[derive(Debug)]
pub(super) struct Index<T> {
    /// In the order of their prefixes; none stands twice.
    entries: Box<[Entry<T>]>,
}

/// The patterns that begin with the same literal text.
#[derive(Debug)]
struct Entry<T> {
    prefix: Box<[u8]>,
    /// The one with the longest prefix that this one's begins with.
    shorter: Option<usize>,
    globs: Vec<(Glob, T)>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { entries: Box::default() }
    }
}

impl<T> Index<T> {
    pub(super) fn new(globs: impl IntoIterator<Item = (Glob, T)>) -> Self {
        let mut by_prefix: BTreeMap<Box<[u8]>, Vec<(Glob, T)>> = BTreeMap::new();
        for (glob, item) in globs {
            by_prefix.entry(glob.prefix().into()).or_default().push((glob, item));
        }
        // Those that begin the next one, the longest last.
        let mut begun: Vec<(usize, Box<[u8]>)> = Vec::new();
        let mut entries = Vec::with_capacity(by_prefix.len());
        for (prefix, globs) in by_prefix {
            while begun.pop_if(|(_, shorter)| !prefix.starts_with(shorter)).is_some() {}
            let shorter = begun.last().map(|(at, _)| *at);
            begun.push((entries.len(), prefix.clone()));
            entries.push(Entry { prefix, shorter, globs });
        }
        Self { entries: entries.into() }
    }

    /// What belongs to the patterns that fit. Every prefix that begins the name is, in the order of prefixes, the last
    /// one that does not come behind the name, or begins that one.
    pub(super) fn fitting<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a T> {
        let behind = self.entries.partition_point(|entry| *entry.prefix <= *name);
        let last = behind.checked_sub(1).and_then(|at| self.entries.get(at));
        let entries = successors(last, |entry| self.entries.get(entry.shorter?));
        let begun = entries.filter_map(|entry| name.strip_prefix(&*entry.prefix).map(|rest| (entry, rest)));
        begun.flat_map(|(entry, rest)| {
            let fitting = entry.globs.iter().filter(move |(glob, _)| glob.fits_after_prefix(rest));
            fitting.map(|(_, item)| item)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text, b"/").unwrap()
    }

    proptest! {
        /// The same as asking each of them.
        #[test]
        fn none_is_missed_and_none_is_added(
            texts in prop::collection::vec("([ab*]|[ab]{2}|\\*\\*)(/([ab*]|[ab]{2}|\\*\\*)){0,3}", 0..30),
            name in "[ab]{1,3}(/[ab]{1,3}){0,3}",
        ) {
            let index = Index::new(texts.iter().map(|text| (glob(text), text)));
            let mut found: Vec<_> = index.fitting(name.as_bytes()).collect();
            let mut expected: Vec<_> = texts.iter().filter(|text| glob(text).fits(&name)).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found.into_iter().copied().collect::<Vec<_>>(), expected);
        }
    }
}
