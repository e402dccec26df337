//! Ten thousand who watch one Workspace: each hears of each renewal, once and soon. Those who never read cost little.
//!
//! The lag of a message is the time of its receipt minus `issued_at`, which is when the broker sent the request that
//! brought the token. So it holds the whole exchange: it is no less than the time since the upstream's answer.

use super::load::{Fleet, Times, Wire};
use super::stand::{Setup, Stand, generous, workspace};
use super::{Form, millis, report, secs};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use token_broker::clock::Clock;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::watch_tokens_response::State;
use token_broker::grpc::pb::{Token, WatchTokensRequest, WatchTokensResponse};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

/// Nobody waits longer for the next token.
const OVERDUE: Duration = secs(60);

async fn start(life: Duration) -> Stand {
    let setup = Setup {
        lifetimes: vec![life],
        upstream: "shortest_lifetime = \"5s\"\nbudget = { logins = 10000, per = \"5m\" }",
        limits: generous(),
        ..Setup::default()
    };
    Stand::start(setup).await
}

async fn open(mut client: TokenServiceClient<Wire>) -> Streaming<WatchTokensResponse> {
    client.watch_tokens(WatchTokensRequest { workspaces: vec![workspace(1)] }).await.unwrap().into_inner()
}

/// The next token, whatever is said before it.
async fn token(stream: &mut Streaming<WatchTokensResponse>) -> Token {
    loop {
        let message = timeout(OVERDUE, stream.message()).await.expect("nothing comes").unwrap().unwrap();
        match message.state.unwrap() {
            State::Token(token) => return token,
            State::Withdrawn(withdrawn) => assert_eq!(withdrawn.reason, "TOKEN_PENDING"),
        }
    }
}

/// What one watcher hears: fingerprints, and how late each came.
async fn hear(mut stream: Streaming<WatchTokensResponse>, renewals: usize) -> (Vec<String>, Vec<Duration>) {
    let clock = Clock::system();
    let (mut heard, mut lags) = (Vec::new(), Vec::new());
    for _ in 0..renewals {
        let token = token(&mut stream).await;
        let issued: SystemTime = token.issued_at.unwrap().try_into().unwrap();
        lags.push(clock.now().wall.duration_since(issued).unwrap_or_default());
        heard.push(token.fingerprint);
    }
    (heard, lags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_watcher_hears_of_each_renewal_once() {
    let form = Form::of_process();
    let (watchers, renewals, life) = (form.pick(500, 10_000), form.pick(2, 5), form.pick(secs(8), secs(30)));
    let stand = start(life).await;
    let fleet = Fleet::connect(stand.address, &stand.control, watchers, 100).await;
    let mut streams = Vec::new();
    for nth in 0..watchers {
        let mut stream = open(fleet.client(nth)).await;
        token(&mut stream).await;
        streams.push(stream);
    }
    // All are there; whatever was renewed meanwhile is read first.
    let mut crowd = JoinSet::new();
    for mut stream in streams {
        crowd.spawn(async move {
            while timeout(millis(500), stream.message()).await.is_ok() {}
            hear(stream, renewals).await
        });
    }
    let all = crowd.join_all().await;
    let tokens: HashSet<&[String]> = all.iter().map(|(heard, _)| heard.as_slice()).collect();
    let distinct: HashSet<&String> = all.iter().flat_map(|(heard, _)| heard).collect();
    assert_eq!(all.len(), watchers);
    // A renewal may fall between two who begin to listen: then they differ by one at their ends.
    assert!(tokens.len() <= 2 && distinct.len() <= renewals + 1, "{} and {}", tokens.len(), distinct.len());
    assert!(all.iter().all(|(heard, _)| heard.iter().collect::<HashSet<_>>().len() == renewals), "one came twice");
    let lags = Times::of(all.into_iter().flat_map(|(_, lags)| lags));
    report(
        "push",
        format_args!(
            "{watchers} watchers on {} connections, {renewals} renewals, {} logins in all: each heard of each once, \
             after {lags}; the broker holds {} MiB",
            fleet.connections(),
            stand.logins(1),
            stand.resident_kib() / 1024
        ),
    );
    form.check_time("p99", lags.percentile(99), millis(250));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_who_never_read_cost_little() {
    let form = Form::of_process();
    let (watchers, renewals) = (form.pick(100, 2_000), form.pick(2, 20));
    let stand = start(secs(8)).await;
    let reader = Fleet::connect(stand.address, &stand.control, 1, 1).await;
    let mut reading = open(reader.client(0)).await;
    token(&mut reading).await;
    let fleet = Fleet::connect_narrow(stand.address, &stand.control, watchers, 1_024).await;
    let before = stand.resident_kib();
    let mut stuck = Vec::new();
    for nth in 0..watchers {
        stuck.push(open(fleet.client(nth)).await);
    }
    let mut samples = Vec::new();
    for _ in 0..renewals {
        token(&mut reading).await;
        samples.push(stand.resident_kib());
    }
    let newest = token(&mut reading).await.generation;
    sleep(millis(200)).await;
    let mut most = 0;
    for stream in &mut stuck {
        let mut read = 1;
        // Later ones may have come while the others were read.
        while token(stream).await.generation < newest {
            read += 1;
            assert!(read <= 8, "a backlog");
        }
        most = most.max(read);
    }
    let grown = samples.last().unwrap().saturating_sub(before);
    let first = samples.first().unwrap().saturating_sub(before);
    report(
        "stuck",
        format_args!(
            "{watchers} watchers who do not read: the broker grew by {first} KiB up to the first renewal and by \
             {grown} KiB up to the {renewals}th; reading on they got {most} messages at most, the newest last"
        ),
    );
    assert!(grown <= 32 * u64::try_from(watchers).unwrap() + 16 * 1024, "{grown} KiB");
}
