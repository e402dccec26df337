//! An upstream that sends back what it was sent, in all places that an answer has: `/m<number>/…`.

use super::scanner::gzipped;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many ways there are.
pub(super) const MODES: usize = 40;

pub(super) struct Echo {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<usize>>>,
    _serving: JoinSet<()>,
}

/// A request as it came.
struct Request {
    path: String,
    whole: String,
    body: String,
}

impl Echo {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<usize>>>::default());
        let (mut serving, counted) = (JoinSet::new(), Arc::clone(&asked));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                connections.spawn(async move { drop(serve(socket, address, &counted).await) });
            }
        });
        Self { address, asked, _serving: serving }
    }

    /// How often each way was gone.
    pub(super) fn asked(&self) -> Vec<usize> {
        let asked = self.asked.lock().unwrap();
        (0..MODES).map(|mode| asked.iter().filter(|one| **one == mode).count()).collect()
    }
}

async fn serve(mut socket: TcpStream, address: SocketAddr, asked: &Mutex<Vec<usize>>) -> std::io::Result<()> {
    let Some(request) = Request::read(&mut socket).await? else { return Ok(()) };
    let digits: String = request.path.chars().skip(2).take_while(char::is_ascii_digit).collect();
    let mode = digits.parse().unwrap_or(0);
    asked.lock().unwrap().push(mode);
    socket.write_all(&request.answer(mode, address)).await?;
    socket.shutdown().await
}

/// The end of the headers, and how long the body is.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((end, length.unwrap_or(0)))
}

impl Request {
    async fn read(socket: &mut TcpStream) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some((end, length)) = head(&bytes)
                && bytes.len() >= end + length
            {
                let whole = String::from_utf8_lossy(&bytes).into_owned();
                let path = whole.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = String::from_utf8_lossy(&bytes[end..]).into_owned();
                return Ok(Some(Self { path, whole, body }));
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// All of it in one line that a header may hold.
    fn line(&self) -> String {
        self.whole.chars().map(|sign| if sign.is_ascii_graphic() { sign } else { ' ' }).collect()
    }

    fn answer(&self, mode: usize, address: SocketAddr) -> Vec<u8> {
        match mode {
            0..20 => self.in_bodies(mode),
            20..30 => self.in_heads(mode - 20, address),
            _ => self.broken(mode - 30),
        }
    }

    fn in_bodies(&self, mode: usize) -> Vec<u8> {
        let (whole, line) = (&self.whole, self.line());
        let jwt = |claims: &Value| format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let exp = 4_102_444_800_u64;
        match mode {
            0 => plain("200 OK", whole),
            1 => of("200 OK", &json!({ "echo": whole })),
            2 => of("400 Bad Request", &json!({ "error": line, "error_description": whole, "error_uri": line })),
            3 => of("401 Unauthorized", &json!({ "error": "invalid_client", "message": whole, "description": whole })),
            4 => plain("403 Forbidden", &format!("<html>{whole}</html>")),
            5 => of("404 Not Found", &json!([whole])),
            6 => of("400 Bad Request", &json!({ "error": { "code": line, "message": whole } })),
            7 => of("500 Internal Server Error", &json!(whole)),
            8 => of("422 Unprocessable Entity", &json!({ "errors": [{ (line.as_str()): whole }] })),
            9 => of("200 OK", &json!({ (line.as_str()): { (whole.as_str()): whole } })),
            10 => of("200 OK", &tokens(&json!({ "x": whole }), &json!(3600))),
            11 => of("200 OK", &tokens(&json!(format!("{line}\u{7}\u{fc}")), &json!(3600))),
            12 => of("200 OK", &tokens(&json!("a-token-that-is-no-jwt"), &json!(line))),
            13 => of(
                "200 OK",
                &tokens(&json!(jwt(&json!({ "exp": exp, "esc.org": line, "tenantId": line }))), &json!(line)),
            ),
            14 => of("200 OK", &tokens(&json!(jwt(&json!({ "exp": line, "iat": whole }))), &Value::Null)),
            15 => plain("200 OK", &format!("{{\"access_token\": \"{line}")),
            16 => plain("200 OK", &format!("{{\"auth_token\": {}, \"auth_token\": {0}}}", json!(whole))),
            17 => [plain("200 OK", ""), b"\xff\xfe".to_vec(), whole.as_bytes().to_vec()].concat(),
            18 => of("200 OK", &json!({ "access_token": "x", "token_type": line, "expires_in": 3600 })),
            _ => of("401 Unauthorized", &json!({ "error": self.body, "errorCode": self.body, "code": self.body })),
        }
    }

    fn in_heads(&self, mode: usize, address: SocketAddr) -> Vec<u8> {
        let line = self.line();
        let url: String = url::form_urlencoded::byte_serialize(self.whole.as_bytes()).collect();
        let name: String = self.body.chars().filter(char::is_ascii_alphanumeric).collect();
        let with = |status: &str, headers: &str| {
            format!("HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}").into_bytes()
        };
        match mode {
            0 => with("302 Found", &format!("location: http://{address}/m0/?{url}")),
            1 => with("307 Temporary Redirect", &format!("location: {line}")),
            2 => with(&format!("200 {line}"), "x: y"),
            3 => with("200 OK", &format!("x-{name}: {line}")),
            4 => with("429 Too Many Requests", &format!("retry-after: {line}")),
            5 => with("503 Service Unavailable", &format!("retry-after: 1\r\nretry-after: {line}\r\ndate: {line}")),
            6 => with("200 OK", &format!("content-type: {line}\r\nset-cookie: a={line}")),
            7 => with("200 OK", &format!("content-encoding: {line}")),
            8 => with("401 Unauthorized", &format!("www-authenticate: Bearer error=\"{line}\", realm={line}")),
            _ => with("101 Switching Protocols", &format!("upgrade: {line}")),
        }
    }

    fn broken(&self, mode: usize) -> Vec<u8> {
        let (whole, line) = (&self.whole, self.line());
        match mode {
            0 => format!("{line}\r\n\r\n").into_bytes(),
            1 => whole.clone().into_bytes(),
            2 => format!("HTTP/1.1 {line}\r\n\r\n").into_bytes(),
            3 => format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").into_bytes(),
            4 => format!("HTTP/1.1 200 OK\r\ncontent-length: {line}\r\n\r\n{{}}").into_bytes(),
            5 => format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{line}\r\n{whole}").into_bytes(),
            6 => format!("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{whole}").into_bytes(),
            7 => {
                format!("HTTP/1.1 103 Early Hints\r\nlink: {line}\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
                    .into_bytes()
            }
            8 => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", line.repeat(400)).into_bytes(),
            _ => {
                let body = gzipped(whole.as_bytes());
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            }
        }
    }
}

/// By all the names that a token goes by.
fn tokens(token: &Value, expires_in: &Value) -> Value {
    json!({
        "auth_token": token, "access_token": token, "accessToken": token, "token": token,
        "refresh_token": token, "token_type": "Bearer",
        "expires_in": expires_in, "expiresIn": expires_in, "expires": expires_in,
    })
}

fn of(status: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    format!("{head}connection: close\r\n\r\n{body}").into_bytes()
}

/// Until the end of the connection.
fn plain(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{body}").into_bytes()
}
