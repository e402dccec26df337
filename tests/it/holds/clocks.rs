//! Clocks that are wrong: the broker's is stepped by an hour (libfaketime), the upstream's is off by five minutes.

use super::load::{Answer, Fleet, Times, reasons};
use super::stand::{Setup, Stand, generous, workspace};
use super::{Form, millis, report, secs};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use token_broker::sandbox::{Fault, Scope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = secs(1);
const PACE: Duration = millis(20);
/// What a step brings about shows within this time; later logins are renewals by plan.
const EFFECT: Duration = secs(2);
/// Whole seconds by which the broker's clock is off, one after the other: each step is an hour.
const OFFSETS: [i64; 5] = [0, 3_600, 0, -3_600, 0];
const SKEW_MS: i64 = 300_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wall_clock_steps_by_an_hour() {
    let form = Form::of_process();
    let lives = [form.pick(secs(10), secs(20)), secs(600), secs(14_400)];
    let clock = FakeClock::new();
    let environment = clock.environment();
    let stand = Stand::start(Setup { environment, ..setup(&lives) }).await;
    let load = Load::start(&stand, lives.len()).await;
    let mut most = 0;
    for offset in OFFSETS {
        let before = logins(&stand, lives.len());
        clock.set(offset);
        sleep(EFFECT).await;
        let after = logins(&stand, lives.len());
        most = most.max(before.iter().zip(&after).map(|(before, after)| after - before).max().unwrap());
        sleep(form.pick(Duration::ZERO, secs(22))).await;
    }
    let seen = load.end().await;
    report(
        "wall clock",
        format_args!(
            "the broker's clock off by {OFFSETS:?} s in turn, tokens of {lives:?}: {seen}; at most {most} logins of a \
             workspace within {EFFECT:?} of a step; {:?} logins in all",
            logins(&stand, lives.len())
        ),
    );
    assert_eq!((seen.failed, seen.expired), (0, 0));
    assert!(most <= 2, "{most} logins of one workspace after one step");
    // By its own clock the ten minutes of this token were over at the first step: the step was seen.
    assert!(stand.logins(2) >= 2, "the clock of the broker was not stepped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_s_clock_is_ahead_or_behind() {
    tokio::join!(skewed(SKEW_MS), skewed(-SKEW_MS));
}

/// Off from the beginning, then right again in one step.
async fn skewed(skew_ms: i64) {
    let form = Form::of_process();
    let lives = [form.pick(secs(6), secs(20)), secs(14_400)];
    let stand = Stand::start(setup(&lives)).await;
    stand.control.set_fault(Scope::ALL, Fault::Skew(skew_ms));
    let load = Load::start(&stand, lives.len()).await;
    let start = Instant::now();
    sleep(2 * lives[0]).await;
    let renewals = stand.logins(1);
    let seen = load.end().await;

    // A token of four hours outlives a step of five minutes. One of seconds does not, and no broker could know.
    let load = Load::of(&stand, 2..=2).await;
    let before = stand.logins(2);
    stand.control.clear();
    sleep(EFFECT).await;
    let after_step = load.end().await;
    let by_step = stand.logins(2) - before;
    report(
        &format!("upstream clock ({:+} min)", skew_ms / 60_000),
        format_args!(
            "tokens of {lives:?} for {:?}: {seen}; {renewals} logins for the short one, {before} for the long one; when \
             the skew ended: {by_step} more logins, {after_step}",
            2 * lives[0],
        ),
    );
    assert!(start.elapsed() >= 2 * lives[0]);
    assert_eq!((seen.failed, seen.expired, after_step.failed, after_step.expired), (0, 0, 0, 0));
    assert!(by_step <= 2, "{by_step} logins after the step");
    // Renewal is due at half of the life, 10 % earlier or later: in two lives at most 5 times.
    assert!((2..=6).contains(&renewals), "{renewals} logins in two lives");
}

fn setup(lives: &[Duration]) -> Setup {
    Setup { lifetimes: lives.to_vec(), upstream: "shortest_lifetime = \"5s\"", limits: generous(), ..Setup::default() }
}

fn logins(stand: &Stand, workspaces: usize) -> Vec<u64> {
    (1..).take(workspaces).map(|organisation| stand.logins(organisation)).collect()
}

// === The clock of the broker ===

/// What libfaketime reads its offset from.
struct FakeClock(tempfile::TempDir);

impl FakeClock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set(0);
        clock
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", text(&library())),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ]
    }

    /// In one step, so that half a number is never read.
    fn set(&self, seconds: i64) {
        let new = self.0.path().join("new");
        fs::write(&new, format!("{seconds:+}")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }
}

fn library() -> PathBuf {
    let places = fs::read_dir("/usr/lib").unwrap();
    let mut found = places.map(|place| place.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("libfaketime is not installed; ./test.sh installs it")
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

// === The callers ===

/// Callers of some Workspaces.
struct Load {
    tasks: JoinSet<Vec<Answer>>,
    stop: watch::Sender<bool>,
    _fleet: Fleet,
}

/// What they saw.
struct Seen {
    calls: usize,
    failed: usize,
    expired: usize,
    reasons: String,
    took: Times,
}

impl Load {
    async fn start(stand: &Stand, workspaces: usize) -> Self {
        Self::of(stand, 1..=u64::try_from(workspaces).unwrap()).await
    }

    /// Every Workspace has a token when this is done.
    async fn of(stand: &Stand, organisations: std::ops::RangeInclusive<u64>) -> Self {
        const CALLERS: usize = 4;
        let fleet = Fleet::connect(stand.address, &stand.control, 1, CALLERS).await;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for organisation in organisations {
            let name = workspace(organisation);
            assert!(fleet.caller(0, &name, secs(10)).call().await.result.is_ok());
            for nth in 0..CALLERS {
                tasks.spawn(fleet.caller(nth, &name, DEADLINE).keep_calling(PACE, stopped.clone()));
            }
        }
        Self { tasks, stop, _fleet: fleet }
    }

    async fn end(self) -> Seen {
        self.stop.send_replace(true);
        let answers: Vec<_> = self.tasks.join_all().await.into_iter().flatten().collect();
        Seen {
            calls: answers.len(),
            failed: answers.iter().filter(|answer| answer.result.is_err()).count(),
            expired: answers.iter().filter(|answer| answer.is_expired()).count(),
            reasons: reasons(answers.iter().filter_map(|answer| answer.result.as_ref().err())),
            took: Times::of(answers.iter().map(Answer::took)),
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, failed, expired, reasons, took } = self;
        write!(f, "{calls} calls in {took}, {failed} failed {reasons}, {expired} expired tokens handed out")
    }
}
