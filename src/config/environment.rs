//! The environment as a value: read once, so that tests need no process-wide state.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// The variables that a configuration may draw on. `Debug` shows no value, since some are secrets.
#[derive(Default, Clone)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The names that begin with `prefix`, in order.
    pub(super) fn names_with(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> = self
            .0
            .keys()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let pairs = variables.into_iter();
        Self(pairs.map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}
