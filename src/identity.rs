//! Who asks. Pure.

use std::net::IpAddr;

/// The authenticated identity of who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A process on this machine, over plaintext loopback: not told apart from any other yet.
    Loopback(IpAddr),
}
