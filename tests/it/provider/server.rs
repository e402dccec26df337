//! A server on loopback that gives the answers of a case, one per connection, and keeps what it was sent.

use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(super) struct Server {
    pub(super) url: String,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&sent);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await.unwrap();
                kept.lock().unwrap().push(request);
                // One request too many gets none, and is counted.
                let answer = answers.next().unwrap_or_default();
                // The client hangs up on much of what is sent here.
                drop(write(&mut socket, &answer).await);
            }
        });
        Self { url, sent, _task: task }
    }

    /// What was sent so far.
    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap().clone()
    }
}

async fn write(socket: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    socket.write_all(answer).await?;
    socket.shutdown().await
}

/// A request with its body, as long as its head says.
async fn read_request(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(head) = head_length(&request)
            && request.len() >= head + body_length(&request[..head])
        {
            return Ok(request);
        }
        if socket.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

pub(super) fn head_length(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn body_length(head: &[u8]) -> usize {
    let head = String::from_utf8(head.to_vec()).unwrap().to_lowercase();
    assert!(!head.contains("transfer-encoding"), "the length of a body is known when it is sent");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(0, |length| length.trim().parse().unwrap())
}
