//! Who is let in: how many connections at once, in all and of one peer, and how fast one peer may open them.
//!
//! Promises: no count is ever above its cap; a place is given back when its [`Place`] is dropped; memory is bounded by
//! the cap and [`MOST_REMEMBERED`], however many addresses come. Must not know what a connection does.

use super::PeerAddress;
use super::limits::Limits;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Peers without a connection whose haste is remembered. Beyond it they are all forgotten, so that a flood of addresses
/// costs one sweep per this many connections.
const MOST_REMEMBERED: usize = 16 * 1024;

/// The places of one listener. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    most_per_peer: usize,
    /// Between two connections of one peer, on the long run.
    interval: Duration,
    /// How far ahead of that a peer may run.
    ahead: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    open: usize,
    peers: HashMap<Party, Share>,
}

/// All that counts as one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Party {
    Network(IpAddr),
    User(u32),
}

/// What one peer has.
#[derive(Debug)]
struct Share {
    open: usize,
    /// When all that it opened has been worked off at [`Inner::interval`] each: the generic cell rate algorithm, a
    /// token bucket in one number.
    worked_off: Instant,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The listener has as many as it may.
    Full,
    /// The peer has as many as it may.
    PeerFull,
    /// The peer opens them too fast.
    TooFast,
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    inner: Arc<Inner>,
    peer: Party,
}

impl Refusal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "too many connections",
            Self::PeerFull => "too many connections of one peer",
            Self::TooFast => "a peer opens connections too fast",
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let interval = Duration::from_secs(1) / limits.peer_connection_rate.max(1);
        Self(Arc::new(Inner {
            most: limits.max_connections,
            most_per_peer: limits.max_connections_per_peer,
            interval,
            ahead: interval * limits.peer_connection_burst,
            taken: Mutex::default(),
        }))
    }

    /// Takes a place for a connection that came from this address.
    pub(super) fn admit(&self, from: PeerAddress, now: Instant) -> Result<Place, Refusal> {
        let inner = &*self.0;
        let peer = match from {
            PeerAddress::Tcp(address) => Party::Network(one_peer(address.ip())),
            PeerAddress::Unix { uid } => Party::User(uid),
        };
        let mut taken = inner.taken();
        if taken.open >= inner.most {
            return Err(Refusal::Full);
        }
        if taken.peers.len() >= inner.most.saturating_add(MOST_REMEMBERED) {
            taken.peers.retain(|_, share| share.open > 0);
        }
        let share = taken.peers.entry(peer).or_insert(Share { open: 0, worked_off: now });
        if share.open >= inner.most_per_peer {
            return Err(Refusal::PeerFull);
        }
        let worked_off = share.worked_off.max(now) + inner.interval;
        if worked_off > now + inner.ahead {
            return Err(Refusal::TooFast);
        }
        share.worked_off = worked_off;
        share.open += 1;
        taken.open += 1;
        Ok(Place { inner: Arc::clone(&self.0), peer })
    }
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.open = taken.open.saturating_sub(1);
        if let Some(share) = taken.peers.get_mut(&self.peer) {
            share.open = share.open.saturating_sub(1);
            if share.open == 0 && share.worked_off <= Instant::now() {
                taken.peers.remove(&self.peer);
            }
        }
    }
}

/// The address that stands for a peer: an IPv6 host has a whole /64 to choose from (RFC 4291 §2.5.1), so that counts as
/// one.
fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from(address: impl Into<IpAddr>) -> PeerAddress {
        PeerAddress::Tcp((address.into(), 1).into())
    }

    fn admission(most: usize, most_per_peer: usize) -> Admission {
        let limits = Limits { max_connections: most, max_connections_per_peer: most_per_peer, ..Limits::default() };
        Admission::new(&limits)
    }

    #[tokio::test(start_paused = true)]
    async fn no_cap_is_passed_and_places_come_back() {
        let admission = admission(3, 2);
        let now = Instant::now();
        let first = admission.admit(from(ip("192.0.2.1")), now).unwrap();
        let second = admission.admit(from(ip("192.0.2.1")), now).unwrap();
        assert_eq!(admission.admit(from(ip("192.0.2.1")), now).unwrap_err(), Refusal::PeerFull);
        let third = admission.admit(from(ip("192.0.2.2")), now).unwrap();
        assert_eq!(admission.admit(from(ip("192.0.2.3")), now).unwrap_err(), Refusal::Full);
        drop(third);
        let third = admission.admit(from(ip("192.0.2.3")), now).unwrap();
        drop(first);
        drop(third);
        let again = admission.admit(from(ip("192.0.2.1")), now).unwrap();
        assert_eq!(admission.admit(from(ip("192.0.2.1")), now).unwrap_err(), Refusal::PeerFull);
        drop((second, again));
        assert_eq!(admission.0.taken().open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_them_too_fast_is_refused_until_time_has_passed() {
        let limits = Limits { peer_connection_rate: 2, peer_connection_burst: 4, ..Limits::default() };
        let admission = Admission::new(&limits);
        let now = Instant::now();
        for _ in 0..4 {
            drop(admission.admit(from(ip("192.0.2.1")), now).unwrap());
        }
        for _ in 0..100 {
            assert_eq!(
                admission.admit(from(ip("192.0.2.1")), now).unwrap_err(),
                Refusal::TooFast,
                "refusals cost nothing"
            );
        }
        drop(admission.admit(from(ip("192.0.2.2")), now).unwrap());
        let later = now + SECOND;
        for _ in 0..2 {
            drop(admission.admit(from(ip("192.0.2.1")), later).unwrap());
        }
        assert_eq!(admission.admit(from(ip("192.0.2.1")), later).unwrap_err(), Refusal::TooFast);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_gone_and_in_no_hurry_is_forgotten() {
        let admission = admission(10, 10);
        let place = admission.admit(from(ip("192.0.2.1")), Instant::now()).unwrap();
        tokio::time::advance(SECOND).await;
        drop(place);
        assert!(admission.0.taken().peers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_fills_a_bounded_table_and_forgets_nobody_who_is_there() {
        let admission = admission(10, 1);
        let now = Instant::now();
        let stays = admission.admit(from(ip("192.0.2.1")), now).unwrap();
        for n in 0..100_000_u32 {
            drop(admission.admit(from(n.to_be_bytes()), now).unwrap());
            assert!(admission.0.taken().peers.len() <= 10 + MOST_REMEMBERED);
        }
        assert_eq!(admission.admit(from(ip("192.0.2.1")), now).unwrap_err(), Refusal::PeerFull);
        drop(stays);
    }

    #[tokio::test(start_paused = true)]
    async fn users_of_a_unix_socket_are_peers_too() {
        let admission = admission(10, 1);
        let now = Instant::now();
        let first = admission.admit(PeerAddress::Unix { uid: 1 }, now).unwrap();
        assert_eq!(admission.admit(PeerAddress::Unix { uid: 1 }, now).unwrap_err(), Refusal::PeerFull);
        let other = admission.admit(PeerAddress::Unix { uid: 2 }, now).unwrap();
        drop(first);
        let again = admission.admit(PeerAddress::Unix { uid: 1 }, now).unwrap();
        drop((other, again));
    }

    #[test]
    fn addresses_that_one_host_can_have_are_one_peer() {
        let rows = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ];
        for (address, peer) in rows {
            assert_eq!(one_peer(ip(address)), ip(peer), "{address}");
        }
    }
}
