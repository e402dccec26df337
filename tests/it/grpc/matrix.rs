//! Who may do what: twenty callers, a hundred Workspaces and every method, held against rules that are written down a
//! second time, in another way.

use super::{App, USUAL_AGE, USUAL_WINDOW, asking, connect, known_as, told};
use crate::grants::policy;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use token_broker::engine::Workspace;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{ReportRejectedTokenRequest, WatchTokensRequest};
use token_broker::identity::Caller;
use token_broker::policy::{Action, Decision};
use token_broker::provider::Provider;
use token_broker::token::WorkspaceName;
use token_broker::upstream::{KeepWarm, UpstreamName};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const CALLERS: [&str; 20] = [
    "loopback",
    "unix:0",
    "unix:1000",
    "unix:10000",
    "spiffe://prod.example/ns/payments/sa/api",
    "spiffe://prod.example/ns/payments/sa/monitor",
    "spiffe://prod.example/ns/payments/sa/api/x",
    "spiffe://prod.example/ns/payments",
    "spiffe://prod.example/ns/fleet/sa/api",
    "spiffe://prod.example/ns/fleets/sa/api",
    "spiffe://prod.example.org/ns/payments/sa/api",
    "spiffe://test.example/ns/fleet/sa/monitor",
    "dns:a.edge.example",
    "dns:a.b.edge.example",
    "dns:a.b.ops.example",
    "dns:ops.example",
    "jwt:cluster:system:serviceaccount:fleet:api",
    "jwt:cluster:system:serviceaccount:fleet:api/x",
    "jwt:clusters:system:serviceaccount:fleet:api",
    "jwt:cluster:admin",
];

const GRANTS: &str = r#"
grants = [
  { caller = "loopback", workspaces = ["fleet/prod"], actions = ["get", "watch", "report", "health"] },
  { caller = "unix:1000", workspaces = ["payments/prod"], actions = ["get", "report"] },
  { caller = "unix:*", workspaces = ["shared/**"], actions = ["health"] },
  { caller = "spiffe://prod.example/ns/payments/sa/*", workspaces = ["payments/**"], actions = ["get", "watch", "report"] },
  { caller = "spiffe://prod.example/ns/*/sa/monitor", workspaces = ["**"], actions = ["health"] },
  { caller = "spiffe://prod.example/ns/fleet/**", workspaces = ["fleet/*", "fleet/*/eu"], actions = ["get"] },
  { caller = "dns:*.edge.example", workspaces = ["edge*/test"], actions = ["get", "health"] },
  { caller = "dns:**.ops.example", workspaces = ["**/prod"], actions = ["watch"] },
  { caller = "jwt:cluster:system:serviceaccount:fleet:*", workspaces = ["fleet/**"], actions = ["get", "watch"] },
  { caller = "jwt:cluster:**", workspaces = ["shared/prod"], actions = ["report"] },
  { caller = "**", workspaces = ["open"], actions = ["get"] },
]
"#;

/// The same rules by their segments.
fn may(caller: &str, action: Action, workspace: &str) -> bool {
    use Action::{Get, Health, Report, Watch};
    let segments: Vec<&str> = caller.split(['/', ':']).collect();
    let labels: Vec<&str> = caller.strip_prefix("dns:").unwrap_or_default().split('.').collect();
    let workspace: Vec<&str> = workspace.split('/').collect();
    let host_in = |domain: &str| labels.len() > 2 && labels[labels.len() - 2..].join(".") == domain;
    let rules = [
        segments == ["loopback"] && workspace == ["fleet", "prod"],
        segments == ["unix", "1000"] && workspace == ["payments", "prod"] && matches!(action, Get | Report),
        segments[0] == "unix" && workspace[0] == "shared" && workspace.len() > 1 && action == Health,
        matches!(segments[..], ["spiffe", "", "", "prod.example", "ns", "payments", "sa", _])
            && matches!(workspace[..], ["payments", _, ..])
            && action != Health,
        matches!(segments[..], ["spiffe", "", "", "prod.example", "ns", _, "sa", "monitor"]) && action == Health,
        matches!(segments[..], ["spiffe", "", "", "prod.example", "ns", "fleet", _, ..])
            && matches!(workspace[..], ["fleet", _] | ["fleet", _, "eu"])
            && action == Get,
        host_in("edge.example")
            && labels.len() == 3
            && matches!(workspace[..], [team, "test"] if team.starts_with("edge") && team != "edge")
            && matches!(action, Get | Health),
        host_in("ops.example") && matches!(workspace[..], [_, .., "prod"]) && action == Watch,
        matches!(segments[..], ["jwt", "cluster", "system", "serviceaccount", "fleet", _])
            && matches!(workspace[..], ["fleet", _, ..])
            && matches!(action, Get | Watch),
        matches!(segments[..], ["jwt", "cluster", ..]) && workspace == ["shared", "prod"] && action == Report,
        workspace == ["open"] && action == Get,
    ];
    rules.contains(&true)
}

/// A hundred names that are easily taken for one another.
fn workspaces() -> Vec<String> {
    let teams = ["payments", "fleet", "edge", "edge-1", "shared", "payments-test", "fleets", "open", "prod", "edge2"];
    let rests = ["", "/prod", "/test", "/prod/eu", "/test/eu", "/prod/us", "/eu", "/prod-1", "/x/prod", "/a/b/c"];
    teams.iter().flat_map(|team| rests.iter().map(move |rest| format!("{team}{rest}"))).collect()
}

/// There are none of these; some callers may have them if there were.
const UNKNOWN: [&str; 4] = ["payments/gone", "fleet/gone", "gone/prod", "gone"];

fn put(app: &App, name: &str) {
    let provider = Arc::clone(&app.provider) as Arc<dyn Provider>;
    let (name, upstream) = (WorkspaceName::parse(name).unwrap(), UpstreamName::parse("fake").unwrap());
    app.engine.put(Workspace { name, upstream, keep_warm: KeepWarm::Always, provider }).unwrap();
}

/// What a caller is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Yes,
    Unknown,
    Forbidden,
}

/// One caller's connection.
struct Asker {
    tokens: TokenServiceClient<super::Channel>,
    health: HealthClient<super::Channel>,
    /// Every refusal in full.
    refusals: BTreeSet<(String, Vec<u8>)>,
}

impl Asker {
    async fn new(app: &App, caller: &str) -> Self {
        let (_, mut peer) = known_as(Caller::parse(caller).unwrap());
        // Also the name of the loopback listener, by the one means of this broker.
        peer.identity.get_or_insert_with(token_broker::identity::Authenticated::loopback);
        let channel = connect(&app.routes, peer, &app.supervisor, (USUAL_WINDOW, USUAL_AGE)).await;
        let memory = http::Uri::from_static("http://memory");
        Self {
            tokens: TokenServiceClient::with_origin(channel.clone(), memory.clone()),
            health: HealthClient::with_origin(channel, memory),
            refusals: BTreeSet::new(),
        }
    }

    fn judge<T>(&mut self, answer: Result<T, Status>) -> Told {
        let Err(status) = answer else { return Told::Yes };
        match told(&status) {
            (Code::NotFound, reason) if reason == "WORKSPACE_UNKNOWN" => Told::Unknown,
            (Code::PermissionDenied, reason) if reason == "CALLER_FORBIDDEN" => {
                self.refusals.insert((status.message().to_owned(), status.details().to_vec()));
                Told::Forbidden
            }
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&mut self, action: Action, workspace: &str) -> Vec<Told> {
        let name = workspace.to_owned();
        match action {
            Action::Get => {
                let answer = self.tokens.get_token(asking(workspace)).await;
                vec![self.judge(answer)]
            }
            Action::Watch => {
                let request = WatchTokensRequest { workspaces: vec![name] };
                let stream = self.tokens.watch_tokens(request).await;
                if let Ok(stream) = stream {
                    let first = stream.into_inner().message().await.unwrap().unwrap();
                    assert_eq!(first.workspace, workspace);
                    return vec![Told::Yes];
                }
                vec![self.judge(stream)]
            }
            Action::Report => {
                let fingerprint = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
                let request = ReportRejectedTokenRequest { workspace: name, fingerprint, upstream_status: 401 };
                let answer = self.tokens.report_rejected_token(request).await;
                vec![self.judge(answer)]
            }
            Action::Health => {
                let request = HealthCheckRequest { service: format!("workspace/{workspace}") };
                let check = match self.health.check(request.clone()).await {
                    Ok(_) => Told::Yes,
                    Err(status) if status.code() == Code::NotFound => Told::Unknown,
                    Err(status) => panic!("{status:?}"),
                };
                let first = self.health.watch(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
                let watch = if first.status() == ServingStatus::ServiceUnknown { Told::Unknown } else { Told::Yes };
                vec![check, watch]
            }
        }
    }
}

/// What a caller must be told by each method that an action is for.
fn expected(caller: &str, action: Action, workspace: &str, exists: bool) -> Vec<Told> {
    let may = may(caller, action, workspace);
    match (action, may, exists) {
        (Action::Get | Action::Report, true, true) | (Action::Watch, true, _) => vec![Told::Yes],
        (Action::Get | Action::Report, true, false) => vec![Told::Unknown],
        (Action::Get | Action::Report | Action::Watch, false, _) => vec![Told::Forbidden],
        (Action::Health, true, true) => vec![Told::Yes; 2],
        (Action::Health, _, _) => vec![Told::Unknown; 2],
    }
}

/// A broker with these Workspaces, all of which have their tokens, and [`GRANTS`].
async fn warm() -> App {
    let app = App::of_a_stranger().await;
    for name in workspaces() {
        put(&app, &name);
    }
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(app.provider.calls(), 100, "each has its token");
    app.broker.put_in_force(&Arc::new(policy(GRANTS)));
    app
}

#[tokio::test(start_paused = true)]
async fn every_call_is_answered_as_the_rules_say() {
    let (app, existing) = (warm().await, workspaces());
    let (mut calls, mut granted, mut refusals) = (0, 0, BTreeSet::new());
    for caller in CALLERS {
        let mut asker = Asker::new(&app, caller).await;
        let names = existing.iter().map(|name| (name.as_str(), true)).chain(UNKNOWN.map(|name| (name, false)));
        for (name, exists) in names {
            for action in Action::ALL {
                let expected = expected(caller, action, name, exists);
                assert_eq!(asker.ask(action, name).await, expected, "{caller} {action:?} {name}");
                calls += expected.len();
                granted += expected.iter().filter(|told| **told == Told::Yes).count();
            }
        }
        refusals.append(&mut asker.refusals);
    }
    assert_eq!(calls, 20 * 104 * 5);
    assert!(granted > 300, "{granted} are granted");
    assert_eq!(refusals.len(), 1, "a refusal does not tell what there is: {refusals:?}");
    assert_eq!(app.provider.calls(), 100, "no refusal cost an exchange");
}

/// A rule for nobody, or one that everybody has, would be no test.
#[test]
fn each_grant_and_each_caller_plays_a_part() {
    let policy = policy(GRANTS);
    let mut used = BTreeSet::new();
    for caller in CALLERS {
        let name = Caller::parse(caller).unwrap();
        for workspace in workspaces() {
            for action in Action::ALL {
                let decision = policy.decide(&name, action, &WorkspaceName::parse(&workspace).unwrap());
                assert_eq!(
                    decision != Decision::Deny,
                    may(caller, action, &workspace),
                    "{caller} {action:?} {workspace}"
                );
                if let Decision::Allow { grant } = decision {
                    used.insert(grant);
                }
            }
        }
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
    assert_eq!(workspaces().into_iter().collect::<BTreeSet<_>>().len(), 100);
}

/// A call that waits for a token when its right ends gets none, and one that keeps its right does.
#[tokio::test(start_paused = true)]
async fn a_right_that_ends_while_a_call_waits_has_ended() {
    let app = App::of_a_stranger().await;
    put(&app, "fleet/prod");
    app.provider.hangs();
    app.broker.put_in_force(&Arc::new(policy(GRANTS)));
    let mut loses = Asker::new(&app, "loopback").await;
    let mut keeps = Asker::new(&app, "spiffe://prod.example/ns/fleet/sa/api").await;
    let heard = app.broker.revisions();
    let change = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let less = GRANTS.replace("caller = \"loopback\"", "caller = \"unix:7\"");
        app.broker.put_in_force(&Arc::new(policy(&less)));
        app.provider.goes_on();
    };
    let (first, second, ()) =
        tokio::join!(loses.ask(Action::Get, "fleet/prod"), keeps.ask(Action::Get, "fleet/prod"), change);
    assert_eq!((first, second), (vec![Told::Forbidden], vec![Told::Yes]));
    assert!(heard.has_changed().unwrap(), "streams are told");
}
