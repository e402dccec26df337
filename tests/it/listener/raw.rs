//! A peer that speaks HTTP/2 frame by frame (RFC 9113), and answers nothing by itself.

use super::PATIENCE;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

// Types of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

// Flags.
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

// Error codes.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 431`, as the server's header compression writes it.
pub(crate) const STATUS_431: [u8; 5] = [0x48, 0x83, 0x69, 0x90, 0xff];
/// The same, once both sides have it in their tables.
pub(crate) const STATUS_431_AGAIN: [u8; 1] = [0xbe];

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Raw(pub(crate) TcpStream);

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block without compression (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

pub(crate) fn literal(block: &mut Vec<u8>, text: &str) {
    match text.len().checked_sub(127) {
        None => block.push(u8::try_from(text.len()).unwrap()),
        Some(mut rest) => {
            block.push(127);
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 0x80);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend(text.as_bytes());
}

/// What begins a gRPC call to this path.
pub(crate) fn call_to(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    block(&fields)
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap())
    }

    /// From this address of the machine.
    pub(crate) async fn connect_from(host: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((host, 0))).unwrap();
        Self(timeout(PATIENCE, socket.connect(address)).await.unwrap().unwrap())
    }

    pub(crate) async fn greeted(address: SocketAddr) -> Self {
        Self::connect(address).await.greet(&[]).await.expect("it was not let in")
    }

    /// Greets with these settings. Nothing if the connection ends before it is greeted back.
    pub(crate) async fn greet(mut self, settings: &[(u16, u32)]) -> Option<Self> {
        let mut bytes = PREFACE.to_vec();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        bytes.extend(frame(SETTINGS, 0, 0, &settings));
        self.0.write_all(&bytes).await.ok()?;
        let mut first = [0; 1];
        let peeked = timeout(PATIENCE, self.0.peek(&mut first)).await.expect("neither let in nor refused");
        peeked.is_ok_and(|bytes| bytes > 0).then_some(self)
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }

    /// Writes as much as the server takes before it ends the connection, and reads nothing.
    pub(crate) async fn pour(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.0.write_all(bytes)).await.expect("it takes no more, and does not end")
    }

    /// The next frame, or nothing once the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        next_frame(&mut self.0).await
    }

    /// The payload of the next frame of this kind.
    pub(crate) async fn expect(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let frame = self.frame().await.expect("the connection has ended");
            if frame.kind == kind {
                return frame.payload;
            }
        }
    }

    /// The code with which it is sent away.
    pub(crate) async fn sent_away(&mut self) -> u32 {
        error_code(&self.expect(GOAWAY).await[4..])
    }

    pub(crate) async fn ended(&mut self) {
        while self.frame().await.is_some() {}
    }

    /// Answers PINGs until the connection ends, and says which kinds of frames came.
    pub(crate) async fn answer_pings(&mut self) -> Vec<u8> {
        timeout(PATIENCE, self.answer()).await.expect("it goes on")
    }

    async fn answer(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some(got) = self.frame().await {
            kinds.push(got.kind);
            // Of no use to who has been cut meanwhile, which the next read shows.
            if got.kind == PING
                && got.flags & ACK == 0
                && self.0.write_all(&frame(PING, ACK, 0, &got.payload)).await.is_err()
            {
                break;
            }
        }
        kinds
    }
}

/// The next frame, or nothing once the connection has ended.
pub(crate) async fn next_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let read = async {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    };
    timeout(PATIENCE, read).await.expect("nothing came, and the connection did not end")
}

/// The code of a `RST_STREAM`, or of a GOAWAY after its stream.
pub(crate) fn error_code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}
