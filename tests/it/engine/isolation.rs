//! The wrong tenant's token is the worst that a broker can hand out: a thousand Workspaces whose names look alike, asked
//! for, renewed, re-keyed, deleted and made again by 64 threads at once, and every token names the one that it is for.

use super::world::{budget, count, ms, name, secs, settings, until};
use futures_util::future::BoxFuture;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::engine::{Engine, Limits, Metrics, Served, Settings, Workspace};
use token_broker::error::Reason;
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::token::{Presentation, WorkspaceName};
use token_broker::upstream::{KeepWarm, UpstreamName};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const THREADS: u32 = 64;
const UPSTREAMS: usize = 4;

/// In every `cargo test`; `soak/isolation.sh` says how many instead.
const CALLS: u64 = 100_000;

/// Letters that are taken for each other, and all that may stand between them.
const LETTERS: [&str; 5] = ["l", "1", "i", "0", "o"];
const BETWEEN: [(&str, &str); 8] =
    [("", ""), ("/", ""), ("", "/"), ("/", "/"), (".", ""), ("-", ""), ("_", ""), ("", ".")];

/// An upstream that says in each token whose it is, and of which of its lives.
#[derive(Debug)]
struct Honest {
    workspace: WorkspaceName,
    life: u64,
    minted: AtomicU64,
}

impl Provider for Honest {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(async {
            let n = self.minted.fetch_add(1, Ordering::Relaxed);
            // Another thread goes on meanwhile.
            tokio::task::yield_now().await;
            let value = format!("{} {} {n}", self.workspace, self.life);
            let mut presentation = Presentation::bearer();
            presentation.attributes.insert("tenant".to_owned(), self.workspace.to_string());
            Ok(Fetched { value: AccessToken::new(value), presentation, lifetime: secs(60) })
        })
    }
}

/// One Workspace, and in which of its lives it is at least.
struct Tenant {
    workspace: WorkspaceName,
    upstream: UpstreamName,
    life: AtomicU64,
    /// The next life that somebody may begin.
    next: AtomicU64,
}

/// What came of the calls of one thread.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    served: u64,
    /// Deleted at that moment.
    unknown: u64,
    made_again: u64,
    rekeyed: u64,
    mismatches: u64,
    /// Anything else that a caller was told.
    failed: u64,
}

fn tenants() -> Vec<Tenant> {
    let mut tenants = Vec::new();
    for (first, second) in BETWEEN {
        for a in LETTERS {
            for b in LETTERS {
                for c in LETTERS {
                    let upstream = UpstreamName::parse(&format!("u{}", tenants.len() % UPSTREAMS)).unwrap();
                    let workspace = name(&format!("{a}{first}{b}{second}{c}"));
                    tenants.push(Tenant { workspace, upstream, life: AtomicU64::new(0), next: AtomicU64::new(0) });
                }
            }
        }
    }
    tenants
}

fn engine() -> Engine {
    let settings = Settings { min_gap: ms(1), ..settings() };
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let engine = Engine::new(Clock::system(), Supervisor::new(), settings, metrics);
    let limits =
        Limits { budget: budget(u32::MAX, secs(1)), max_concurrent: count(1_000), renew_at: 0.5, timeout: secs(10) };
    for n in 0..UPSTREAMS {
        engine.add_upstream(UpstreamName::parse(&format!("u{n}")).unwrap(), limits);
    }
    engine
}

impl Tenant {
    fn provider(&self, life: u64) -> Arc<Honest> {
        Arc::new(Honest { workspace: self.workspace.clone(), life, minted: AtomicU64::new(0) })
    }

    /// Begins its next life. Whoever comes second finds it begun, and leaves it so.
    fn put(&self, engine: &Engine) {
        let life = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let put = engine.put(Workspace {
            name: self.workspace.clone(),
            upstream: self.upstream.clone(),
            keep_warm: KeepWarm::WhileUsed,
            provider: self.provider(life),
        });
        if put.is_ok() {
            self.life.fetch_max(life, Ordering::SeqCst);
        }
    }

    /// Whether a token is of this Workspace, in every place that says whose it is.
    fn owns(&self, served: &Served) -> bool {
        let token = &served.token;
        let mut words = token.value.expose().split(' ');
        token.workspace == self.workspace
            && words.next() == Some(self.workspace.as_str())
            && token.presentation.attributes.get("tenant").map(String::as_str) == Some(self.workspace.as_str())
    }

    async fn ask(&self, engine: &Engine, min_validity: Duration, tally: &mut Tally) {
        let deadline = Instant::now() + secs(30);
        match engine.get(&self.workspace, min_validity, until(deadline)).await {
            Ok(served) => {
                tally.served += 1;
                tally.mismatches += u64::from(!self.owns(&served));
            }
            Err(error) if error.reason == Reason::WorkspaceUnknown => tally.unknown += 1,
            // All are one caller, who forces more exchanges than one may.
            Err(error) if matches!(error.reason, Reason::RenewalTooSoon | Reason::CallerThrottled) => {}
            Err(_) => tally.failed += 1,
        }
    }
}

/// One thread's share.
async fn caller(engine: Engine, tenants: Arc<Vec<Tenant>>, seed: u64, calls: u64) -> Tally {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tally = Tally::default();
    while tally.served < calls {
        // Most calls meet on a few names, so that what is done to one is done under another's hands.
        let among = if random.u8(..) < 128 { 8 } else { tenants.len() };
        let tenant = &tenants[random.usize(..among)];
        match random.u8(..100) {
            0 => {
                engine.delete(&tenant.workspace);
                tally.unknown += u64::from(engine.snapshot(&tenant.workspace).is_none());
                tenant.put(&engine);
                tally.made_again += 1;
            }
            1 => {
                let life = tenant.life.load(Ordering::SeqCst);
                tally.rekeyed += u64::from(engine.rekey(&tenant.workspace, tenant.provider(life)));
            }
            2 => tenant.ask(&engine, secs(59), &mut tally).await,
            _ => tenant.ask(&engine, Duration::ZERO, &mut tally).await,
        }
    }
    tally
}

#[test]
fn no_token_is_ever_that_of_another_workspace() {
    let calls = std::env::var("TOKEN_BROKER_ISOLATION_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    let runtime = runtime::Builder::new_multi_thread().worker_threads(THREADS as usize).enable_all().build().unwrap();
    let all = runtime.block_on(async {
        let (engine, tenants) = (engine(), Arc::new(tenants()));
        assert_eq!(tenants.len(), 1_000);
        tenants.iter().for_each(|tenant| tenant.put(&engine));
        assert_eq!(engine.len(), 1_000, "no two names are one");
        let share = calls.div_ceil(THREADS.into());
        let mut callers = JoinSet::new();
        for seed in 0..u64::from(THREADS) {
            callers.spawn(caller(engine.clone(), Arc::clone(&tenants), seed, share));
        }
        let mut all = Tally::default();
        while let Some(tally) = callers.join_next().await {
            let tally = tally.unwrap();
            all.served += tally.served;
            all.unknown += tally.unknown;
            all.made_again += tally.made_again;
            all.rekeyed += tally.rekeyed;
            all.mismatches += tally.mismatches;
            all.failed += tally.failed;
        }
        all
    });
    runtime.shutdown_timeout(secs(5));
    writeln!(io::stderr(), "{all:?}").unwrap();
    assert!(all.served >= calls && all.made_again > calls / 1_000 && all.rekeyed > calls / 1_000, "{all:?}");
    assert_eq!((all.mismatches, all.failed), (0, 0), "{all:?}");
}

/// The check above can fail: a token of a neighbour is found out.
#[test]
fn a_token_of_another_workspace_would_be_found() {
    let tenants = tenants();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = engine();
        tenants[0].put(&engine);
        let served = engine.get(&tenants[0].workspace, Duration::ZERO, until(Instant::now() + secs(5))).await.unwrap();
        assert!(tenants[0].owns(&served));
        assert!(!tenants[1].owns(&served));
    });
}
