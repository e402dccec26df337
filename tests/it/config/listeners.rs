//! `[[listeners]]`: each kind as it is meant, and every combination that makes no sense.

use super::parse_with;
use std::path::{Path, PathBuf};
use token_broker::config::{Callers, Config, ListenAddress, Listener};

const TLS: &str = "tls = { certificate_file = \"c\", key_file = \"k\" }";
const MUTUAL: &str = "tls = { certificate_file = \"c\", key_file = \"k\", client_ca_file = \"a\" }";

/// One listener with these lines, named `a`.
fn listener(lines: &str) -> String {
    format!("[[listeners]]\nname = \"a\"\n{lines}\n")
}

fn read(text: &str) -> Config {
    parse_with(text, &[]).unwrap()
}

fn one(lines: &str) -> Listener {
    read(&listener(lines)).listeners.remove(0)
}

/// What is wrong, without the places.
fn problems(text: &str) -> Vec<String> {
    let problems = parse_with(text, &[])
        .err()
        .map(|problems| problems.iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect());
    problems.unwrap_or_default()
}

#[test]
fn each_kind_is_read() {
    let certificate = one(&format!(
        "address = \"0.0.0.0:7800\"\ncallers = \"certificate\"\n{MUTUAL}\ntrust_domains = [\"prod.example\"]"
    ));
    assert_eq!(certificate.address, ListenAddress::Tcp("0.0.0.0:7800".parse().unwrap()));
    assert!(matches!(&certificate.callers, Callers::Certificate { trust_domains } if trust_domains.len() == 1));
    let tls = certificate.tls.unwrap();
    assert_eq!((tls.certificate.file_name(), tls.client_ca.is_some(), tls.crl), (Some("c".as_ref()), true, None));
    let cluster = "[[issuers]]\nname = \"cluster\"\nissuer = \"https://c.example\"\naudiences = [\"a\"]";
    let bearer =
        one(&format!("address = \"[::]:7801\"\ncallers = \"bearer\"\n{TLS}\nissuers = [\"cluster\"]\n{cluster}"));
    assert_eq!(bearer.callers, Callers::Bearer { issuers: vec!["cluster".to_owned()] });
    for plain in ["127.0.0.1:1", "unix:/run/b.sock"] {
        assert_eq!(one(&format!("address = \"{plain}\"\ncallers = \"bearer\"")).tls, None);
    }
    one("address = \"10.0.0.1:1\"\ncallers = \"bearer\"\nplaintext_lets_the_network_read_tokens = true");
    let proxies = "proxies = [\"spiffe://prod.example/ns/edge/sa/*\", \"dns:envoy.example\"]";
    let forwarded = one(&format!("address = \"0.0.0.0:1\"\ncallers = \"forwarded_certificate\"\n{MUTUAL}\n{proxies}"));
    assert!(matches!(&forwarded.callers, Callers::ForwardedCertificate { proxies, .. } if proxies.len() == 2));
    one("address = \"unix:/run/b.sock\"\ncallers = \"forwarded_certificate\"\nproxies = [\"unix:101\"]");
    assert_eq!(one("address = \"[::1]:1\"\ncallers = \"loopback\"").callers, Callers::Loopback);
    let modes = [("", 0o660), ("unix_mode = \"0600\"", 0o600), ("unix_mode = 0o666", 0o666)];
    for (line, expected) in modes {
        let users = one(&format!("address = \"unix:/run/b.sock\"\ncallers = \"peer_credentials\"\n{line}"));
        assert_eq!(users.address, ListenAddress::Unix { path: PathBuf::from("/run/b.sock"), mode: expected });
    }
}

#[test]
fn the_plaintext_listener_is_there_by_default_or_if_it_is_written() {
    let users = listener("address = \"unix:/run/b.sock\"\ncallers = \"peer_credentials\"");
    assert!(read("").server.grpc_listen.is_some());
    assert!(read(&users).server.grpc_listen.is_none());
    assert!(read(&format!("[server]\ngrpc_listen = \"127.0.0.1:1\"\n{users}")).server.grpc_listen.is_some());
    assert_eq!(problems("listeners = []"), ["listeners: must not be empty; leave it out for server.grpc_listen alone"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let tcp = "address = \"10.0.0.1:1\"";
    let local = "address = \"127.0.0.1:1\"";
    let unix = "address = \"unix:/run/b.sock\"";
    let flag = "plaintext_lets_the_network_read_tokens = true";
    let proxies = "proxies = [\"unix:1\"]";
    let rows: [(&[&str], &str, &str); 35] = [
        (&[tcp, "callers = \"loopback\""], "address", "must be a loopback address"),
        (&[unix, "callers = \"loopback\""], "address", "must be a TCP address"),
        (&[local, "callers = \"loopback\"", TLS], "tls", "means nothing"),
        (&[local, "callers = \"loopback\"", flag], "plaintext_lets_the_network_read_tokens", "means nothing"),
        (&[tcp, "callers = \"certificate\""], "tls", "is missing"),
        (&[tcp, "callers = \"certificate\"", TLS], "tls.client_ca_file", "is missing"),
        (&[unix, "callers = \"certificate\""], "address", "a Unix socket has no TLS"),
        (&[tcp, "callers = \"certificate\"", MUTUAL, flag], "plaintext_lets_the_network_read_tokens", "means nothing"),
        (&[tcp, "callers = \"certificate\"", MUTUAL, proxies], "proxies", "means nothing"),
        (&[tcp, "callers = \"certificate\"", MUTUAL, "issuers = [\"a\"]"], "issuers", "means nothing"),
        (&[tcp, "callers = \"certificate\"", MUTUAL, "unix_mode = \"0600\""], "unix_mode", "means nothing"),
        (
            &[tcp, "callers = \"certificate\"", MUTUAL, "trust_domains = [\"A\"]"],
            "trust_domains[0]",
            "must have a trust",
        ),
        (&[tcp, "callers = \"certificate\"", MUTUAL, "trust_domains = []"], "trust_domains", "must not be empty"),
        (&[tcp, "callers = \"peer_credentials\""], "address", "only a Unix socket"),
        (&[unix, "callers = \"peer_credentials\"", TLS], "tls", "means nothing"),
        (&[unix, "callers = \"peer_credentials\"", "unix_mode = \"1777\""], "unix_mode", "the mode of a file"),
        (&[unix, "callers = \"peer_credentials\"", "unix_mode = 660"], "unix_mode", "the mode of a file"),
        (&[unix, "callers = \"peer_credentials\"", "trust_domains = [\"a\"]"], "trust_domains", "means nothing"),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL], "proxies", "is missing"),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL, "proxies = []"], "proxies", "must not be empty"),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL, "proxies = [\"x\"]"], "proxies[0]", ""),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL, "proxies = [\"**\"]"], "proxies[0]", "name the Envoys"),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL, "proxies = [\"spiffe://a/**\"]"], "proxies[0]", "name"),
        (&[tcp, "callers = \"forwarded_certificate\"", MUTUAL, "proxies = [\"dns:**\"]"], "proxies[0]", "name"),
        (&[unix, "callers = \"forwarded_certificate\"", "proxies = [\"unix:*\"]"], "proxies[0]", "name"),
        (&[tcp, "callers = \"forwarded_certificate\"", proxies], "tls", "is missing"),
        (&[tcp, "callers = \"bearer\""], "address", "must be a loopback address without tls"),
        (&[tcp, "callers = \"bearer\"", TLS, flag], "plaintext_lets_the_network_read_tokens", "means nothing"),
        (&[local, "callers = \"bearer\"", flag], "plaintext_lets_the_network_read_tokens", "means nothing"),
        (&[unix, "callers = \"bearer\"", flag], "plaintext_lets_the_network_read_tokens", "means nothing"),
        (&[tcp, "callers = \"bearer\"", MUTUAL], "tls.client_ca_file", "no certificate is asked for"),
        (&["address = \"unix:run/b.sock\"", "callers = \"peer_credentials\""], "address", "absolute path"),
        (&["address = \"localhost:1\"", "callers = \"loopback\""], "address", "an IP address and a port"),
        (&[local, "callers = \"anyone\""], "callers", "expected \"certificate\" or"),
        (
            &[tcp, "callers = \"bearer\"", "tls = { certificate_file = \"c\", key_file = \"k\", crl_file = \"r\" }"],
            "tls.crl_file",
            "means nothing",
        ),
    ];
    for (lines, key, text) in rows {
        let found = problems(&listener(&lines.join("\n")));
        let expected = format!("listeners[0].{key}: ");
        assert!(
            found.iter().any(|problem| problem.starts_with(&expected) && problem.contains(text)),
            "{lines:?}: {found:?}"
        );
        assert!(found.iter().all(|problem| problem.starts_with(&expected)), "{lines:?}: {found:?}");
    }
}

#[test]
fn no_name_and_no_address_stands_twice() {
    let users = |name: &str, path: &str| {
        format!("[[listeners]]\nname = \"{name}\"\naddress = \"{path}\"\ncallers = \"peer_credentials\"\n")
    };
    let twice = [users("a", "unix:/run/a"), users("a", "unix:/run/b")].concat();
    assert_eq!(problems(&twice), ["listeners[1].name: is also the name of listeners[0]; each name may stand once"]);
    let twice = [users("a", "unix:/run/a"), users("b", "unix:/run/a")].concat();
    assert_eq!(problems(&twice), ["listeners[1].address: must not be the same address as listeners[0].address"]);
    for (key, address) in [("grpc_listen", "127.0.0.1:5"), ("probe_listen", "127.0.0.1:6")] {
        let server = "[server]\ngrpc_listen = \"127.0.0.1:5\"\nprobe_listen = \"127.0.0.1:6\"\n";
        let found =
            problems(&format!("{server}{}", listener(&format!("address = \"{address}\"\ncallers = \"loopback\""))));
        assert_eq!(found, [format!("listeners[0].address: must not be the same address as server.{key}")]);
    }
    for taken in ["grpc", "probe", "A", "", "a_b"] {
        let found = problems(&users(taken, "unix:/run/a"));
        assert!(found.len() == 1 && found[0].starts_with("listeners[0].name: "), "{taken}: {found:?}");
    }
}

#[test]
fn paths_are_taken_from_the_directory_of_the_file() {
    let listener = one(&format!("address = \"0.0.0.0:7800\"\ncallers = \"certificate\"\n{MUTUAL}"));
    let tls = listener.tls.unwrap();
    assert!(tls.key.ends_with(Path::new("k")) && tls.key != Path::new("k"));
}

#[test]
fn no_problem_quotes_a_value() {
    let text = listener(
        "address = \"s3cret\"\ncallers = \"s3cret\"\nissuers = [\"S3cret\"]\nproxies = [\"s3cret\"]\n\
         trust_domains = [\"S3cret\"]\nunix_mode = \"s3cret\"",
    );
    let found = problems(&text);
    assert!(found.len() >= 6, "{found:?}");
    assert!(found.iter().all(|problem| !problem.to_lowercase().contains("s3cret")), "{found:?}");
}
