//! One connection: HTTP/1.1 over a line that can be told to misbehave.
//!
//! A request's work can leave one order in the [`Slot`] of its connection; the line obeys it on the next write. HTTP/1
//! has one request under way per connection, so an order always meets the answer it was meant for.

use super::faults::{CutAt, CutBy};
use axum::{Router, body::Body};
use bytes::Bytes;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

/// For how long a request's head may take, and a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// How large a request's head may be, in bytes.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) slot: Arc<Slot>,
}

/// Where the work on a request leaves an order for its connection.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Order>>);

/// What to do instead of writing an answer.
#[derive(Debug)]
pub(super) enum Order {
    /// End the connection; `after` the head and so many bytes of the body, or at once.
    Cut { by: CutBy, after: Option<usize> },
    /// Write these bytes, then end the connection.
    Raw(Bytes),
}

impl Order {
    /// A cut of an answer whose body has so many bytes.
    pub(super) fn cut(at: CutAt, by: CutBy, body: usize) -> Self {
        let after = match at {
            // An answer without a body would be whole after its head.
            CutAt::InBody if body > 0 => Some(body / 2),
            CutAt::InBody | CutAt::Before => None,
        };
        Self::Cut { by, after }
    }
}

impl Slot {
    pub(super) fn order(&self, order: Order) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
    }

    fn take(&self) -> Option<Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(stream: TcpStream, address: IpAddr, router: Router) {
    let slot = Arc::<Slot>::default();
    let line = TokioIo::new(Line { stream, slot: Arc::clone(&slot), order: None, head: Head::default() });
    let peer = Peer { address, slot };
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        // `Date` follows the sandbox's clock.
        .auto_date_header(false)
        .serve_connection(line, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a sandbox connection ended early");
    }
}

/// The stream below HTTP.
struct Line {
    stream: TcpStream,
    slot: Arc<Slot>,
    /// The order being obeyed.
    order: Option<Order>,
    head: Head,
}

impl Line {
    /// Ends the connection: the caller drops it on this error.
    fn cut(&self, by: CutBy) -> io::Error {
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault");
        match by {
            CutBy::Close => error,
            // Closing with a zero linger sends RST.
            CutBy::Reset => self.stream.set_zero_linger().err().unwrap_or(error),
        }
    }

    fn write_raw(&mut self, cx: &mut Context<'_>, mut bytes: Bytes) -> Poll<io::Result<usize>> {
        while !bytes.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(bytes.split_to(written)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.order = Some(Order::Raw(bytes));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Err(self.cut(CutBy::Close)))
    }

    fn write_until_cut(&mut self, cx: &mut Context<'_>, buf: &[u8], by: CutBy, left: usize) -> Poll<io::Result<usize>> {
        let in_head = self.head.bytes_in(buf);
        let allowed = buf.len().min(in_head + left);
        let Some(part) = buf.get(..allowed).filter(|part| !part.is_empty()) else {
            return Poll::Ready(Err(self.cut(by)));
        };
        let polled = Pin::new(&mut self.stream).poll_write(cx, part);
        let written = match &polled {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.head.passed(part.get(..written).unwrap_or_default());
        let after = Some(left - written.saturating_sub(in_head).min(left));
        self.order = Some(Order::Cut { by, after });
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let line = self.get_mut();
        if let Some(order) = line.slot.take() {
            line.order = Some(order);
            line.head = Head::default();
        }
        match line.order.take() {
            None => Pin::new(&mut line.stream).poll_write(cx, buf),
            Some(Order::Raw(bytes)) => line.write_raw(cx, bytes),
            Some(Order::Cut { by, after: None }) => Poll::Ready(Err(line.cut(by))),
            Some(Order::Cut { by, after: Some(left) }) => line.write_until_cut(cx, buf, by, left),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

/// Finds the end of an answer's head (RFC 9112 §2.1: an empty line) in the bytes that pass by.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// How much of CR LF CR LF has been seen at the end of what passed; 4 is all of it.
    matched: usize,
}

impl Head {
    /// How many of these bytes still belong to the head.
    fn bytes_in(self, buf: &[u8]) -> usize {
        let mut head = self;
        buf.iter()
            .take_while(|byte| {
                let inside = head.matched < 4;
                head.step(**byte);
                inside
            })
            .count()
    }

    fn passed(&mut self, buf: &[u8]) {
        for byte in buf {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        self.matched = match (self.matched, byte) {
            (4, _) => 4,
            (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
            (_, b'\r') => 1,
            (_, _) => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_at_the_first_empty_line_however_it_is_cut_up() {
        let answer = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\r\n\r\nmore";
        let expected = answer.len() - b"body\r\n\r\nmore".len();
        for cut in 0..=answer.len() {
            let (first, second) = answer.split_at(cut);
            let mut head = Head::default();
            let in_first = head.bytes_in(first);
            head.passed(first);
            assert_eq!(in_first + head.bytes_in(second), expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_answer_without_a_body_is_cut_before_its_head() {
        let order = Order::cut(CutAt::InBody, CutBy::Close, 0);
        assert!(matches!(order, Order::Cut { after: None, .. }));
    }
}
