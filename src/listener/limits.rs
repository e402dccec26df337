//! Every limit of a listener, set explicitly: a library's default is assumed unsafe until measured.

use std::time::Duration;

/// The limits of one listener. [`Limits::default`] is meant for production.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections at once, over all peers. Default 4,096. What the limit on file descriptors does not carry is cut off
    /// by [`fit`](super::fit).
    pub max_connections: usize,
    /// Connections at once of one peer: an IPv4 address, or the /64 of an IPv6 address. Default 1,024, for a gateway or
    /// a NAT is one address, and so is all of loopback.
    pub max_connections_per_peer: usize,
    /// Connections per second that one peer may open on the long run. Default 500: a peer that is thrown out for what
    /// it does on a connection must not come back thousands of times a second.
    pub peer_connection_rate: u32,
    /// Connections that one peer may open at once, ahead of its rate. Default 2,048.
    pub peer_connection_burst: u32,
    /// From the accept to the end of the TLS handshake. Default 5 s.
    pub handshake: Duration,
    /// From the accept, or the end of the handshake, to the first bytes (HTTP/2: the whole 24-byte preface). Default
    /// 5 s. Keep-alive does not see a peer that never sends them.
    pub first_bytes: Duration,
    /// How long a peer may leave what was sent to it unread before it is cut. Default 10 s.
    pub write_stall: Duration,
    /// When a connection is asked to go (GOAWAY), so that load spreads over replicas. Default 30 min.
    pub max_age: Duration,
    /// How far the age is spread to both sides, as a part of it. Default 0.1.
    pub age_jitter: f64,
    /// From GOAWAY to the cut of a connection with calls, and of any HTTP/1 connection. Default 35 s, so that a call of
    /// the longest deadline (30 s) that began before can end. At the drain, the process's drain timeout may come first.
    pub grace: Duration,
    /// HTTP/2: from GOAWAY, or the end of the last call after it, to the cut of a connection on which no call is under
    /// way. Default 2 s: who has not gone by then won't, and must not hold up the end of the process.
    pub idle_grace: Duration,
    /// HTTP/1: from the start of a request (or of the wait for the next one) to the end of its headers. Default 5 s.
    pub header_read: Duration,
    /// HTTP/1: header lines of a request. Default 64.
    pub http1_headers: usize,
    /// HTTP/1: read buffer, and so the size of a request's headers. Default 8 KiB, the least that hyper takes.
    pub http1_buffer: usize,
    /// HTTP/2 limits.
    pub http2: Http2Limits,
}

/// The limits of an HTTP/2 connection. Names follow RFC 9113 where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Limits {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`: calls at once. Default 100. tonic's default advertises none.
    pub max_concurrent_streams: u32,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`: metadata of a call, in bytes. Default 8 KiB.
    pub max_header_list_size: u32,
    /// `SETTINGS_HEADER_TABLE_SIZE`: memory for the peer's header compression, in bytes. Default 4 KiB.
    pub header_table_size: u32,
    /// `SETTINGS_MAX_FRAME_SIZE` in bytes. Default 16 KiB, the least that the RFC allows.
    pub max_frame_size: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`: unread bytes of one call. Default 64 KiB; requests are at most 16 KiB.
    pub stream_window: u32,
    /// Unread bytes of all calls of a connection. Default 256 KiB.
    pub connection_window: u32,
    /// Bytes of one call that wait to be written. Default 64 KiB; hyper's is 400 KiB.
    pub max_send_buffer: usize,
    /// Streams that the peer reset before they were accepted ("rapid reset"); more end the connection. Default 20.
    pub max_pending_accept_reset_streams: usize,
    /// Streams that were reset because the peer broke the protocol; more end the connection. Default 1,024. tonic
    /// 0.14.3 and later switch this off, and a peer that never reads then fills the memory.
    pub max_local_error_reset_streams: usize,
    /// Between PINGs on a quiet connection. Default 8 s.
    pub keep_alive_interval: Duration,
    /// From a PING to the cut. Default 5 s: with the interval less than 15 s, for which nobody may stay in any phase.
    /// Also ends a peer that stops in the middle of a frame or of a header block, since it can't answer there.
    pub keep_alive_timeout: Duration,
    /// Frames that carry no call (PING, SETTINGS, `WINDOW_UPDATE`, …) per second in the long run; whoever sends more is
    /// read more slowly. Each call earns some more. Default 1,000.
    pub control_frames_per_second: u32,
    /// The same at once, after a rest. Default 2,000.
    pub control_frames_burst: u32,
    /// After how long of being slowed down for that a peer is cut. Default 10 s.
    pub control_frames_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_peer: 1024,
            peer_connection_rate: 500,
            peer_connection_burst: 2048,
            handshake: Duration::from_secs(5),
            first_bytes: Duration::from_secs(5),
            write_stall: Duration::from_secs(10),
            max_age: Duration::from_secs(30 * 60),
            age_jitter: 0.1,
            grace: Duration::from_secs(35),
            idle_grace: Duration::from_secs(2),
            header_read: Duration::from_secs(5),
            http1_headers: 64,
            http1_buffer: 8 * 1024,
            http2: Http2Limits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            max_header_list_size: 8 * 1024,
            header_table_size: 4 * 1024,
            max_frame_size: 16 * 1024,
            stream_window: 64 * 1024,
            connection_window: 256 * 1024,
            max_send_buffer: 64 * 1024,
            max_pending_accept_reset_streams: 20,
            max_local_error_reset_streams: 1024,
            keep_alive_interval: Duration::from_secs(8),
            keep_alive_timeout: Duration::from_secs(5),
            control_frames_per_second: 1000,
            control_frames_burst: 2000,
            control_frames_patience: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The age at which one connection is asked to go; `random` is in 0–1.
    pub(super) fn jittered_age(&self, random: f64) -> Duration {
        let factor = 1.0 + self.age_jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0);
        self.max_age.mul_f64(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_spread_to_both_sides() {
        let limits = Limits { max_age: Duration::from_secs(1000), ..Limits::default() };
        assert_eq!(limits.jittered_age(0.0), Duration::from_secs(900));
        assert_eq!(limits.jittered_age(0.5), Duration::from_secs(1000));
        assert_eq!(limits.jittered_age(1.0), Duration::from_secs(1100));
    }
}
