//! The grants of tests whose subject is something else.

use std::path::Path;
use token_broker::config::{Config, Environment};
use token_broker::policy::Policy;

/// For a configuration. Ends with a line's end, and may stand wherever a table may begin.
pub(crate) const ALL_TO_LOOPBACK: &str = "[[grants]]\ncaller = \"loopback\"\nworkspaces = [\"**\"]\n\
                                          actions = [\"get\", \"watch\", \"report\", \"health\"]\n";

/// The same as a policy.
pub(crate) fn all_to_loopback() -> Policy {
    policy(ALL_TO_LOOPBACK)
}

/// The policy that the grants of a configuration make.
pub(crate) fn policy(text: &str) -> Policy {
    Config::parse(text, Path::new("."), &Environment::default()).unwrap().policy()
}
