//! An engine with fake upstreams, and the few words the tests speak.

use super::fake::{FakeProvider, FakeUpstream};
use prometheus_client::registry::Registry;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::engine::plan::State;
use token_broker::engine::{Call, Engine, Limits, Metrics, Origin, Served, Settings, Workspace};
use token_broker::error::{Error, Reason};
use token_broker::supervisor::Supervisor;
use token_broker::token::{Fingerprint, WorkspaceName};
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// What a caller without a deadline of its own gets.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) supervisor: Supervisor,
    pub(super) engine: Engine,
}

pub(super) type Answer = Result<Served, Error>;

pub(super) fn settings() -> Settings {
    Settings {
        serve_margin: secs(5),
        min_gap: secs(10),
        max_waiters: 50_000,
        max_workspaces: 1_000,
        max_watches: 1_000,
        seed: 7,
    }
}

/// So much budget that it plays no part.
pub(super) fn limits() -> Limits {
    Limits { budget: budget(1_000_000, secs(300)), max_concurrent: count(64), renew_at: 0.5, timeout: secs(10) }
}

pub(super) fn budget(logins: u32, per: Duration) -> Budget {
    Budget { logins: NonZeroU32::new(logins).unwrap(), per }
}

/// The call of an anonymous caller who waits until then.
pub(super) fn until(deadline: Instant) -> Call {
    Call { deadline, origin: Origin(0) }
}

pub(super) fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn name(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

/// Lets time go by; whatever is due meanwhile happens in its order.
pub(super) async fn pass(time: Duration) {
    sleep(time).await;
}

/// Jumps over a long time in which nothing is expected, then lets what is due happen.
pub(super) async fn leap(time: Duration) {
    advance(time.saturating_sub(secs(2))).await;
    sleep(time.min(secs(2))).await;
}

/// The most events in any window of this length.
pub(super) fn fullest(times: &[Instant], window: Duration) -> usize {
    let within = |from: &Instant| times.iter().filter(|at| *at >= from && **at < *from + window).count();
    times.iter().map(within).max().unwrap_or(0)
}

/// The shortest time between two neighbours.
pub(super) fn least_gap(times: &[Instant]) -> Duration {
    times.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(Duration::MAX)
}

pub(super) fn reason(answer: &Answer) -> Option<Reason> {
    answer.as_ref().err().map(|error| error.reason)
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let clock = Clock::simulated();
        let supervisor = Supervisor::new();
        let metrics = Metrics::register(&mut Registry::default());
        let engine = Engine::new(clock.clone(), supervisor.clone(), settings, metrics);
        Self { clock, supervisor, engine }
    }

    /// One upstream and one Workspace `a` of it, renewed while it is used.
    pub(super) fn of_one() -> (Self, FakeUpstream, FakeProvider) {
        let world = Self::new();
        let upstream = world.upstream("one", limits());
        let provider = world.workspace(&upstream, "a");
        (world, upstream, provider)
    }

    pub(super) fn upstream(&self, name: &str, limits: Limits) -> FakeUpstream {
        self.engine.add_upstream(UpstreamName::parse(name).unwrap(), limits);
        FakeUpstream::new(name)
    }

    pub(super) fn workspace(&self, upstream: &FakeUpstream, name: &str) -> FakeProvider {
        self.put(upstream, name, KeepWarm::WhileUsed)
    }

    pub(super) fn put(&self, upstream: &FakeUpstream, workspace: &str, keep_warm: KeepWarm) -> FakeProvider {
        let provider = upstream.provider(workspace);
        let new = Workspace {
            name: name(workspace),
            upstream: UpstreamName::parse(&upstream.name).unwrap(),
            keep_warm,
            provider: Arc::new(provider.clone()),
        };
        self.engine.put(new).unwrap();
        provider
    }

    pub(super) async fn get(&self, workspace: &str) -> Answer {
        self.get_valid(workspace, Duration::ZERO).await
    }

    /// At least so long valid.
    pub(super) async fn get_valid(&self, workspace: &str, min_validity: Duration) -> Answer {
        self.engine.get(&name(workspace), min_validity, until(Instant::now() + PATIENCE)).await
    }

    /// Within so much time.
    pub(super) async fn get_within(&self, workspace: &str, patience: Duration) -> Answer {
        self.engine.get(&name(workspace), Duration::ZERO, until(Instant::now() + patience)).await
    }

    pub(super) async fn report(&self, workspace: &str, rejected: Fingerprint) -> Answer {
        self.engine.report(&name(workspace), rejected, until(Instant::now() + PATIENCE)).await
    }

    /// The fingerprint of what is served.
    pub(super) async fn fingerprint(&self, workspace: &str) -> Fingerprint {
        self.get(workspace).await.unwrap().token.fingerprint
    }

    /// So many callers at once, each with so much time.
    pub(super) fn crowd(&self, workspace: &str, size: usize, patience: Duration) -> JoinSet<Answer> {
        let mut crowd = JoinSet::new();
        for _ in 0..size {
            let (engine, workspace) = (self.engine.clone(), name(workspace));
            crowd.spawn(async move { engine.get(&workspace, Duration::ZERO, until(Instant::now() + patience)).await });
        }
        crowd
    }

    pub(super) fn state(&self, workspace: &str) -> State {
        self.engine.snapshot(&name(workspace)).unwrap().state
    }

    pub(super) fn waiters(&self, workspace: &str) -> usize {
        self.engine.snapshot(&name(workspace)).unwrap().waiters
    }

    /// Asks every `step` for `time`, and returns the answers.
    pub(super) async fn ask_for(&self, workspace: &str, time: Duration, step: Duration) -> Vec<Answer> {
        let end = Instant::now() + time;
        let mut answers = Vec::new();
        while Instant::now() < end {
            answers.push(self.get(workspace).await);
            sleep(step).await;
        }
        answers
    }
}
