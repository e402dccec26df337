//! One sequence against one engine: does each step to the engine and to the oracle in the same breath.

use super::event::{self, Event, LONGEST_RETRY_AFTER, Mood, Settle};
use super::oracle::{Objection, Oracle, Rule, Site, Want};
use super::upstream::{Account, Fake, lock};
use fastrand::Rng;
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::engine::{Call, Engine, Interest, Limits, Metrics, Origin, Served, Settings, View, Watch, Workspace};
use token_broker::provider::Provider;
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::token::{Fingerprint, Presentation, Token, WorkspaceName};
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, advance, sleep};

const STEPS: usize = 40;
/// A long time passes in so many jumps: the engine's timers fire late then, as on a machine under load.
const JUMPS: u32 = 30;
const VIGIL_JUMP: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this without a deed every back-off and every breaker is over, and every budget full.
const ALL_FORGIVEN: Duration = Duration::from_secs(600 + LONGEST_RETRY_AFTER.as_secs() * 11 / 10);

/// By then a step of the wall clock was noticed.
const WALL_SEEN: Duration = Duration::from_millis(1_010);

/// What the test does wrong on purpose, to see that the oracle objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// Tokens die at half the life that the upstream says.
    ShortLives,
    HiddenDelete,
    HiddenFreeze,
    HiddenRekey,
    /// The Workspaces share one account.
    SharedAccount,
    /// Callers wait longer than they said.
    LatePatience,
    /// The engine believes in a budget ten times as large, and in twice the cap.
    WrongLimits,
    /// Reports name another token than the caller thinks.
    WrongReports,
    /// A request that the engine knows nothing of.
    StrayRequest,
    /// The upstream never gets well.
    NeverWell,
    /// The engine's clock is stepped, the oracle's is not.
    HiddenStep,
    /// Every token says that it is the first.
    OneGeneration,
    /// The upstream says that every failure was another one.
    OtherFailures,
    /// The watcher looks once and never again.
    DeafWatcher,
}

/// What a sequence came to.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) objections: Vec<Objection>,
    /// What was done, up to the first objection.
    pub(super) trace: Vec<String>,
    pub(super) exchanges: u64,
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) reasons: Vec<&'static str>,
}

struct World {
    sabotage: Sabotage,
    clock: Clock,
    engine: Engine,
    oracle: Arc<Mutex<Oracle>>,
    accounts: Vec<Arc<Mutex<Account>>>,
    upstreams: Vec<UpstreamName>,
    places: Vec<(WorkspaceName, usize, KeepWarm)>,
    callers: JoinSet<()>,
    waiting: VecDeque<(u64, AbortHandle)>,
    watcher: Watcher,
    trace: Vec<String>,
}

/// One who follows all Workspaces and changes nothing by it.
struct Watcher {
    watch: Watch,
    /// What it was told last of each.
    told: Vec<Option<Fingerprint>>,
    stepped: Instant,
}

/// Runs one random sequence.
pub(super) fn run(seed: u64, sabotage: Sabotage) -> Run {
    run_drawn(seed, sabotage, |rng, workspaces| event::sequence(rng, workspaces, STEPS))
}

/// Half a day of an upstream that never gives another token while one lives.
pub(super) fn run_vigil(seed: u64) -> Run {
    run_drawn(seed, Sabotage::None, |_, workspaces| event::vigil(workspaces))
}

/// Each on its own paused runtime.
fn run_drawn(seed: u64, sabotage: Sabotage, draw: impl FnOnce(&mut Rng, usize) -> Vec<(Event, Settle)>) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(&mut rng, sabotage);
        let events = draw(&mut rng, world.places.len());
        world.play(&events).await;
        world.into_run()
    })
}

impl World {
    fn new(rng: &mut Rng, sabotage: Sabotage) -> Self {
        let (clock, supervisor) = (Clock::simulated(), Supervisor::new());
        let serve_margin = Duration::from_secs(5);
        let min_gap = Duration::from_secs(10);
        let max_waiters = if rng.bool() { 2 } else { 100 };
        let settings =
            Settings { serve_margin, min_gap, max_waiters, max_workspaces: 10, max_watches: 10, seed: rng.u64(..) };
        let engine = Engine::new(clock.clone(), supervisor, settings, Metrics::register(&mut Registry::default()));
        let mut upstreams = Vec::new();
        let mut sites = Vec::new();
        for index in 0..rng.usize(1..=2) {
            let site = Site {
                max_concurrent: rng.usize(1..=3),
                logins: rng.usize(8..=60),
                per: Duration::from_secs(rng.u64(60..=300)),
                timeout: TIMEOUT,
            };
            let name = UpstreamName::parse(&format!("upstream-{index}")).unwrap();
            engine.add_upstream(name.clone(), limits(site, sabotage));
            upstreams.push(name);
            sites.push(site);
        }
        let mut trace = vec![format!("{settings:?}"), format!("{sites:?}")];
        let mut oracle = Oracle::new(serve_margin, min_gap, sites);
        let mut accounts = Vec::new();
        let mut places = Vec::new();
        for index in 0..rng.usize(2..=3) {
            let upstream = rng.usize(..upstreams.len());
            let keep_warm = if rng.bool() { KeepWarm::Always } else { KeepWarm::WhileUsed };
            trace.push(format!("workspace {index} at upstream {upstream}, {keep_warm:?}"));
            places.push((WorkspaceName::parse(&format!("team/{index}")).unwrap(), upstream, keep_warm));
            oracle.add(upstream);
            let mut account = Account::new(index, rng.fork());
            account.misreports = sabotage == Sabotage::OtherFailures;
            account.truth = if sabotage == Sabotage::ShortLives { 0.5 } else { 1.0 };
            accounts.push(Arc::new(Mutex::new(account)));
        }
        let oracle = Arc::new(Mutex::new(oracle));
        let (callers, waiting) = (JoinSet::new(), VecDeque::new());
        let names = places.iter().map(|(name, ..)| name.clone()).collect();
        let watch = engine.watch(names, Interest::Status, Origin(1)).unwrap();
        let watcher = Watcher { watch, told: vec![None; places.len()], stepped: Instant::now() };
        let mut world =
            Self { sabotage, clock, engine, oracle, accounts, upstreams, places, callers, waiting, watcher, trace };
        for workspace in 0..world.places.len() {
            world.create(workspace);
        }
        world
    }

    async fn play(&mut self, events: &[(Event, Settle)]) {
        for (event, settle) in events {
            let at = self.clock.now().mono;
            self.act(*event).await;
            match *settle {
                Settle::Not => {}
                Settle::Turns(turns) => {
                    for _ in 0..turns {
                        yield_now().await;
                    }
                }
                Settle::Wholly => {
                    rest().await;
                    lock(&self.oracle).check_flying();
                    self.check_watcher().await;
                }
            }
            let took = self.clock.now().mono - at;
            self.trace.push(format!("{event:?}, {settle:?} (took {took:?})"));
            self.look();
            if !lock(&self.oracle).objections.is_empty() {
                return;
            }
        }
        self.get_well().await;
        let mut oracle = lock(&self.oracle);
        oracle.check_budgets();
        oracle.check_loops();
    }

    /// What was told last is so, once there was time to tell: a step of the wall clock is seen within a second, and
    /// timers count milliseconds.
    async fn check_watcher(&mut self) {
        self.read_watcher();
        let is_current =
            |(workspace, told): (usize, &Option<Fingerprint>)| lock(&self.oracle).is_current(workspace, *told);
        if self.watcher.told.iter().enumerate().all(is_current) || self.watcher.stepped.elapsed() < WALL_SEEN {
            return;
        }
        sleep(Duration::from_millis(3)).await;
        self.read_watcher();
        for (workspace, told) in self.watcher.told.iter().enumerate() {
            lock(&self.oracle).was_told(workspace, *told);
        }
    }

    fn read_watcher(&mut self) {
        let Watcher { watch, told, .. } = &mut self.watcher;
        if self.sabotage == Sabotage::DeafWatcher {
            return;
        }
        while let Some((name, view)) = watch.next().now_or_never() {
            let workspace = self.places.iter().position(|(place, ..)| *place == name).unwrap();
            told[workspace] = match view {
                View::Token(served) => {
                    lock(&self.oracle).told(workspace, served.token.fingerprint);
                    Some(served.token.fingerprint)
                }
                View::Withdrawn(_) => None,
            };
        }
    }

    async fn act(&mut self, event: Event) {
        match event {
            Event::Ask { workspace, min_validity, patience } => self.ask(Some(workspace), min_validity, patience),
            Event::AskForNobody => self.ask(None, Duration::ZERO, Duration::from_secs(10)),
            Event::Report { workspace, right, patience } => self.report(workspace, right, patience),
            Event::GoAway => self.go_away(),
            Event::Mood { workspace, mood, latency } => self.set_mood(workspace, mood, latency),
            Event::StepWall { by_ms } => self.step_wall(by_ms),
            Event::Pass { time } => self.pass(time).await,
            Event::Watch { time } => jump(time, VIGIL_JUMP).await,
            Event::Create { workspace } => self.create(workspace),
            Event::Delete { workspace } => self.delete(workspace),
            Event::Freeze { workspace } => self.freeze(workspace),
            Event::Unfreeze { workspace } => self.unfreeze(workspace),
            Event::Rekey { workspace } => self.rekey(workspace),
        }
    }

    fn ask(&mut self, workspace: Option<usize>, min_validity: Duration, patience: Duration) {
        let want = Want::Token { min_validity };
        self.call(workspace, want, want, patience);
    }

    fn report(&mut self, workspace: usize, right: bool, patience: Duration) {
        let other = Fingerprint::of(&AccessToken::new("a token of long ago"));
        let rejected = lock(&self.oracle).held(workspace).filter(|_| right).unwrap_or(other);
        let meant = if self.sabotage == Sabotage::WrongReports { other } else { rejected };
        let (want, told) = (Want::Replacement { rejected: meant }, Want::Replacement { rejected });
        self.call(Some(workspace), want, told, patience);
    }

    /// One caller: what it wants, and what the engine is told of it.
    fn call(&mut self, workspace: Option<usize>, want: Want, told: Want, patience: Duration) {
        let nobody = || WorkspaceName::parse("nobody").unwrap();
        let name = workspace.map_or_else(nobody, |index| self.places[index].0.clone());
        let (engine, oracle) = (self.engine.clone(), Arc::clone(&self.oracle));
        let ask = lock(&oracle).asked(workspace, want, patience);
        let extra = if self.sabotage == Sabotage::LatePatience { Duration::from_millis(7) } else { Duration::ZERO };
        let deadline = Instant::now() + patience + extra;
        let tampers = self.sabotage == Sabotage::OneGeneration;
        let mut future = Box::pin(async move {
            let answer = match told {
                Want::Token { min_validity } => {
                    engine.get(&name, min_validity, Call { deadline, origin: Origin(0) }).await
                }
                Want::Replacement { rejected } => {
                    engine.report(&name, rejected, Call { deadline, origin: Origin(0) }).await
                }
            };
            let answer = if tampers { answer.map(|served| as_the_first(&served)) } else { answer };
            lock(&oracle).answered(ask, &answer);
        });
        // The first look belongs to the moment of asking.
        if (&mut future).now_or_never().is_none() {
            self.waiting.push_back((ask, self.callers.spawn(future)));
        }
    }

    fn go_away(&mut self) {
        while let Some((ask, caller)) = self.waiting.pop_front() {
            if lock(&self.oracle).went_away(ask) {
                caller.abort();
                return;
            }
        }
    }

    fn set_mood(&mut self, workspace: usize, mood: Mood, latency: Duration) {
        let mut account = lock(&self.accounts[workspace]);
        account.mood = mood;
        account.latency = latency;
        drop(account);
        let stray = self.sabotage == Sabotage::StrayRequest && mood == Mood::Fresh;
        if stray && lock(&self.oracle).exists(workspace) {
            let provider = self.provider(workspace, 1, 1);
            drop(provider.exchange());
        }
    }

    fn step_wall(&mut self, by_ms: i64) {
        self.clock.step_wall_ms(by_ms);
        self.watcher.stepped = Instant::now();
        if self.sabotage != Sabotage::HiddenStep {
            lock(&self.oracle).stepped_ms += by_ms;
        }
    }

    /// Millisecond by millisecond while it matters, in jumps when a long time passes with nobody waiting.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        if time <= Duration::from_secs(20) {
            return sleep(time).await;
        }
        while lock(&self.oracle).anybody_waits() && Instant::now() < end {
            sleep(Duration::from_secs(1)).await;
        }
        let left = end.saturating_duration_since(Instant::now());
        jump(left, left / JUMPS).await;
    }

    fn provider(&self, workspace: usize, incarnation: u64, key: u64) -> Arc<dyn Provider> {
        let account = if self.sabotage == Sabotage::SharedAccount { 0 } else { workspace };
        let account = Arc::clone(&self.accounts[account]);
        Arc::new(Fake { account, oracle: Arc::clone(&self.oracle), workspace, incarnation, key })
    }

    fn create(&mut self, workspace: usize) {
        if lock(&self.oracle).exists(workspace) {
            return;
        }
        let (name, upstream, keep_warm) = self.places[workspace].clone();
        let upstream = self.upstreams[upstream].clone();
        let (incarnation, key) = lock(&self.oracle).created(workspace);
        let provider = self.provider(workspace, incarnation, key);
        if self.sabotage == Sabotage::HiddenDelete {
            self.engine.delete(&name);
        }
        self.engine.put(Workspace { name, upstream, keep_warm, provider }).unwrap();
    }

    fn delete(&mut self, workspace: usize) {
        let there = lock(&self.oracle).exists(workspace);
        lock(&self.oracle).deleted(workspace);
        if self.sabotage != Sabotage::HiddenDelete {
            assert_eq!(self.engine.delete(&self.places[workspace].0), there);
        }
    }

    fn freeze(&mut self, workspace: usize) {
        let there = lock(&self.oracle).exists(workspace);
        if there {
            lock(&self.oracle).frozen(workspace);
        }
        if self.sabotage != Sabotage::HiddenFreeze {
            assert_eq!(self.engine.freeze(&self.places[workspace].0), there);
        }
    }

    fn unfreeze(&mut self, workspace: usize) {
        let there = lock(&self.oracle).exists(workspace);
        if there {
            lock(&self.oracle).unfrozen(workspace);
        }
        assert_eq!(self.engine.unfreeze(&self.places[workspace].0), there || self.sabotage == Sabotage::HiddenDelete);
    }

    fn rekey(&mut self, workspace: usize) {
        if !lock(&self.oracle).exists(workspace) {
            return;
        }
        let (incarnation, key) = lock(&self.oracle).rekeyed(workspace);
        let provider = self.provider(workspace, incarnation, key);
        if self.sabotage != Sabotage::HiddenRekey {
            assert!(self.engine.rekey(&self.places[workspace].0, provider));
        }
    }

    /// However it went: once the upstreams are well again and time has passed, every Workspace is served.
    async fn get_well(&mut self) {
        for workspace in 0..self.places.len() {
            let mood = if self.sabotage == Sabotage::NeverWell { Mood::Hangs } else { Mood::Fresh };
            self.set_mood(workspace, mood, Duration::from_millis(20));
            self.create(workspace);
            self.unfreeze(workspace);
        }
        self.pass(ALL_FORGIVEN).await;
        self.look();
        for workspace in 0..self.places.len() {
            self.see_it_served(workspace).await;
        }
        let waiting = self.places.iter().filter_map(|(name, ..)| self.engine.snapshot(name)).map(|s| s.waiters);
        let waiting: usize = waiting.sum();
        if waiting > 0 {
            lock(&self.oracle).object(Rule::Stuck, format!("{waiting} waiters are counted, and nobody waits"));
        }
    }

    /// A few tries, over two minutes: the first finds out that an upstream that was down is back, and the smallest budget
    /// gives one login in fifty seconds.
    async fn see_it_served(&mut self, workspace: usize) {
        for pause in [2, 4, 8, 16, 32, 64] {
            let before = lock(&self.oracle).served;
            self.ask(Some(workspace), Duration::ZERO, Duration::from_millis(500));
            if lock(&self.oracle).served == before {
                sleep(Duration::from_secs(pause)).await;
            }
            self.look();
            if lock(&self.oracle).served > before {
                return;
            }
        }
        lock(&self.oracle).object(Rule::Stuck, format!("{workspace} is not served though its upstream is well"));
    }

    fn look(&mut self) {
        let mut oracle = lock(&self.oracle);
        oracle.check_waiting();
        self.waiting.retain(|(ask, _)| oracle.is_waiting(*ask));
    }

    fn into_run(self) -> Run {
        let mut oracle = lock(&self.oracle);
        Run {
            objections: std::mem::take(&mut oracle.objections),
            trace: self.trace.clone(),
            exchanges: oracle.exchanges(),
            served: oracle.served,
            refused: oracle.refused.values().sum(),
            reasons: oracle.refused.keys().map(|reason| reason.as_str()).collect(),
        }
    }
}

fn as_the_first(served: &Served) -> Served {
    let Token { workspace, fingerprint, .. } = &*served.token;
    let (workspace, fingerprint) = (workspace.clone(), *fingerprint);
    let (value, presentation) = (AccessToken::new("-"), Presentation::bearer());
    let token = Arc::new(Token { workspace, value, presentation, generation: 1, fingerprint });
    Served { token, ..served.clone() }
}

fn limits(site: Site, sabotage: Sabotage) -> Limits {
    let (factor, cap) = if sabotage == Sabotage::WrongLimits { (10, 2) } else { (1, 1) };
    let logins = u32::try_from(site.logins * factor).unwrap();
    Limits {
        max_concurrent: NonZeroUsize::new(site.max_concurrent * cap).unwrap(),
        budget: Budget { logins: NonZeroU32::new(logins).unwrap(), per: site.per },
        renew_at: 0.5,
        timeout: site.timeout,
    }
}

/// In whole milliseconds, as the timers are.
async fn jump(time: Duration, step: Duration) {
    let step = Duration::from_millis(u64::try_from(step.as_millis()).unwrap().max(1));
    let end = Instant::now() + time;
    while Instant::now() + step <= end {
        advance(step).await;
        rest().await;
    }
}

/// Time moves on only once every task waits, so after this millisecond all that could be done is done.
async fn rest() {
    sleep(Duration::from_millis(1)).await;
}
