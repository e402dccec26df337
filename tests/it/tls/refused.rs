//! Bad certificates: refused in the handshake, so that no handler is ever reached.

use super::pki::{Authority, Identity, Pki, SHORT_RSA, Spec, client};
use super::{URI, World, client as config, shake};
use rustls::version::{TLS12, TLS13};
use std::fs;
use tokio::io::{AsyncWriteExt as _, duplex};

/// Why the broker says that it refuses, in part.
struct Bad {
    what: &'static str,
    identity: Identity,
    expected: &'static str,
    /// The reason in the metrics.
    counted: &'static str,
}

fn bad(what: &'static str, identity: Identity, expected: &'static str) -> Bad {
    let counted = if expected.starts_with("invalid peer certificate: it") { "identity" } else { "certificate" };
    Bad { what, identity, expected, counted }
}

fn issue(authority: &Authority, name: &str, extensions: &str) -> Identity {
    authority.issue(name, &Spec { extensions, ..Spec::default() })
}

/// Names that are none, or two.
fn misnamed(callers: &Authority) -> Vec<Bad> {
    const NOT: &str = "invalid peer certificate: its URI is not a SPIFFE ID";
    const HOST: &str = "invalid peer certificate: its DNS name can't be used";
    const NAMELESS: &str = "invalid peer certificate: it has neither";
    const WHICH: &str = "invalid peer certificate: it has several DNS names";
    let two = format!("{URI},URI:spiffe://prod.example/ns/payments/sa/web");
    let web = format!("{URI},URI:https://payments.example/");
    let other = "invalid peer certificate: its SPIFFE ID is of another trust domain";
    let names = [
        ("two URIs", two.as_str(), "invalid peer certificate: it has several URIs"),
        ("a SPIFFE ID and another URI", &web, "invalid peer certificate: it has several URIs"),
        ("a URI of the web", "URI:https://payments.example/", NOT),
        ("a URI of the web beside a host", "URI:https://payments.example/,DNS:payments.example", NOT),
        ("another trust domain", "URI:spiffe://other.example/ns/payments/sa/api", other),
        ("a trust domain below", "URI:spiffe://a.prod.example/ns/payments/sa/api", other),
        ("scheme in capitals", "URI:SPIFFE://prod.example/a", NOT),
        ("trust domain in capitals", "URI:spiffe://PROD.example/a", NOT),
        ("a port", "URI:spiffe://prod.example:443/a", NOT),
        ("a user", "URI:spiffe://root@prod.example/a", NOT),
        ("no path", "URI:spiffe://prod.example", NOT),
        ("an empty path", "URI:spiffe://prod.example/", NOT),
        ("a slash at the end", "URI:spiffe://prod.example/a/", NOT),
        ("an empty segment", "URI:spiffe://prod.example//a", NOT),
        ("dots", "URI:spiffe://prod.example/a/../b", NOT),
        ("a percent sign", "URI:spiffe://prod.example/a%2Fb", NOT),
        ("a query", "URI:spiffe://prod.example/a?b", NOT),
        ("a star", "URI:spiffe://prod.example/*", NOT),
        ("no trust domain", "URI:spiffe:///a", NOT),
        ("a wildcard", "DNS:*.payments.example", HOST),
        ("a host in capitals", "DNS:API.payments.example", HOST),
        ("an address as a host", "DNS:127.0.0.1", HOST),
        ("a dot at the end", "DNS:api.payments.example.", HOST),
        ("two hosts", "DNS:api.payments.example,DNS:web.payments.example", WHICH),
        ("an address only", "IP:127.0.0.1", NAMELESS),
        ("a mail address only", "email:api@payments.example", NAMELESS),
    ];
    names.map(|(what, names, expected)| bad(what, callers.caller(&what.replace(' ', "-"), names), expected)).into()
}

/// Certificates of another purpose, or of none.
fn unfit(callers: &Authority) -> Vec<Bad> {
    let leaf = "basicConstraints=critical,CA:FALSE\n";
    let with = |further: &str| format!("{leaf}{further}\nsubjectAltName={URI}");
    let as_leaf = format!("basicConstraints=critical,CA:TRUE\nsubjectAltName={URI}");
    vec![
        bad("CN only", issue(callers, "cn", leaf), "invalid peer certificate: it has neither"),
        bad("for servers", issue(callers, "eku", &with("extendedKeyUsage=serverAuth")), "given extended key usage"),
        bad("for any use", issue(callers, "any", &with("extendedKeyUsage=anyExtendedKeyUsage")), "extended key usage"),
        bad("for mail", issue(callers, "mail", &with("extendedKeyUsage=emailProtection")), "extended key usage"),
        bad("an authority as a leaf", issue(callers, "authority", &as_leaf), "CaUsedAsEndEntity"),
        bad(
            "may sign certificates",
            issue(callers, "signs", &with("keyUsage=digitalSignature,keyCertSign")),
            "it is the",
        ),
        bad("may not sign", issue(callers, "kx", &with("keyUsage=keyEncipherment")), "may not sign a handshake"),
        bad("an unknown critical extension", issue(callers, "crit", &with("1.2.3.4=critical,DER:0500")), "critical"),
    ]
}

/// Certificates out of their time, or of nobody known.
fn untrusted(world: &World) -> Vec<Bad> {
    let (pki, callers): (&Pki, &Authority) = (&world.pki, &world.callers);
    let extensions = client(URI);
    let at = |start, end| Spec { extensions: &extensions, start, end, ..Spec::default() };
    let (stranger, unknown) = (pki.root("stranger"), "UnknownIssuer");
    let namesake = pki.root_like("other/callers", &Spec::default());
    let (below, host) = (pki.below("below", callers), callers.caller("host", "DNS:a.example"));
    let parent = issue(&below, "parent", &format!("basicConstraints=CA:FALSE\nsubjectAltName={URI}"));
    let mut child = pki.root("child").caller("child", URI);
    child.certificate = child.with(&below).certificate;
    let own = pki.root_like("own", &Spec { extensions: &extensions, ..Spec::default() });
    let short = pki.root_like("short", &Spec { key: SHORT_RSA, ..Spec::default() });
    world.trust(&[callers, &short]);
    vec![
        bad("expired", callers.issue("old", &at("20200101000000Z", "20200102000000Z")), "certificate expired"),
        bad("not yet valid", callers.issue("new", &at("20980101000000Z", "20990102000000Z")), "not valid yet"),
        bad("of a stranger", stranger.caller("leaf", URI), unknown),
        bad("of a stranger, shown with it", stranger.caller("both", URI).with(&stranger), unknown),
        bad("of a stranger of the same name", namesake.caller("leaf", URI), unknown),
        bad("self-signed", Identity { certificate: own.certificate(), key: own.key() }, unknown),
        bad("without its intermediate", below.caller("lone", URI), unknown),
        bad("behind the wrong intermediate", child, unknown),
        bad("of the broker's own authority", world.servers.caller("leaf", URI), unknown),
        bad(
            "signed with SHA-1",
            callers.issue("sha1", &Spec { digest: "sha1", ..at("20200101000000Z", "20990101000000Z") }),
            "unsupported signature algorithm",
        ),
        bad("of an authority with a short key", short.caller("leaf", URI), "signature"),
        // The handshake is signed by another key than the certificate's.
        bad("key of another", Identity { key: parent.key, ..host }, "bad signature"),
    ]
}

#[tokio::test]
async fn each_bad_certificate_is_refused_in_the_handshake() {
    let world = World::new();
    let all = [misnamed(&world.callers), unfit(&world.callers), untrusted(&world)].concat_all();
    let server = world.server();
    let mut wrong = Vec::new();
    for (at, Bad { what, identity, expected, .. }) in all.iter().enumerate() {
        // In turn, so that both versions see all kinds.
        let version = if at % 2 == 0 { &TLS13 } else { &TLS12 };
        match shake(&server, config(&world.servers, &[version], Some(identity))).await {
            Ok(proven) => wrong.push(format!("{what}: let in as {}", proven.caller)),
            Err(error) if error.to_lowercase().contains(&expected.to_lowercase()) => {}
            Err(error) => wrong.push(format!("{what}: refused for {error:?}, not {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.len() >= 40, "{}", all.len());
    for reason in ["identity", "certificate"] {
        let expected = all.iter().filter(|bad| bad.counted == reason).count();
        let told = world.told(&format!("tls_handshakes_failed_total{{listener=\"mesh\",reason=\"{reason}\"}}"));
        assert_eq!(told.map(|told| told.to_string()), Some(expected.to_string()), "{reason}");
    }
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn what_is_revoked_or_can_not_be_known_to_be_unrevoked_is_refused() {
    let world = World::new();
    let below = world.pki.below("below", &world.callers);
    let other = world.pki.root("other");
    world.trust(&[&world.callers, &other]);
    let (good, revoked) = (world.callers.caller("good", URI), world.callers.caller("revoked", URI));
    let (deep, deep_revoked) = (below.caller("deep", URI).with(&below), below.caller("deep-revoked", URI));
    world.callers.revoke(&revoked.certificate);
    below.revoke(&deep_revoked.certificate);
    let lists = world.callers.revocations() + &below.revocations();
    fs::write(world.live("crl.pem"), lists).unwrap();
    let server = world.server();
    assert!(world.shake(&server, &good).await.is_ok());
    assert!(world.shake(&server, &deep).await.is_ok());
    for (identity, expected) in [
        (&revoked, "Revoked"),
        (&deep_revoked.with(&below), "Revoked"),
        (&other.caller("leaf", URI), "UnknownRevocationStatus"),
    ] {
        let refused = world.shake(&server, identity).await;
        let error = refused.map(|proven| proven.caller).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    // Without a list of the authority below, nothing of it can be known.
    fs::write(world.live("crl.pem"), world.callers.revocations()).unwrap();
    let error = world.shake(&world.server(), &deep).await.map(|proven| proven.caller).unwrap_err();
    assert!(error.contains("UnknownRevocationStatus"), "{error}");

    // An authority that was itself revoked takes all of its own along.
    world.callers.revoke(&below.certificate());
    fs::write(world.live("crl.pem"), world.callers.revocations() + &below.revocations()).unwrap();
    let error = world.shake(&world.server(), &deep).await.map(|proven| proven.caller).unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
}

#[tokio::test]
async fn who_shows_none_or_speaks_something_else_is_refused_and_counted() {
    let world = World::new();
    let server = world.server();
    let good = world.callers.caller("good", URI);
    let failed =
        |reason: &str| world.told(&format!("tls_handshakes_failed_total{{listener=\"mesh\",reason=\"{reason}\"}}"));
    for version in [&TLS13, &TLS12] {
        let error = shake(&server, config(&world.servers, &[version], None)).await.map(|proven| proven.caller);
        assert_eq!(error.unwrap_err(), "peer sent no certificates");
    }
    assert_eq!(failed("no_certificate"), Some(2.0));

    for offered in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = world.client(&good);
        config.alpn_protocols = offered;
        let error = shake(&server, config).await.map(|proven| proven.caller).unwrap_err();
        assert!(error.contains("protocol"), "{error}");
    }
    assert_eq!(failed("alpn"), Some(2.0));

    for first in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 512]] {
        let (mut near, far) = duplex(1024);
        near.write_all(first).await.unwrap();
        assert!(server.accept(far).await.is_err());
    }
    assert_eq!(failed("protocol"), Some(3.0));

    let (near, far) = duplex(1024);
    drop(near);
    assert!(server.accept(far).await.is_err());
    assert_eq!(failed("closed"), Some(1.0));

    let strange = config(&world.callers, &[&TLS13], Some(&good));
    assert!(shake(&server, strange).await.is_err());
    assert_eq!(failed("rejected_by_peer"), Some(1.0));

    let (near, far) = duplex(1024);
    let pending = Box::pin(server.accept(far));
    assert!(futures_util::future::FutureExt::now_or_never(pending).is_none());
    drop(near);
    assert_eq!(failed("abandoned"), Some(1.0));
    assert!(world.shake(&server, &good).await.is_ok());
}
