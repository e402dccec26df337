//! Providers against recorded and invented answers, over real sockets.
//!
//! A case is a directory in `tests/fixtures/providers/<provider>/`: `head.json` (status, headers), `body` (as it is on
//! the wire; absent means empty) and `expected.json`. For every case, neither what is logged at TRACE nor what the
//! outcome shows of itself may hold a secret.
//!
//! emnify's answers are read by [`ApplicationToken`] and by a recipe that says the same.

mod hostile;
mod loading;
mod recipes;
mod script;
mod steps;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::failure::Failure;
use token_broker::http::{Client, Options};
use token_broker::provider::emnify::ApplicationToken;
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::secret::LongLivedSecret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const SECRET: &str = "app-token-fixture-secret";
const ORGANISATION: u64 = 42;

#[derive(Deserialize)]
struct Head {
    status: u16,
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize, Debug, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
struct Expected {
    lifetime_seconds: Option<u64>,
    failure: Option<String>,
    retry_after_seconds: Option<u64>,
}

/// What an exchange came to, and all that was logged meanwhile.
struct Observed {
    result: Result<Fetched, FetchError>,
    logs: String,
    took: Duration,
}

impl Observed {
    fn summary(&self) -> Expected {
        match &self.result {
            Ok(fetched) => Expected { lifetime_seconds: Some(fetched.lifetime.as_secs()), ..Expected::default() },
            Err(error) => Expected {
                failure: Some(error.kind.as_str().to_owned()),
                retry_after_seconds: match error.kind {
                    Failure::Throttled { retry_after } => retry_after.map(|wait| wait.as_secs()),
                    _ => None,
                },
                ..Expected::default()
            },
        }
    }

    fn failure(&self) -> Failure {
        self.result.as_ref().unwrap_err().kind
    }

    /// Nothing that a person or a machine may see holds any of these texts.
    fn keeps_quiet_about(&self, secrets: &[&str]) {
        let shown = match &self.result {
            Ok(fetched) => format!("{fetched:?}"),
            Err(error) => format!("{error:?} {error}"),
        };
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!shown.contains(secret), "the outcome shows a secret");
            assert!(!self.logs.contains(secret), "a log line holds a secret");
        }
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Capture {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

type Make = fn(&str, Duration) -> Box<dyn Provider>;

fn provider(base: &str, timeout: Duration) -> Box<dyn Provider> {
    let options = Options { timeout, ..Options::default() };
    let client = Arc::new(Client::new(&options).unwrap());
    let base = Url::parse(base).unwrap();
    let secret = LongLivedSecret::new(SECRET);
    Box::new(ApplicationToken::new(client, &base, recipes::BOUNDS, Some(ORGANISATION), secret).unwrap())
}

fn by_recipe(base: &str, timeout: Duration) -> Box<dyn Provider> {
    let organisation = ORGANISATION.to_string();
    let fields = recipes::fields(&[("application_token", SECRET)], &[("organisation", &organisation)]);
    Box::new(recipes::exchange(base, timeout, recipes::emnify(), fields))
}

/// Every log line of this thread at TRACE, until this is dropped. The runtime has no other thread.
fn captured(capture: &Capture) -> tracing::subscriber::DefaultGuard {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(capture.clone());
    subscriber.finish().set_default()
}

/// One exchange, with what is logged meanwhile.
async fn observe(make: Make, base: &str, timeout: Duration) -> Observed {
    let capture = Capture::default();
    let guard = captured(&capture);
    let provider = make(base, timeout);
    tracing::debug!(?provider, "exchange");
    let started = Instant::now();
    let result = provider.exchange().await;
    let took = started.elapsed();
    drop(guard);
    let logs = capture.text();
    assert!(logs.contains("starting new connection"), "nothing was captured");
    Observed { result, logs, took }
}

const PATIENT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

async fn replay(make: Make, case: &Path) -> (Observed, Vec<u8>) {
    let head: Head = serde_json::from_slice(&fs::read(case.join("head.json")).unwrap()).unwrap();
    let body = fs::read(case.join("body")).unwrap_or_default();
    let mut answer = ResponseTemplate::new(head.status).set_body_bytes(body.clone());
    for (name, value) in &head.headers {
        answer = answer.insert_header(name.as_str(), value.as_str());
    }
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/v1/authenticate"))
        .and(header("content-type", "application/json"))
        .and(body_json(serde_json::json!({ "application_token": SECRET })))
        .respond_with(answer)
        .expect(1)
        .mount(&server)
        .await;
    (observe(make, &server.uri(), PATIENT).await, body)
}

/// A recipe compares the tenant as text, so that an organisation in quotes is the same one.
const SAME_AS_TEXT: &str = "organisation-as-text";

#[tokio::test]
async fn emnify_answers_are_judged_and_stay_inside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/emnify");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 60, "fixtures are missing");
    for case in cases {
        let expected = fs::read(case.join("expected.json")).unwrap();
        let expected: Expected = serde_json::from_slice(&expected).unwrap();
        judged_as(provider, &case, &expected).await;
        if case.ends_with(SAME_AS_TEXT) {
            let granted = Expected { lifetime_seconds: Some(14_399), ..Expected::default() };
            judged_as(by_recipe, &case, &granted).await;
        } else {
            judged_as(by_recipe, &case, &expected).await;
        }
    }
}

async fn judged_as(make: Make, case: &Path, expected: &Expected) {
    let (observed, body) = replay(make, case).await;
    let detail = observed.result.as_ref().err().map(ToString::to_string);
    assert_eq!(&observed.summary(), expected, "{} {detail:?}", case.display());
    let text = String::from_utf8_lossy(&body);
    let token = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|json| Some(json.get("auth_token")?.as_str()?.to_owned()))
        .unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.encode("not-a-signature-fixture");
    observed.keeps_quiet_about(&[SECRET, &text, &token, &signature]);
}

/// A listener that treats each connection as told, until the test ends.
struct Raw {
    url: String,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

async fn raw<F>(serve: fn(TcpStream) -> F) -> Raw
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(Mutex::new(0));
    let count = Arc::clone(&connections);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            *count.lock().unwrap() += 1;
            // An error is what these servers provoke: the client hangs up on them.
            drop(serve(socket).await);
        }
    });
    Raw { url, connections, _tasks: tasks }
}

async fn read_request(socket: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        socket.read_buf(&mut request).await?;
    }
    Ok(())
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const TOKEN: &str = "eyJhbGciOiJIUzM4NCJ9.secret-part";

async fn failing<F>(serve: fn(TcpStream) -> F, timeout: Duration) -> Observed
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let server = raw(serve).await;
    let observed = observe(by_recipe, &server.url, timeout).await;
    assert_eq!(*server.connections.lock().unwrap(), 1, "exactly one attempt");
    observed.keeps_quiet_about(&[SECRET, TOKEN]);
    observed
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let observed = observe(by_recipe, &url, PATIENT).await;
    assert_eq!(observed.failure(), Failure::Unreachable);
    observed.keeps_quiet_about(&[SECRET]);
}

/// Closing with unread bytes sends RST.
#[tokio::test]
async fn a_reset_before_the_status_is_unreachable() {
    let observed = failing(|socket| async move { socket.peek(&mut [0]).await.map(drop) }, PATIENT);
    assert_eq!(observed.await.failure(), Failure::Unreachable);
}

#[tokio::test]
async fn a_close_before_the_status_is_unreachable() {
    let observed = failing(|mut socket| async move { read_request(&mut socket).await }, PATIENT);
    assert_eq!(observed.await.failure(), Failure::Unreachable);
}

#[tokio::test]
async fn silence_is_unreachable_at_the_deadline() {
    async fn silent(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.read_u8().await.map(drop)
    }
    let observed = failing(silent, SHORT).await;
    assert_eq!(observed.failure(), Failure::Unreachable);
    in_time(&observed);
}

#[tokio::test]
async fn something_other_than_http_is_malformed() {
    async fn ssh(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await?;
        socket.shutdown().await
    }
    assert_eq!(failing(ssh, PATIENT).await.failure(), Failure::Malformed);
}

#[tokio::test]
async fn a_body_that_is_cut_is_unavailable() {
    async fn cut(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Content-Length: 400\r\n\r\n{\"auth_token\":\"").await?;
        socket.write_all(TOKEN.as_bytes()).await?;
        socket.shutdown().await
    }
    assert_eq!(failing(cut, PATIENT).await.failure(), Failure::Unavailable);
}

/// The status of a refusal stands, whatever becomes of its body.
#[tokio::test]
async fn a_refusal_that_is_cut_is_still_a_refusal() {
    async fn cut(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 400\r\n\r\n{").await?;
        socket.shutdown().await
    }
    assert_eq!(failing(cut, PATIENT).await.failure(), Failure::Rejected);
}

fn in_time(observed: &Observed) {
    assert!(observed.took >= SHORT, "{:?}", observed.took);
    assert!(observed.took < SHORT * 10, "{:?}", observed.took);
}

/// The sleep is the slowness of this upstream; the test waits for nothing with it.
#[tokio::test]
async fn a_dribbling_body_ends_at_the_deadline() {
    async fn dribble(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Content-Length: 60000\r\n\r\n").await?;
        loop {
            socket.write_all(b" ").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let observed = failing(dribble, SHORT).await;
    assert_eq!(observed.failure(), Failure::Unavailable);
    in_time(&observed);
}

#[tokio::test]
async fn a_body_that_stalls_short_of_its_end_ends_at_the_deadline() {
    async fn stall(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Content-Length: 100\r\n\r\n").await?;
        socket.write_all(&[b' '; 99]).await?;
        socket.read_u8().await.map(drop)
    }
    let observed = failing(stall, SHORT).await;
    assert_eq!(observed.failure(), Failure::Unavailable);
    in_time(&observed);
}

#[tokio::test]
async fn a_body_announced_as_ten_megabytes_is_not_read() {
    async fn announce(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Content-Length: 10485760\r\n\r\n").await?;
        socket.read_u8().await.map(drop)
    }
    let observed = failing(announce, PATIENT).await;
    assert_eq!(observed.failure(), Failure::Malformed);
    assert!(observed.took < PATIENT / 2, "it waited for the body");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    async fn endless(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Transfer-Encoding: chunked\r\n\r\n").await?;
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        loop {
            socket.write_all(chunk.as_bytes()).await?;
        }
    }
    let observed = failing(endless, PATIENT).await;
    assert_eq!(observed.failure(), Failure::Malformed);
    assert!(observed.took < PATIENT / 2, "it read on");
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    async fn many(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        loop {
            socket.write_all(b"X-More: of the same\r\n").await?;
        }
    }
    async fn one(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"X-More: ").await?;
        loop {
            socket.write_all(&[b'a'; 4096]).await?;
        }
    }
    for observed in [failing(many, PATIENT).await, failing(one, PATIENT).await] {
        assert_eq!(observed.failure(), Failure::Malformed);
        assert!(observed.took < PATIENT / 2, "it read on");
    }
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_read() {
    async fn large(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Content-Length: 65536\r\n\r\n").await?;
        socket.write_all(&vec![b' '; 65_536]).await
    }
    async fn larger(mut socket: TcpStream) -> io::Result<()> {
        read_request(&mut socket).await?;
        socket.write_all(HEAD).await?;
        socket.write_all(b"Connection: close\r\n\r\n").await?;
        socket.write_all(&vec![b' '; 65_537]).await
    }
    let detail = |observed: Observed| observed.result.unwrap_err().detail;
    assert!(detail(failing(large, PATIENT).await).contains("65536 bytes"));
    assert!(detail(failing(larger, PATIENT).await).contains("too large"));
}
