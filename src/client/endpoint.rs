//! Where a broker is, as a person writes it.

use super::Error;
use http::Uri;
use rustls::pki_types::{DnsName, ServerName};
use std::net::IpAddr;
use std::path::PathBuf;

/// The longest path of a Unix socket in bytes: `sun_path` without its end (unix(7)).
const LONGEST_PATH: usize = 107;

/// A broker's address.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// As it is called in messages.
    pub(super) text: String,
    pub(super) way: Way,
}

/// The way there.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Plaintext over TCP.
    Plain(Uri),
    /// TLS over TCP. The name is the one that the broker's certificate must hold.
    Tls(Uri, ServerName<'static>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Without a scheme it is taken as `http://`. Over TLS the broker's certificate must hold `name`, or else the host.
    pub(super) fn parse(text: &str, name: Option<&str>) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self { text: text.to_owned(), way: Way::Unix(socket(path).ok_or_else(|| not_one(text))?) });
        }
        let has_scheme = text.is_empty() || text.contains("://");
        let text = if has_scheme { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|_invalid| not_one(&text))?;
        let (authority, host) = (uri.authority(), uri.host().filter(|host| !host.is_empty()));
        let (Some(authority), Some(host)) = (authority, host) else { return Err(not_one(&text)) };
        if authority.as_str().contains('@') {
            return Err(Error::UserInfo);
        }
        let way = match uri.scheme_str() {
            Some("http") => Way::Plain(uri),
            Some("https") => {
                let name = server_name(name.unwrap_or_else(|| bare(host)))?;
                Way::Tls(uri, name)
            }
            _ => return Err(Error::Scheme(text)),
        };
        Ok(Self { text, way })
    }

    /// What stands in `:scheme` and `:authority` of a request.
    pub(super) fn origin(&self) -> Uri {
        match &self.way {
            Way::Plain(uri) | Way::Tls(uri, _) => uri.clone(),
            Way::Unix(_) => Uri::from_static("http://localhost"),
        }
    }

    /// Whether nobody but this machine and the broker reads what is said.
    pub(super) fn is_private(&self) -> bool {
        match &self.way {
            Way::Tls(..) | Way::Unix(_) => true,
            Way::Plain(uri) => uri.host().map(bare).is_some_and(is_loopback),
        }
    }
}

fn not_one(text: &str) -> Error {
    Error::Endpoint(text.to_owned())
}

/// `unix:/path` and `unix:///path`, as gRPC's name syntax has it.
fn socket(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix("//").unwrap_or(path);
    let fits = path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains('\0');
    fits.then(|| PathBuf::from(path))
}

fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_invalid| Error::ServerName(name.to_owned()))?;
    // The root's dot belongs to the address and stands in no certificate.
    Ok(match name {
        ServerName::DnsName(name) => ServerName::DnsName(without_dot(name)),
        other => other,
    })
}

fn without_dot(name: DnsName<'static>) -> DnsName<'static> {
    let shorter = name.as_ref().strip_suffix('.').map(str::to_owned);
    shorter.and_then(|shorter| DnsName::try_from(shorter).ok()).unwrap_or(name)
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// By what is written: `localhost` names this machine (RFC 6761 §6.3). What it leads to is looked at on connecting.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_name) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(text: &str) -> String {
        match Endpoint::parse(text, None) {
            Ok(Endpoint { way: Way::Plain(uri), .. }) => format!("plain {uri}"),
            Ok(Endpoint { way: Way::Tls(uri, name), .. }) => format!("tls {uri} {}", name.to_str()),
            Ok(Endpoint { way: Way::Unix(path), .. }) => format!("unix {}", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_endpoint_is_http_https_or_a_socket() {
        let table = [
            ("127.0.0.1:7700", "plain http://127.0.0.1:7700/"),
            ("http://broker:7700", "plain http://broker:7700/"),
            ("https://broker.example:7800", "tls https://broker.example:7800/ broker.example"),
            ("https://broker.example.:7800", "tls https://broker.example.:7800/ broker.example"),
            ("https://[::1]:7800", "tls https://[::1]:7800/ ::1"),
            ("https://10.0.0.1", "tls https://10.0.0.1/ 10.0.0.1"),
            ("unix:/run/b.sock", "unix /run/b.sock"),
            ("unix:///run/b.sock", "unix /run/b.sock"),
        ];
        for (text, expected) in table {
            assert_eq!(way(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        let none =
            ["", "a b", "http://", "https://:7800", "unix:", "unix:b.sock", "unix://run/b.sock", "unix://", &long];
        for text in none {
            assert!(way(text).contains("is not an address"), "{text}: {}", way(text));
        }
        assert!(way("ftp://broker").contains("neither an http:// nor"), "{}", way("ftp://broker"));
        let with_password = way("https://me:s3cret@broker");
        assert!(with_password.contains("user name") && !with_password.contains("s3cret"), "{with_password}");
        assert!(way("https://a_b..c").contains("is no name"), "{}", way("https://a_b..c"));
    }

    #[test]
    fn another_name_may_be_asked_for() {
        for name in ["broker.svc", "10.0.0.1"] {
            let endpoint = Endpoint::parse("https://127.0.0.1:7800", Some(name)).unwrap();
            assert!(matches!(&endpoint.way, Way::Tls(_, asked) if asked.to_str() == name), "{endpoint:?}");
        }
    }

    #[test]
    fn only_tls_loopback_and_sockets_are_private() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "https://a.example", "unix:/a"] {
            assert!(Endpoint::parse(text, None).unwrap().is_private(), "{text}");
        }
        for text in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "a.example:1", "localhost.example:1", "127.0.0.1.example:1"] {
            assert!(!Endpoint::parse(text, None).unwrap().is_private(), "{text}");
        }
    }
}
