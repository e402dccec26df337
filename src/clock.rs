//! Time as a dependency: the monotonic clock measures durations, the wall clock may only make a deadline stricter.
//!
//! Monotonic time is tokio's, so that paused time in tests moves everything. Wall time is read here and nowhere else.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: durations and deadlines.
    pub mono: Instant,
    /// What the machine believes the time of day is. May jump.
    pub wall: SystemTime,
}

/// Tells the time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Simulated(Arc<Simulated>),
}

#[derive(Debug)]
struct Simulated {
    start: Instant,
    wall_at_start: SystemTime,
    /// By how much the wall clock was stepped, in milliseconds.
    stepped_ms: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock whose wall time follows tokio's (paused) time from a fixed date and can be stepped: for tests.
    pub fn simulated() -> Self {
        Self(Source::Simulated(Arc::new(Simulated {
            start: Instant::now(),
            wall_at_start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            stepped_ms: AtomicI64::new(0),
        })))
    }

    /// Moves the wall clock of a simulated clock by so many milliseconds; the system's clock is not ours to move.
    pub fn step_wall_ms(&self, by: i64) {
        if let Source::Simulated(simulated) = &self.0 {
            simulated.stepped_ms.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Both clocks, read together.
    pub fn now(&self) -> Now {
        let mono = Instant::now();
        let wall = match &self.0 {
            Source::System => system_wall(),
            Source::Simulated(simulated) => simulated.wall(mono),
        };
        Now { mono, wall }
    }
}

impl Simulated {
    fn wall(&self, mono: Instant) -> SystemTime {
        let wall = self.wall_at_start + mono.duration_since(self.start);
        let stepped = self.stepped_ms.load(Ordering::SeqCst);
        let by = Duration::from_millis(stepped.unsigned_abs());
        if stepped >= 0 { wall + by } else { wall - by }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_wall() -> SystemTime {
    SystemTime::now()
}
