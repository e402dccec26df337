//! `[[listeners]]`: where callers come in, and by which one means they are told apart there.
//!
//! What makes no sense together is refused key by key: a listener that lets in more than its author meant is worse than
//! none.

use super::problem::Place;
use super::reader::{Section, Value};
use super::scalar::{boolean, choice, parsed};
use super::settings::Server;
use crate::identity::TrustDomain;
use crate::policy::CallerPattern;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The keys of a listener and of its TLS.
pub(super) const KEYS: &[&str] = &[
    "name",
    "address",
    "callers",
    "tls",
    "trust_domains",
    "issuers",
    "proxies",
    "unix_mode",
    "plaintext_lets_the_network_read_tokens",
];
pub(super) const TLS_KEYS: &[&str] = &["certificate_file", "key_file", "client_ca_file", "crl_file"];

/// The names of those that `[server]` makes.
const TAKEN_NAMES: [&str; 2] = ["grpc", "probe"];
const LONGEST_NAME: usize = 32;
/// What the path of a Unix socket stands behind.
const UNIX: &str = "unix:";
/// The longest path of a Unix socket in bytes: the system takes 107, and the socket is made beside its place first.
const LONGEST_UNIX_PATH: usize = 100;
const DEFAULT_MODE: u32 = 0o660;
const LARGEST_MODE: u32 = 0o777;

const PLAINTEXT: &str = "plaintext_lets_the_network_read_tokens";

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What it is called in logs, metrics and the audit.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// How its callers are told apart.
    pub callers: Callers,
    /// The files of its TLS.
    pub tls: Option<TlsFiles>,
    /// Where it stands.
    pub place: Place,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its file.
        path: PathBuf,
        /// The mode of that.
        mode: u32,
    },
}

/// The one means by which a listener tells its callers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// None: all of loopback is one caller.
    Loopback,
    /// A client certificate.
    Certificate {
        /// Whose SPIFFE IDs are taken; any, if there is none.
        trust_domains: Vec<TrustDomain>,
    },
    /// The user at the other end of a Unix socket.
    PeerCredentials,
    /// What an Envoy says of its own client's certificate.
    ForwardedCertificate {
        /// Who is believed.
        proxies: Vec<CallerPattern>,
        /// Whose SPIFFE IDs are taken; any, if there is none.
        trust_domains: Vec<TrustDomain>,
    },
    /// A token with each request.
    Bearer {
        /// The names of the issuers that count here; all, if there is none.
        issuers: Vec<String>,
    },
}

/// The files of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain that is shown.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// What they have revoked.
    pub crl: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loopback,
    Certificate,
    PeerCredentials,
    ForwardedCertificate,
    Bearer,
}

const KINDS: [(&str, Kind); 5] = [
    ("certificate", Kind::Certificate),
    ("bearer", Kind::Bearer),
    ("peer_credentials", Kind::PeerCredentials),
    ("forwarded_certificate", Kind::ForwardedCertificate),
    ("loopback", Kind::Loopback),
];

/// Keys that have a meaning for some kinds only.
const KEYS_OF_KINDS: [(&str, &[Kind]); 4] = [
    ("trust_domains", &[Kind::Certificate, Kind::ForwardedCertificate]),
    ("issuers", &[Kind::Bearer]),
    ("proxies", &[Kind::ForwardedCertificate]),
    (PLAINTEXT, &[Kind::Bearer]),
];

// === impl Listener ===

impl Listener {
    /// `None` where a problem left nothing to put in place.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let name_expected = "a name of a-z, 0-9 and '-', at most 32 of them";
        let name = section.require("name", name_expected, parsed(name_expected, name));
        let address_expected = "an IP address and a port, such as \"0.0.0.0:7800\", or \"unix:\" and an absolute path";
        let address = section.require("address", address_expected, parsed(address_expected, address));
        let kind = kind(section);
        let mode = section.read("unix_mode", mode);
        let tls = tls(section);
        let trust_domains = list(section, "trust_domains", "the names of trust domains", TrustDomain::parse);
        let proxies = list(section, "proxies", "patterns of callers", proxy);
        let issuers = list(section, "issuers", "names of [[issuers]]", issuer);
        let plaintext = section.read(PLAINTEXT, boolean()).unwrap_or(false);
        let (kind, address) = (kind?, address?);
        refuse_meaningless(section, kind, &address);
        refuse_address(section, kind, &address);
        refuse_transport(section, kind, &address, plaintext);
        if kind == Kind::ForwardedCertificate && proxies.is_empty() && !section.has("proxies") {
            section.problem_with("proxies", "is missing; expected the names of the Envoys that are believed");
        }
        let callers = match kind {
            Kind::Loopback => Callers::Loopback,
            Kind::Certificate => Callers::Certificate { trust_domains },
            Kind::PeerCredentials => Callers::PeerCredentials,
            Kind::ForwardedCertificate => Callers::ForwardedCertificate { proxies, trust_domains },
            Kind::Bearer => Callers::Bearer { issuers },
        };
        let address = match address {
            ListenAddress::Unix { path, .. } => ListenAddress::Unix { path, mode: mode.unwrap_or(DEFAULT_MODE) },
            tcp @ ListenAddress::Tcp(_) => tcp,
        };
        Some(Self { name: name?, address, callers, tls, place: section.place() })
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        let kind = match self.callers {
            Callers::Loopback => Kind::Loopback,
            Callers::Certificate { .. } => Kind::Certificate,
            Callers::PeerCredentials => Kind::PeerCredentials,
            Callers::ForwardedCertificate { .. } => Kind::ForwardedCertificate,
            Callers::Bearer { .. } => Kind::Bearer,
        };
        kind.as_str()
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

// === reading ===

fn name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if !(1..=LONGEST_NAME).contains(&text.len()) || !text.bytes().all(allowed) {
        Err("expected a name of a-z, 0-9 and '-', at most 32 of them".to_owned())
    } else if TAKEN_NAMES.contains(&text) {
        Err("is the name of a listener of [server]; choose another".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn issuer(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
    if fits { Ok(text.to_owned()) } else { Err("expected the name of one of [[issuers]]") }
}

/// Who fits may say that he is anybody.
fn proxy(text: &str) -> Result<CallerPattern, String> {
    let pattern = CallerPattern::parse(text).map_err(|invalid| invalid.to_string())?;
    if pattern.is_anybody() {
        return Err("would let whoever can connect say that he is somebody else; name the Envoys".to_owned());
    }
    Ok(pattern)
}

fn address(text: &str) -> Result<ListenAddress, String> {
    let Some(path) = text.strip_prefix(UNIX) else {
        let expected = "expected an IP address and a port, such as \"0.0.0.0:7800\", or \"unix:\" and an absolute path";
        return text.parse().map(ListenAddress::Tcp).map_err(|_unread: std::net::AddrParseError| expected.to_owned());
    };
    let is_plain = Path::new(path).is_absolute() && !path.ends_with('/') && !path.contains('\0');
    if !is_plain {
        return Err("expected an absolute path behind \"unix:\"".to_owned());
    }
    if path.len() > LONGEST_UNIX_PATH {
        return Err("the path of a Unix socket may be at most 100 bytes long".to_owned());
    }
    Ok(ListenAddress::Unix { path: PathBuf::from(path), mode: DEFAULT_MODE })
}

fn kind(section: &mut Section<'_, '_>) -> Option<Kind> {
    let expected = "\"certificate\", \"bearer\", \"peer_credentials\", \"forwarded_certificate\" or \"loopback\"";
    section.require("callers", expected, choice(&KINDS))
}

fn mode(value: Value<'_>) -> Result<u32, String> {
    let expected = "the mode of a file, such as \"0660\" or 0o660";
    let mode = match value {
        Value::Text(text) => {
            Some(text).filter(|text| text.len() <= 4).and_then(|text| u32::from_str_radix(text, 8).ok())
        }
        Value::Integer(mode) => mode.and_then(|mode| u32::try_from(mode).ok()),
        other => return Err(other.instead_of(expected)),
    };
    mode.filter(|mode| *mode <= LARGEST_MODE).ok_or_else(|| format!("expected {expected}"))
}

fn list<'t, T, E: std::fmt::Display>(
    section: &mut Section<'_, 't>,
    key: &str,
    expected: &str,
    parse: impl Fn(&'t str) -> Result<T, E>,
) -> Vec<T> {
    let items = section.items(key, &format!("an array of {expected}"));
    if items.is_empty() && section.has(key) {
        section.problem_with(key, "must not be empty");
    }
    let mut found = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let parsed = match Value::of(item.get_ref()) {
            Value::Text(text) => parse(text).map_err(|error| error.to_string()),
            other => Err(other.instead_of(&format!("one of {expected}"))),
        };
        match parsed {
            Ok(value) => found.push(value),
            Err(text) => {
                let place = section.reading.place(item);
                section.problem(&format!("{key}[{position}]"), place, text);
            }
        }
    }
    found
}

fn tls(section: &mut Section<'_, '_>) -> Option<TlsFiles> {
    if !section.has("tls") {
        return None;
    }
    let base_dir = section.reading.base_dir;
    let mut table = section.table("tls", TLS_KEYS);
    let expected = "the path of a PEM file";
    let file = |text: &str| if text.is_empty() { Err(format!("expected {expected}")) } else { Ok(base_dir.join(text)) };
    let certificate = table.require("certificate_file", expected, parsed(expected, file));
    let key = table.require("key_file", expected, parsed(expected, file));
    let client_ca = table.read("client_ca_file", parsed(expected, file));
    let crl = table.read("crl_file", parsed(expected, file));
    if table.has("crl_file") && !table.has("client_ca_file") {
        table.problem_with("crl_file", "means nothing without client_ca_file, whose certificates it revokes");
    }
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca, crl })
}

// === what makes no sense together ===

fn refuse_meaningless(section: &mut Section<'_, '_>, kind: Kind, address: &ListenAddress) {
    for (key, kinds) in KEYS_OF_KINDS {
        if section.has(key) && !kinds.contains(&kind) {
            section.problem_with(key, format!("means nothing with callers = \"{}\"; take it away", kind.as_str()));
        }
    }
    if section.has("unix_mode") && matches!(address, ListenAddress::Tcp(_)) {
        section.problem_with("unix_mode", "means nothing with a TCP address; take it away");
    }
}

fn refuse_address(section: &mut Section<'_, '_>, kind: Kind, address: &ListenAddress) {
    let text = match (kind, address) {
        (Kind::Loopback, ListenAddress::Tcp(address)) if !address.ip().is_loopback() => {
            "must be a loopback address with callers = \"loopback\": whoever reaches it is let in"
        }
        (Kind::Loopback, ListenAddress::Unix { .. }) => {
            "must be a TCP address with callers = \"loopback\"; on a Unix socket callers = \"peer_credentials\" tells \
             users apart"
        }
        (Kind::Certificate, ListenAddress::Unix { .. }) => {
            "must be a TCP address with callers = \"certificate\": a Unix socket has no TLS"
        }
        (Kind::PeerCredentials, ListenAddress::Tcp(_)) => {
            "must be \"unix:\" and a path with callers = \"peer_credentials\": only a Unix socket tells who its peer is"
        }
        _ => return,
    };
    section.problem_with("address", text);
}

fn refuse_transport(section: &mut Section<'_, '_>, kind: Kind, address: &ListenAddress, plaintext: bool) {
    let has_tls = section.has("tls");
    let on_network = matches!(address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
    match (kind, address) {
        (_, ListenAddress::Unix { .. }) if has_tls => {
            section.problem_with("tls", "means nothing on a Unix socket; take it away");
        }
        (Kind::Loopback, _) if has_tls => {
            section.problem_with("tls", "means nothing with callers = \"loopback\"; take it away");
        }
        (Kind::Certificate | Kind::ForwardedCertificate, ListenAddress::Tcp(_)) => require_client_ca(section, kind),
        (Kind::Bearer, ListenAddress::Tcp(_)) if has_tls => {
            let mut table = section.table_again("tls", TLS_KEYS);
            for key in ["client_ca_file", "crl_file"] {
                if table.has(key) {
                    table.problem_with(key, "means nothing with callers = \"bearer\": no certificate is asked for");
                }
            }
        }
        (Kind::Bearer, ListenAddress::Tcp(_)) if on_network && !plaintext => section.problem_with(
            "address",
            format!("must be a loopback address without tls; {PLAINTEXT} = true lets it be another, and says what for"),
        ),
        _ => {}
    }
    if plaintext && kind == Kind::Bearer && (has_tls || !on_network) {
        section.problem_with(PLAINTEXT, "means nothing with tls, on loopback or on a Unix socket; take it away");
    }
}

fn require_client_ca(section: &mut Section<'_, '_>, kind: Kind) {
    if !section.has("tls") {
        let text =
            format!("is missing; callers = \"{}\" needs it, with client_ca_file, on a TCP address", kind.as_str());
        return section.problem_with("tls", text);
    }
    let mut table = section.table_again("tls", TLS_KEYS);
    if !table.has("client_ca_file") {
        let text = format!("is missing; callers = \"{}\" needs it to know client certificates by", kind.as_str());
        table.problem_with("client_ca_file", text);
    }
}

/// The addresses of all listeners, and who had each first.
#[derive(Debug)]
pub(super) struct Addresses(HashMap<ListenAddress, String>);

impl Addresses {
    /// With those of `[server]`.
    pub(super) fn of(server: &Server) -> Self {
        let grpc = server.grpc_listen.map(|address| (address, "server.grpc_listen"));
        let all = grpc.into_iter().chain([(server.probe_listen, "server.probe_listen")]);
        Self(all.map(|(address, key)| (ListenAddress::Tcp(address), key.to_owned())).collect())
    }

    pub(super) fn report_duplicate(&mut self, section: &mut Section<'_, '_>, address: &ListenAddress) {
        let key = match address {
            // The system chooses another each time.
            ListenAddress::Tcp(address) if address.port() == 0 => return,
            ListenAddress::Tcp(_) => address.clone(),
            ListenAddress::Unix { path, .. } => ListenAddress::Unix { path: path.clone(), mode: 0 },
        };
        let own = section.path_of("address");
        let first = self.0.entry(key).or_insert_with(|| own.clone());
        if *first != own {
            let text = format!("must not be the same address as {first}");
            section.problem_with("address", text);
        }
    }
}
