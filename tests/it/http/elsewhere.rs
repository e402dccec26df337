//! Answers and surroundings that point elsewhere. Whatever they say, nobody but the upstream hears from the client:
//! each place that is pointed to has a listener that counts who comes.

use super::{LIMIT, OK, another_process, listen, options, passes, post, serve_one};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use token_broker::http::SendError;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Places that nobody should come to, on addresses of their own: another port of the upstream's host, another host, and
/// a port for UDP, where HTTP/3 would go.
struct Elsewhere {
    same_host: u16,
    other_host: u16,
    udp: u16,
    visits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Elsewhere {
    async fn new() -> Self {
        let visits = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let mut ports = Vec::new();
        for host in ["127.0.0.1:0", "127.0.0.2:0"] {
            let listener = TcpListener::bind(host).await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let visits = Arc::clone(&visits);
            tasks.spawn(async move {
                while listener.accept().await.is_ok() {
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let udp = socket.local_addr().unwrap().port();
        let counted = Arc::clone(&visits);
        tasks.spawn(async move {
            while socket.recv(&mut [0; 2048]).await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { same_host: ports[0], other_host: ports[1], udp, visits, _tasks: tasks }
    }

    /// Who came, after all who were on their way have arrived: a connection of our own is queued behind theirs.
    async fn visits(&self) -> usize {
        for (host, port) in [("127.0.0.1", self.same_host), ("127.0.0.2", self.other_host)] {
            tokio::net::TcpStream::connect((host, port)).await.unwrap();
        }
        let datagram = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        datagram.send_to(b"a", ("127.0.0.1", self.udp)).await.unwrap();
        let arrived = async {
            while self.visits.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, arrived).await.unwrap();
        self.visits.swap(0, Ordering::SeqCst) - 3
    }

    /// Headers that point there.
    fn pointers(&self, upstream: u16) -> Vec<String> {
        let (same, other, udp) = (self.same_host, self.other_host, self.udp);
        vec![
            format!("Location: http://127.0.0.1:{same}/"),
            format!("Location: http://127.0.0.2:{other}/"),
            format!("Location: https://127.0.0.2:{other}/"),
            format!("Location: https://127.0.0.1:{upstream}/"),
            format!("Location: //127.0.0.2:{other}/"),
            format!("Location: http://user:password@127.0.0.2:{other}/"),
            format!("Location: http://127.0.0.1:{upstream}@127.0.0.2:{other}/"),
            format!("Location: http://127.0.0.1:{upstream}/elsewhere"),
            "Location: /elsewhere".to_owned(),
            "Location: file:///etc/passwd".to_owned(),
            "Location: ".to_owned(),
            format!("Content-Location: http://127.0.0.2:{other}/"),
            format!("Refresh: 0; url=http://127.0.0.2:{other}/"),
            format!("Refresh: 0;http://127.0.0.2:{other}/"),
            format!("Link: <http://127.0.0.2:{other}/>; rel=preload, <http://127.0.0.1:{same}/>; rel=preconnect"),
            format!("Alt-Svc: http/1.1=\":{same}\"; ma=86400; persist=1"),
            format!("Alt-Svc: h2=\"127.0.0.2:{other}\", h3=\":{udp}\""),
            format!("Proxy-Authenticate: Basic realm=\"http://127.0.0.2:{other}/\""),
            format!("WWW-Authenticate: Bearer authorization_uri=\"http://127.0.0.2:{other}/\""),
            format!("Strict-Transport-Security: max-age=86400\r\nReport-To: {{\"url\":\"http://127.0.0.2:{other}/\"}}"),
            "Upgrade: h2c\r\nConnection: Upgrade".to_owned(),
        ]
    }
}

/// The second request to the same upstream shows that nothing was learnt from the first answer either.
#[tokio::test]
async fn nobody_else_hears_of_a_credential() {
    let elsewhere = Elsewhere::new().await;
    let (upstream, port) = listen().await;
    let url = format!("http://127.0.0.1:{port}/path");
    for status in [200, 201, 300, 301, 302, 303, 305, 307, 308, 401, 407, 421, 426] {
        for pointer in elsewhere.pointers(port) {
            let answer = format!("HTTP/1.1 {status} Gone\r\n{pointer}\r\nContent-Length: 0\r\n\r\n");
            for _ in 0..2 {
                let sending = options();
                let exchange = async { tokio::join!(post(&sending, &url), serve_one(&upstream, answer.as_bytes())) };
                let (sent, request) = tokio::time::timeout(LIMIT, exchange).await.expect("one request, one answer");
                assert_eq!(sent.unwrap().head.status, status, "{pointer}");
                assert_eq!(request.matches("hunter2").count(), 1, "{status} {pointer}");
                assert!(request.starts_with("POST /path HTTP/1.1\r\n"), "{status} {pointer}");
            }
            let came = futures_util::FutureExt::now_or_never(upstream.accept());
            assert!(came.is_none(), "{status} {pointer}: the upstream was asked again");
            assert_eq!(elsewhere.visits().await, 0, "{status} {pointer}");
        }
    }
}

/// Run once more for each environment by [`no_proxy_of_the_environment_hears_of_a_credential`].
#[tokio::test]
async fn the_upstream_alone_is_asked() {
    let (upstream, port) = listen().await;
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}/path");
        let sending = options();
        let (sent, request) = tokio::join!(post(&sending, &url), serve_one(&upstream, OK));
        assert_eq!(sent.unwrap().head.status, 200);
        assert!(request.starts_with("POST /path HTTP/1.1\r\n"), "{request}");
        // Not TLS, so it comes to nothing, but here and not elsewhere.
        let url = format!("https://{host}:{port}/path");
        let (sent, accepted) = tokio::join!(post(&sending, &url), hang_up(&upstream));
        assert!(matches!(sent, Err(SendError::NoAnswer(_))), "{sent:?}");
        assert!(!accepted.is_empty(), "a hello of TLS");
    }
}

async fn hang_up(listener: &TcpListener) -> Vec<u8> {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut hello = Vec::new();
    tokio::io::AsyncReadExt::read_buf(&mut socket, &mut hello).await.unwrap();
    hello
}

#[tokio::test]
async fn no_proxy_of_the_environment_hears_of_a_credential() {
    let elsewhere = Elsewhere::new().await;
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let (one, other) = (elsewhere.same_host, elsewhere.other_host);
    let proxies = [
        format!("http://127.0.0.1:{one}"),
        format!("http://user:password@127.0.0.2:{other}"),
        format!("https://127.0.0.2:{other}"),
        format!("socks5h://127.0.0.2:{other}"),
        format!("127.0.0.2:{other}"),
    ];
    for proxy in &proxies {
        for set in names.iter().map(std::slice::from_ref).chain([names.as_slice()]) {
            let mut child = another_process("http::elsewhere::the_upstream_alone_is_asked");
            for name in names.iter().chain(&["NO_PROXY", "no_proxy", "REQUEST_METHOD"]) {
                child.env_remove(name);
            }
            for name in set {
                child.env(name, proxy);
            }
            passes(child).await;
            assert_eq!(elsewhere.visits().await, 0, "{set:?} = {proxy}");
        }
    }
}
