//! How fast a peer may send frames that carry no call: PING, SETTINGS, `WINDOW_UPDATE` and the like. Each costs the
//! broker time of the processor, most an answer, and neither hyper nor h2 limits them for a peer that reads the
//! answers.
//!
//! Whoever sends more is read more slowly, and cut once that has gone on for a while. A call earns some: clients
//! measure their line with a PING per answer. Pure: time is an argument.

use super::limits::Http2Limits;
use super::preface;
use std::time::Duration;
use tokio::time::Instant;

/// Of a frame (RFC 9113 §4.1).
const HEAD: u8 = 9;
// Types of frames that are calls, or parts of them: they have limits of their own.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// What a call earns.
const PER_CALL: f64 = 8.0;

/// Looks at the bytes of one connection as they are read.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes until the next head of a frame.
    skip: usize,
    /// How much of that head has come, and what it said.
    have: u8,
    length: usize,
    kind: u8,
    /// How many such frames may come now; less than none: they have come already.
    left: f64,
    burst: f64,
    per_second: f64,
    patience: Duration,
    last: Instant,
    /// Since when it has been too many, without a rest.
    slowed: Option<Instant>,
}

/// What is to become of who sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Read,
    Wait(Duration),
    Cut,
}

impl Pace {
    pub(super) fn new(limits: &Http2Limits, now: Instant) -> Self {
        let burst = f64::from(limits.control_frames_burst);
        Self {
            skip: preface::HTTP2.len(),
            have: 0,
            length: 0,
            kind: 0,
            left: burst,
            burst,
            per_second: f64::from(limits.control_frames_per_second.max(1)),
            patience: limits.control_frames_patience,
            last: now,
            slowed: None,
        }
    }

    /// These bytes have come.
    pub(super) fn came(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            match self.have {
                0..=2 => self.length = (self.length << 8) | usize::from(*byte),
                3 => self.kind = *byte,
                _ => {}
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEAD {
                (self.skip, self.have, self.length) = (self.length, 0, 0);
                self.count();
            }
        }
    }

    fn count(&mut self) {
        match self.kind {
            HEADERS => self.left = (self.left + PER_CALL).min(self.burst),
            DATA | CONTINUATION => {}
            _ => self.left -= 1.0,
        }
    }

    /// Whether more is to be read.
    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.left >= 0.0 {
            if self.left >= self.burst / 2.0 {
                self.slowed = None;
            }
            return Verdict::Read;
        }
        let since = *self.slowed.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.patience {
            return Verdict::Cut;
        }
        // What one read brings, in frames without content, fits into a few seconds at most.
        Verdict::Wait(Duration::try_from_secs_f64(-self.left / self.per_second).unwrap_or(self.patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PING: u8 = 6;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let head = [0, 0, length, kind, 0, 0, 0, 0, 1];
        [&head[..], &vec![PING; usize::from(length)]].concat()
    }

    fn pace(now: Instant) -> Pace {
        let limits = Http2Limits {
            control_frames_burst: 100,
            control_frames_per_second: 10,
            control_frames_patience: 10 * SECOND,
            ..Http2Limits::default()
        };
        let mut pace = Pace::new(&limits, now);
        pace.came(preface::HTTP2);
        pace
    }

    #[test]
    fn frames_are_told_however_they_are_cut_into_pieces() {
        let now = Instant::now();
        let bytes = [frame(PING, 8), frame(DATA, 200), frame(4, 0), frame(8, 4), frame(CONTINUATION, 3)].concat();
        for size in [1, 2, 7, 9, 10, 1000] {
            let mut pace = pace(now);
            bytes.chunks(size).for_each(|piece| pace.came(piece));
            assert_eq!(pace.left.to_string(), "97", "pieces of {size}");
        }
    }

    #[test]
    fn more_than_may_come_is_waited_out() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.came(&frame(PING, 8).repeat(100));
        assert_eq!(pace.judge(now), Verdict::Read);
        pace.came(&frame(PING, 8).repeat(20));
        assert_eq!(pace.judge(now), Verdict::Wait(2 * SECOND));
        assert_eq!(pace.judge(now + 2 * SECOND), Verdict::Read);
    }

    #[test]
    fn who_goes_on_is_cut_and_who_rests_is_not() {
        let begun = Instant::now();
        let (mut goes_on, mut rests) = (pace(begun), pace(begun));
        for pace in [&mut goes_on, &mut rests] {
            pace.came(&frame(PING, 8).repeat(110));
            assert_eq!(pace.judge(begun), Verdict::Wait(SECOND));
        }
        for second in 1..10 {
            assert_eq!(goes_on.judge(begun + second * SECOND), Verdict::Read);
            goes_on.came(&frame(PING, 8).repeat(10));
        }
        goes_on.came(&frame(PING, 8).repeat(20));
        assert_eq!(goes_on.judge(begun + 10 * SECOND), Verdict::Cut);
        assert_eq!(rests.judge(begun + 10 * SECOND), Verdict::Read);
        rests.came(&frame(PING, 8).repeat(100));
        assert_eq!(rests.judge(begun + 10 * SECOND), Verdict::Wait(SECOND));
    }

    #[test]
    fn calls_earn_some() {
        let now = Instant::now();
        let mut pace = pace(now);
        let call = [frame(HEADERS, 50), frame(DATA, 20), frame(PING, 8), frame(8, 4)].concat();
        pace.came(&call.repeat(1000));
        assert_eq!(pace.judge(now), Verdict::Read);
    }
}
