//! A stream that fails when its peer is silent at the start or stops reading, the two waits that hyper does not bound;
//! that slows down who floods it; and of which nothing is read while its line is paused.

use super::pace::{Pace, Verdict};
use crate::limits::Line;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Wraps the stream of a connection.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    io: T,
    /// Until the first bytes have come.
    first: Option<FirstBytes>,
    line: Line,
    /// Runs while the line is paused.
    pause: Option<Pin<Box<Sleep>>>,
    write_stall: Duration,
    /// Runs while the peer takes no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    pace: Option<Pace>,
    /// Runs while nothing is read for the sake of the pace.
    waiting: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct FirstBytes {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<T> Guarded<T> {
    /// Reads fail unless so many bytes come first within this time, if that is asked for; writes fail once stalled for
    /// `write_stall`. While the line is paused, nothing is read.
    pub(super) fn new(io: T, first: Option<(usize, Duration)>, line: Line, write_stall: Duration) -> Self {
        let first = first.map(|(missing, within)| FirstBytes { missing, deadline: Box::pin(sleep(within)) });
        Self { io, first, line, pause: None, write_stall, stalled: None, pace: None, waiting: None }
    }

    /// The same for HTTP/2, at this pace.
    pub(super) fn paced(self, pace: Option<Pace>) -> Self {
        Self { pace, ..self }
    }

    /// Waits while the line is paused, which it may be for longer when the wait is over.
    fn paused(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = self.line.paused() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if pause.deadline() != until {
                pause.as_mut().reset(until);
            }
            ready!(pause.as_mut().poll(cx));
        }
        self.pause = None;
        Poll::Ready(())
    }

    /// Ready when more may be read.
    fn may_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.paused(cx));
        let Some(pace) = &mut self.pace else { return Poll::Ready(Ok(())) };
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match pace.judge(Instant::now()) {
                Verdict::Read => return Poll::Ready(Ok(())),
                Verdict::Wait(time) => self.waiting = Some(Box::pin(sleep(time))),
                Verdict::Cut => return Poll::Ready(Err(timed_out("it floods the connection with frames of no call"))),
            }
        }
    }

    /// Passes the outcome of a write on, unless it has been pending for too long.
    fn bound<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let limit = self.write_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the peer does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.may_read(cx))?;
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.io).poll_read(cx, buf);
        if let Some(pace) = &mut this.pace {
            pace.came(buf.filled().get(before..).unwrap_or_default());
        }
        let Some(first) = &mut this.first else {
            return outcome;
        };
        let read = buf.filled().len() - before;
        first.missing = first.missing.saturating_sub(read);
        if first.missing == 0 {
            this.first = None;
        } else if first.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(timed_out("the first bytes did not come in time")));
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(cx, buf);
        this.bound(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.bound(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_flush(cx);
        this.bound(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_shutdown(cx);
        this.bound(cx, outcome)
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Caller;
    use crate::limits::{Limits as CallerLimits, Metrics, Pace, PerAction, Settings};
    use crate::policy::Action;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn bytes_that_dribble_do_not_move_the_deadline() {
        let (mut peer, io) = duplex(64);
        let mut guarded = Guarded::new(io, Some((24, 3 * SECOND)), Line::default(), SECOND);
        let begun = Instant::now();
        let dribble = async {
            loop {
                sleep(SECOND / 2).await;
                peer.write_all(b"P").await.unwrap();
            }
        };
        let mut buffer = [0; 64];
        let read = async {
            while guarded.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        tokio::select! {
            () = dribble => unreachable!(),
            outcome = read => assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut),
        }
        assert_eq!(begun.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_be_silent_once_it_has_spoken() {
        let (mut peer, io) = duplex(64);
        let mut guarded = Guarded::new(io, Some((24, SECOND)), Line::default(), SECOND);
        peer.write_all(&[b'P'; 24]).await.unwrap();
        guarded.read_exact(&mut [0; 24]).await.unwrap();
        sleep(100 * SECOND).await;
        peer.write_all(b"x").await.unwrap();
        assert_eq!(guarded.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_kept_and_one_that_stops_is_cut() {
        let (mut peer, io) = duplex(64);
        let mut guarded = Guarded::new(io, Some((24, SECOND)), Line::default(), 2 * SECOND);
        let slow = async {
            for _ in 0..4 {
                sleep(SECOND).await;
                peer.read_exact(&mut [0; 64]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(guarded.write_all(&[0; 64 * 5]), slow);
        written.unwrap();
        let begun = Instant::now();
        let outcome = guarded.write_all(b"x").await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), 2 * SECOND);
    }

    /// A line whose caller was refused so often beyond what is let pass.
    fn refused(times: u32) -> Line {
        let pace = Pace { per_second: 1, burst: 1 };
        let rates = PerAction { get: pace, watch: pace, report: pace, health: pace };
        let limits = CallerLimits::new(&Settings { rates, ..Settings::default() }, Metrics::default());
        let line = Line::default();
        for _ in 0..=200 + times {
            drop(limits.admit_from(&line, &Caller::unix(1), Action::Get));
        }
        line
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_while_the_line_is_paused_and_writes_go_on() {
        let (mut peer, io) = duplex(64);
        let line = refused(50);
        let mut guarded = Guarded::new(io, None, line.clone(), SECOND);
        peer.write_all(b"x").await.unwrap();
        let begun = Instant::now();
        guarded.write_all(b"y").await.unwrap();
        assert_eq!((peer.read_u8().await.unwrap(), begun.elapsed()), (b'y', Duration::ZERO));
        assert_eq!(guarded.read_u8().await.unwrap(), b'x');
        assert_eq!(begun.elapsed(), SECOND / 2);
        peer.write_all(b"z").await.unwrap();
        assert_eq!((guarded.read_u8().await.unwrap(), begun.elapsed()), (b'z', SECOND / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_grows_meanwhile_is_waited_for_to_its_end_and_a_second_caller_ends_it() {
        let (mut peer, io) = duplex(64);
        let line = refused(50);
        let mut guarded = Guarded::new(io, None, line.clone(), SECOND);
        peer.write_all(b"xy").await.unwrap();
        let (one, other) = (Caller::unix(1), Caller::unix(2));
        let limits =
            CallerLimits::new(&Settings { max_in_flight_per_caller: 1, ..Settings::default() }, Metrics::default());
        let _place = limits.admit(&one, Action::Get).unwrap();
        let begun = Instant::now();
        let more = async {
            sleep(SECOND / 4).await;
            (0..10).for_each(|_| drop(limits.admit_from(&line, &one, Action::Get)));
        };
        let (read, ()) = tokio::join!(guarded.read_u8(), more);
        assert_eq!((read.unwrap(), begun.elapsed()), (b'x', SECOND * 6 / 10));
        (0..10).for_each(|_| drop(limits.admit_from(&line, &one, Action::Get)));
        line.carries(&one);
        line.carries(&other);
        assert_eq!((guarded.read_u8().await.unwrap(), begun.elapsed()), (b'y', SECOND * 6 / 10));
    }
}
