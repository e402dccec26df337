//! The one crate of the broker with unsafe code: a page for the key that its secrets are sealed with, and what is asked
//! of the system so that nobody looks into the process.
//!
//! Linux only.

mod harden;
mod vault;

pub use harden::{Shortfall, harden};
pub use vault::{KEY_LENGTH, Kept, Vault};
