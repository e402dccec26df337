//! A good token is kept, whatever comes when it is to be renewed: an engine, a provider, and an upstream that answers
//! well once.

use super::case::{Case, Expected, kinds};
use super::observed::captured;
use super::server::Server;
use crate::logs::Capture;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;
use token_broker::clock::Clock;
use token_broker::engine::{Call, Engine, Limits, Metrics, Origin, Settings, Source, Workspace};
use token_broker::supervisor::Supervisor;
use token_broker::token::WorkspaceName;
use token_broker::upstream::{Budget, KeepWarm, UpstreamName};
use tokio::time::Instant;

/// More than any of these takes, and less than anybody waits for a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// The one exchange that a case is about.
fn of_one_request(case: &Case) -> Option<Expected> {
    let expected = case.expected()?;
    (case.answers.len() == 1 && case.exchanges() == 1 && !case.path.join("case.toml").exists())
        .then(|| expected.into_iter().next())
        .flatten()
}

#[tokio::test]
async fn a_good_token_is_served_on_whatever_its_renewal_brings() {
    let mut tried = BTreeMap::new();
    for kind in kinds() {
        let cases: Vec<_> = Case::of(&kind);
        let is_good =
            |case: &&Case| of_one_request(case).is_some_and(|expected| expected.lifetime_seconds >= Some(120));
        let Some(good) = cases.iter().find(is_good) else { continue };
        let is_bad = |case: &&Case| of_one_request(case).is_some_and(|expected| expected.failure.is_some());
        for case in cases.iter().filter(is_bad) {
            stays(good, case).await;
            *tried.entry(kind.clone()).or_insert(0) += 1;
        }
    }
    assert!(tried["hostile"] >= 80 && tried["emnify"] >= 40, "{tried:?}");
    assert!(tried.values().sum::<usize>() >= 180, "{tried:?}");
}

async fn stays(good: &Case, bad: &Case) {
    let name = bad.name();
    let server = Server::start([good.answers.clone(), bad.answers.clone()].concat()).await;
    let (engine, workspace) = engine(bad, &server.url);
    let call = || Call { deadline: Instant::now() + PATIENCE, origin: Origin(0) };
    let first = engine.get(&workspace, Duration::ZERO, call()).await;
    let first = first.unwrap_or_else(|error| panic!("{name}: the good answer of {}: {error:?}", good.name()));
    let renewed = engine.report(&workspace, first.token.fingerprint, call()).await;
    assert!(renewed.is_err(), "{name}: a token came of it");
    assert!(server.sent().len() >= 2, "{name}: it was not tried");
    let second = engine.get(&workspace, Duration::ZERO, call()).await;
    let second = second.unwrap_or_else(|error| panic!("{name}: the token is gone: {error:?}"));
    assert_eq!(second.token.fingerprint, first.token.fingerprint, "{name}");
    assert_eq!(second.source, Source::Cache, "{name}");
}

/// A provider can't say it: it does not know for whom it asks.
#[tokio::test]
async fn the_lines_of_an_exchange_say_whose_it_is() {
    let named = |case: &&Case| case.path.ends_with("refresh-token-answer-has-a-new-one");
    let cases = Case::of("oauth2");
    let case = cases.iter().find(named).unwrap();
    let server = Server::start(case.answers.clone()).await;
    let capture = Capture::default();
    let logs = captured(&capture);
    let (engine, workspace) = engine(case, &server.url);
    let call = Call { deadline: Instant::now() + PATIENCE, origin: Origin(0) };
    engine.get(&workspace, Duration::ZERO, call).await.unwrap();
    drop(logs);
    let text = capture.text();
    for line in ["asks the upstream", "the upstream rotates refresh tokens"] {
        let line = text.lines().find(|found| found.contains(line)).unwrap_or_else(|| panic!("{line}: {text}"));
        assert!(line.contains("workspace.name=fixture"), "{line}");
    }
}

fn engine(case: &Case, server: &str) -> (Engine, WorkspaceName) {
    let settings = Settings {
        serve_margin: Duration::from_secs(5),
        min_gap: Duration::ZERO,
        max_waiters: 10,
        max_workspaces: 10,
        max_watches: 10,
        seed: 7,
    };
    let metrics = Metrics::register(&mut Registry::default());
    let engine = Engine::new(Clock::system(), Supervisor::new(), settings, metrics);
    let upstream = UpstreamName::parse("fixture").unwrap();
    let budget = Budget { logins: NonZeroU32::new(1_000).unwrap(), per: Duration::from_secs(1) };
    let max_concurrent = NonZeroUsize::new(4).unwrap();
    engine.add_upstream(upstream.clone(), Limits { budget, max_concurrent, renew_at: 0.5, timeout: PATIENCE });
    let name = WorkspaceName::parse("fixture").unwrap();
    let provider = case.provider(server).unwrap();
    engine.put(Workspace { name: name.clone(), upstream, keep_warm: KeepWarm::WhileUsed, provider }).unwrap();
    (engine, name)
}
