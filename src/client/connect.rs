//! Makes a connection: over TCP, TLS or a Unix socket; and keeps an eye on its beginning, for only the bytes tell why a
//! connection was cut. A server that speaks TLS 1.3 objects to a client certificate after the handshake is done here.

use super::endpoint::{Endpoint, Way};
use super::why::Why;
use super::{Access, Clear, Error, files};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

/// How a record of TLS begins that holds an alert: what a TLS server says to plaintext.
const ALERT: u8 = 0x15;

/// What makes the connections of one client.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) access: Arc<Access>,
    /// How long a connection over TCP may take, before TLS.
    pub(super) limit: Duration,
    pub(super) noted: Noted,
}

/// How many connections in a row may be cut before anything was said on them. tonic's channel makes the next one at
/// once, and would do so until the call's time is over.
const MOST_CUT: u32 = 3;

/// Why the last connection that was made failed before anything was said on it, if one did.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted(Arc<Mutex<Cuts>>);

#[derive(Debug, Default)]
struct Cuts {
    why: Option<Why>,
    /// Connections since the last one on which something was said.
    made: u32,
}

impl Connector {
    /// One connection. The files of TLS are read for it.
    pub(super) async fn connect(self) -> Result<TokioIo<Watched>, Error> {
        self.noted.another().map_err(|why| self.unreachable(why))?;
        let io: Box<dyn Io> = match &self.endpoint.way {
            Way::Unix(path) => Box::new(self.unix(path).await?),
            Way::Plain(uri) => Box::new(self.plain(uri).await?),
            Way::Tls(uri, name) => {
                let Access { ca, identity, .. } = &*self.access;
                let config = files::tls(ca.as_deref(), identity.as_ref()).await?;
                let socket = self.tcp(uri).await?;
                let stream = TlsConnector::from(config).connect(name.clone(), socket).await;
                let stream = stream.map_err(|error| self.unreachable(Why::of_handshake(&error)))?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(self.unreachable(Why::NoHttp2));
                }
                Box::new(stream)
            }
        };
        let is_tls = matches!(self.endpoint.way, Way::Tls(..));
        Ok(TokioIo::new(Watched { io, is_tls, heard: false, noted: self.noted }))
    }

    async fn unix(&self, path: &Path) -> Result<UnixStream, Error> {
        UnixStream::connect(path).await.map_err(|error| self.unreachable(Why::of_socket(&error)))
    }

    /// A name that is written as this machine's may still lead elsewhere.
    async fn plain(&self, uri: &Uri) -> Result<TcpStream, Error> {
        let socket = self.tcp(uri).await?;
        let is_here = socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        if !is_here && self.access.token.is_some() && self.access.clear == Clear::Refused {
            return Err(Error::BearerInTheClear(self.endpoint.text.clone()));
        }
        Ok(socket)
    }

    async fn tcp(&self, uri: &Uri) -> Result<TcpStream, Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.limit));
        let socket = connector.oneshot(uri.clone()).await;
        socket.map(TokioIo::into_inner).map_err(|error| self.unreachable(Why::of(&error)))
    }

    fn unreachable(&self, why: Why) -> Error {
        Error::Unreachable { endpoint: self.endpoint.text.clone(), why }
    }
}

impl Noted {
    /// What was noted, if anything.
    pub(super) fn why(&self) -> Option<Why> {
        self.cuts().why.clone()
    }

    /// One more connection, unless too many were cut.
    fn another(&self) -> Result<(), Why> {
        let mut cuts = self.cuts();
        if let Some(why) = cuts.why.as_ref().filter(|_| cuts.made >= MOST_CUT) {
            return Err(why.clone());
        }
        cuts.made = cuts.made.saturating_add(1);
        Ok(())
    }

    fn set(&self, why: Option<Why>) {
        let mut cuts = self.cuts();
        if why.is_none() {
            cuts.made = 0;
        }
        cuts.why = why;
    }

    fn cuts(&self) -> MutexGuard<'_, Cuts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection runs over.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection whose first bytes are looked at.
pub(super) struct Watched {
    io: Box<dyn Io>,
    is_tls: bool,
    /// Whether the other side has said anything.
    heard: bool,
    noted: Noted,
}

impl Watched {
    fn first(&mut self, read: &io::Result<()>, came: &[u8]) {
        let cut = self.is_tls.then_some(Why::CutAfterHandshake);
        let why = match (read, came.first()) {
            (Err(error), _) => Why::of_tls(error).or(cut),
            (Ok(()), None) => cut,
            (Ok(()), Some(&first)) => (first == ALERT && !self.is_tls).then_some(Why::TlsSpoken),
        };
        self.heard = true;
        self.noted.set(why);
    }

    /// A cut that shows when something is sent; what is read after it may still say why.
    fn cut_at<T>(&self, sent: &Poll<io::Result<T>>) {
        if self.is_tls && !self.heard && matches!(sent, Poll::Ready(Err(_))) {
            self.noted.set(Some(Why::CutAfterHandshake));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if !self.heard && buf.capacity() > 0 {
            self.first(&read, buf.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.cut_at(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.cut_at(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.cut_at(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
