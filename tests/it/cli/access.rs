//! The client's commands over TLS, with a certificate or a bearer, and over Unix sockets.

mod stand;

use super::{ANY_PORT, Done, PATIENCE, Process, WORKSPACE, finish, run, token_broker};
use stand::{Authority, BEARER, FUTURE, JWT, NOW, PAST, Stand, V12, V13};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// It went well, and this was printed.
fn assert_done(done: &Done, stdout: &str, what: &str) {
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{what}");
    assert_eq!(done.stdout.trim_end(), stdout, "{what}");
}

/// It failed with this code, and these words.
fn assert_failed(done: &Done, code: i32, words: &str, what: &str) {
    assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{what}: {}", done.stderr);
    assert_eq!(done.stderr, format!("token-broker: {words}\n"), "{what}");
}

fn unreachable(endpoint: &str, why: &str) -> String {
    format!("can't reach the broker at {endpoint}: {why}")
}

#[tokio::test]
async fn every_command_goes_every_way() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let ca = stand.write("ca.pem", &ours.pem());
    let [cert, key] = stand.write_pair("client", &ours.issue("client", NOW));
    let token = stand.write("token", &format!("{BEARER}1\n"));
    stand.asks_for(&format!("{BEARER}1"));
    let server = ours.issue("localhost", NOW);
    let (plain, unix) = (stand.plain().await, stand.unix("broker.sock"));
    let (tls, mutual) = (stand.tls(server.server(V13, None)).await, stand.tls(server.server(V12, Some(&ours))).await);
    let long_form = unix.endpoint.replacen("unix:", "unix://", 1);
    let ways: [(&str, &[&str]); 5] = [
        (&plain.endpoint, &[]),
        (&unix.endpoint, &[]),
        (&long_form, &[]),
        (&tls.endpoint, &["--ca", &ca]),
        (&mutual.endpoint, &["--ca", &ca, "--cert", &cert, "--key", &key]),
    ];
    let report = ["report", "--fingerprint", "-AAAAAAAAAAAAAAAAAAAAA", "--status", "401", WORKSPACE];
    for (endpoint, options) in ways {
        let options = [options, &["--token-file", &token]].concat();
        let ask = async |command: &[&str]| stand.ask(endpoint, &[command, &options].concat()).await;
        assert_done(&ask(&["get", WORKSPACE]).await, JWT, endpoint);
        assert_done(&ask(&report).await, JWT, endpoint);
        assert_done(&ask(&["healthcheck"]).await, "serving", endpoint);
        let inspected = ask(&["inspect", WORKSPACE]).await;
        assert!(
            inspected.code == Some(0) && inspected.stdout.contains("\"sub\": \"one\""),
            "{endpoint}: {inspected:?}"
        );
        let watched = ask(&["watch", "--once", WORKSPACE]).await;
        assert!(watched.code == Some(0) && watched.stdout.contains(" token fingerprint="), "{endpoint}: {watched:?}");
    }
    assert_eq!(stand.shown().len(), 25);
}

#[tokio::test]
async fn what_is_trusted_and_shown_may_come_from_the_environment() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let [cert, key] = stand.write_pair("client", &ours.issue("client", NOW));
    let front = stand.tls(ours.issue("broker.example", NOW).server(V13, Some(&ours))).await;
    stand.asks_for(&format!("{BEARER}1"));
    let mut command = token_broker(&["get", WORKSPACE]);
    command.env("TOKEN_BROKER_ENDPOINT", &front.endpoint).env("TOKEN_BROKER_CA", stand.write("ca.pem", &ours.pem()));
    command.env("TOKEN_BROKER_CERT", cert).env("TOKEN_BROKER_KEY", key);
    command.env("TOKEN_BROKER_SERVER_NAME", "broker.example");
    command.env("TOKEN_BROKER_TOKEN_FILE", stand.write("token", &format!("  {BEARER}1\n\n")));
    assert_done(&finish(command).await, JWT, "from the environment");
}

#[tokio::test]
async fn a_broker_that_is_not_to_be_trusted_is_told_and_hears_nothing() {
    let (stand, ours, other) = (Stand::new(), Authority::new("ours"), Authority::new("other"));
    let files = [("ca.pem", &ours), ("other.pem", &other), ("namesake.pem", &Authority::new("ours"))];
    let [ca, wrong, namesake] = files.map(|(name, from)| stand.write(name, &from.pem()));
    let token = stand.write("token", &format!("{BEARER}1"));
    let unknown = "its certificate is of an unknown authority; --ca names the file of those to trust, and is it up to \
                   date?";
    let name = |asked: &str, holds: &str| {
        format!("its certificate is not for {asked}, but holds {holds}; --server-name asks for another name")
    };
    let dns = "localhost";
    let table: [(&str, _, &[&str], &str); 8] = [
        ("localhost", NOW, &[], unknown),
        ("localhost", NOW, &["--ca", &wrong], unknown),
        ("localhost", NOW, &["--ca", &namesake], unknown),
        ("elsewhere.example", NOW, &["--ca", &ca], &name("localhost", "elsewhere.example")),
        ("127.0.0.1", NOW, &["--ca", &ca], &name("localhost", "127.0.0.1")),
        ("localhost", NOW, &["--ca", &ca, "--server-name", "10.0.0.1"], &name("10.0.0.1", dns)),
        ("localhost", PAST, &["--ca", &ca], "its certificate expired at 2021-01-01T00:00:00Z"),
        (
            "localhost",
            FUTURE,
            &["--ca", &ca],
            "its certificate begins at 2080-01-01T00:00:00Z only; is this machine's clock right?",
        ),
    ];
    for versions in [V12, V13] {
        for (holds, period, options, why) in table {
            let front = stand.tls(ours.issue(holds, period).server(versions, None)).await;
            let done = stand.get(&front.endpoint, &[options, &["--token-file", &token]].concat()).await;
            assert_failed(&done, 1, &unreachable(&front.endpoint, why), holds);
        }
    }
    assert_eq!(stand.shown(), [], "nothing was said to it");
}

#[tokio::test]
async fn another_name_than_the_endpoints_can_be_asked_for() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let ca = stand.write("ca.pem", &ours.pem());
    for name in ["broker.example", "10.0.0.1"] {
        let front = stand.tls(ours.issue(name, NOW).server(V13, None)).await;
        let done = stand.get(&front.endpoint, &["--ca", &ca, "--server-name", name]).await;
        assert_done(&done, JWT, name);
    }
    let front = stand.tls(ours.issue("127.0.0.1", NOW).server(V13, None)).await;
    let by_address = front.endpoint.replace("localhost", "127.0.0.1");
    assert_done(&stand.get(&by_address, &["--ca", &ca]).await, JWT, "an address in the certificate");
}

#[tokio::test]
async fn a_client_certificate_that_the_broker_refuses_is_told() {
    let (stand, ours, other) = (Stand::new(), Authority::new("ours"), Authority::new("other"));
    let ca = stand.write("ca.pem", &ours.pem());
    let foreign = stand.write_pair("foreign", &other.issue("client", NOW));
    let expired = stand.write_pair("expired", &ours.issue("client", PAST));
    let missing = "it wants a client certificate; --cert and --key name the files of one";
    let unknown = "it does not know the authority of the client certificate in --cert";
    let ended = "it says that the client certificate in --cert has expired";
    for versions in [V12, V13] {
        let front = stand.tls(ours.issue("localhost", NOW).server(versions, Some(&ours))).await;
        for (pair, why) in [(None, missing), (Some(&foreign), unknown), (Some(&expired), ended)] {
            let shown: Vec<&str> = pair.map(|[cert, key]| vec!["--cert", cert, "--key", key]).unwrap_or_default();
            let done = stand.get(&front.endpoint, &[&["--ca", ca.as_str()], &shown[..]].concat()).await;
            assert_failed(&done, 1, &unreachable(&front.endpoint, why), &format!("{versions:?}"));
        }
    }
    assert_eq!(stand.shown(), []);
}

#[tokio::test]
async fn another_protocol_than_the_endpoints_is_told() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let ca = stand.write("ca.pem", &ours.pem());
    let pair = ours.issue("localhost", NOW);
    let (plain, tls) = (stand.plain().await, stand.tls(pair.server(V13, None)).await);
    let https = plain.endpoint.replace("http:", "https:");
    let why = "no TLS is spoken there; is it an http:// endpoint, or another port?";
    assert_failed(&stand.get(&https, &["--ca", &ca]).await, 1, &unreachable(&https, why), "TLS to plaintext");
    let http = tls.endpoint.replace("https:", "http:");
    let why = "TLS is spoken there; use https://";
    assert_failed(&stand.get(&http, &[]).await, 1, &unreachable(&http, why), "plaintext to TLS");
    let mut config = pair.server(V13, None);
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        config.alpn_protocols = protocols;
        let front = stand.tls(config.clone()).await;
        let why = "TLS is spoken there, but no HTTP/2 over it; is this the gRPC address of a broker?";
        let done = stand.get(&front.endpoint, &["--ca", &ca]).await;
        assert_failed(&done, 1, &unreachable(&front.endpoint, why), "without HTTP/2");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_says_when() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let ca = stand.write("ca.pem", &ours.pem());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(ours.issue("localhost", NOW).server(V13, None)));
    let cut = "it was closed in the middle of the TLS handshake; is TLS spoken there?";
    let after = "it was closed right after the TLS handshake; does it want a client certificate (--cert, --key), or \
                 another one?";
    for (is_shaken, why) in [(false, cut), (true, after)] {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (mut serving, acceptor) = (JoinSet::new(), acceptor.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        serving.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                if is_shaken {
                    drop(acceptor.accept(socket).await);
                } else {
                    // Read before it is closed, so that it ends and is not torn down.
                    drop(tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 4096]).await);
                }
            }
        });
        assert_failed(&stand.get(&endpoint, &["--ca", &ca]).await, 1, &unreachable(&endpoint, why), &endpoint);
        let tries = connections.load(Ordering::Relaxed);
        assert!((1..=3).contains(&tries), "{tries} connections for one call");
    }
}

#[tokio::test]
async fn a_socket_that_is_none_is_told() {
    let stand = Stand::new();
    let nowhere = format!("unix:{}", stand.path("nowhere.sock").display());
    let why = "there is no such socket; is the path right, and is the broker running?";
    assert_failed(&stand.get(&nowhere, &[]).await, 1, &unreachable(&nowhere, why), "no socket");
    let front = stand.unix("left.sock");
    let endpoint = front.endpoint.clone();
    front.ends().await;
    let why = "nobody listens there; it is not running, or it drains and lets nobody in any more";
    assert_failed(&stand.get(&endpoint, &[]).await, 1, &unreachable(&endpoint, why), "a socket that was left");
}

#[tokio::test]
async fn a_caller_that_the_broker_does_not_know_hears_so() {
    let stand = Stand::new();
    stand.asks_for(&format!("{BEARER}1"));
    let (front, token) = (stand.unix("broker.sock"), stand.write("token", &format!("{BEARER}2")));
    for options in [&[][..], &["--token-file", &token]] {
        let done = stand.get(&front.endpoint, options).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
        let begin = "token-broker: Unauthenticated (CALLER_UNAUTHENTICATED): ";
        assert!(done.stderr.starts_with(begin), "{}", done.stderr);
        assert_eq!(stand.ask(&front.endpoint, &[&["watch", WORKSPACE], options].concat()).await.code, Some(1));
    }
}

#[tokio::test]
async fn a_file_that_is_of_no_use_is_named_with_its_option() {
    let (stand, ours) = (Stand::new(), Authority::new("ours"));
    let [cert, key] = stand.write_pair("client", &ours.issue("client", NOW));
    let [_, other_key] = stand.write_pair("other", &ours.issue("client", NOW));
    let (missing, empty) = (stand.path("missing").to_str().unwrap().to_owned(), stand.write("empty", " \n"));
    let large = stand.write("large", &"a".repeat(8 * 1024 + 1));
    let torn = stand.write("torn.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let none = "holds no certificate in PEM form that can be read";
    let front = stand.tls(ours.issue("localhost", NOW).server(V13, None)).await;
    let ca = stand.write("ca.pem", &ours.pem());
    let table: [(&str, &str, &str); 11] = [
        ("--ca", &missing, "no such file"),
        ("--ca", &empty, none),
        ("--ca", &torn, none),
        ("--ca", &key, none),
        ("--cert", &missing, "no such file"),
        ("--cert", &empty, none),
        ("--key", &cert, "holds no private key in PEM form that can be used"),
        ("--key", &other_key, "is not the key of the certificate in --cert"),
        ("--token-file", &empty, "is empty"),
        ("--token-file", &large, "is larger than 8192 bytes"),
        ("--token-file", &key, "holds something else than one token of visible characters"),
    ];
    for (option, path, flaw) in table {
        let mut options = vec![("--ca", ca.as_str()), ("--cert", &cert), ("--key", &key)];
        options.retain(|(other, _)| *other != option);
        options.push((option, path));
        let options: Vec<&str> = options.into_iter().flat_map(|(option, path)| [option, path]).collect();
        let done = stand.get(&front.endpoint, &options).await;
        assert_failed(&done, 1, &format!("{option} {path}: {flaw}"), option);
    }
    assert_eq!(stand.shown(), []);
}

#[tokio::test]
async fn options_that_contradict_each_other_are_64() {
    let stand = Stand::new();
    let token = stand.write("token", &format!("{BEARER}1"));
    for alone in [["--cert", &token], ["--key", &token], ["--server-name", ""], ["--ca", ""]] {
        let done = run(&[&["get", WORKSPACE, "--endpoint", "https://localhost:1"], &alone[..]].concat()).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(64), ""), "{alone:?}: {}", done.stderr);
    }
    let clear = |endpoint| {
        format!(
            "everybody on the way to {endpoint} could read the token of --token-file, and act with it; use https://, or \
             say --plaintext-lets-the-network-read-tokens"
        )
    };
    let idle =
        |option, endpoint| format!("{option} is of no use with {endpoint}: only an https:// endpoint is encrypted");
    let pair = ["--cert", &token, "--key", &token];
    let table: [(&str, &[&str], String); 6] = [
        ("http://10.0.0.1:1", &["--token-file", &token], clear("http://10.0.0.1:1")),
        ("broker.example:1", &["--token-file", &token], clear("http://broker.example:1")),
        ("http://127.0.0.1:1", &["--ca", &token], idle("--ca", "http://127.0.0.1:1")),
        ("unix:/run/broker.sock", &pair, idle("--cert", "unix:/run/broker.sock")),
        ("localhost:1", &["--server-name", "a"], idle("--server-name", "http://localhost:1")),
        (
            "https://localhost:1",
            &["--server-name", "a b"],
            "\"a b\" is no name that a certificate can hold: a DNS name or an IP address".to_owned(),
        ),
    ];
    for (endpoint, options, words) in table {
        for command in ["get", "watch", "inspect"] {
            let done = stand.ask(endpoint, &[&[command, WORKSPACE], options].concat()).await;
            assert_failed(&done, 64, &words, endpoint);
        }
    }
}

/// The flag says what it does: the token leaves in the clear. Nobody is at this address of the documentation's network.
#[tokio::test]
async fn a_bearer_goes_in_the_clear_only_when_that_is_said() {
    let stand = Stand::new();
    let token = stand.write("token", &format!("{BEARER}1"));
    let said = ["--token-file", &token, "--plaintext-lets-the-network-read-tokens", "--timeout", "200ms"];
    let done = stand.get("http://192.0.2.1:1", &said).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(!done.stderr.contains("everybody on the way"), "{}", done.stderr);
    assert_eq!(run(&["get", WORKSPACE, "--plaintext-lets-the-network-read-tokens"]).await.code, Some(64));
}

/// `watch` as a process that goes on, once it has said the token.
async fn watching(endpoint: &str, options: &[&str]) -> Process {
    let mut process = Process::start(token_broker(&[&["watch", "--endpoint", endpoint, WORKSPACE], options].concat()));
    let mut line = String::new();
    while !line.contains(" token fingerprint=") {
        line.clear();
        let read = process.stdout.as_mut().unwrap().read_line(&mut line);
        let read = timeout(PATIENCE, read).await.expect("it says nothing").unwrap();
        assert!(read > 0, "it ended: {}", process.stderr());
    }
    process
}

/// Waits until these words are on its stderr.
async fn says(process: &mut Process, words: &str) {
    let search = async {
        while !process.stderr().contains(words) {
            assert!(process.lines.changed().await.is_ok(), "it ended without {words:?}: {}", process.stderr());
        }
    };
    timeout(PATIENCE, search).await.expect("it was never said");
}

#[tokio::test]
async fn watch_shows_the_token_that_is_in_the_file_now() {
    let stand = Stand::new();
    let token = stand.write("token", &format!("{BEARER}1"));
    stand.asks_for(&format!("{BEARER}1"));
    let front = stand.unix("broker.sock");
    let endpoint = front.endpoint.clone();
    let mut process = watching(&endpoint, &["--token-file", &token]).await;
    let arguments = fs::read(format!("/proc/{}/cmdline", process.child.id().unwrap())).unwrap();
    assert!(!String::from_utf8(arguments).unwrap().contains(BEARER));
    // Its token is over, and the next one comes late.
    stand.asks_for(&format!("{BEARER}2"));
    front.ends().await;
    fs::remove_file(stand.path("broker.sock")).unwrap();
    says(&mut process, "; trying again").await;
    let called = stand.shown().len();
    let _front = stand.unix("broker.sock");
    stand.is_called(called + 1).await;
    fs::remove_file(stand.path("token")).unwrap();
    stand.write("token", &format!("{BEARER}2"));
    stand.is_shown(&format!("{BEARER}2")).await;
    process.signal("TERM").await;
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
    assert!(!process.stderr().contains(BEARER), "{}", process.stderr());
}

#[tokio::test]
async fn watch_trusts_the_authorities_that_are_in_the_file_now() {
    let (stand, old, new) = (Stand::new(), Authority::new("ours"), Authority::new("other"));
    let ca = stand.write("ca.pem", &old.pem());
    let [cert, key] = stand.write_pair("client", &old.issue("client", NOW));
    // One socket for both, so that nobody else can take the port between.
    let socket = std::net::TcpListener::bind(ANY_PORT).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = || TcpListener::from_std(socket.try_clone().unwrap()).unwrap();
    let front = stand.tls_on(listener(), old.issue("localhost", NOW).server(V13, Some(&old)));
    let endpoint = front.endpoint.clone();
    let mut process = watching(&endpoint, &["--ca", &ca, "--cert", &cert, "--key", &key]).await;
    front.ends().await;
    let _front = stand.tls_on(listener(), new.issue("localhost", NOW).server(V13, Some(&new)));
    says(&mut process, "; trying again").await;
    let called = stand.shown().len();
    stand.write("ca.pem", &new.pem());
    stand.write_pair("client", &new.issue("client", NOW));
    stand.is_called(called + 1).await;
    process.signal("TERM").await;
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
}
