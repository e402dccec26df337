//! Known secrets are planted, every path is gone with the real process, and all that comes out is looked through.
//!
//! "All" is stdout, stderr, the logs at `trace`, the audit, metrics, error details and every header and trailer, the
//! arguments and the environment of every process, and every file that the broker has written; in every spelling of
//! [`spellings`](super::spellings). Callers get tokens, so those are looked for in all but the answers with them.

mod caller;
mod echo;
mod misplaced;
mod panics;
mod proof;
mod scanner;
mod served;
mod stage;
mod tap;
mod tried;
