//! `serve` at its most talkative: every flow, every fault, every face, to both of its ends.

use super::super::{PATIENCE, finish, token_broker};
use super::caller::{Caller, Told};
use super::echo::MODES;
use super::scanner::{Scanner, Secret, Seen};
use super::stage::{Broker, PUBLIC, ROWS, Stage, echoed};
use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message as _;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use token_broker::grpc::pb::{
    GetTokenRequest, GetTokenResponse, ReportRejectedTokenRequest, Token, WatchTokensRequest,
};
use token_broker::sandbox::{Cut, CutAt, CutBy, Fault, Scope};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;

/// What came out of a broker, and the tokens that came to its callers.
#[derive(Default)]
struct Run {
    /// In which there may be nothing at all.
    seen: Seen,
    /// Answers, in which tokens may be.
    answers: Seen,
    tokens: BTreeMap<String, Token>,
    codes: BTreeMap<String, usize>,
}

/// For calls that may have to wait for an upstream that has failed too often.
const SHORTLY: &[(&str, &str)] = &[("grpc-timeout", "500m")];

async fn report(caller: &mut Caller, workspace: &str, token: &Token) -> Told {
    let fingerprint = token.fingerprint.clone();
    let request = ReportRejectedTokenRequest { workspace: workspace.to_owned(), fingerprint, upstream_status: 401 };
    caller.call("ReportRejectedToken", SHORTLY, &request).await
}

fn asking(workspace: &str) -> GetTokenRequest {
    GetTokenRequest { workspace: workspace.to_owned(), min_validity: None }
}

impl Run {
    fn took(&mut self, what: &str, told: Told) -> Option<Bytes> {
        *self.codes.entry(format!("{:?}", told.code)).or_default() += 1;
        self.seen.add(format!("headers and trailers of {what}"), told.around);
        for message in &told.messages {
            self.answers.add(format!("answer of {what}"), message.to_vec());
        }
        told.messages.into_iter().next_back()
    }

    async fn get(&mut self, caller: &mut Caller, workspace: &str, headers: &[(&str, &str)]) -> Option<Token> {
        let told = caller.call("GetToken", headers, &asking(workspace)).await;
        self.got(workspace, told)
    }

    /// Each of these at once, and what a rejected token leads to.
    async fn get_all(&mut self, callers: &mut [Caller], workspaces: &[String]) {
        let asked = callers.iter_mut().zip(workspaces);
        let calls = asked.map(async |(caller, workspace)| caller.call("GetToken", SHORTLY, &asking(workspace)).await);
        let told = join_all(calls).await;
        let mut rejected = Vec::new();
        for (workspace, told) in workspaces.iter().zip(told) {
            let token = self.got(workspace, told);
            rejected.extend(token.map(|token| (workspace.clone(), token)));
        }
        for _ in 0..2 {
            let asked = callers.iter_mut().zip(&rejected);
            let told =
                join_all(asked.map(async |(caller, (workspace, token))| report(caller, workspace, token).await)).await;
            told.into_iter().zip(&rejected).for_each(|(told, (workspace, _))| drop(self.got(workspace, told)));
        }
    }

    fn got(&mut self, workspace: &str, told: Told) -> Option<Token> {
        let message = self.took(&format!("GetToken {workspace}"), told)?;
        let token = GetTokenResponse::decode(message).unwrap().token.unwrap();
        // What echoes is made of the request, so that most of it is public.
        if !workspace.starts_with("echo-") {
            self.keep(&token);
        }
        Some(token)
    }

    fn keep(&mut self, token: &Token) {
        self.tokens.insert(token.value.clone(), token.clone());
    }

    /// Each flow at each upstream.
    async fn every_flow(&mut self, broker: &Broker) {
        let mut callers = broker.callers(MODES).await;
        self.get_all(&mut callers, &ROWS.iter().map(|row| row.name.to_owned()).collect::<Vec<_>>()).await;
        for row in &ROWS {
            self.get_all(&mut callers, &(0..MODES).map(|mode| echoed(row, mode)).collect::<Vec<_>>()).await;
        }
    }

    async fn every_face(&mut self, stage: &Stage, broker: &Broker) {
        let mut caller = broker.caller().await;
        let watched =
            WatchTokensRequest { workspaces: vec![PUBLIC.to_owned(), "mismatch".to_owned(), "none".to_owned()] };
        let told = caller.stream("WatchTokens", &watched, 2).await;
        self.took("WatchTokens", told);
        for service in
            ["", "workspace/mismatch", &format!("workspace/{PUBLIC}"), "workspace/none", &stage.secrets[0].text]
        {
            for method in ["Check", "Watch"] {
                let request = HealthCheckRequest { service: service.to_owned() };
                let told = caller.stream(&format!("/grpc.health.v1.Health/{method}"), &request, 1).await;
                self.took(&format!("health of {service}"), told);
            }
        }
    }

    async fn every_listener(&mut self, stage: &Stage, broker: &Broker) {
        let config = stage.authority.caller(Some(&stage.client));
        let mut mesh = Caller::tls(broker.mesh, config).await.expect("it has a certificate");
        assert!(self.get(&mut mesh, PUBLIC, &[]).await.is_some());
        // Nobody, over TLS and not.
        if let Some(mut nobody) = Caller::tls(broker.mesh, stage.authority.caller(None)).await {
            assert!(self.get(&mut nobody, PUBLIC, &[]).await.is_none());
        }
        assert!(self.get(&mut Caller::unix(&stage.socket()).await, PUBLIC, &[]).await.is_some());
    }

    /// Good and bad JWTs, where they belong and where they do not. All of them are secrets.
    async fn every_bearer(&mut self, stage: &Stage, broker: &Broker) -> Vec<Secret> {
        let (good, old) = (stage.bearer("somebody", 600), stage.bearer("somebody", -600));
        let mut secrets = vec![Secret::of("a caller's JWT", &good), Secret::of("a caller's old JWT", &old)];
        let opaque = Secret::plain("a caller's opaque bearer");
        let basic = Secret::plain("a caller's Basic");
        let mut caller = Caller::tls(broker.tokens, stage.authority.caller(None)).await.unwrap();
        let bearer = |text: &str| format!("Bearer {text}");
        assert!(self.get(&mut caller, PUBLIC, &[("authorization", &bearer(&good))]).await.is_some());
        let (cut, _) = good.split_at(good.len() - 9);
        let shown = [bearer(&old), bearer(&opaque.text), bearer(cut), good.clone(), format!("Basic {}", basic.text)];
        for value in &shown {
            assert!(self.get(&mut caller, PUBLIC, &[("authorization", value)]).await.is_none());
        }
        let (good_one, opaque_one) = (bearer(&good), bearer(&opaque.text));
        let twice = [("authorization", good_one.as_str()), ("authorization", &opaque_one)];
        assert!(self.get(&mut caller, PUBLIC, &twice).await.is_none());
        let mut plain = broker.caller().await;
        // Not `x-request-id`, which is there to be logged and sent back, and not `grpc-encoding`, which tonic quotes to
        // the one who sent it.
        for name in [
            "authorization",
            "x-jwt-payload",
            "x-forwarded-client-cert",
            "cookie",
            "user-agent",
            "grpc-timeout",
            "traceparent",
            "content-encoding",
            "x-api-key",
            "te-bin",
        ] {
            let mut told = self.get(&mut plain, PUBLIC, &[(name, &good)]).await;
            told = told.and(self.get(&mut caller, PUBLIC, &[(name, &opaque.text), ("authorization", &good_one)]).await);
            drop(told);
        }
        let told = plain.call(&format!("/tokenbroker.v1.TokenService/{}", opaque.text), &[], &asking("a")).await;
        self.took("a method that there is not", told);
        let told = plain.call(&format!("/{good}/GetToken?token={}", opaque.text), &[], &asking("a")).await;
        self.took("a service that there is not", told);
        secrets.extend([opaque, basic]);
        secrets
    }

    /// Names that want to be something else in a log, and secrets for names.
    async fn hostile_names(&mut self, stage: &Stage, broker: &Broker) {
        let mut caller = broker.caller().await;
        let planted = stage.secrets[0].text.clone();
        let names =
            ["a\n{\"caller\":\"root\"}", "\u{1b}[2J", "a\0b", "../../etc/passwd", "\u{202e}a", "a\" or \"1", &planted];
        for name in names {
            assert!(self.get(&mut caller, name, &[]).await.is_none());
            let told = caller.call("WatchTokens", &[], &WatchTokensRequest { workspaces: vec![name.to_owned()] }).await;
            self.took("WatchTokens of a bad name", told);
            let fingerprint = name.to_owned();
            let request =
                ReportRejectedTokenRequest { workspace: PUBLIC.to_owned(), fingerprint, upstream_status: 401 };
            let told = caller.call("ReportRejectedToken", &[], &request).await;
            self.took("a report of a bad fingerprint", told);
        }
    }

    /// What goes wrong at the upstreams that know the secrets.
    async fn every_fault(&mut self, stage: &Stage, broker: &Broker) {
        let mut callers = broker.callers(ROWS.len()).await;
        let foreign = stage.control.mint(2).unwrap();
        self.keep(&Token { value: foreign.clone(), ..Token::default() });
        let all = stage.secrets[0].text.clone();
        let statuses = [200, 201, 204, 302, 400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503, 504];
        let cuts = [(CutAt::Before, CutBy::Close), (CutAt::Before, CutBy::Reset), (CutAt::InBody, CutBy::Close)];
        let raw = [all.clone(), format!("HTTP/1.1 200 OK\r\n{all}\r\n\r\n"), format!("HTTP/1.1 {all}\r\n\r\n")];
        let body = |status: u16, body: String| {
            let answer = token_broker::sandbox::Answer { status, body: body.into(), retry_after: Some(all.clone()) };
            Fault::Answer(answer)
        };
        let mut faults: Vec<_> = statuses.map(Fault::status).to_vec();
        faults.extend(cuts.map(|(at, by)| Fault::Cut(Cut { at, by })));
        faults.extend(raw.map(|raw| Fault::Raw(raw.into())));
        faults.extend(statuses.map(|status| body(status, format!("{{\"error\": \"{}\"}}", all.escape_default()))));
        for name in ["auth_token", "access_token", "accessToken", "token", "refresh_token"] {
            faults.push(body(200, format!("{{\"{name}\": \"{foreign}\", \"expires_in\": 60}}")));
        }
        faults.extend([Fault::Skew(86_400_000), Fault::Skew(-86_400_000), Fault::SameToken(Duration::ZERO)]);
        let workspaces: Vec<_> = ROWS.iter().map(|row| row.name.to_owned()).collect();
        for fault in faults {
            stage.control.set_fault(Scope::ALL, fault);
            self.get_all(&mut callers, &workspaces).await;
            stage.control.clear();
        }
    }

    async fn scrape(&mut self, broker: &Broker) {
        for path in ["/metrics", "/config", "/readyz", "/readyz?verbose", "/livez", "/nothing", "/config?x=/etc/shadow"]
        {
            self.seen.add(format!("probe {path}"), broker.scraped(path).await);
        }
    }

    /// Its arguments, and its environment but for the secret that was put there.
    fn look_at(&mut self, what: &str, pid: u32, exempt: &str) {
        self.seen.add(format!("argv of {what}"), fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        // Only root sees it.
        if let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) {
            let rest = environ.split(|byte| *byte == 0).filter(|one| !one.starts_with(exempt.as_bytes()));
            self.seen.add(format!("environ of {what}"), rest.collect::<Vec<_>>().join(&0));
        }
    }

    /// Everything beside the files that were given to it.
    fn files_of(&mut self, stage: &Stage, given: &[String]) -> Vec<String> {
        let mut written = Vec::new();
        for file in fs::read_dir(stage.files.0.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && !given.contains(&name) {
                self.seen.add(format!("file {name}"), fs::read(&path).unwrap());
                written.push(name);
            }
        }
        written
    }

    async fn end(&mut self, mut broker: Broker, signal: &str) {
        broker.process.signal(signal).await;
        let mut stdout = Vec::new();
        let reading = broker.process.stdout.as_mut().unwrap().read_to_end(&mut stdout);
        timeout(PATIENCE, reading).await.expect("it goes on").unwrap();
        broker.process.ended().await;
        self.seen.add("stdout", stdout);
        self.seen.add("log", broker.process.stderr());
    }
}

fn names(stage: &Stage) -> Vec<String> {
    let files = fs::read_dir(stage.files.0.path()).unwrap();
    files.map(|file| file.unwrap().file_name().to_str().unwrap().to_owned()).collect()
}

/// Another secret of an upstream, one that is of no use, and files that hold none.
async fn reload(run: &mut Run, stage: &Stage, broker: &mut Broker) -> Vec<Secret> {
    let secrets: Vec<_> = (0..3).map(|n| Secret::planted(&format!("reloaded {n}"))).collect();
    let mut caller = broker.caller().await;
    stage.files.write("application", &secrets[0].text);
    broker.process.signal("HUP").await;
    broker.process.logged("configuration accepted").await;
    run.get(&mut caller, PUBLIC, &[]).await;
    let text = |number: usize| secrets[number].text.clone();
    let bad = [
        ("application", format!("{}\n{}", text(1), text(2))),
        ("application", format!("{}\u{7}", text(1))),
        ("keyed.toml", format!("password = \"{}", text(1))),
        ("keyed.toml", format!("password = {}\n", text(2))),
        ("keyed.json", format!("{{\"client\": {}}}", text(1))),
        ("signing.pem", text(2)),
        ("shown.key", text(2)),
        ("ca.pem", text(1)),
        ("token-broker.toml", format!("{}\n{} = {:?}\n", stage.config(""), secrets[0].name, text(1))),
        ("token-broker.toml", format!("{}\nkey = \"{}\n", stage.config(""), text(1))),
    ];
    for (file, content) in bad {
        let path = stage.files.0.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        let refused = |log: &str| log.matches("refused").count();
        let count = refused(&broker.process.stderr());
        stage.files.write(file, &content);
        broker.process.signal("HUP").await;
        let told = async {
            while refused(&broker.process.stderr()) == count {
                broker.process.lines.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{file} was not refused"));
        run.scrape(broker).await;
        stage.files.write(file, &before);
    }
    secrets
}

/// What the other commands say when they are given the secrets' own places.
async fn other_commands(run: &mut Run, stage: &Stage, broker: &Broker) {
    let (config, endpoint) = (stage.files.config(), format!("http://{}", broker.grpc));
    let commands: [&[&str]; 6] = [
        &["check-config", &config],
        &["get", "--endpoint", &endpoint, "mismatch"],
        &["get", "--endpoint", &endpoint, "none", "--json"],
        &["healthcheck", "--endpoint", &endpoint],
        &["policy", "test", "--config", &config, "--caller", "loopback", "--workspace", PUBLIC, "--action", "get"],
        &["report", "--endpoint", &endpoint, "mismatch", "0123456789abcdef"],
    ];
    for arguments in commands {
        let mut command = token_broker(arguments);
        command.env(super::stage::ENVIRONMENT, stage.secret("environment")).env("RUST_LOG", "trace");
        let done = finish(command).await;
        run.seen.add(format!("stdout of {}", arguments[0]), done.stdout);
        run.seen.add(format!("stderr of {}", arguments[0]), done.stderr);
    }
}

#[tokio::test]
async fn nothing_that_a_talkative_broker_says_holds_a_secret() {
    let stage = Stage::new().await;
    let given = names(&stage);
    let (mut run, mut broker) = (Run::default(), stage.serve().await);
    let exempt = format!("{}=", super::stage::ENVIRONMENT);
    run.look_at("serve", broker.process.child.id().unwrap(), &exempt);
    run.every_flow(&broker).await;
    run.every_face(&stage, &broker).await;
    run.every_listener(&stage, &broker).await;
    let mut secrets = run.every_bearer(&stage, &broker).await;
    run.hostile_names(&stage, &broker).await;
    run.every_fault(&stage, &broker).await;
    other_commands(&mut run, &stage, &broker).await;
    run.scrape(&broker).await;
    secrets.extend(reload(&mut run, &stage, &mut broker).await);
    run.scrape(&broker).await;
    let readable = run.files_of(&stage, &given);
    assert!(readable.contains(&"audit.jsonl".to_owned()), "{readable:?}");
    run.end(broker, "TERM").await;
    // And to the other end.
    let broker = stage.serve().await;
    let mut caller = broker.caller().await;
    run.get(&mut caller, PUBLIC, &[]).await;
    run.end(broker, "KILL").await;
    run.files_of(&stage, &given);
    judge(&stage, &run, secrets);
}

/// The first hit of each secret in each kind of output.
fn shortened(hits: &[String]) -> Vec<&String> {
    let kind = |hit: &str| {
        let (what, secret) = hit.rsplit_once(": ").unwrap_or_default();
        (
            what.split(' ').next().unwrap_or_default().to_owned(),
            secret.split(" (").next().unwrap_or_default().to_owned(),
        )
    };
    let first: BTreeMap<_, _> = hits.iter().rev().map(|hit| (kind(hit), hit)).collect();
    first.into_values().collect()
}

fn judge(stage: &Stage, run: &Run, more: Vec<Secret>) {
    let mut lasting: Vec<Secret> = stage.secrets.iter().cloned().chain(more).collect();
    // A refresh token that was issued lasts; the rest of what passed is what callers come for, or was made for a request.
    let (refresh, passed): (Vec<_>, Vec<_>) =
        stage.tap.secrets().into_iter().partition(|secret| secret.name.starts_with("refresh"));
    assert!(refresh.len() >= 2 && passed.len() >= 10, "{} and {} passed", refresh.len(), passed.len());
    lasting.extend(refresh);
    let tokens = run.tokens.keys().filter(|token| token.len() > 16).map(|token| Secret::of("a token", token));
    let short: Vec<_> = passed.into_iter().chain(tokens).collect();
    let (lasting_scanner, all) = (Scanner::new(&lasting), Scanner::new(lasting.iter().chain(&short)));
    let mut hits = run.seen.hits(&all);
    // What comes from an upstream that sends back what it was sent is the token that it gives.
    hits.extend(
        run.answers.hits(&lasting_scanner).into_iter().filter(|hit| !hit.starts_with("answer of GetToken echo")),
    );
    assert!(hits.is_empty(), "{} hits: {:#?}", hits.len(), shortened(&hits));
    // What shows that each of these says something.
    for what in ["log", "stdout", "file audit.jsonl", "probe /config"] {
        let public = if what == "probe /config" { "generation" } else { PUBLIC };
        assert!(run.seen.shows(what, public), "{what} does not show {public}");
    }
    assert!(run.seen.shows("probe /metrics", "token_broker_exchanges_total"));
    assert!(run.seen.shows("headers and trailers", "token-broker"), "no details of an error");
    assert!(run.seen.shows("log", "\"TRACE\"") || run.seen.shows("log", "\"DEBUG\""));
    assert!(stage.echo.asked().iter().all(|times| *times >= 1), "{:?}", stage.echo.asked());
    assert!(run.codes.len() >= 6, "{:?}", run.codes);
    let needles: usize = lasting.iter().chain(&short).map(Secret::spellings).sum();
    assert!(needles > 1_000 && run.seen.bytes() > 1_000_000, "{needles} needles, {} bytes", run.seen.bytes());
}
