//! One sink: a bounded queue, and a thread that writes what is in it, many lines at a time.
//!
//! Promises: a line counts as written once `write(2)` took the whole of it (and `fdatasync` returned, if that is asked
//! for); a line that was cut off is completed, or written whole where the lines go elsewhere meanwhile; lines are
//! numbered without a gap unless some were lost, and what a failure lost is told by the first line after it. The thread
//! may hang; nobody else ever waits for it without a limit.

use super::line::Line;
use super::output::{Followed, Output};
use super::record::{Record, append, body};
use crate::clock::Clock;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::Notify;

/// What may wait to be written, in bytes.
const MOST_WAITING: usize = 16 << 20;
/// What is written at once, in bytes.
const BATCH: usize = 256 << 10;
/// How often a file is looked at when there is nothing to write.
const IDLE: Duration = Duration::from_secs(1);
/// How often a failed sink is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How soon an output that is full is tried again, if it says so instead of waiting.
const FULL: Duration = Duration::from_millis(5);

/// The side of a sink that never blocks.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) name: &'static str,
    /// By which records are told apart from those of other processes.
    process: Arc<str>,
    state: Mutex<State>,
    filled: Condvar,
    up: AtomicBool,
    fsync: AtomicBool,
    /// Moves whenever something was written.
    progress: AtomicU64,
    /// Rung when it fails, recovers or ends.
    bell: Arc<Notify>,
    counted: super::metrics::SinkMetrics,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Line>,
    bytes: usize,
    /// Lines that this sink will never have.
    missing: u64,
    /// The thread has lines in hand.
    busy: bool,
    reopen: bool,
    life: Life,
    /// Why it failed last.
    cause: Option<String>,
}

/// How far it is from its end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Life {
    #[default]
    Open,
    /// What is in the queue is written, and then no more.
    Closing,
    Closed,
}

/// What the thread is to do next.
enum Next {
    Write(Vec<Line>, u64),
    Look { anew: bool },
    End,
}

impl Sink {
    pub(super) fn new(
        name: &'static str,
        process: Arc<str>,
        bell: Arc<Notify>,
        counted: super::metrics::SinkMetrics,
    ) -> Self {
        Self {
            name,
            process,
            state: Mutex::default(),
            filled: Condvar::new(),
            up: AtomicBool::new(true),
            fsync: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            bell,
            counted,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.lock().busy
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().life == Life::Closed
    }

    pub(super) fn cause(&self) -> String {
        self.lock().cause.clone().unwrap_or_default()
    }

    pub(super) fn set_fsync(&self, fsync: bool) {
        self.fsync.store(fsync, Ordering::Release);
    }

    /// Takes a line if there is room and the sink works. What nobody waits for finds only half of the room.
    pub(super) fn offer(&self, line: &Line) -> bool {
        let most = if line.pair.is_some() { MOST_WAITING } else { MOST_WAITING / 2 };
        let mut state = self.lock();
        if !self.is_up() || state.life != Life::Open || state.bytes + line.body.len() > most {
            state.missing += 1;
            drop(state);
            self.counted.dropped.inc();
            return false;
        }
        state.bytes += line.body.len();
        state.queue.push_back(line.clone());
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Whether what nobody waits for would be taken.
    pub(super) fn has_room(&self) -> bool {
        self.is_up() && self.lock().bytes < MOST_WAITING / 4
    }

    /// Whoever watches found it hung.
    pub(super) fn hung(&self) {
        if self.lock().busy {
            self.failed("it took longer than the limit");
        }
    }

    /// The file is opened anew before anything else is written.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.filled.notify_one();
    }

    /// What is in the queue is written, and then no more.
    pub(super) fn close(&self) {
        self.lock().life = Life::Closing;
        self.filled.notify_one();
    }

    fn failed(&self, cause: &str) {
        self.lock().cause = Some(cause.to_owned());
        if self.up.swap(false, Ordering::AcqRel) {
            self.counted.up.set(0);
            self.bell.notify_one();
        }
    }

    fn recovered(&self) {
        if !self.up.swap(true, Ordering::AcqRel) {
            self.counted.up.set(1);
            self.bell.notify_one();
        }
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        state.busy = false;
        if state.queue.is_empty() && !state.reopen && state.life == Life::Open {
            state = self.filled.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
        if std::mem::take(&mut state.reopen) {
            state.busy = true;
            return Next::Look { anew: true };
        }
        let (lines, missing) = state.batch();
        if !lines.is_empty() {
            state.busy = true;
            return Next::Write(lines, missing);
        }
        if state.life != Life::Open {
            return Next::End;
        }
        state.busy = true;
        Next::Look { anew: false }
    }

    /// Waits before another attempt. Whether there is to be one.
    fn rest(&self) -> bool {
        let mut state = self.lock();
        // Nothing hangs while it rests.
        state.busy = false;
        if state.life == Life::Open {
            state = self.filled.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.busy = true;
        state.life == Life::Open
    }

    fn ended(&self) {
        let mut state = self.lock();
        (state.busy, state.life) = (false, Life::Closed);
        drop(state);
        self.up.store(false, Ordering::Release);
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What fits into one write, and how many lines are missing before it. Those that nobody waits for any longer are
    /// left out: the token was not handed out.
    fn batch(&mut self) -> (Vec<Line>, u64) {
        let (mut lines, mut size) = (Vec::new(), 0);
        while size < BATCH
            && let Some(line) = self.queue.pop_front()
        {
            self.bytes -= line.body.len();
            if line.is_wanted() {
                size += line.body.len();
                lines.push(line);
            }
        }
        let missing = if lines.is_empty() { 0 } else { std::mem::take(&mut self.missing) };
        (lines, missing)
    }

    fn give_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        for line in lines.rev() {
            self.bytes += line.body.len();
            self.queue.push_front(line);
        }
    }
}

/// The side of a sink that blocks.
#[derive(Debug)]
struct Writer {
    sink: Arc<Sink>,
    output: Box<dyn Output>,
    clock: Clock,
    /// The number of the next line.
    seq: u64,
    buffer: Vec<u8>,
    /// A line that was cut off.
    torn: Option<Torn>,
}

#[derive(Debug)]
struct Torn {
    bytes: Vec<u8>,
    written: usize,
    line: Option<Line>,
}

/// Writes until the sink is closed. To be run on a thread of its own.
pub(super) fn write_all(sink: Arc<Sink>, output: Box<dyn Output>, clock: Clock) {
    let mut writer = Writer { sink, output, clock, seq: 1, buffer: Vec::new(), torn: None };
    if writer.look(true).is_err() {
        writer.recover();
    }
    loop {
        let done = match writer.sink.next() {
            Next::End => break,
            Next::Look { anew } => writer.look(anew),
            Next::Write(lines, missing) => writer.write(lines, missing),
        };
        // Failed, or given up for hung and not so after all.
        if (done.is_err() || !writer.sink.is_up()) && !writer.recover() {
            break;
        }
    }
    writer.sink.ended();
}

impl Writer {
    /// Looks whether lines go where they should.
    fn look(&mut self, anew: bool) -> Result<(), Failed> {
        match self.output.follow(anew) {
            Ok(Followed::Same) => Ok(()),
            Ok(Followed::Another) => {
                if let Some(torn) = &mut self.torn {
                    torn.written = 0;
                }
                Ok(())
            }
            Err(error) => self.failed(&error),
        }
    }

    fn write(&mut self, lines: Vec<Line>, missing: u64) -> Result<(), Failed> {
        if let Err(failed) = self.look(false) {
            let mut state = self.sink.lock();
            state.give_back(lines.into_iter());
            state.missing += missing;
            return Err(failed);
        }
        self.seq += missing;
        self.buffer.clear();
        let mut ends = Vec::with_capacity(lines.len());
        for line in &lines {
            append(&mut self.buffer, self.seq + u64::try_from(ends.len()).unwrap_or_default(), &line.body);
            ends.push(self.buffer.len());
        }
        let begun = self.clock.now().mono;
        let buffer = std::mem::take(&mut self.buffer);
        let (mut written, mut outcome) = self.write_bytes(&buffer);
        self.buffer = buffer;
        // Also what came before a failure: whoever waits for it is told that it is there for good.
        let is_safe = written == 0 || self.sync().is_ok();
        if !is_safe {
            if outcome.is_ok() {
                // Written, but who knows whether for good: all of it once more.
                written = 0;
            }
            outcome = Err(Failed);
        }
        self.sink.counted.seconds.observe(begun.elapsed().as_secs_f64());
        let whole = ends.partition_point(|end| *end <= written);
        self.seq += u64::try_from(whole).unwrap_or_default();
        let mut lines = lines.into_iter();
        let done: Vec<Line> = lines.by_ref().take(whole).collect();
        let start = whole.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or_default();
        let cut = self.buffer.get(start..ends.get(whole).copied().unwrap_or(start)).filter(|_| written > start);
        if let Some(bytes) = cut {
            self.seq += 1;
            self.torn = Some(Torn { bytes: bytes.to_vec(), written: written - start, line: lines.next() });
        }
        let mut state = self.sink.lock();
        state.give_back(lines);
        if is_safe {
            done.iter().for_each(Line::written);
        } else {
            state.give_back(done.into_iter());
        }
        drop(state);
        self.sink.progress.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// Writes as much as it can: how much that was, and whether it was all.
    fn write_bytes(&mut self, bytes: &[u8]) -> (usize, Result<(), Failed>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return (written, self.failed(&io::Error::from(ErrorKind::WriteZero))),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever watches ends this by declaring it hung.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.sink.is_up() => thread::sleep(FULL),
                Err(error) => return (written, self.failed(&error)),
            }
        }
        (written, Ok(()))
    }

    fn sync(&mut self) -> Result<(), Failed> {
        if !self.sink.fsync.load(Ordering::Acquire) {
            return Ok(());
        }
        self.output.sync().or_else(|error| self.failed(&error))
    }

    /// Tries until lines can be written again, the first of which says so. `false`: it is to end.
    fn recover(&mut self) -> bool {
        loop {
            if self.look(true).is_ok() && self.complete_torn().is_ok() && self.tell_recovery().is_ok() {
                self.sink.progress.fetch_add(1, Ordering::AcqRel);
                self.sink.recovered();
                return true;
            }
            if !self.sink.rest() {
                return false;
            }
        }
    }

    fn complete_torn(&mut self) -> Result<(), Failed> {
        let Some(mut torn) = self.torn.take() else { return Ok(()) };
        let (written, outcome) = self.write_bytes(torn.bytes.get(torn.written..).unwrap_or_default());
        torn.written += written;
        if outcome.is_ok() && self.sync().is_err() {
            torn.written = 0;
        }
        if torn.written < torn.bytes.len() {
            self.torn = Some(torn);
            return Err(Failed);
        }
        torn.line.iter().for_each(Line::written);
        Ok(())
    }

    fn tell_recovery(&mut self) -> Result<(), Failed> {
        let missing = {
            let mut state = self.sink.lock();
            state.queue.retain(Line::is_wanted);
            state.bytes = state.queue.iter().map(|line| line.body.len()).sum();
            std::mem::take(&mut state.missing)
        };
        self.seq += missing;
        let record = Record::SinkRecovered { sink: self.sink.name, missing };
        let mut bytes = Vec::new();
        append(&mut bytes, self.seq, &body(self.clock.now().wall, &self.sink.process, &record));
        let (written, outcome) = self.write_bytes(&bytes);
        if outcome.is_ok() || written > 0 {
            self.seq += 1;
        } else {
            // Said by the next attempt.
            self.seq -= missing;
            self.sink.lock().missing += missing;
        }
        if outcome.is_err() && written > 0 {
            self.torn = Some(Torn { bytes, written, line: None });
        }
        outcome.and_then(|()| self.sync())
    }

    fn failed(&self, error: &io::Error) -> Result<(), Failed> {
        self.sink.failed(&error.to_string());
        Err(Failed)
    }
}

/// Told to the sink already.
#[derive(Debug, Clone, Copy)]
struct Failed;
