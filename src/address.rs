//! Where an address or a host name leads, and whether a URL may be spoken to: the one judgement that the configuration
//! makes when it is read and the HTTP client makes again before each request and each connection. Pure.
//!
//! Promises, each a row of `tests/it/config/urls.rs` or of the tests below:
//! * https only, unless the host is loopback or listed in `allow_private`.
//! * What is listed is opened, and nothing beside it: a listed name may lead into private space, but not to a
//!   link-local or reserved address; whoever wants that must list the address itself.
//! * A cloud's metadata service is never an upstream, nor a proxy, under any of its names and spellings, listed or not.
//! * A form that hides an IPv4 address in an IPv6 one is no milder than what it hides.
//!
//! It must not know what a name resolves to: that is asked, and judged here again, when it is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Where an address or a name leads; what comes later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Anyone's network.
    Public,
    /// This machine or this site.
    Private,
    /// Link-local, multicast, reserved, or a form that hides another address.
    Special,
    /// The metadata service of a cloud, which hands out credentials.
    Metadata,
}

/// What is wrong with the URL of an upstream or of a proxy. Quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Objection {
    /// A user name or password before the host.
    #[error("must not hold a user name or password")]
    UserInfo,
    /// A query.
    #[error("must not hold a query")]
    Query,
    /// A fragment.
    #[error("must not hold a fragment")]
    Fragment,
    /// A path, where there is none to have.
    #[error("must not have a path")]
    Path,
    /// Port 0, which nobody listens on.
    #[error("must not name port 0")]
    Port,
    /// Neither http nor https, or no host.
    #[error("must be an http or https URL with a host")]
    Scheme,
    /// Plain http to somewhere else.
    #[error("must be https (http only for a loopback host or one in allow_private)")]
    Plaintext,
    /// A host that ends with a dot: the same place under a name that compares as another.
    #[error("must not end its host with a dot")]
    TrailingDot,
    /// A host that is read as another text than is written.
    #[error(
        "must name its host plainly: a name in ASCII, an IPv4 address as four decimal numbers, no %, no empty port"
    )]
    Disguised,
    /// Spaces, tabs, line breaks or control characters, which URL parsers drop.
    #[error("must not hold spaces, tabs or line breaks")]
    Blank,
    /// A backslash, which some parsers take for a slash and others for a part of the host.
    #[error("must not hold a backslash")]
    Backslash,
    /// Too few or too many slashes before the host.
    #[error("must have two slashes before its host")]
    Slashes,
    /// Anything else that a URL can't hold.
    #[error("must hold only what a URL may hold")]
    Characters,
    /// A name that means something in the local network alone.
    #[error("must not be a name of the local network unless allow_private lists it")]
    LocalName,
    /// An address literal in private space.
    #[error("must not be a private address unless allow_private lists it")]
    PrivateAddress,
    /// An address literal that no API has.
    #[error("must not be a link-local, multicast or reserved address unless allow_private lists that very address")]
    SpecialAddress,
    /// A metadata service.
    #[error("must not be a cloud's metadata service, which allow_private can't open either")]
    Metadata,
}

/// An entry of `allow_private` that is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a host name or an IP address, without scheme, port or range")]
pub struct NotAHost;

/// What a host is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Listed,
    Loopback,
    Other,
}

/// The hosts that may be private.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<Host>);

// === impl Hosts ===

impl Hosts {
    /// Names, and addresses with or without brackets.
    pub fn parse(entries: &[String]) -> Result<Self, NotAHost> {
        entries.iter().map(|entry| host(entry)).collect::<Result<_, _>>().map(Self)
    }

    /// The operator names the proxy, so it may be private as well.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<&Url>) -> Self {
        self.0.extend(proxy.and_then(Url::host).map(|host| host.to_owned()));
        self
    }

    /// All that speaks against this URL of an upstream.
    pub fn objections(&self, url: &Url) -> Vec<Objection> {
        let mut found = extras(url);
        let Some(host) = url.host().map(|host| host.to_owned()) else {
            found.push(Objection::Scheme);
            return found;
        };
        let standing = self.standing(&host);
        match (url.scheme(), standing) {
            ("https", _) | ("http", Standing::Listed | Standing::Loopback) => {}
            ("http", Standing::Other) => found.push(Objection::Plaintext),
            _ => found.push(Objection::Scheme),
        }
        found.extend(against_host(&host, standing == Standing::Other));
        found
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
    pub fn may_connect(&self, name: &str, address: IpAddr) -> bool {
        match self.standing(&Host::Domain(name.to_owned())) {
            Standing::Listed => reach(address) <= Reach::Private,
            Standing::Loopback => address.is_loopback(),
            Standing::Other => reach(address) == Reach::Public,
        }
    }
}

/// A host in the form in which hosts are compared.
pub fn host(text: &str) -> Result<Host, NotAHost> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(Host::Ipv6(address));
    }
    match Host::parse(text) {
        Ok(Host::Domain(name)) if name.ends_with('.') => Err(NotAHost),
        Ok(Host::Ipv6(address)) => Ok(Host::Ipv6(address)),
        Ok(host) if !text.contains(['/', ':', '%', '*']) => Ok(host),
        Ok(_) | Err(_) => Err(NotAHost),
    }
}

/// All that speaks against this URL of a proxy. May be plain and private: the operator names it, and what goes through
/// it is https.
pub fn proxy_objections(url: &Url) -> Vec<Objection> {
    let mut found = extras(url);
    let Some(host) = url.host().map(|host| host.to_owned()) else {
        found.push(Objection::Scheme);
        return found;
    };
    if !matches!(url.scheme(), "http" | "https") {
        found.push(Objection::Scheme);
    } else if url.path() != "/" {
        found.push(Objection::Path);
    }
    let is_worse = reach_of(&host) > Reach::Private;
    found.extend(against_host(&host, is_worse));
    found
}

/// Where a text and the URL that was read from it differ in a way that could lead someone astray. `Url` mends what is
/// written; what it mends, another reader (a person, a proxy, a log) may take for something else.
pub fn spelling(text: &str, url: &Url) -> Vec<Objection> {
    let mut found: Vec<Objection> = Vec::new();
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        found.push(Objection::Blank);
    }
    if text.contains('\\') {
        found.push(Objection::Backslash);
    }
    let slashes = text.split_once(':').map(|(_scheme, rest)| rest);
    let authority = slashes.and_then(|rest| rest.strip_prefix("//")).filter(|rest| !rest.starts_with(['/', '\\']));
    match authority {
        None => found.push(Objection::Slashes),
        Some(rest) if !is_plain(rest, url) => found.push(Objection::Disguised),
        Some(_) => {}
    }
    if found.is_empty() && !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.push(Objection::Characters);
    }
    found
}

/// Whether the host that is written before the path is the one that was read.
fn is_plain(rest: &str, url: &Url) -> bool {
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let written = authority.rsplit_once('@').map_or(authority, |(_user, written)| written);
    let (written, port) = match written.rsplit_once(':') {
        Some((before, port)) if !port.contains(']') => (before, Some(port)),
        _ => (written, None),
    };
    if port.is_some_and(str::is_empty) {
        return false;
    }
    match url.host() {
        Some(Host::Domain(name)) => written.eq_ignore_ascii_case(name),
        Some(Host::Ipv4(address)) => written == address.to_string(),
        Some(Host::Ipv6(_)) => written.is_ascii(),
        None => false,
    }
}

/// What no URL of ours may have.
fn extras(url: &Url) -> Vec<Objection> {
    let has_user = !url.username().is_empty() || url.password().is_some();
    let all = [
        has_user.then_some(Objection::UserInfo),
        url.query().and(Some(Objection::Query)),
        url.fragment().and(Some(Objection::Fragment)),
        (url.port() == Some(0)).then_some(Objection::Port),
    ];
    all.into_iter().flatten().collect()
}

fn against_host(host: &Host, must_be_public: bool) -> Vec<Objection> {
    let is_name = matches!(host, Host::Domain(_));
    let dotted = matches!(host, Host::Domain(name) if name.ends_with('.'));
    let led_astray = match reach_of(host) {
        Reach::Metadata => Some(Objection::Metadata),
        Reach::Special if must_be_public => Some(Objection::SpecialAddress),
        Reach::Private if must_be_public && is_name => Some(Objection::LocalName),
        Reach::Private if must_be_public => Some(Objection::PrivateAddress),
        Reach::Public | Reach::Private | Reach::Special => None,
    };
    dotted.then_some(Objection::TrailingDot).into_iter().chain(led_astray).collect()
}

fn reach_of(host: &Host) -> Reach {
    match host {
        Host::Domain(name) => reach_of_name(name),
        Host::Ipv4(address) => reach((*address).into()),
        Host::Ipv6(address) => reach((*address).into()),
    }
}

/// The names of metadata services; names below them count too.
const METADATA_NAMES: [&str; 9] = [
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
];

/// Names that no public resolver answers: RFC 6761, 6762, 8375, and what ICANN set apart for private use.
const LOCAL_NAMES: [&str; 6] = ["localhost", "localdomain", "local", "internal", "home.arpa", "intranet"];

/// What a name says of itself. What it resolves to is judged apart.
fn reach_of_name(name: &str) -> Reach {
    let name = name.trim_end_matches('.');
    let below =
        |known: &&str| name.strip_suffix(*known).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    if METADATA_NAMES.iter().any(below) {
        Reach::Metadata
    } else if !name.contains('.') || LOCAL_NAMES.iter().any(below) {
        Reach::Private
    } else {
        Reach::Public
    }
}

/// Where an address leads, by the IANA special-purpose registries (RFC 6890) and the clouds' metadata addresses.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // Nearly every cloud; Tencent; AWS's containers; Oracle; Alibaba and Azure, in otherwise ordinary space.
        [169, 254, 169, 254]
        | [169, 254, 0, 23]
        | [169, 254, 170, 2 | 23]
        | [192, 0, 0, 192]
        | [100, 100, 100, 200]
        | [168, 63, 129, 16] => Reach::Metadata,
        // This network, link-local, multicast and all above.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        // Protocol assignments, documentation, the old 6to4 relays.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Special,
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
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => inside(high, low),
        // Loopback.
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Mapped, compatible and translated forms mean an IPv4 address, and are no way to write one.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            inside(high, low).max(Reach::Special)
        }
        // AWS's metadata service and its containers', Google's, and the link-local one.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254 | 0x23]
        | [0xfd20, 0x0ce, 0, 0, 0, 0, 0, 0x254]
        | [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe] => Reach::Metadata,
        // Teredo and other protocols, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Special,
        // Local-use NAT64 leads where the site's gateway says, most likely to the address at its end.
        [0x64, 0xff9b, 1, _, _, _, high, low] if inside(high, low) == Reach::Metadata => Reach::Metadata,
        // What else is there, and unique local.
        [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        // Link-local, multicast, and all that nobody has assigned.
        [..] => Reach::Special,
    }
}

/// Where the IPv4 address in an IPv6 one leads.
fn inside(high: u16, low: u16) -> Reach {
    reach_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests;
