//! The audit: its sinks as they are, and as bad as they can be. Real threads, so real time.

#![expect(clippy::print_stdout, reason = "figures, with --nocapture")]

mod page;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use token_broker::audit::{
    self, Audit, Face, Followed, Metrics, Output, Release, Settings, Terms, Via, WhenUnavailable,
};
use token_broker::clock::Clock;
use token_broker::error::{Error, Reason};
use token_broker::identity::Authenticated;
use token_broker::readiness::{Check, Readiness};
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry;
use token_broker::token::{Fingerprint, Validity, WorkspaceName};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// An output that does what it is told.
#[derive(Debug, Clone, Default)]
struct Scripted(Arc<(Mutex<Script>, Condvar)>);

#[derive(Debug, Default)]
struct Script {
    mood: Mood,
    written: Vec<u8>,
    /// How many bytes a write takes at most; 0: all.
    most: usize,
    /// Full once it holds so many bytes; 0: never.
    room: usize,
    /// So many bytes outlast a loss of power.
    synced: usize,
    calls: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Mood {
    #[default]
    Works,
    Hangs,
    Fails,
    /// Fails at every third call.
    Flickers,
}

impl Scripted {
    fn set(&self, mood: Mood) {
        self.0.0.lock().unwrap().mood = mood;
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        lines(std::str::from_utf8(&self.0.0.lock().unwrap().written).unwrap())
    }
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect()
}

fn of_kind<'a>(lines: &'a [serde_json::Value], kind: &str) -> Vec<&'a serde_json::Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

impl Output for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.0.lock().unwrap();
        while script.mood == Mood::Hangs {
            script = self.0.1.wait(script).unwrap();
        }
        script.calls += 1;
        if script.mood == Mood::Fails || script.mood == Mood::Flickers && script.calls.is_multiple_of(3) {
            return Err(io::Error::from_raw_os_error(28));
        }
        let room = script.room.saturating_sub(script.written.len());
        if script.room > 0 && room == 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        let bytes = if script.room > 0 { &bytes[..room.min(bytes.len())] } else { bytes };
        let most = if script.most == 0 { bytes.len() } else { script.most.min(bytes.len()) };
        script.written.extend_from_slice(&bytes[..most]);
        Ok(most)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut script = self.0.0.lock().unwrap();
        if script.room > 0 && script.written.len() >= script.room {
            return Err(io::Error::from_raw_os_error(5));
        }
        script.synced = script.written.len();
        Ok(())
    }

    fn follow(&mut self, _anew: bool) -> io::Result<Followed> {
        Ok(Followed::Same)
    }
}

struct World {
    audit: Audit,
    readiness: Readiness,
    metrics: telemetry::metrics::Metrics,
    via: Via,
    validity: Validity,
    supervisor: Supervisor,
}

impl World {
    fn of(outputs: Vec<(&'static str, Box<dyn Output>)>, terms: Terms) -> Self {
        Self::with(|supervisor, metrics| Audit::over(outputs, terms, Clock::system(), supervisor, metrics))
    }

    fn scripted(terms: Terms) -> (Self, Scripted) {
        let output = Scripted::default();
        (Self::of(vec![("file", Box::new(output.clone()))], terms), output)
    }

    fn with(open: impl FnOnce(&Supervisor, Metrics) -> io::Result<Audit>) -> Self {
        let (clock, supervisor, readiness) = (Clock::system(), Supervisor::new(), Readiness::new());
        let metrics = telemetry::metrics::Metrics::new(&clock);
        let audit = open(&supervisor, metrics.register(Metrics::register)).unwrap();
        supervisor.spawn("audit", audit::watch(audit.clone(), readiness.clone()));
        let via = Via { listener: Arc::from("grpc"), peer: None, request: None };
        let hour = Duration::from_secs(3_600);
        let validity = Validity::new(clock.now(), hour, Duration::ZERO);
        Self { audit, readiness, metrics, via, validity, supervisor }
    }

    /// The nth token.
    async fn release(&self, n: usize) -> Result<(), Error> {
        let caller = Authenticated::loopback().caller;
        let workspace = WorkspaceName::parse(&format!("fleet/{n}")).unwrap();
        let fingerprint = Fingerprint::of(&AccessToken::new(n.to_string()));
        let (validity, via, face) = (&self.validity, &self.via, Face::Get);
        let release = Release { caller: &caller, workspace: &workspace, fingerprint, face, validity, via };
        timeout(PATIENCE, self.audit.release(&release)).await.expect("a release hung")
    }

    /// Until a release of new tokens succeeds. How long that took.
    async fn recovered(&self, mut n: usize) -> Duration {
        let begun = Instant::now();
        while self.release(n).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "it never works again");
            n += 1;
            tokio::task::yield_now().await;
        }
        begun.elapsed()
    }

    fn audit_check(&self) -> Option<Check> {
        self.readiness.checks().into_iter().find_map(|(name, check)| (name == "audit").then_some(check))
    }

    async fn ready(&self, ready: bool) {
        let waiting = async { self.readiness.subscribe().wait_for(|now| *now == ready).await.map(|_| ()) };
        timeout(PATIENCE, waiting).await.expect("readiness does not follow").unwrap();
    }

    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("token_broker_{name} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

fn refused(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(error) if error.reason == Reason::AuditUnavailable && error.retry_after.is_some())
}

#[tokio::test]
async fn a_token_waits_for_its_record() {
    let (world, output) = World::scripted(Terms { timeout: Duration::from_secs(10), ..Terms::default() });
    output.set(Mood::Hangs);
    let mut release = std::pin::pin!(world.release(1));
    assert!(timeout(Duration::from_millis(50), &mut release).await.is_err(), "it left without a record");
    assert!(output.lines().is_empty());
    output.set(Mood::Works);
    release.await.unwrap();
    assert_eq!(of_kind(&output.lines(), "release").len(), 1);
}

#[tokio::test]
async fn who_comes_at_once_shares_a_record_and_repeats_are_counted() {
    let (world, output) = World::scripted(Terms { timeout: Duration::from_secs(10), ..Terms::default() });
    output.set(Mood::Hangs);
    let many = futures_util::future::join_all((0..100).map(|_| world.release(1)));
    let mut many = std::pin::pin!(many);
    assert!(timeout(Duration::from_millis(20), &mut many).await.is_err());
    output.set(Mood::Works);
    assert!(many.await.iter().all(Result::is_ok));
    for _ in 0..7 {
        world.release(1).await.unwrap();
    }
    world.audit.close().await;
    let lines = output.lines();
    assert_eq!(of_kind(&lines, "release").len(), 1);
    let repeats = of_kind(&lines, "repeats");
    assert_eq!(repeats.iter().map(|line| line["count"].as_u64().unwrap()).collect::<Vec<_>>(), [99 + 7]);
    assert_eq!(lines.last().unwrap()["kind"], "stop");
}

#[tokio::test]
async fn a_sink_that_hangs_is_failed_and_its_recovery_is_seen() {
    let (world, output) = World::scripted(Terms::default());
    world.release(0).await.unwrap();
    output.set(Mood::Hangs);
    let begun = Instant::now();
    assert!(refused(&world.release(1).await));
    let first = begun.elapsed();
    let begun = Instant::now();
    assert!(refused(&world.release(2).await));
    let second = begun.elapsed();
    world.release(0).await.unwrap();
    world.ready(false).await;
    assert_eq!(world.audit_check(), Some(Check::Waiting));
    assert!(first >= Duration::from_millis(250), "{first:?}");
    output.set(Mood::Works);
    let recovery = world.recovered(1_000_000).await;
    world.ready(true).await;
    println!("hung: refused after {first:?}, then {second:?}; recovered after {recovery:?}");
    let lines = output.lines();
    assert_eq!(of_kind(&lines, "sink_recovered").len(), 1, "{lines:?}");
    assert!(!lines.iter().any(|line| line["workspace"] == "fleet/2"), "nobody was given that token");
}

#[tokio::test]
async fn a_full_disk_lets_nothing_new_out_and_is_got_over() {
    let (world, output) = World::scripted(Terms::default());
    world.release(0).await.unwrap();
    output.set(Mood::Fails);
    for n in 1..50 {
        assert!(refused(&world.release(n).await));
    }
    assert_eq!(world.counted("audit_unavailable_total"), 49);
    world.release(0).await.unwrap();
    output.set(Mood::Works);
    let recovery = world.recovered(1_000_000).await;
    println!("recovered after {recovery:?}");
    let lines = output.lines();
    let numbers: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    let missing = of_kind(&lines, "sink_recovered")[0]["missing"].as_u64().unwrap();
    let (first, last) = (numbers[0], *numbers.last().unwrap());
    assert_eq!(last - first + 1, numbers.len() as u64 + missing, "a gap is what is missing: {numbers:?}");
}

/// The lines before the one that found no room are whole, and lost with the power all the same.
#[tokio::test]
async fn nothing_leaves_by_a_line_that_was_written_before_a_failure_and_not_synced() {
    let (world, output) = World::scripted(Terms { fsync: true, timeout: Duration::from_secs(2), ..Terms::default() });
    world.release(0).await.unwrap();
    output.set(Mood::Hangs);
    let many = futures_util::future::join_all((1..40).map(|n| world.release(n)));
    let mut many = std::pin::pin!(many);
    assert!(timeout(Duration::from_millis(50), &mut many).await.is_err());
    {
        let mut script = output.0.0.lock().unwrap();
        script.room = script.written.len() + 5_000;
    }
    output.set(Mood::Works);
    let outcomes = many.await;
    {
        let mut script = output.0.0.lock().unwrap();
        assert_eq!(script.written.len(), script.room, "it is full");
        let safe = lines(std::str::from_utf8(&script.written[..script.synced]).unwrap());
        let released = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(released < of_kind(&safe, "release").len(), "{outcomes:?}");
        script.room = 0;
    }
    world.recovered(1_000_000).await;
    // None is cut.
    output.lines();
}

#[tokio::test]
async fn allow_lets_them_out_and_says_how_many() {
    let terms = Terms { when_unavailable: WhenUnavailable::Allow, ..Terms::default() };
    let (world, output) = World::scripted(terms);
    output.set(Mood::Fails);
    for n in 0..20 {
        world.release(n).await.unwrap();
    }
    assert_eq!(world.counted("audit_allowed_without_record_total"), 20);
    assert!(world.readiness.is_ready());
    output.set(Mood::Works);
    let told = async {
        while of_kind(&output.lines(), "unrecorded").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, told).await.expect("it is never said");
    assert_eq!(of_kind(&output.lines(), "unrecorded")[0]["count"], 20);
}

#[tokio::test]
async fn one_sink_that_works_is_enough() {
    let (good, bad) = (Scripted::default(), Scripted::default());
    bad.set(Mood::Hangs);
    let outputs: Vec<(_, Box<dyn Output>)> = vec![("stdout", Box::new(bad.clone())), ("file", Box::new(good.clone()))];
    let world = World::of(outputs, Terms::default());
    for n in 0..100 {
        world.release(n).await.unwrap();
    }
    let told = async {
        while of_kind(&good.lines(), "sink_failed").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, told).await.expect("the failure is never told");
    assert_eq!(of_kind(&good.lines(), "release").len(), 100);
    assert!(world.readiness.is_ready());
    bad.set(Mood::Works);
}

#[tokio::test]
async fn no_line_is_lost_or_cut_by_an_output_that_takes_little_and_flickers() {
    let (world, output) = World::scripted(Terms { timeout: Duration::from_secs(10), ..Terms::default() });
    output.0.0.lock().unwrap().most = 150;
    output.set(Mood::Flickers);
    let mut released = HashSet::new();
    for n in 0..12 {
        if world.release(n).await.is_ok() {
            released.insert(format!("fleet/{n}"));
        }
    }
    output.set(Mood::Works);
    world.recovered(1_000_000).await;
    world.audit.close().await;
    let lines = output.lines();
    let recorded: Vec<_> = of_kind(&lines, "release").iter().map(|line| line["workspace"].clone()).collect();
    let distinct: HashSet<_> = recorded.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(distinct.len(), recorded.len(), "a line is there twice");
    assert!(released.is_subset(&distinct), "{released:?} {distinct:?}");
    assert!(!of_kind(&lines, "sink_recovered").is_empty(), "it never flickered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renaming_and_reopening_lose_and_double_nothing() {
    const ALL: usize = 3_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let terms = Terms { timeout: Duration::from_secs(10), ..Terms::default() };
    let settings = Settings { stdout: false, file: Some(path.clone()), terms };
    let world = World::with(|supervisor, metrics| Audit::open(&settings, Clock::system(), supervisor, metrics));
    for n in 0..ALL {
        world.release(n).await.unwrap();
        if n % 100 == 50 {
            fs::rename(&path, directory.path().join(format!("audit.jsonl.{n}"))).unwrap();
        }
        if n % 200 == 50 {
            world.audit.reopen();
        }
    }
    world.audit.close().await;
    let mut all = Vec::new();
    for file in fs::read_dir(directory.path()).unwrap() {
        all.extend(lines(&fs::read_to_string(file.unwrap().path()).unwrap()));
    }
    let mut numbers: Vec<_> = all.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(of_kind(&all, "release").len(), ALL);
}

/// The figures of docs/measurements.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_release_takes() {
    const FIRST: usize = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let terms = Terms { timeout: Duration::from_secs(10), ..Terms::default() };
    let settings = Settings { stdout: false, file: Some(directory.path().join("audit.jsonl")), terms };
    let world = World::with(|supervisor, metrics| Audit::open(&settings, Clock::system(), supervisor, metrics));
    let begun = Instant::now();
    for n in 0..1_000 {
        world.release(n).await.unwrap();
    }
    println!("first releases, one after the other: {:?} each", begun.elapsed() / 1_000);
    let begun = Instant::now();
    let outcomes = futures_util::future::join_all((1_000..1_000 + FIRST).map(|n| world.release(n))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    println!("{FIRST} first releases at once: {:?}", begun.elapsed());
    let caller = Authenticated::loopback().caller;
    let workspace = WorkspaceName::parse("fleet/1").unwrap();
    let fingerprint = Fingerprint::of(&AccessToken::new("1"));
    let (validity, via, face) = (&world.validity, &world.via, Face::Get);
    let release = Release { caller: &caller, workspace: &workspace, fingerprint, face, validity, via };
    let begun = Instant::now();
    for _ in 0..200_000 {
        world.audit.release(&release).await.unwrap();
    }
    println!("a repeat: {:?}", begun.elapsed() / 200_000);
    assert_eq!(world.counted("audit_records_total{kind=\"release\"}"), 1_000 + FIRST as u64);
    world.audit.close().await;
    world.supervisor.shutdown(PATIENCE).await;
}
