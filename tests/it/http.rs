//! The promises of the upstream client, on real sockets. What an upstream can do with an answer is in `provider.rs`.

mod elsewhere;
mod hostile;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, CertifiedIssuer, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use token_broker::http::{Cause, Client, Options, Request, Response, SendError, seal_identity};
use token_broker::secret::LongLivedSecret;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use url::Url;
use zeroize::Zeroizing;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const LIMIT: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options { timeout: LIMIT, ..Options::default() }
}

async fn post(options: &Options, url: &str) -> Result<Response, SendError> {
    let body = Zeroizing::new(b"{\"secret\":\"hunter2\"}".to_vec());
    let request = Request::post(Url::parse(url).unwrap()).with_body("application/json", body);
    let client = Client::new(options).unwrap();
    client.send_by(request, client.deadline()).await
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Reads one request, answers it, and returns what came, once the client has closed the connection.
async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") && !request.starts_with(b"CONNECT") {
        if socket.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    socket.write_all(answer).await?;
    socket.flush().await?;
    socket.read_to_end(&mut request).await?;
    Ok(String::from_utf8(request).unwrap())
}

async fn serve_one(listener: &TcpListener, answer: &[u8]) -> String {
    let (socket, _) = listener.accept().await.unwrap();
    serve(socket, answer).await.unwrap()
}

#[tokio::test]
async fn a_request_says_no_more_than_it_must() {
    let (listener, port) = listen().await;
    let url = format!("http://127.0.0.1:{port}/path");
    let sending = options();
    let (response, request) = tokio::join!(post(&sending, &url), serve_one(&listener, OK));
    assert_eq!(&response.unwrap().body[..], b"{}");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
    lines.sort();
    let expected = [
        "accept: application/json".to_owned(),
        "content-length: 20".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: 127.0.0.1:{port}"),
        "post /path http/1.1".to_owned(),
        format!("user-agent: token-broker/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, "{\"secret\":\"hunter2\"}");
}

/// The environment belongs to the whole process, so another one is started for what depends on it.
fn another_process(test: &str) -> tokio::process::Command {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).stdin(Stdio::null()).kill_on_drop(true);
    child
}

async fn passes(mut child: tokio::process::Command) {
    let output = tokio::time::timeout(LIMIT, child.output()).await;
    let output = output.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// `serve_one` returns only when the connection has been closed from this side.
#[tokio::test]
async fn a_connection_serves_one_exchange() {
    let (listener, port) = listen().await;
    let url = format!("http://127.0.0.1:{port}/");
    let client = Client::new(&options()).unwrap();
    for _ in 0..2 {
        let request =
            Request::post(Url::parse(&url).unwrap()).with_body("application/json", Zeroizing::new(b"{}".to_vec()));
        let both = async { tokio::join!(client.send_by(request, client.deadline()), serve_one(&listener, OK)) };
        let (response, _request) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert_eq!(response.unwrap().head.status, 200);
    }
}

#[tokio::test]
async fn the_configured_proxy_is_used() {
    let (proxy, port) = listen().await;
    for host in ["127.0.0.1", "localhost"] {
        let options = Options {
            proxy: Url::parse(&format!("http://{host}:{port}")).ok(),
            allow_private: vec!["mock.internal".to_owned()],
            ..options()
        };
        let sent = post(&options, "http://mock.internal/a");
        let (response, request) = tokio::join!(sent, serve_one(&proxy, OK));
        assert_eq!(response.unwrap().head.status, 200);
        assert!(request.starts_with("POST http://mock.internal/a HTTP/1.1\r\n"));

        let no = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        let sent = post(&options, "https://cdn.emnify.net/");
        let (response, request) = tokio::join!(sent, serve_one(&proxy, no));
        assert_eq!(response.unwrap_err(), SendError::NoAnswer(Cause::Connect));
        assert!(request.starts_with("CONNECT cdn.emnify.net:443 HTTP/1.1\r\n"));
        assert!(!request.contains("hunter2"), "the secret waits for TLS");
    }
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_rules() {
    let (proxy, port) = listen().await;
    let options = Options { proxy: Url::parse(&format!("http://127.0.0.1:{port}")).ok(), ..options() };
    for url in ["http://cdn.emnify.net/", "https://169.254.169.254/", "https://a:b@cdn.emnify.net/"] {
        tokio::select! {
            _ = proxy.accept() => panic!("the proxy was asked for {url}"),
            sent = post(&options, url) => {
                assert_eq!(sent.unwrap_err(), SendError::NoAnswer(Cause::Refused), "{url}");
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_has_its_own_deadline() {
    let (_silent, port) = listen().await;
    let options = Options { connect_timeout: Duration::from_millis(200), ..options() };
    let started = Instant::now();
    let sent = post(&options, &format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(sent.unwrap_err(), SendError::NoAnswer(Cause::Timeout));
    let took = started.elapsed();
    assert!(took >= options.connect_timeout && took < LIMIT / 2, "{took:?}");
}

#[tokio::test]
async fn the_whole_deadline_covers_the_handshake_too() {
    let (_silent, port) = listen().await;
    let options = Options { timeout: Duration::from_millis(200), connect_timeout: LIMIT, ..options() };
    let sent = post(&options, &format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(sent.unwrap_err(), SendError::NoAnswer(Cause::Timeout));
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Names the file with the key of [`only_the_configured_roots_are_trusted`]'s authority.
const KEY_FILE: &str = "TOKEN_BROKER_TEST_KEY_FILE";

fn authority() -> Authority {
    authority_of(KeyPair::generate().unwrap())
}

fn authority_of(key: KeyPair) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key).unwrap()
}

/// A certificate for this name, and its key, both PEM.
fn issue(issuer: &Issuer<'_, KeyPair>, name: &str) -> (rcgen::Certificate, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key.serialize_pem())
}

fn acceptor(authority: &Authority, name: &str, clients: Option<&Authority>) -> TlsAcceptor {
    let (certificate, key) = issue(authority, name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// One exchange over TLS: what the client made of it, and the request if one came.
async fn over_tls(acceptor: &TlsAcceptor, options: &Options) -> (Result<u16, SendError>, Option<String>) {
    let (listener, port) = listen().await;
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        let socket = acceptor.accept(socket).await.ok()?;
        serve(socket, OK).await.ok()
    };
    let url = format!("https://localhost:{port}/");
    let (sent, request) = tokio::join!(post(options, &url), server);
    (sent.map(|response| response.head.status), request)
}

/// Run once more by [`the_machines_roots_are_not_trusted`].
#[tokio::test]
async fn only_the_configured_roots_are_trusted() {
    let ours = match std::env::var_os(KEY_FILE) {
        None => authority(),
        Some(file) => {
            let key = std::fs::read_to_string(file).unwrap();
            authority_of(KeyPair::from_pem(&key).unwrap())
        }
    };
    let other = authority();
    let trusting = |authority: &Authority| Options { ca_pem: Some(authority.pem().into_bytes()), ..options() };
    let table = [
        ("the right roots", trusting(&ours), "localhost", true),
        ("the bundled roots", options(), "localhost", false),
        ("other roots", trusting(&other), "localhost", false),
        ("another name", trusting(&ours), "elsewhere.example", false),
    ];
    for (what, options, name, trusted) in table {
        let (sent, request) = over_tls(&acceptor(&ours, name, None), &options).await;
        let expected = if trusted { Ok(200) } else { Err(SendError::NoAnswer(Cause::Tls)) };
        assert_eq!(sent, expected, "{what}");
        assert_eq!(request.is_some(), trusted, "{what}");
    }
}

/// In the other process the machine trusts the very authority that the client must not trust.
#[tokio::test]
async fn the_machines_roots_are_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (key_file, roots_file) = (directory.path().join("key"), directory.path().join("roots"));
    let key = KeyPair::generate().unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(&roots_file, authority_of(key).pem()).unwrap();
    let mut child = another_process("http::only_the_configured_roots_are_trusted");
    child.env(KEY_FILE, key_file).env("SSL_CERT_FILE", roots_file);
    passes(child).await;
}

#[tokio::test]
async fn the_client_certificate_is_presented() {
    let (ours, clients) = (authority(), authority());
    let acceptor = acceptor(&ours, "localhost", Some(&clients));
    let with = |identity: Option<(rcgen::Certificate, String)>| Options {
        ca_pem: Some(ours.pem().into_bytes()),
        client_identity_pem: identity
            .map(|(certificate, key)| seal_identity(&LongLivedSecret::new(certificate.pem() + &key))),
        ..options()
    };
    let (sent, _) = over_tls(&acceptor, &with(Some(issue(&clients, "broker")))).await;
    assert_eq!(sent, Ok(200));
    for identity in [None, Some(issue(&ours, "broker"))] {
        let (sent, request) = over_tls(&acceptor, &with(identity)).await;
        assert!(matches!(sent, Err(SendError::NoAnswer(_))), "{sent:?}");
        assert_eq!(request, None, "nothing was said to a client without a certificate");
    }
}

/// One HTTP/2 exchange whose answer has so many bytes of headers and of body.
async fn over_http2(header_bytes: usize, body_bytes: usize) -> Result<usize, SendError> {
    let ours = authority();
    let (certificate, key) = issue(&ours, "localhost");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    let answer = service_fn(move |_request: hyper::Request<Incoming>| {
        let body = Full::<Bytes>::from(vec![b' '; body_bytes]);
        let answer = hyper::Response::builder().header("x-more", "a".repeat(header_bytes));
        std::future::ready(answer.body(body))
    });
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        let socket = TokioIo::new(acceptor.accept(socket).await.unwrap());
        let connection = http2::Builder::new(TokioExecutor::new());
        // The client may cut it, or just go away.
        drop(connection.serve_connection(socket, answer).await);
    };
    let options = Options { ca_pem: Some(ours.pem().into_bytes()), ..options() };
    let url = format!("https://localhost:{port}/");
    let (sent, ()) = tokio::join!(post(&options, &url), server);
    sent.map(|response| response.body.len())
}

#[tokio::test]
async fn http2_has_the_same_limits() {
    assert_eq!(over_http2(15_000, 65_536).await, Ok(65_536));
    let large_head = over_http2(17_000, 10).await;
    assert!(matches!(large_head, Err(SendError::NoAnswer(_))), "{large_head:?}");
    let large_body = over_http2(10, 65_537).await;
    assert!(matches!(large_body, Err(SendError::Body(_, Cause::TooLarge))), "{large_body:?}");
}
