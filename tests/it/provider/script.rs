//! An upstream that does as it is told, one connection after the other, and remembers what it was asked.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of a request.
#[derive(Clone)]
pub(super) enum Act {
    /// A JSON document with this status.
    Answer(u16, String),
    /// The same, after so long.
    Late(Duration, u16, String),
    /// These very bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// The end of the connection, without a word.
    Cut,
    /// Silence.
    Hang,
}

pub(super) struct Script {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Script {
    /// The requests so far: the first line, a blank, the body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

pub(super) fn ok(body: &str) -> Act {
    Act::Answer(200, body.to_owned())
}

pub(super) async fn script(acts: &[Act]) -> Script {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, acts) = (Arc::clone(&requests), acts.to_vec());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for act in acts {
            let (socket, _) = listener.accept().await.unwrap();
            // An error is what these acts provoke: the client hangs up on them.
            drop(play(socket, act, &seen).await);
        }
    });
    Script { url, requests, _tasks: tasks }
}

async fn play(mut socket: TcpStream, act: Act, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let request = read(&mut socket).await?;
    seen.lock().unwrap().push(request);
    match act {
        Act::Answer(status, body) => answer(&mut socket, status, &body).await,
        Act::Late(wait, status, body) => {
            // The slowness of this upstream; the test waits for nothing with it.
            tokio::time::sleep(wait).await;
            answer(&mut socket, status, &body).await
        }
        Act::Raw(bytes) => {
            socket.write_all(&bytes).await?;
            socket.shutdown().await
        }
        Act::Cut => Ok(()),
        Act::Hang => socket.read_u8().await.map(drop),
    }
}

async fn answer(socket: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(format!("{head}{body}").as_bytes()).await?;
    socket.shutdown().await
}

async fn read(socket: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            let first = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
            return Ok(format!("{first} {body}"));
        }
    }
}
