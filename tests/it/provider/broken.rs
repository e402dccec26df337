//! Servers that break off, stall, dribble or never end: what comes of it, and when.

use super::case::provider;
use super::observed::{Observed, PATIENT, observe};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::config::{Config, Environment};
use token_broker::failure::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SECRET: &str = "app-token-fixture-secret";
const SHORT: Duration = Duration::from_millis(300);

/// One exchange of an application token of emnify's, with a client of this patience.
async fn exchanged(base: &str, timeout: Duration) -> Observed {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), SECRET).unwrap();
    let text = format!(
        r#"
        upstreams = [{{ name = "u", kind = "emnify", url = "{base}", timeout = "{}ms" }}]
        workspaces = [{{ name = "w", upstream = "u", credential = {{ application_token = {{ file = "secret" }} }} }}]
        "#,
        timeout.as_millis()
    );
    let config = Config::parse(&text, directory.path(), &Environment::default()).unwrap();
    observe(&*provider(config)).await
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
    let observed = exchanged(&server.url, timeout).await;
    assert_eq!(*server.connections.lock().unwrap(), 1, "exactly one attempt");
    observed.keeps_quiet_about([SECRET, TOKEN]);
    observed
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let observed = exchanged(&url, PATIENT).await;
    assert_eq!(observed.failure(), Failure::Unreachable);
    observed.keeps_quiet_about([SECRET]);
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
