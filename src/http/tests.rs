//! What needs a resolver of our own; all else is tested from outside, in `tests/it/http.rs`.

use super::resolver::Lookup;
use super::*;
use crate::address::Objection;
use futures_util::future::BoxFuture;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

fn options(allow_private: &[&str]) -> Options {
    Options {
        timeout: Duration::from_secs(5),
        allow_private: allow_private.iter().map(ToString::to_string).collect(),
        ..Options::default()
    }
}

fn check(allow_private: &[&str], url: &str) -> Result<(), Error> {
    options(allow_private).check_url(&Url::parse(url).unwrap())
}

#[test]
fn a_url_is_judged_by_its_text() {
    let table = [
        ("https://cdn.emnify.net", Ok(())),
        ("https://cdn.emnify.net:8443/base/", Ok(())),
        ("https://1.1.1.1/", Ok(())),
        ("http://127.0.0.1:7702", Ok(())),
        ("http://localhost:7702", Ok(())),
        ("http://[::1]:7702", Ok(())),
        // Other spellings of 127.0.0.1 are that address and nothing worse.
        ("http://2130706433/", Ok(())),
        ("http://cdn.emnify.net", Err(Error::Url(Objection::Plaintext))),
        ("http://localhost.evil.example", Err(Error::Url(Objection::Plaintext))),
        ("http://1.1.1.1", Err(Error::Url(Objection::Plaintext))),
        ("http://169.254.169.254/", Err(Error::Url(Objection::Plaintext))),
        ("https://169.254.169.254/", Err(Error::Url(Objection::Metadata))),
        ("https://2852039166/", Err(Error::Url(Objection::Metadata))),
        ("https://0xa9fea9fe/", Err(Error::Url(Objection::Metadata))),
        ("https://0xa9.0xfe.0xa9.0xfe/", Err(Error::Url(Objection::Metadata))),
        ("https://0251.0376.0251.0376/", Err(Error::Url(Objection::Metadata))),
        ("https://169.254.43518/", Err(Error::Url(Objection::Metadata))),
        ("https://[::ffff:169.254.169.254]/", Err(Error::Url(Objection::Metadata))),
        ("https://[::ffff:a9fe:a9fe]/", Err(Error::Url(Objection::Metadata))),
        ("https://[64:ff9b::a9fe:a9fe]/", Err(Error::Url(Objection::Metadata))),
        ("https://[fd00:ec2::254]/", Err(Error::Url(Objection::Metadata))),
        ("https://[::ffff:127.0.0.1]/", Err(Error::Url(Objection::SpecialAddress))),
        ("https://0.0.0.0/", Err(Error::Url(Objection::SpecialAddress))),
        ("https://0/", Err(Error::Url(Objection::SpecialAddress))),
        ("https://[::]/", Err(Error::Url(Objection::SpecialAddress))),
        ("https://10.1.2.3/", Err(Error::Url(Objection::PrivateAddress))),
        ("https://100.64.0.1/", Err(Error::Url(Objection::PrivateAddress))),
        ("https://user@cdn.emnify.net/", Err(Error::Url(Objection::UserInfo))),
        ("https://:pw@cdn.emnify.net/", Err(Error::Url(Objection::UserInfo))),
        ("https://cdn.emnify.net@169.254.169.254/", Err(Error::Url(Objection::UserInfo))),
        ("https://cdn.emnify.net/?key=1", Err(Error::Url(Objection::Query))),
        ("https://cdn.emnify.net/?", Err(Error::Url(Objection::Query))),
        ("https://cdn.emnify.net/#a", Err(Error::Url(Objection::Fragment))),
        ("file:///etc/passwd", Err(Error::Url(Objection::Scheme))),
        ("ftp://cdn.emnify.net/", Err(Error::Url(Objection::Scheme))),
        ("gopher://localhost/", Err(Error::Url(Objection::Scheme))),
        ("unix:/run/x", Err(Error::Url(Objection::Scheme))),
    ];
    for (url, expected) in table {
        assert_eq!(check(&[], url), expected, "{url}");
    }
}

#[test]
fn listing_a_host_opens_that_host_alone() {
    let listed = ["Mock.internal", "10.1.2.3", "fd12::7", "[fd12::8]"];
    for url in [
        "http://mock.internal:1",
        "http://10.1.2.3",
        "https://0x0a010203/",
        "https://[fd12::7]/",
        "https://[fd12:0::8]/",
    ] {
        assert_eq!(check(&listed, url), Ok(()), "{url}");
    }
    assert_eq!(check(&listed, "http://a.mock.internal"), Err(Error::Url(Objection::Plaintext)));
    assert_eq!(check(&listed, "https://10.1.2.4"), Err(Error::Url(Objection::PrivateAddress)));
    let entry = "http://mock.internal";
    assert_eq!(check(&[entry], "https://cdn.emnify.net"), Err(Error::AllowPrivate));
}

#[test]
fn options_that_make_no_client_are_refused() {
    let refused = |change: fn(&mut Options)| {
        let mut options = options(&[]);
        change(&mut options);
        Client::new(&options).err()
    };
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|o| o.allow_private = vec![String::new()]), Some(Error::AllowPrivate));
    assert_eq!(refused(|o| o.ca_pem = Some(Vec::new())), Some(Error::Ca));
    assert_eq!(refused(|o| o.ca_pem = Some(b"no certificate".to_vec())), Some(Error::Ca));
    let broken = Client::new(&Options { ca_pem: Some(pem.into()), ..options(&[]) });
    assert_eq!(broken.err(), Some(Error::Build));
    let key_only = |o: &mut Options| {
        o.client_identity_pem = Some(seal_identity(&crate::secret::LongLivedSecret::new("hunter2")));
    };
    assert_eq!(refused(key_only), Some(Error::Identity));
    let proxies = [
        ("socks5://p/", Objection::Scheme),
        ("http://user:hunter2@p/", Objection::UserInfo),
        ("http://p/path", Objection::Path),
        ("http://p/?q", Objection::Query),
        ("http://169.254.169.254/", Objection::Metadata),
        ("http://0.0.0.0:3128/", Objection::SpecialAddress),
    ];
    for (proxy, objection) in proxies {
        let options = Options { proxy: Url::parse(proxy).ok(), ..options(&[]) };
        assert_eq!(Client::new(&options).err(), Some(Error::Proxy(objection)), "{proxy}");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}

/// Answers each question with the next list, and the last one for ever.
struct Script(Mutex<Vec<Vec<IpAddr>>>);

impl Script {
    fn new(answers: &[&[IpAddr]]) -> Arc<Self> {
        let answers = answers.iter().rev().map(|list| list.to_vec()).collect();
        Arc::new(Self(Mutex::new(answers)))
    }
}

impl Lookup for Script {
    fn addresses(&self, _name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let last = answers.len() == 1;
        let answer = if last { answers.last().cloned() } else { answers.pop() };
        Box::pin(async move { Ok(answer.unwrap()) })
    }
}

fn client(allow_private: &[&str], answers: &[&[IpAddr]]) -> Client {
    Client::with_lookup(&options(allow_private), Script::new(answers)).unwrap()
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Serves one empty answer per connection and counts them.
async fn server() -> (SocketAddr, JoinSet<()>, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(Mutex::new(0));
    let mut tasks = JoinSet::new();
    let counted = Arc::clone(&count);
    tasks.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            let mut request = vec![0; 4096];
            let read = socket.read(&mut request).await.unwrap_or_default();
            if read > 0 {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    });
    (address, tasks, count)
}

async fn post(client: &Client, url: String) -> Result<u16, SendError> {
    let request =
        Request::post(Url::parse(&url).unwrap()).with_body("application/json", Zeroizing::new(b"{}".to_vec()));
    client.send_by(request, client.deadline()).await.map(|response| response.head.status)
}

#[tokio::test]
async fn a_name_leads_only_where_it_may() {
    let (address, _tasks, count) = server().await;
    let url = |scheme: &str, host: &str| format!("{scheme}://{host}:{}/", address.port());
    let refused = Err(SendError::NoAnswer(Cause::Refused));

    let strict = client(&[], &[&[LOOPBACK]]);
    assert_eq!(post(&strict, url("https", "cdn.emnify.net")).await, refused);
    assert_eq!(post(&strict, url("http", "cdn.emnify.net")).await, refused);
    assert_eq!(*count.lock().unwrap(), 0, "nothing was connected to");
    assert_eq!(post(&strict, url("http", "localhost")).await, Ok(200));

    let listed = client(&["mock.internal"], &[&[LOOPBACK]]);
    assert_eq!(post(&listed, url("http", "mock.internal")).await, Ok(200));
    assert_eq!(*count.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_listed_name_and_localhost_have_limits_too() {
    let metadata = "169.254.169.254".parse().unwrap();
    let listed = client(&["mock.internal"], &[&[metadata]]);
    let refused = Err(SendError::NoAnswer(Cause::Refused));
    assert_eq!(post(&listed, "http://mock.internal/".to_owned()).await, refused);
    assert_eq!(post(&listed, "http://localhost/".to_owned()).await, refused);
}

/// The first answer is public, as the check of a rebinding attack would want it; the connection follows the second.
#[tokio::test]
async fn rebinding_wins_nothing() {
    let (address, _tasks, count) = server().await;
    let public: IpAddr = "192.88.98.1".parse().unwrap();
    let script = Script::new(&[&[public], &[LOOPBACK]]);
    assert_eq!(script.addresses(String::new()).await.unwrap(), [public]);
    let client = Client::with_lookup(&options(&[]), script).unwrap();
    let sent = post(&client, format!("https://rebind.example:{}/", address.port())).await;
    assert_eq!(sent, Err(SendError::NoAnswer(Cause::Refused)));
    assert_eq!(*count.lock().unwrap(), 0);
}

#[tokio::test]
async fn forbidden_addresses_are_dropped_from_a_mixed_answer() {
    let (address, _tasks, count) = server().await;
    let metadata: IpAddr = "169.254.169.254".parse().unwrap();
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    let client = client(&["mock.internal"], &[&[metadata, mapped, LOOPBACK]]);
    let sent = post(&client, format!("http://mock.internal:{}/", address.port())).await;
    assert_eq!(sent, Ok(200));
    assert_eq!(*count.lock().unwrap(), 1);
}

#[test]
fn what_holds_secrets_shows_none() {
    let url = Url::parse("https://cdn.emnify.net/").unwrap();
    let secret = || Zeroizing::new(b"hunter2".to_vec());
    let request =
        Request::post(url).with_body("application/json", secret()).with_secret_header("x-api-key", secret()).unwrap();
    let response = Response { head: Head::new(200, &HeaderMap::new()), body: Bytes::from_static(b"hunter2") };
    assert!(!format!("{request:?} {response:?}").contains("hunter2"));
    assert!(request.headers.get("x-api-key").unwrap().is_sensitive());
}
