//! The configuration as a whole: all problems at once, the overlay, secret files, scale, the example.

mod descriptions;
mod issuers;
mod kinds;
mod listeners;
mod providers_page;
mod urls;

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use token_broker::config::{Config, Environment, Place, Problems, Workspace, explain};
use token_broker::health::Rule;
use token_broker::upstream::KeepWarm;

const SECRET: &str = "s3cret-Of-A-Workspace";

const UPSTREAM: &str = "[[upstreams]]\nname = \"emnify\"\nkind = \"emnify\"\n";

/// A directory whose secret files only the owner may read.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

fn parse(text: &str, directory: &TempDir) -> Result<Config, Problems> {
    Config::parse(text, directory.path(), &Environment::default())
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let environment = variables.iter().copied().collect();
    Config::parse(text, Path::new("/nowhere"), &environment)
}

/// A Workspace with this credential, beside an upstream.
fn with_credential(source: &str) -> String {
    format!(
        "{UPSTREAM}[[workspaces]]\nname = \"a\"\nupstream = \"emnify\"\ncredential = {{ application_token = {source} }}\n"
    )
}

fn token(config: &Config) -> String {
    token_of(&config.workspaces[0])
}

fn token_of(workspace: &Workspace) -> String {
    let sealed = &workspace.fields.secrets["application_token"];
    sealed.open(workspace.name.as_str(), "application_token").unwrap().expose().to_owned()
}

const BAD: &str = r#"
listen = "127.0.0.1:1"

[server]
grpc_listen = "0.0.0.0:7700"
probe_listen = "s3cret"
drain_timeuot = "10s"

[log]
format = "yaml"
level = "inof"

[engine]
min_gap = 10
max_workspaces = 0

[[upstreams]]
name = "emnify"
kind = "emnifi"
url = "http://user:s3cret@api.example.com/?s3cret#s3cret"
timeout = "1s"
connect_timeout = "2s"
budget = { logins = -1, per = "s3cret" }
renew_at = 0.99
shortest_lifetime = "1d"
longest_lifetime = "1h"
allow_private = ["ok.example.com", "http://s3cret"]
proxy = "http://user:s3cret@proxy:3128"
ca_file = "empty"
client_certificate = { cert_file = "own" }

[[upstreams]]
name = "emnify"
kind = "emnify"
max_concurrent = "s3cret"

[[upstreams]]
kind = "emnify"

[[workspaces]]
name = "Ill/Formed"
upstream = "emnify"
credential = { application_token = "s3cret" }

[[workspaces]]
name = "a"
upstream = "s3cret"
credential = { application_token = { file = "s3cret-missing" } }

[[workspaces]]
name = "a"
upstream = "emnify"
organisation = 0
keep_warm = "s3cret"
credential = { application_token = { file = "keyed.toml", key = "s3cret" } }

[[workspaces]]
upstream = "emnify"
credential = { application_token = { env = "s3cret" } }

[[workspaces]]
name = "b"
upstream = "emnify"
credential = { application_token = { file = "empty" } }

[[workspaces]]
name = "c"
upstream = "emnify"
credential = "s3cret"

[[workspaces]]
name = "d"
upstream = 3
credential = { application_token = { file = "own", env = "s3cret" }, s3 = "s3cret" }

[[workspaces]]
name = "e"
upstream = "emnify"
credential = { application_token = { file = "spaced" } }

[[workspaces]]
name = "f"
upstream = "emnify"
credential = { application_token = { file = "broken.json", key = "a" } }
"#;

/// In the order of the sections.
const PROBLEMS: &str = r#"
TOKEN_BROKER__LOG__LEVLE: unknown variable; did you mean TOKEN_BROKER__LOG__LEVEL?
listen (line 2): unknown key; did you mean listeners?
server.drain_timeuot (line 7): unknown key; did you mean drain_timeout?
server.grpc_listen (line 5): must be a loopback address, such as "127.0.0.1:7700", for whoever reaches it is let in; [[listeners]] tell callers apart
server.probe_listen (line 6): expected an IP address and a port, such as "127.0.0.1:7700"
log.format (line 10): expected "human" or "json"
log.level (line 11): expected a level (off, error, warn, info, debug, trace) or filter directives such as "info,token_broker=debug"
engine.max_workspaces (line 15): expected a whole number from 1 to 100000
engine.serve_margin (TOKEN_BROKER__ENGINE__SERVE_MARGIN): expected a duration from 0s to 1h, such as "10s", "5m" or "250ms"
engine.min_gap (line 14): expected a duration from 10ms to 1h, such as "10s", "5m" or "250ms", found an integer
upstreams[0].kind (line 19): unknown kind; did you mean emnify?
upstreams[0].renew_at (line 24): expected a number from 0.1 to 0.95
upstreams[0].budget.logins (line 23): expected a whole number from 1 to 1000000
upstreams[0].budget.per (line 23): expected a duration from 1s to 31d, such as "10s", "5m" or "250ms"
upstreams[0].longest_lifetime (line 26): must not be less than shortest_lifetime
upstreams[0].connect_timeout (line 22): must not be longer than timeout
upstreams[0].allow_private[1] (line 27): expected a host name or an IP address, without scheme, port or range
upstreams[0].proxy (line 28): must not hold a user name or password
upstreams[0].ca_file (line 29): the file must hold certificates in PEM form
upstreams[0].client_certificate.key_file (line 30): is missing; expected the path of a PEM file
upstreams[0].client_certificate.cert_file (line 30): the file must hold certificates in PEM form
upstreams[0].url (line 20): must not hold a user name or password; must not hold a query; must not hold a fragment; must be https (http only for a loopback host or one in allow_private)
upstreams[1].name (line 33): is also the name of upstreams[0]; each name may stand once
upstreams[1].max_concurrent (line 35): expected a whole number from 1 to 10000, found a text
upstreams[2].name (line 37): is missing; expected a name of a-z, 0-9, '.', '_' and '-'
workspaces[0].name (line 41): may only hold a-z, 0-9, '.', '_', '-' and '/' between segments
workspaces[0].credential.application_token (line 43): secrets come from { file = … } or { env = … }, never from the configuration itself
workspaces[1].upstream (line 47): names no upstream of [[upstreams]]; expected one of emnify
workspaces[1].credential.application_token (line 48): the file can't be read: No such file or directory (os error 2) (relative paths are taken from the directory of the configuration file)
workspaces[2].name (line 51): is also the name of workspaces[1]; each name may stand once
workspaces[2].organisation (line 53): expected the number of an organisation (1 or more)
workspaces[2].keep_warm (line 54): expected "always" or "while_used"
workspaces[2].credential.application_token (line 55): the file has no such key
workspaces[3].name (line 57): is missing; expected a name such as "team/tenant"
workspaces[3].credential.application_token (line 59): the environment variable that it names is not set
workspaces[4].credential.application_token (line 64): the secret is empty
workspaces[5].credential (line 69): expected { application_token = { file = … } }; a secret never stands in the configuration itself
workspaces[6].upstream (line 73): expected the name of an upstream, found an integer
workspaces[6].credential.application_token (line 74): holds both file and env; expected { file = … }, { file = …, key = … } or { env = … }
workspaces[6].credential.s3 (line 74): secrets come from { file = … } or { env = … }, never from the configuration itself
workspaces[7].credential.application_token (line 79): the secret must be one line of printable ASCII
workspaces[8].credential.application_token (line 84): the file is not one JSON object with each key once (line 1, column 16)
"#;

#[test]
fn every_problem_is_reported_in_one_go() {
    let directory = directory(&[
        ("empty", "\n"),
        ("own", SECRET),
        ("spaced", "s3cret\ts3cret"),
        ("keyed.toml", "a = \"s3cret\""),
        ("broken.json", "{\"a\": \"s3cret\" \"s3cret\"}"),
    ]);
    let environment = [
        ("TOKEN_BROKER__LOG__LEVLE", "s3cret"),
        ("TOKEN_BROKER__ENGINE__SERVE_MARGIN", "s3cret"),
        ("TOKEN_BROKER_ENDPOINT", "s3cret"),
    ]
    .into_iter()
    .collect();
    let problems = Config::parse(BAD, directory.path(), &environment).unwrap_err();
    let shown = problems.to_string();
    assert_eq!(shown.lines().count(), problems.iter().count(), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains(SECRET), "{shown}");
    assert_eq!(shown, PROBLEMS.trim());
}

#[test]
fn what_is_not_toml_is_told_by_line_and_column_without_quoting_it() {
    let problems = parse_with("[server]\ngrpc_listen = s3cret\n", &[]).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "configuration (line 2): not valid TOML at column 15: string values must be quoted, expected literal string"
    );
}

#[test]
fn a_missing_file_and_a_directory_are_problems() {
    let directory = directory(&[]);
    for path in [directory.path().join("absent.toml"), directory.path().to_owned()] {
        let problems = Config::load(&path, &Environment::default()).unwrap_err();
        let problem = problems.iter().next().unwrap();
        assert_eq!((problem.key.as_str(), &problem.place), ("configuration", &Place::File(path)));
        assert!(problem.text.contains("configuration file"), "{problem}");
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse_with("", &[]).unwrap();
    insta::assert_debug_snapshot!((&config.server, &config.log, &config.engine, &config.warnings), @r##"
    (
        Server {
            grpc_listen: Some(
                127.0.0.1:7700,
            ),
            probe_listen: 127.0.0.1:7701,
            drain_timeout: 10s,
            max_connections: 4096,
            max_connections_per_peer: 1024,
            reload_interval: 1s,
        },
        Log {
            format: Json,
            level: Directives(
                "info",
            ),
        },
        Engine {
            serve_margin: 5s,
            min_gap: 10s,
            max_waiters_per_workspace: 50000,
            max_workspaces: 100000,
            max_watches: 250000,
        },
        [
            Warning {
                key: "workspaces",
                place: Unknown,
                text: "there is none, so the broker has nothing to hand out",
            },
        ],
    )
    "##);
}

#[test]
fn the_share_of_unhealthy_workspaces_is_a_number_from_0_to_1() {
    let read = |text: &str| parse_with(&format!("[health]\nmax_unhealthy = {text}\n"), &[]);
    for (text, expected) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0), ("1.0", 1.0)] {
        assert_eq!(read(text).unwrap().health, Rule { max_unhealthy: expected }, "{text}");
    }
    for text in ["1.1", "-0.1", "2", "nan", "\"0.5\"", "\"50%\""] {
        let problems = read(text).unwrap_err().to_string();
        assert!(problems.starts_with("health.max_unhealthy (line 2): expected a number from 0 to 1"), "{problems}");
    }
    let overridden = parse_with("[health]\nmax_unhealthy = 0\n", &[("TOKEN_BROKER__HEALTH__MAX_UNHEALTHY", "0.5")]);
    assert_eq!(overridden.unwrap().health, Rule { max_unhealthy: 0.5 });
    assert!(!parse_with("", &[]).unwrap().health.can_be_broken(), "off unless it is asked for");
}

#[test]
fn an_upstream_has_defaults_for_all_but_its_name_and_kind() {
    let config = parse_with(UPSTREAM, &[]).unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.base_url.as_str(), "https://cdn.emnify.net/");
    assert_eq!(upstream.max_concurrent.get(), 16);
    assert_eq!(upstream.budget.logins.get(), 100);
    assert_eq!(upstream.budget.per, Duration::from_secs(300));
    assert!((upstream.renew_at - 0.5).abs() < f64::EPSILON);
    assert_eq!(upstream.bounds.shortest, Duration::from_secs(30));
    assert_eq!(upstream.bounds.longest, Duration::from_secs(730 * 86_400));
    assert_eq!(upstream.http.timeout, Duration::from_secs(10));
    assert_eq!(upstream.http.connect_timeout, Duration::from_secs(3));
    assert!(upstream.http.allow_private.is_empty() && upstream.http.proxy.is_none());
}

#[test]
fn the_connect_timeout_gives_way_to_a_shorter_timeout() {
    let config = parse_with(&format!("{UPSTREAM}timeout = \"2s\"\n"), &[]).unwrap();
    assert_eq!(config.upstreams[0].http.connect_timeout, Duration::from_secs(2));
}

#[test]
fn a_proxy_needs_an_https_url() {
    let text = format!("{UPSTREAM}url = \"http://127.0.0.1:1\"\nproxy = \"http://proxy:3128\"\n");
    let problems = parse_with(&text, &[]).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["upstreams[0].proxy"]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "[server]\ngrpc_listen = \"127.0.0.1:1\"\n[engine]\nmax_workspaces = 5\n";
    let config = parse_with(
        text,
        &[
            ("TOKEN_BROKER__SERVER__GRPC_LISTEN", "127.0.0.1:2"),
            ("TOKEN_BROKER__ENGINE__MAX_WORKSPACES", "7"),
            ("TOKEN_BROKER__LOG__LEVEL", "debug"),
            ("TOKEN_BROKER_ENDPOINT", "http://127.0.0.1:7700"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.grpc_listen.unwrap().port(), 2);
    assert_eq!(config.engine.max_workspaces, 7);
    assert_eq!(config.log.level.as_str(), "debug");
}

#[test]
fn the_environment_reaches_scalar_settings_only() {
    for name in ["TOKEN_BROKER__UPSTREAMS__NAME", "TOKEN_BROKER__SERVER", "TOKEN_BROKER__"] {
        let problems = parse_with("", &[(name, "x")]).unwrap_err();
        assert_eq!(problems.iter().next().unwrap().key, name);
    }
    let problems = parse_with("", &[("TOKEN_BROKER__LOG__FORMAT", "")]).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!(problem.key, "log.format");
    assert_eq!(problem.place, Place::Variable("TOKEN_BROKER__LOG__FORMAT".to_owned()));
}

#[test]
fn a_secret_comes_from_a_file_a_key_or_the_environment() {
    let with_newline = format!("{SECRET}\n");
    let toml = format!("\"team/a\" = \"{SECRET}\"\n");
    let json = format!("{{\"team/a\": \"{SECRET}\"}}");
    let directory = directory(&[("own", &with_newline), ("all.toml", &toml), ("all.json", &json)]);
    let absolute = format!("{{ file = \"{}\" }}", directory.path().join("own").display());
    let sources = [
        "{ file = \"own\" }",
        "{ file = \"all.toml\", key = \"team/a\" }",
        "{ file = \"all.json\", key = \"team/a\" }",
        &absolute,
    ];
    for source in sources {
        let config = parse(&with_credential(source), &directory).unwrap();
        assert_eq!(token(&config), SECRET, "{source}");
        assert_eq!(warned(&config), ["grants"], "{source}");
        assert!(!format!("{config:?}").contains(SECRET));
    }
    let text = with_credential("{ env = \"FLEET\" }");
    let config = parse_with(&text, &[("FLEET", SECRET)]).unwrap();
    assert_eq!(token(&config), SECRET);
    assert_eq!(config.warnings[0].key, "workspaces[0].credential.application_token");
    assert!(!config.warnings[0].to_string().contains(SECRET));
}

/// The keys that are warned of; `grants` where there is none.
fn warned(config: &Config) -> Vec<&str> {
    config.warnings.iter().map(|warning| warning.key.as_str()).collect()
}

#[test]
fn a_secret_file_that_everyone_may_read_gives_one_warning() {
    let directory = directory(&[("own", SECRET)]);
    let path = directory.path().join("own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let text = with_credential("{ file = \"own\" }");
    let twice = format!(
        "{text}[[workspaces]]\nname = \"b\"\nupstream = \"emnify\"\ncredential = {{ application_token = {{ file = \"own\" }} }}\n"
    );
    let config = parse(&twice, &directory).unwrap();
    assert_eq!(warned(&config), ["workspaces[0].credential.application_token", "grants"]);
}

#[test]
fn a_keyed_file_without_a_key_is_no_secret() {
    let files = directory(&[("many.json", "{\"a\":\"one\",\"b\":\"two\"}")]);
    let problems = parse(&with_credential("{ file = \"many.json\" }"), &files).unwrap_err().to_string();
    assert!(problems.contains("this looks like a file of many secrets"), "{problems}");
}

#[test]
fn a_broken_keyed_file_is_reported_once() {
    let directory = directory(&[("all.toml", "a = ")]);
    let text = with_credential("{ file = \"all.toml\", key = \"a\" }");
    let twice = format!(
        "{text}[[workspaces]]\nname = \"b\"\nupstream = \"emnify\"\ncredential = {{ application_token = {{ file = \"all.toml\", key = \"b\" }} }}\n"
    );
    let problems = parse(&twice, &directory).unwrap_err();
    assert_eq!(problems.iter().count(), 1, "{problems}");
}

#[test]
fn certificates_are_looked_into() {
    let directory = directory(&[("ca.pem", CERTIFICATE), ("client.key", KEY)]);
    let text = format!(
        "{UPSTREAM}ca_file = \"ca.pem\"\nclient_certificate = {{ cert_file = \"ca.pem\", key_file = \"client.key\" }}\n"
    );
    let config = parse(&text, &directory).unwrap();
    let http = &config.upstreams[0].http;
    assert_eq!(http.ca_pem.as_deref(), Some(CERTIFICATE.as_bytes()));
    let identity = http.open_identity().unwrap().unwrap();
    assert_eq!(identity.expose(), format!("{CERTIFICATE}\n{KEY}"));
    let swapped = format!(
        "{UPSTREAM}ca_file = \"client.key\"\nclient_certificate = {{ cert_file = \"client.key\", key_file = \"ca.pem\" }}\n"
    );
    let problems = parse(&swapped, &directory).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "upstreams[0].ca_file",
            "upstreams[0].client_certificate.cert_file",
            "upstreams[0].client_certificate.key_file"
        ]
    );
}

// What is between the lines is not looked into here, so it need not be a real certificate.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

#[test]
fn a_hundred_thousand_workspaces_share_one_secret_file() {
    const COUNT: usize = 100_000;
    let (mut text, mut secrets) = (UPSTREAM.to_owned(), String::new());
    for n in 0..COUNT {
        write!(text, "[[workspaces]]\nname = \"t/{n}\"\nupstream = \"emnify\"\ncredential = {{ application_token = {{ file = \"all.toml\", key = \"t/{n}\" }} }}\n").unwrap();
        writeln!(secrets, "\"t/{n}\" = \"token-{n}\"").unwrap();
    }
    let directory = directory(&[("all.toml", &secrets)]);
    let config = parse(&text, &directory).unwrap();
    assert_eq!(config.workspaces.len(), COUNT);
    let last = &config.workspaces[COUNT - 1];
    assert_eq!(token_of(last), "token-99999");
    assert!(Arc::ptr_eq(&config.workspaces[0].flow, &last.flow), "the way to the tokens is kept once");
}

#[test]
fn more_workspaces_than_the_engine_allows_are_one_problem() {
    let text = "[engine]\nmax_workspaces = 1\n[[workspaces]]\n[[workspaces]]\n";
    let problems = parse_with(text, &[]).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["workspaces"]);
}

/// The first configuration of README.md, and what "Who may ask" adds to it.
#[test]
fn what_the_readme_shows_is_valid() {
    let page = include_str!("../../README.md");
    let tables = page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(table, _)| table);
    let shown: String = tables.filter(|table| table.contains("[[grants]]")).collect();
    // The key of RFC 8037, appendix A.2.
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let directory = directory(&[("fleet-production.token", "token-1\n"), ("jwks.json", keys)]);
    let config = parse(&shown, &directory).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!((config.listeners.len(), config.issuers.len(), config.grants.len()), (3, 1, 4));
}

#[test]
fn the_example_is_valid() {
    let directory = directory(&[
        ("token-broker.toml", include_str!("../../examples/token-broker.toml")),
        ("secrets/fleet-europe", "token-1\n"),
        ("secrets/billing-reports", "secret-1\n"),
        ("secrets/depot-north", "key-1\n"),
        ("secrets/customers.toml", "\"customers/blue\" = \"token-2\"\n\"customers/green\" = \"token-3\"\n"),
    ]);
    let path = directory.path().join("token-broker.toml");
    let config = Config::load(&path, &Environment::default()).unwrap();
    assert_eq!(config.warnings, []);
    let kinds: Vec<_> = config.listeners.iter().map(token_broker::config::Listener::kind).collect();
    assert_eq!(kinds, ["certificate", "bearer", "peer_credentials"]);
    assert_eq!((config.server.grpc_listen, config.grants.len(), config.audit.stdout), (None, 4, false));
    assert_eq!(config.workspaces[0].keep_warm, KeepWarm::Always);
    assert_eq!(config.workspaces[0].fields.parameters["organisation"], "1234");
    assert_eq!(config.upstreams[0].budget.logins, NonZeroU32::new(100).unwrap());
    assert_eq!(config.upstreams[0].budget.per, Duration::from_secs(300));
    insta::assert_snapshot!(explain(&config).join("\n"), @r##"
    upstream emnify (emnify, https://cdn.emnify.net): Workspaces: 3
      Workspaces by flow: application-token: 3, user: 0, user-in-workspace: 0
      budget: 100 logins per 5m: 25 at once, of which 5 are kept for waiting callers, then 900 per hour
      if tokens live 4h: logins per hour when all are in use: 2 (1% of the budget); Workspaces that the budget carries at renew_at 0.5: 1800
      if tokens live 7d: logins per hour when all are in use: 1 (1% of the budget); Workspaces that the budget carries at renew_at 0.5: 75600
      cold start: about 0s by the budget (logins: 3)
    upstream billing (oauth2, https://login.example.com/oauth2/token): Workspaces: 1
      Workspaces by flow: client-credentials: 1, client-credentials-body: 0, jwt-bearer: 0, password: 0, private-key-jwt: 0, refresh-token: 0, token-exchange: 0
      budget: 60 logins per 5m: 15 at once, of which 3 are kept for waiting callers, then 540 per hour
      if tokens live 1h: logins per hour when all are in use: 2 (1% of the budget); Workspaces that the budget carries at renew_at 0.5: 270
      cold start: about 0s by the budget (logins: 1)
    upstream depot (http, https://api.depot.example.com): Workspaces: 1
      Workspaces by flow: session: 1
      budget: 60 logins per 5m: 15 at once, of which 3 are kept for waiting callers, then 540 per hour
      how long tokens live, and so how many logins they take, is learnt only at run time
      cold start: about 0s by the budget (logins: 1)
    "##);
}
