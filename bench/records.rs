//! What the audit costs, over a file in the directory of temporary files: `cargo run --release --example records`.
//!
//! Prints the time of a repeat, of a first release that nothing else waits with, and how many first releases a second
//! brings where a hundred are under way.

use futures_util::StreamExt as _;
use futures_util::stream::{self, TryStreamExt as _};
use prometheus_client::registry::Registry;
use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use token_broker::audit::{Audit, Face, Metrics, Release, Settings, Terms, Via};
use token_broker::clock::Clock;
use token_broker::identity::{Authenticated, Caller};
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::token::{Fingerprint, Validity, WorkspaceName};
use tokio::time::Instant;

const REPEATS: u32 = 2_000_000;
const ALONE: u32 = 20_000;
const TOGETHER: u32 = 200_000;
const AT_ONCE: usize = 100;
const HOUR: Duration = Duration::from_secs(3_600);

/// All that the releases have in common.
struct Given {
    audit: Audit,
    caller: Caller,
    workspace: WorkspaceName,
    validity: Validity,
    via: Via,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (clock, supervisor, mut registry) = (Clock::system(), Supervisor::new(), Registry::default());
    let file = Some(directory.path().join("audit.jsonl"));
    let settings = Settings { stdout: false, file, terms: Terms::default() };
    let given = Given {
        audit: Audit::open(&settings, clock.clone(), &supervisor, Metrics::register(&mut registry))?,
        caller: Authenticated::loopback().caller,
        workspace: WorkspaceName::parse("bench/records")?,
        validity: Validity::new(clock.now(), HOUR, Duration::ZERO),
        via: Via { listener: Arc::from("bench"), peer: None, request: None },
    };
    let one = fingerprint("one", 0);
    given.release(one).await?;
    let begun = Instant::now();
    for _ in 0..REPEATS {
        given.release(one).await?;
    }
    let repeat = begun.elapsed() / REPEATS;

    let fingerprints: Vec<_> = (0..ALONE).map(|n| fingerprint("alone", n)).collect();
    let begun = Instant::now();
    for fingerprint in fingerprints {
        given.release(fingerprint).await?;
    }
    let alone = begun.elapsed() / ALONE;

    let fingerprints: Vec<_> = (0..TOGETHER).map(|n| fingerprint("together", n)).collect();
    let begun = Instant::now();
    let releases = stream::iter(fingerprints).map(|fingerprint| Ok(given.release(fingerprint)));
    releases.try_buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await?;
    let together = f64::from(TOGETHER) / begun.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "a repeat: {} ns; a first release, alone: {:.1} µs; first releases, {AT_ONCE} at once: {together:.0} per second",
        repeat.as_nanos(),
        alone.as_secs_f64() * 1e6,
    )?;
    Ok(())
}

fn fingerprint(kind: &str, number: u32) -> Fingerprint {
    Fingerprint::of(&AccessToken::new(format!("{kind} {number}")))
}

impl Given {
    async fn release(&self, fingerprint: Fingerprint) -> Result<(), token_broker::error::Error> {
        let Self { audit, caller, workspace, validity, via } = self;
        audit.release(&Release { caller, workspace, fingerprint, face: Face::Get, validity, via }).await
    }
}
