//! Which hosts may be named and which addresses may be connected to: the guard against requests that are led astray
//! by a URL or by DNS.
//!
//! A name that is listed in `allow_private` may lead into private space, but never to a link-local or metadata address:
//! whoever wants that must list the address itself.

use super::options::Error;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};

/// More addresses than this of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anyone's network.
    Public,
    /// This machine or this site.
    Private,
    /// Link-local, metadata, multicast, reserved, or a form that hides another address.
    Never,
}

/// What a host is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Listed,
    Loopback,
    Other,
}

/// The hosts that may be private.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<Host>);

impl Hosts {
    pub(super) fn parse(entries: &[String]) -> Result<Self, Error> {
        entries
            .iter()
            .map(|entry| parse_host(entry).ok_or_else(|| Error::AllowPrivate(entry.clone())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The operator names the proxy, so it may be private as well.
    pub(super) fn with_proxy(mut self, proxy: Option<&Url>) -> Self {
        let host = proxy.and_then(Url::host_str).and_then(parse_host);
        self.0.extend(host);
        self
    }

    /// Judges a URL by its text alone.
    pub(super) fn check(&self, url: &Url) -> Result<(), Error> {
        let Some(host) = url.host() else {
            return Err(Error::Scheme);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::QueryOrFragment);
        }
        let host = host.to_owned();
        let standing = self.standing(&host);
        match (url.scheme(), standing) {
            ("https", _) | ("http", Standing::Listed | Standing::Loopback) => {}
            ("http", Standing::Other) => return Err(Error::Plaintext),
            _ => return Err(Error::Scheme),
        }
        match (address_of(&host), standing) {
            (Some(address), Standing::Other) if reach(address) != Reach::Public => Err(Error::PrivateAddress),
            _ => Ok(()),
        }
    }

    fn standing(&self, host: &Host) -> Standing {
        let loopback = match host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        if self.0.contains(host) {
            Standing::Listed
        } else if loopback {
            Standing::Loopback
        } else {
            Standing::Other
        }
    }

    /// Judges an address that a name resolved to.
    fn may_connect(&self, name: &str, address: IpAddr) -> bool {
        match self.standing(&Host::Domain(name.to_owned())) {
            Standing::Listed => reach(address) != Reach::Never,
            Standing::Loopback => address.is_loopback(),
            Standing::Other => reach(address) == Reach::Public,
        }
    }
}

fn parse_host(text: &str) -> Option<Host> {
    let bare: Result<Ipv6Addr, _> = text.parse();
    match bare {
        Ok(address) => Some(Host::Ipv6(address)),
        Err(_) => Host::parse(text).ok(),
    }
}

fn address_of(host: &Host) -> Option<IpAddr> {
    match *host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// Where an address leads, by the IANA special-purpose registries (RFC 6890) and the clouds' metadata addresses.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // This network, link-local, multicast and all above.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        // Protocol assignments, documentation, the old 6to4 relays.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // The metadata services of Alibaba and Azure, in otherwise ordinary space.
        | [100, 100, 100, 200]
        | [168, 63, 129, 16] => Reach::Never,
        // Loopback, private use, shared address space, benchmarking.
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [198, 18 | 19, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            reach_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        // AWS's metadata service; Teredo, documentation.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0x2001, 0 | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Never,
        // Loopback, unique local, local-use NAT64.
        [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff, ..] | [0x64, 0xff9b, 1, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        // Mapped and compatible forms, link-local, multicast, and all that nobody has assigned.
        [..] => Reach::Never,
    }
}

/// Asks for the addresses of a name.
pub(super) trait Lookup: Send + Sync {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The machine's resolver.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Every address of the name leads where it may not.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no address that may be connected to")]
pub(super) struct Refused;

/// Resolves, drops what may not be connected to, and gives the rest to the connector, which resolves nothing itself.
pub(super) struct Resolver {
    hosts: Arc<Hosts>,
    lookup: Arc<dyn Lookup>,
}

impl Resolver {
    pub(super) fn new(hosts: Hosts, lookup: Arc<dyn Lookup>) -> Self {
        Self { hosts: Arc::new(hosts), lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let hosts = Arc::clone(&self.hosts);
        let found = self.lookup.addresses(name.clone());
        Box::pin(async move {
            let found = found.await?;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| hosts.may_connect(&name, *address))
                .take(MAX_ADDRESSES)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if allowed.is_empty() {
                return Err(Refused.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
