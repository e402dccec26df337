//! Resolves names for the client, and gives it only the addresses that may be connected to: what a name leads to is
//! judged at the moment of connecting, so a name that changes its mind wins nothing.

use crate::address::Hosts;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// More addresses than this of one name are not tried.
const MAX_ADDRESSES: usize = 16;

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
