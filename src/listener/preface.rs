//! Which protocol a peer speaks, by its first bytes.

use std::io::{self, Cursor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Chain, Join, ReadHalf, WriteHalf, join, split};

/// The client's preface of HTTP/2 (RFC 9113 §3.4).
pub(super) const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// A stream from which the first bytes can be read once more.
pub(super) type Rewound<I> = Join<Chain<Cursor<Vec<u8>>, ReadHalf<I>>, WriteHalf<I>>;

/// Reads until the preface is there or can't come any more. The caller bounds it in time.
pub(super) async fn read<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) -> io::Result<(Spoken, Rewound<I>)> {
    let mut first = Vec::with_capacity(HTTP2.len());
    let spoken = loop {
        let missing = HTTP2.len() - first.len();
        if missing == 0 {
            break Spoken::Http2;
        }
        if (&mut io).take(missing as u64).read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2.starts_with(&first) {
            break Spoken::Http1;
        }
    };
    let (reading, writing) = split(io);
    Ok((spoken, join(Cursor::new(first).chain(reading), writing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn the_preface_tells_and_nothing_is_lost() {
        let long = [HTTP2.as_slice(), b"and more"].concat();
        let rows: [(&[u8], Spoken); 4] = [
            (&long, Spoken::Http2),
            (b"GET / HTTP/1.1\r\n", Spoken::Http1),
            (b"PRI * HTTP/1.1\r\nhost: a\r\n\r\n", Spoken::Http1),
            (b"X", Spoken::Http1),
        ];
        for (bytes, expected) in rows {
            // As it comes, byte by byte.
            let (mut peer, io) = duplex(1);
            let write = async {
                peer.write_all(bytes).await.unwrap();
                peer.shutdown().await.unwrap();
            };
            let read = async {
                let (spoken, mut io) = read(io).await.unwrap();
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.unwrap();
                (spoken, all)
            };
            let ((), (spoken, all)) = tokio::join!(write, read);
            assert_eq!((spoken, all.as_slice()), (expected, bytes));
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_before_it_has_said_is_an_error() {
        let (mut peer, io) = duplex(64);
        peer.write_all(b"PRI * ").await.unwrap();
        drop(peer);
        assert_eq!(read(io).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
