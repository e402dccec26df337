//! URLs and hosts: where the broker may send a secret.
//!
//! https only, unless the host is this machine or the operator lists it; nothing in a URL that could be a credential.
//! What a name resolves to is checked where it is connected to, not here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// A host in the form in which `allow_private` and URLs are compared: lower case, an address without brackets.
pub(super) fn host(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    match Host::parse(text) {
        Ok(host) if !text.contains(['/', ':']) || matches!(host, Host::Ipv6(_)) => Ok(plain(&host)),
        Ok(_) | Err(_) => Err("expected a host name or an IP address, without scheme, port or range".to_owned()),
    }
}

/// The base URL of an upstream; its path ends with `/`, so that paths can be joined to it.
pub(super) fn base_url(text: &str, allow_private: &[String]) -> Result<Url, String> {
    let mut url = Url::parse(text).ok().ok_or(EXPECTED_URL)?;
    let Some(host) = url.host().map(|host| host.to_owned()) else {
        return Err(EXPECTED_URL.to_owned());
    };
    let is_listed = allow_private.contains(&plain(&host));
    let mut wrong = extras(&url);
    match url.scheme() {
        "https" => {}
        "http" if is_listed || is_loopback(&host) => {}
        _ => wrong.push("must be https (http only for a loopback host or one in allow_private)"),
    }
    if !is_listed && is_private(&host) {
        wrong.push("must not be a private address unless allow_private lists it");
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// The URL of a proxy. May be plain: what goes through it is https.
pub(super) fn proxy_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().ok_or(EXPECTED_URL)?;
    let mut wrong = extras(&url);
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        wrong.push("must be an http or https URL with a host");
    } else if url.path() != "/" {
        wrong.push("must not have a path");
    }
    if wrong.is_empty() { Ok(url) } else { Err(wrong.join("; ")) }
}

const EXPECTED_URL: &str = "expected a URL such as \"https://api.example.com\"";

/// The parts that a base URL must not have.
fn extras(url: &Url) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if !url.username().is_empty() || url.password().is_some() {
        wrong.push("must not hold a user name or password");
    }
    if url.query().is_some() {
        wrong.push("must not hold a query");
    }
    if url.fragment().is_some() {
        wrong.push("must not hold a fragment");
    }
    wrong
}

fn plain(host: &Host) -> String {
    match host {
        Host::Domain(name) => name.to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

fn address_of(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address).to_canonical()),
    }
}

fn is_loopback(host: &Host) -> bool {
    match address_of(host) {
        Some(address) => address.is_loopback(),
        None => plain(host) == "localhost",
    }
}

/// Whether a host is an address that no public API has. Loopback is judged apart.
fn is_private(host: &Host) -> bool {
    match address_of(host) {
        Some(IpAddr::V4(address)) => is_private_v4(address),
        Some(IpAddr::V6(address)) => is_private_v6(address),
        None => false,
    }
}

/// The blocks of RFC 6890 that matter to a client.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64; // RFC 6598: 100.64.0.0/10
    address.is_private() || address.is_link_local() || address.is_multicast() || is_shared || first == 0 || first >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    // RFC 6052: 64:ff9b::/96 carries an IPv4 address in its last 32 bits.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
        let bits = (u32::from(high) << 16) | u32::from(low);
        let embedded = Ipv4Addr::from(bits);
        return embedded.is_loopback() || is_private_v4(embedded);
    }
    address.is_unspecified() || address.is_multicast() || address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, allow: &[&str]) -> Result<String, String> {
        let allow: Vec<_> = allow.iter().map(|entry| host(entry).unwrap()).collect();
        base_url(text, &allow).map(Url::into)
    }

    #[test]
    fn good_urls() {
        let rows: [(&str, &[&str], &str); 8] = [
            ("https://cdn.emnify.net", &[], "https://cdn.emnify.net/"),
            ("https://a.example/p", &[], "https://a.example/p/"),
            ("http://127.0.0.1:7702", &[], "http://127.0.0.1:7702/"),
            ("http://localhost:1/", &[], "http://localhost:1/"),
            ("http://[::1]:1/", &[], "http://[::1]:1/"),
            ("https://10.0.0.1/", &["10.0.0.1"], "https://10.0.0.1/"),
            ("http://Api.Internal/", &["api.INTERNAL"], "http://api.internal/"),
            ("http://[fd00::1]/", &["fd00:0::1"], "http://[fd00::1]/"),
        ];
        for (text, allow, expected) in rows {
            assert_eq!(with(text, allow), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_urls() {
        let bad = [
            "http://api.example.com",
            "ftp://api.example.com",
            "file:///etc/passwd",
            "unix:/run/x",
            "api.example.com",
            "https://",
            "https://user@api.example.com",
            "https://:secret@api.example.com",
            "https://api.example.com/?token=1",
            "https://api.example.com/#x",
            "https://169.254.169.254/",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://0251.0376.0251.0376/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[64:ff9b::7f00:1]/",
            "https://10.1.2.3/",
            "https://100.64.0.1/",
            "https://192.168.0.1/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "http://localhost.example.com/",
        ];
        for text in bad {
            assert!(with(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn one_url_can_be_wrong_in_many_ways_and_is_never_quoted() {
        let error = with("http://u:s3cret@10.0.0.1/?s3cret#s3cret", &[]).unwrap_err();
        for part in ["https", "password", "query", "fragment", "private"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn hosts_and_proxies() {
        for bad in ["", "http://a", "a:1", "10.0.0.0/8", "a b", "a/"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert_eq!(host("[::1]"), Ok("::1".to_owned()));
        for good in ["http://proxy:3128", "https://10.0.0.1:3128/"] {
            assert!(proxy_url(good).is_ok(), "{good}");
        }
        for bad in ["proxy:3128", "socks5://proxy:1", "http://u:p@proxy", "http://proxy/x"] {
            assert!(proxy_url(bad).is_err(), "{bad}");
        }
    }
}
