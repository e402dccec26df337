//! What `soak/noisy-neighbour.sh` measures with: a broker whose callers are told apart by the port that they come to,
//! and the callers who behave.
//!
//!     neighbours serve CALLERS           prints one address per caller, and serves until it is killed
//!     neighbours load SECONDS ADDRESS…   a caller at each address asks a hundred times a second; prints how it went
//!     neighbours admit                   times what the limits cost per call
//!     neighbours judge                   times a thousand streams of a thousand Workspaces after a change of policy

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Request;
use prometheus_client::registry::Registry;
use std::error::Error;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use token_broker::audit::Via;
use token_broker::broker::{Asker, Broker};
use token_broker::clock::Clock;
use token_broker::engine::{self, Engine, Workspace};
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::{self, METHODS, Means, Parts, Reflection};
use token_broker::health::Rule;
use token_broker::identity::{Authenticated, Caller, Channel};
use token_broker::limits::{self, Line};
use token_broker::listener::{Address, Limits, Listener, Peer, Protocol};
use token_broker::policy::{Action, CallerPattern, Grant, Policy, WorkspacePattern};
use token_broker::provider::{FetchError, Fetched, Provider};
use token_broker::readiness::Readiness;
use token_broker::revision::Revisions;
use token_broker::secret::AccessToken;
use token_broker::supervisor::Supervisor;
use token_broker::telemetry::request::RequestIds;
use token_broker::telemetry::rpc::RpcMetrics;
use token_broker::token::{Presentation, WorkspaceName};
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tonic::transport::Endpoint;
use tower::util::MapRequestLayer;

const WORKSPACE: &str = "bench/weekly";
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Between two calls of one neighbour.
const PACE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", callers] => serve(callers.parse()?).await,
        ["load", seconds, addresses @ ..] => load(Duration::from_secs(seconds.parse()?), addresses).await,
        ["admit"] => admit(),
        ["judge"] => judge().await,
        _ => Err("usage: neighbours serve CALLERS | load SECONDS ADDRESS… | admit | judge".into()),
    }
}

/// An upstream that answers at once.
#[derive(Debug)]
struct Instantly;

impl Provider for Instantly {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let value = AccessToken::new("t".repeat(700));
        async { Ok(Fetched { value, presentation: Presentation::bearer(), lifetime: WEEK }) }.boxed()
    }
}

fn policy(workspaces: &str) -> Result<Policy, Box<dyn Error>> {
    let (caller, workspaces) = (CallerPattern::parse("**")?, vec![WorkspacePattern::parse(workspaces)?]);
    Ok(Policy::new(vec![Grant { caller, workspaces, actions: Action::ALL.into_iter().collect() }]))
}

fn broker(supervisor: &Supervisor, registry: &mut Registry) -> Result<(Engine, Broker), Box<dyn Error>> {
    let settings = engine::Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::from_secs(10),
        max_waiters: 50_000,
        max_workspaces: 1,
        max_watches: 4_000_000,
        seed: 7,
    };
    let engine = Engine::new(Clock::system(), supervisor.clone(), settings, engine::Metrics::register(registry));
    let upstream = UpstreamName::parse("instantly")?;
    let limits = engine::Limits {
        max_concurrent: NonZeroUsize::MIN,
        budget: Budget { logins: NonZeroU32::MAX, per: Duration::from_secs(1) },
        renew_at: 0.5,
        timeout: Duration::from_secs(1),
    };
    engine.add_upstream(upstream.clone(), limits);
    let name = WorkspaceName::parse(WORKSPACE)?;
    engine.put(Workspace { name, upstream, keep_warm: KeepWarm::Always, provider: Arc::new(Instantly) })?;
    let broker = Broker::new(engine.clone(), policy("**")?, Revisions::default());
    let limits = limits::Limits::new(&limits::Settings::default(), limits::Metrics::register(registry));
    Ok((engine, broker.limited_by(limits)))
}

fn caller(number: usize) -> Result<Authenticated, Box<dyn Error>> {
    Ok(Authenticated { caller: Caller::unix(u32::try_from(number)?), evidence: Arc::new(Channel) })
}

fn asker(number: usize) -> Result<Asker, Box<dyn Error>> {
    Ok(Asker {
        proven: caller(number)?,
        via: Via { listener: "bench".into(), peer: None, request: None },
        line: Line::default(),
    })
}

async fn serve(callers: usize) -> Result<(), Box<dyn Error>> {
    let (supervisor, mut registry) = (Supervisor::new(), Registry::default());
    let (engine, broker) = broker(&supervisor, &mut registry)?;
    let parts = Parts {
        broker,
        clock: Clock::system(),
        readiness: Readiness::new(),
        overall: engine.judge(Rule { max_unhealthy: 1.0 }),
        supervisor: supervisor.clone(),
        metrics: RpcMetrics::register(&mut registry, &METHODS),
        request_ids: RequestIds::new(7),
        reflection: Reflection::Off,
    };
    let routes = grpc::routes(parts, Means::Channel);
    for number in 0..callers {
        let identity = caller(number)?;
        let known = MapRequestLayer::new(move |mut request: Request<_>| {
            if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
                peer.identity = Some(identity.clone());
            }
            request
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(Address::Tcp(address), Protocol::Http2, Limits::default()).await?;
        let bound = listener.local_addr().ok_or("bound to no port")?;
        writeln!(std::io::stdout(), "{bound}")?;
        supervisor.spawn("listener", listener.run(routes.clone().layer(known), supervisor.clone(), 7));
    }
    std::future::pending().await
}

async fn load(time: Duration, addresses: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut callers = JoinSet::new();
    for (number, address) in addresses.iter().enumerate() {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let client = TokenServiceClient::new(channel);
        // Not all in the same moment.
        let first = Instant::now() + PACE * u32::try_from(number)? / u32::try_from(addresses.len())?;
        callers.spawn(one_caller(client, first, time));
    }
    let (mut times, mut failures) = (Vec::new(), 0_usize);
    while let Some(of_one) = callers.join_next().await {
        let (took, failed) = of_one?;
        times.extend(took);
        failures += failed;
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1_000).map_or(0, Duration::as_micros);
    let most = times.last().map_or(0, Duration::as_micros);
    writeln!(
        std::io::stdout(),
        "calls={} failures={failures} p50_us={} p99_us={} p999_us={} max_us={most}",
        times.len() + failures,
        at(500),
        at(990),
        at(999)
    )?;
    Ok(())
}

/// Asks when it is time, whether or not the last one was answered; times are from when it was time.
async fn one_caller(
    client: TokenServiceClient<tonic::transport::Channel>,
    first: Instant,
    time: Duration,
) -> (Vec<Duration>, usize) {
    sleep_until(first).await;
    let (mut ticks, mut calls) = (interval(PACE), JoinSet::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = Instant::now() + time;
    while Instant::now() < until {
        let due = ticks.tick().await;
        let mut client = client.clone();
        calls.spawn(async move {
            let request = GetTokenRequest { workspace: WORKSPACE.to_owned(), min_validity: None };
            client.get_token(request).await.map(|_token| due.elapsed())
        });
    }
    let results = calls.join_all().await;
    let failures = results.iter().filter(|result| result.is_err()).count();
    (results.into_iter().flatten().collect(), failures)
}

/// The time of one call to the limits: let in, refused, and by a caller that is new.
fn admit() -> Result<(), Box<dyn Error>> {
    const CALLS: u32 = 5_000_000;
    let pace = |per_second| limits::Pace { per_second, burst: per_second };
    let every = |pace| limits::PerAction { get: pace, watch: pace, report: pace, health: pace };
    let one = caller(1)?.caller;
    for (what, rate, known) in [("let in", u32::MAX, true), ("refused", 1, true), ("new", 1, false)] {
        let settings = limits::Settings { rates: every(pace(rate)), ..limits::Settings::default() };
        let limits = limits::Limits::new(&settings, limits::Metrics::default());
        let calls = if known { CALLS } else { CALLS / 5 };
        let others = (0..if known { 0 } else { calls }).map(Caller::unix).collect::<Vec<_>>();
        let begun = Instant::now();
        let mut good = 0_u32;
        for number in 0..calls {
            let caller = others.get(usize::try_from(number)?).unwrap_or(&one);
            good += u32::from(limits.admit(caller, Action::Get).is_ok());
        }
        let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls);
        writeln!(std::io::stdout(), "{what}: {each:.0} ns each, {good} of {calls} let in")?;
    }
    Ok(())
}

/// How long until a thousand streams of a thousand Workspaces each have heard that they lost one of them, and what else
/// waits meanwhile.
async fn judge() -> Result<(), Box<dyn Error>> {
    let supervisor = Supervisor::new();
    let (_engine, broker) = broker(&supervisor, &mut Registry::default())?;
    let mut names = Vec::new();
    for number in 0..1_000 {
        names.push(WorkspaceName::parse(&format!("{}/{number}", if number == 0 { "lost" } else { "kept" }))?);
    }
    let mut streams = Vec::new();
    for number in 0..1_000 {
        let mut watching = broker.authorise_then_watch(asker(number)?, names.clone())?;
        for _ in &names {
            watching.next().await?;
        }
        streams.push(watching);
    }
    let policy = Arc::new(policy("kept/**")?);
    let mut watcher = JoinSet::new();
    watcher.spawn(longest_delay());
    let (mut tasks, mut times) = (JoinSet::new(), Vec::new());
    let begun = Instant::now();
    broker.put_in_force(&policy);
    for mut stream in streams {
        tasks.spawn(async move { stream.next().await.map(|_lost| begun.elapsed()) });
    }
    for time in tasks.join_all().await {
        times.push(time?);
    }
    times.sort_unstable();
    let (first, last) = (times.first().copied(), times.last().copied());
    writeln!(std::io::stdout(), "heard of it: first {first:?}, last {last:?}; {} streams", times.len())?;
    writeln!(std::io::stdout(), "a timer of 1 ms was late by at most {:?}", watcher.join_all().await)?;
    Ok(())
}

/// By how much a timer is late, at worst, within 1.5 s.
async fn longest_delay() -> Duration {
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_millis(1_500) {
        let due = Instant::now() + Duration::from_millis(1);
        sleep(Duration::from_millis(1)).await;
        longest = longest.max(due.elapsed());
    }
    longest
}
