//! Hostile URLs in a configuration: each is refused when it is read, for the reason that it stands under here.

use super::{UPSTREAM, parse};
use token_broker::address::Objection;
use token_broker::config::Config;

const METADATA: &[&str] = &[
    "https://169.254.169.254/",
    "https://169.254.169.254:443/latest/meta-data/iam/security-credentials/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0XA9FEA9FE/",
    "https://0xa9.0xfe.0xa9.0xfe/",
    "https://0251.0376.0251.0376/",
    "https://0000251.0000376.0000251.0000376/",
    "https://025177524776/",
    "https://169.254.43518/",
    "https://169.16689662/",
    "https://0xa9.254.0251.254/",
    "https://169.254.169.254./",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "https://[::169.254.169.254]/",
    "https://[::ffff:0:169.254.169.254]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::169.254.169.254]/",
    "https://[2002:a9fe:a9fe::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fd00:ec2::23]/",
    "https://[fd20:ce::254]/",
    "https://[fe80::a9fe:a9fe]/",
    "https://169.254.170.2/v2/credentials",
    "https://169.254.170.23/",
    "https://100.100.100.200/",
    "https://[::ffff:100.100.100.200]/",
    "https://192.0.0.192/",
    "https://168.63.129.16/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://METADATA.google.INTERNAL/",
    "https://metadata.google.internal./",
    "https://x.metadata.google.internal/",
    "https://metadata.goog/",
    "https://metadata/",
    "https://instance-data/latest/meta-data/",
    "https://instance-data.ec2.internal/",
    "https://metadata.azure.internal/",
    "https://metadata.tencentyun.com/",
    "https://169%2e254%2e169%2e254/",
    "https://%31%36%39.254.169.254/",
    "https://\u{ff11}\u{ff16}\u{ff19}.254.169.254/",
    "https://\u{2460}\u{2465}\u{2468}.254.169.254/",
    "https://169\u{3002}254\u{3002}169\u{3002}254/",
    "https://169\u{ff0e}254\u{ff0e}169\u{ff0e}254/",
    "https://metadata\u{3002}google\u{3002}internal/",
    "https://m\u{ad}etadata.google.internal/",
    "https://\u{24dc}etadata.google.internal/",
    "https://user@169.254.169.254/",
    "https://cdn.emnify.net@169.254.169.254/",
    "https://cdn.emnify.net:443@169.254.169.254/",
    "https://cdn.emnify.net%40@169.254.169.254/",
    "https://169.254.169.254\\@cdn.emnify.net/",
    "https:\\\\169.254.169.254\\",
    "https:///169.254.169.254/",
    "https:/169.254.169.254/",
    "https:169.254.169.254",
    "https://169.254.\t169.254/",
    "https://169.254.169.254\n/",
    "\u{1}https://169.254.169.254/",
    "https://169.254.169.254#@cdn.emnify.net/",
    "https://169.254.169.254?@cdn.emnify.net/",
    "http://169.254.169.254/",
    "ftp://169.254.169.254/",
];

const PRIVATE: &[&str] = &[
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://012.0.0.1/",
    "https://0xa000001/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://192.168.1/",
    "https://100.64.0.1/",
    "https://100.127.255.254/",
    "https://198.18.0.1/",
    "https://198.19.255.254/",
    "https://[fc00::1]/",
    "https://[fd12:3456::1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:a00:1::]/",
    "https://[2002:7f00:1::1]/",
    "https://[2002:c0a8:1::1]/",
    "https://user:hunter2@10.0.0.1/",
    "http://192.168.0.1/",
];

const SPECIAL: &[&str] = &[
    "https://0/",
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://0x0/",
    "https://169.254.0.1/",
    "https://192.0.0.8/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.51.100.7/",
    "https://203.0.113.7/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://4294967295/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::ffff:1.1.1.1]/",
    "https://[::127.0.0.1]/",
    "https://[::10.0.0.1]/",
    "https://[fe80::1]/",
    "https://[febf::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://[2001:2::1]/",
    "https://[100::1]/",
    "https://[4000::1]/",
];

const LOCAL_NAME: &[&str] = &[
    "https://localhost./",
    "https://api.localhost/",
    "https://localhost.localdomain/",
    "https://ip6-localhost/",
    "https://loopback/",
    "https://printer.local/",
    "https://vault.internal/",
    "https://kubernetes.default.svc.cluster.local/",
    "https://kubernetes/",
    "https://router.home.arpa/",
    "https://wiki.intranet/",
];

const DISGUISED: &[&str] = &[
    "https://%63dn.emnify.net/",
    "https://cdn%2eemnify.net/",
    "https://\u{ff43}dn.emnify.net/",
    "https://cdn\u{3002}emnify.net/",
    "https://cdn.emni\u{fb01}y.net/",
    "https://cdn.e\u{ad}mnify.net/",
    "https://cdn.\u{435}mnify.net/",
    "https://0x01010101/",
    "https://16843009/",
    "https://01.01.01.01/",
    "https://1.1/",
    "https://cdn.emnify.net:/",
    "https://2130706433/",
    "https://127.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://loc%61lhost/",
    "https://\u{24db}ocalhost/",
];

const BLANK: &[&str] = &[
    " https://cdn.emnify.net/",
    "https://cdn.emnify.net/ ",
    "https://cdn.emnify.net/\n",
    "https://cdn.emn\nify.net/",
    "https://cdn.emnify.net/a\tb",
    "ht\ttps://cdn.emnify.net/",
    "https://cdn.emnify.net/\r\nHost: evil.example",
    "\u{0}https://cdn.emnify.net/",
];

const BACKSLASH: &[&str] = &[
    "https:\\\\cdn.emnify.net/",
    "https://cdn.emnify.net\\evil.example/",
    "https://evil.example\\@cdn.emnify.net/",
    "https://cdn.emnify.net/a\\b",
];

const SLASHES: &[&str] =
    &["https:cdn.emnify.net", "https:/cdn.emnify.net/", "https:///cdn.emnify.net/", "https:////cdn.emnify.net/"];

const USER: &[&str] = &[
    "https://user@cdn.emnify.net/",
    "https://:hunter2@cdn.emnify.net/",
    "https://cdn.emnify.net@evil.example/",
    "https://cdn.emnify.net%2f@evil.example/",
    "https://cdn.emnify.net:443@evil.example:443/",
];

const SCHEME: &[&str] = &[
    "ftp://cdn.emnify.net/",
    "ws://cdn.emnify.net/",
    "wss://cdn.emnify.net/",
    "gopher://cdn.emnify.net/",
    "ldap://cdn.emnify.net/",
    "dict://cdn.emnify.net:11211/",
    "jar://cdn.emnify.net/",
    "file://cdn.emnify.net/etc/passwd",
];

const PLAINTEXT: &[&str] = &[
    "http://cdn.emnify.net/",
    "http://localhost.evil.example/",
    "http://127.0.0.1.evil.example/",
    "http://1.1.1.1/",
    "http://localhost./",
    "HTTP://cdn.emnify.net/",
];

const CHARACTERS: &[&str] = &["https://cdn.emnify.net/\u{e9}", "https://cdn.emnify.net/\u{2215}evil"];

/// What is not even read as a URL with a host.
const NO_URL: &[&str] = &[
    "",
    "https://",
    "https://?",
    "https://#",
    "https:///",
    "https://:443/",
    "https://@/",
    "https://user@/",
    "https://cdn.emnify.net:65536/",
    "https://cdn.emnify.net:-1/",
    "https://cdn.emnify.net:4a/",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://[::ffff:169.254.169.999]/",
    "https://256.256.256.256/",
    "https://1.2.3.4.5/",
    "https://0xa9fea9fe1/",
    "https://a b/",
    "https://a%00b/",
    "https://a%2fb/",
    "https://a<b/",
    "https://xn--a/",
    "//cdn.emnify.net/",
    "/cdn.emnify.net",
    "cdn.emnify.net",
    "file:///etc/passwd",
    "unix:/run/x.sock",
    "data:text/plain,x",
    "javascript:alert(1)",
];

/// Each class of hostile URLs, and what must be said of it.
fn table() -> Vec<(String, &'static [&'static str])> {
    let by_objection = [
        (Objection::Metadata, METADATA),
        (Objection::PrivateAddress, PRIVATE),
        (Objection::SpecialAddress, SPECIAL),
        (Objection::LocalName, LOCAL_NAME),
        (Objection::Disguised, DISGUISED),
        (Objection::Blank, BLANK),
        (Objection::Backslash, BACKSLASH),
        (Objection::Slashes, SLASHES),
        (Objection::UserInfo, USER),
        (Objection::Scheme, SCHEME),
        (Objection::Plaintext, PLAINTEXT),
        (Objection::Characters, CHARACTERS),
        (Objection::Port, &["https://cdn.emnify.net:0/"]),
        (Objection::TrailingDot, &["https://cdn.emnify.net./", "https://cdn.emnify.net.:443/"]),
        (Objection::Query, &["https://cdn.emnify.net/?token=hunter2", "https://cdn.emnify.net/?"]),
        (Objection::Fragment, &["https://cdn.emnify.net/#a", "https://cdn.emnify.net/#"]),
    ];
    let mut table: Vec<_> = by_objection.map(|(objection, urls)| (objection.to_string(), urls)).into();
    table.push(("expected a URL such as".to_owned(), NO_URL));
    table
}

/// A TOML string, whatever is in it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What is said of this key, and of no other; nothing if the configuration is accepted.
fn said_of(key: &str, settings: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let problems = parse(&format!("{UPSTREAM}{settings}"), &directory).err()?;
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, [format!("upstreams[0].{key}")], "{settings}");
    problems.iter().next().map(|problem| problem.text.clone())
}

fn said_of_url(url: &str, allow_private: &str) -> Option<String> {
    said_of("url", &format!("url = {}\nallow_private = {allow_private}\n", quoted(url)))
}

#[test]
fn hostile_urls_are_refused_each_for_its_reason() {
    let mut count = 0;
    for (reason, urls) in table() {
        for url in urls {
            let said = said_of_url(url, "[]").unwrap_or_else(|| panic!("{url:?} was accepted"));
            assert!(said.contains(&reason), "{url:?}: expected {reason:?}, was told {said:?}");
            assert!(!said.contains("hunter2") && !said.contains("169.254"), "{said}");
            count += 1;
        }
    }
    assert!(count >= 200, "only {count} URLs");
}

#[test]
fn ordinary_urls_are_accepted() {
    let urls = [
        "https://cdn.emnify.net",
        "https://CDN.emnify.net/",
        "HTTPS://cdn.emnify.net:443/a/b%20c/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:8443/",
        "https://xn--mller-kva.example/",
        "https://my-metadata.example.com/",
        "https://internal.example.com/",
        "https://localhost.example.com/",
        "http://localhost:7702",
        "http://127.9.9.9/",
        "http://[::1]:7702/",
        "http://[0:0::1]:7702/",
    ];
    for url in urls {
        assert_eq!(said_of_url(url, "[]"), None, "{url}");
    }
}

/// The URL of a host as it is listed, its port and scheme left open.
#[test]
fn listing_a_host_opens_exactly_that_one() {
    let rows = [
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("172.16.0.1", "172.16.0.1", "172.16.1.1"),
        ("192.168.0.1", "192.168.0.1", "192.168.0.10"),
        ("100.64.0.1", "100.64.0.1", "100.64.0.2"),
        ("198.18.0.1", "198.18.0.1", "198.18.0.2"),
        ("fd12::1", "[fd12::1]", "[fd12::2]"),
        ("[fd12::1]", "[fd12:0::1]", "[fd12::1:1]"),
        ("169.254.1.1", "169.254.1.1", "169.254.1.2"),
        ("fe80::1", "[fe80::1]", "[fe80::2]"),
        ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "[::ffff:10.0.0.1]"),
        ("10.0.0.1", "10.0.0.1", "[64:ff9b::10.0.0.1]"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("mock", "mock", "mock2"),
        ("Vault.Internal", "vault.internal", "a.vault.internal"),
        ("a.vault.internal", "a.vault.internal", "vault.internal"),
        ("api.localhost", "api.localhost", "b.localhost"),
        ("printer.local", "printer.local", "localhost.local"),
    ];
    for (entry, opened, closed) in rows {
        let list = format!("[{entry:?}]");
        for scheme in ["http", "https"] {
            assert_eq!(said_of_url(&format!("{scheme}://{opened}:8080/"), &list), None, "{entry}: {opened}");
            assert!(said_of_url(&format!("{scheme}://{closed}:8080/"), &list).is_some(), "{entry}: {closed}");
        }
    }
}

#[test]
fn a_metadata_service_stays_closed_also_when_it_is_listed() {
    let rows = [
        ("169.254.169.254", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("::ffff:169.254.169.254", "[::ffff:169.254.169.254]"),
        ("64:ff9b::a9fe:a9fe", "[64:ff9b::a9fe:a9fe]"),
        ("2002:a9fe:a9fe::", "[2002:a9fe:a9fe::]"),
        ("fd00:ec2::254", "[fd00:ec2::254]"),
        ("100.100.100.200", "100.100.100.200"),
        ("metadata.google.internal", "metadata.google.internal"),
        ("instance-data", "instance-data"),
    ];
    for (entry, host) in rows {
        for scheme in ["http", "https"] {
            let said = said_of_url(&format!("{scheme}://{host}/"), &format!("[{entry:?}]"));
            assert_eq!(said, Some(Objection::Metadata.to_string()), "{entry}");
        }
    }
}

#[test]
fn what_is_listed_must_be_a_host() {
    let entries = [
        "",
        " ",
        "http://mock",
        "mock:80",
        "10.0.0.0/8",
        "mock/",
        "u@mock",
        "mock.",
        "[::1",
        "::1%eth0",
        "mo%63k",
        "*",
        "*.example.com",
        "a\\b",
        "mock\n",
    ];
    for entry in entries {
        let said = said_of("allow_private[0]", &format!("allow_private = [{}]\n", quoted(entry)));
        assert!(said.is_some_and(|text| text.starts_with("expected a host name")), "{entry:?}");
    }
}

fn said_of_proxy(url: &str) -> Option<String> {
    said_of("proxy", &format!("proxy = {}\n", quoted(url)))
}

/// A proxy may be private and plain. All else holds for it as well.
#[test]
fn hostile_proxies_are_refused_each_for_its_reason() {
    let own = [
        (Objection::Path, "http://proxy:3128/x"),
        (Objection::Scheme, "socks5://proxy:1080"),
        (Objection::Scheme, "socks5h://proxy:1080"),
        (Objection::Port, "http://proxy:0/"),
        (Objection::TrailingDot, "http://proxy.example.:3128/"),
        (Objection::UserInfo, "http://user:hunter2@proxy/"),
    ];
    for (objection, url) in own {
        assert!(said_of_proxy(url).is_some_and(|said| said.contains(&objection.to_string())), "{url}");
    }
    let of_upstreams = [
        Objection::Metadata,
        Objection::SpecialAddress,
        Objection::Disguised,
        Objection::Blank,
        Objection::Backslash,
        Objection::Slashes,
        Objection::UserInfo,
        Objection::Scheme,
        Objection::Query,
        Objection::Fragment,
    ]
    .map(|objection| objection.to_string());
    for (reason, urls) in table().into_iter().filter(|(reason, _)| of_upstreams.contains(reason)) {
        for url in urls {
            let said = said_of_proxy(url).unwrap_or_else(|| panic!("{url:?} was accepted"));
            assert!(said.contains(&reason), "{url:?}: expected {reason:?}, was told {said:?}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    for url in ["http://proxy:3128", "https://10.0.0.1:3128/", "http://127.0.0.1:3128", "http://[fd12::1]:3128"] {
        assert_eq!(said_of_proxy(url), None, "{url}");
    }
}

/// Nobody joins a path to a URL other than the one that was judged.
#[test]
fn the_url_is_kept_as_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{UPSTREAM}url = \"https://cdn.emnify.net:8443/base\"\n");
    let config: Config = parse(&text, &directory).unwrap();
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://cdn.emnify.net:8443/base/");
}
