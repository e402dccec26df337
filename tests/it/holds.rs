//! What the product must hold, end to end: the real binary as its own process, real gRPC on loopback, a simulated
//! upstream. Each scenario prints one line of figures; `docs/measurements.md` keeps those of the full form.
//!
//! Two forms of the same scenarios. The bounded one runs with every `cargo test`. `TOKEN_BROKER_HOLDS=full` (the
//! scripts in `soak/`) makes the callers ten thousand and the times real. Counts and promises are asserted in both;
//! times only in the full one, on a machine that does nothing else.

mod clocks;
mod cold;
mod failing;
mod impatient;
mod load;
mod outage;
mod push;
mod refused;
mod rejected;
mod stand;

use std::fmt;
use std::time::Duration;

/// How much of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bounded,
    Full,
}

impl Form {
    pub(crate) fn of_process() -> Self {
        match std::env::var("TOKEN_BROKER_HOLDS").as_deref() {
            Ok("full") => Self::Full,
            Err(_) | Ok("") => Self::Bounded,
            Ok(other) => panic!("TOKEN_BROKER_HOLDS is \"full\" or not set, not {other:?}"),
        }
    }

    pub(crate) fn pick<T>(self, bounded: T, full: T) -> T {
        match self {
            Self::Bounded => bounded,
            Self::Full => full,
        }
    }

    /// Times are judged only where the machine does nothing else.
    pub(crate) fn check_time(self, what: &str, took: Duration, limit: Duration) {
        assert!(self == Self::Bounded || took <= limit, "{what}: {took:?}, the limit is {limit:?}");
    }
}

/// The line of a scenario.
#[expect(clippy::print_stdout, reason = "the figures are what these tests are for")]
pub(crate) fn report(scenario: &str, figures: impl fmt::Display) {
    println!("holds {scenario}: {figures}");
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
