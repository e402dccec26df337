//! URLs and hosts as they are written in the configuration. Whether one may be spoken to is judged by
//! [`crate::address`], as the HTTP client judges it; what is added here is that it must be written as it will be read.

use crate::address::{self, Hosts, Objection, proxy_objections, spelling};
use url::{Host, Url};

/// A host in the form in which `allow_private` and URLs are compared: lower case, an address without brackets.
pub(super) fn host(text: &str) -> Result<String, String> {
    match address::host(text) {
        Ok(Host::Domain(name)) => Ok(name),
        Ok(Host::Ipv4(address)) => Ok(address.to_string()),
        Ok(Host::Ipv6(address)) => Ok(address.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The URL of one document.
pub(super) fn document_url(text: &str, allow_private: &[String]) -> Result<Url, String> {
    let url = parse(text)?;
    let hosts = Hosts::parse(allow_private).map_err(|error| error.to_string())?;
    refuse(hosts.objections(&url), spelling(text, &url))?;
    Ok(url)
}

/// The base URL of an upstream; its path ends with `/`, so that paths can be joined to it.
pub(super) fn base_url(text: &str, allow_private: &[String]) -> Result<Url, String> {
    let mut url = document_url(text, allow_private)?;
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// The URL of a proxy. May be plain: what goes through it is https.
pub(super) fn proxy_url(text: &str) -> Result<Url, String> {
    let url = parse(text)?;
    refuse(proxy_objections(&url), spelling(text, &url))?;
    Ok(url)
}

const EXPECTED_URL: &str = "expected a URL such as \"https://api.example.com\"";

/// A URL without a host is none of ours, whatever else it is.
fn parse(text: &str) -> Result<Url, String> {
    Url::parse(text).ok().filter(Url::has_host).ok_or_else(|| EXPECTED_URL.to_owned())
}

fn refuse(mut objections: Vec<Objection>, spelling: Vec<Objection>) -> Result<(), String> {
    objections.extend(spelling);
    if objections.is_empty() {
        return Ok(());
    }
    let sentences: Vec<_> = objections.iter().map(ToString::to_string).collect();
    Err(sentences.join("; "))
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
