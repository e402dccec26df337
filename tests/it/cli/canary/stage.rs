//! All planted secrets, the upstreams that know them and those that send them back, and a configuration with every flow.

use super::super::spellings::hex;
use super::super::{ANY_PORT, Files, PATIENCE, Process, token_broker};
use super::caller::Caller;
use super::echo::{Echo, MODES};
use super::scanner::Secret;
use super::tap::{Authority, Pair, Tap};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};
use token_broker::clock::Clock;
use token_broker::sandbox::{
    Application, Client, Consent, Control, Login, OAuth2, Organisation, Refresh, Sandbox, Settings, User, Wyvern,
};
use tokio::task::JoinSet;

pub(super) const SVID: &str = "spiffe://prod.example/ns/canary/sa/caller";
/// In the configuration, and no secret: what every look must find.
pub(super) const PUBLIC: &str = "proof/that-names-are-found";
pub(super) const ENVIRONMENT: &str = "CANARY_TOKEN";
const USERNAME: &str = "robot@canary.example";
const ISSUER: &str = "https://sandbox.example/oauth2";
const LIFETIME: Duration = Duration::from_secs(14_400);

/// A way to a token: its Workspace, the kind and flow, parameters, secrets by the names of the flow.
pub(super) struct Row {
    pub(super) name: &'static str,
    kind: &'static str,
    flow: &'static str,
    parameters: &'static str,
    secrets: &'static [(&'static str, &'static str)],
}

const fn row(
    name: &'static str,
    (kind, flow): (&'static str, &'static str),
    parameters: &'static str,
    secrets: &'static [(&'static str, &'static str)],
) -> Row {
    Row { name, kind, flow, parameters, secrets }
}

const APPLICATION: &str = "{ file = \"application\" }";
const USER: &str = "{ file = \"keyed.toml\", key = \"user\" }";
const PASSWORD: &str = "{ file = \"keyed.toml\", key = \"password\" }";
const CLIENT: &str = "{ file = \"keyed.json\", key = \"client\" }";
const KEY: &str = "{ file = \"signing.pem\" }";
const REFRESH: &str = "{ file = \"refresh\" }";
const SIGNS: &str = "algorithm = \"ES256\", assertion_audience = \"https://sandbox.example/oauth2\"";

pub(super) const ROWS: [Row; 13] = [
    row(PUBLIC, ("emnify", "application-token"), "organisation = 1", &[("application_token", APPLICATION)]),
    row("env", ("emnify", "application-token"), "", &[("application_token", "{ env = \"CANARY_TOKEN\" }")]),
    row("mismatch", ("emnify", "application-token"), "organisation = 2", &[("application_token", APPLICATION)]),
    row("user", ("emnify", "user"), "organisation = 1", &[("username", USER), ("password", PASSWORD)]),
    row("switch", ("emnify", "user-in-workspace"), "organisation = 2", &[("username", USER), ("password", PASSWORD)]),
    row("basic", ("oauth2", "client-credentials"), "client_id = \"robot\"", &[("client_secret", CLIENT)]),
    row("body", ("oauth2", "client-credentials-body"), "client_id = \"robot\"", &[("client_secret", CLIENT)]),
    row("signed", ("oauth2", "private-key-jwt"), "client_id = \"signer\", SIGNS", &[("private_key", KEY)]),
    row(
        "kept",
        ("oauth2", "refresh-token"),
        "client_id = \"robot\"",
        &[("refresh_token", REFRESH), ("client_secret", CLIENT)],
    ),
    row("grant", ("oauth2", "jwt-bearer"), "issuer = \"signer\", subject = \"x\", SIGNS", &[("private_key", KEY)]),
    row(
        "exchanged",
        ("oauth2", "token-exchange"),
        "client_id = \"robot\"",
        &[("subject_token", "{ file = \"subject\" }"), ("client_secret", CLIENT)],
    ),
    row(
        "tenant",
        ("sensos", "application"),
        "tenant_id = \"t\", application_id = \"sandbox-application\"",
        &[("application_secret", "{ file = \"sensos\" }")],
    ),
    row("images", ("wyvern", "user"), "", &[("username", USER), ("password", PASSWORD)]),
];

impl Row {
    fn workspace(&self, name: &str, upstream: &str) -> String {
        let secrets: Vec<_> = self.secrets.iter().map(|(name, source)| format!("{name} = {source}")).collect();
        format!(
            "[[workspaces]]\nname = \"{name}\"\nupstream = \"{upstream}-{}\"\nflow = \"{}\"\nparameters = {{ {} }}\n\
             credential = {{ {} }}\n",
            self.kind,
            self.flow,
            self.parameters.replace("SIGNS", SIGNS),
            secrets.join(", ")
        )
    }
}

/// What is sent back in the way of this number.
pub(super) fn echoed(row: &Row, mode: usize) -> String {
    format!("echo-{mode}/{}", row.name)
}

pub(super) struct Stage {
    pub(super) files: Files,
    pub(super) secrets: Vec<Secret>,
    pub(super) control: Control,
    pub(super) echo: Echo,
    pub(super) tap: Tap,
    pub(super) keys: Tap,
    pub(super) authority: Authority,
    pub(super) client: Pair,
    issuer: KeyPair,
    _serving: JoinSet<()>,
}

fn sha1(text: &str) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

fn settings(texts: &[String; 7], signing: &KeyPair) -> Settings {
    let [application, environment, password, client, refresh, _, sensos] = texts.clone();
    let user = User {
        username: USERNAME.to_owned(),
        password_sha1: sha1(&password),
        organisation: 1,
        workspaces: vec![1, 2],
        code: None,
        trusted_devices: Vec::new(),
    };
    let signer = Client::new("signer").key(&signing.public_key_pem()).unwrap();
    let consent = Consent { client: "robot".to_owned(), subject: "somebody".to_owned(), refresh_token: refresh };
    let login = Login::new(USERNAME, password);
    Settings {
        organisations: vec![
            Organisation::new(1, "One", application, LIFETIME),
            Organisation::new(2, "Two", environment, LIFETIME),
        ],
        users: vec![user],
        refresh: Refresh::Rotated,
        applications: vec![Application { secret: sensos, ..Application::new("t", LIFETIME) }],
        wyvern: Wyvern { users: vec![login.clone()], ..Wyvern::default() },
        oauth2: OAuth2 {
            clients: vec![Client::new("robot").secret(client), signer],
            users: vec![login],
            refresh: Refresh::Rotated,
            consents: vec![consent],
            ..OAuth2::default()
        },
        ..Settings::default()
    }
}

impl Stage {
    pub(super) async fn new() -> Self {
        let names = ["application", "environment", "password", "client", "refresh", "subject", "sensos"];
        let mut secrets: Vec<_> = names.into_iter().map(Secret::planted).collect();
        let texts: [String; 7] = std::array::from_fn(|at| secrets[at].text.clone());
        let (signing, authority) = (KeyPair::generate().unwrap(), Authority::new());
        let mut sandbox = settings(&texts, &signing);
        sandbox.limits.logins = 1_000_000;
        let sandbox = Sandbox::bind(ANY_PORT, sandbox, Clock::system()).await.unwrap();
        let (address, control) = (sandbox.addr(), sandbox.handle());
        let mut serving = JoinSet::new();
        serving.spawn(sandbox.run(std::future::pending()));
        let issuer = KeyPair::generate().unwrap();
        let keys = serve_keys(&issuer, &mut serving).await;
        let (tap, keys) = (Tap::before(address, &authority).await, Tap::before(keys, &authority).await);
        let (shown, server, client) =
            (authority.client("spiffe://broker/x"), authority.server(), authority.client(SVID));
        let keys_token = Secret::plain("token of the keys");
        let files = Files::new("");
        files.write("keys-token", &keys_token.text);
        files.write("ca.pem", &authority.pem());
        for (name, pair) in [("shown", &shown), ("server", &server)] {
            files.write(&format!("{name}.pem"), &pair.certificate);
            files.write(&format!("{name}.key"), &pair.key);
        }
        files.write("signing.pem", &signing.serialize_pem());
        secrets.extend([
            Secret::of("SHA-1 of the password", &sha1(&texts[2])),
            Secret::key("signing key", &signing.serialize_pem()),
            Secret::key("key of the client certificate", &shown.key),
            Secret::key("key of the listeners", &server.key),
            keys_token,
        ]);
        let echo = Echo::start().await;
        let stage = Self { files, secrets, control, echo, tap, keys, authority, client, issuer, _serving: serving };
        stage.write_secrets(&texts);
        stage.files.write("token-broker.toml", &stage.config(""));
        stage
    }

    fn write_secrets(&self, texts: &[String; 7]) {
        let [application, _, password, client, refresh, subject, sensos] = texts;
        for (name, text) in
            [("application", application), ("refresh", refresh), ("subject", subject), ("sensos", sensos)]
        {
            self.files.write(name, text);
        }
        self.files.write("keyed.toml", &format!("user = \"{USERNAME}\"\npassword = {}\n", json!(password)));
        self.files.write("keyed.json", &json!({ "client": client }).to_string());
    }

    pub(super) fn secret(&self, name: &str) -> &str {
        &self.secrets.iter().find(|secret| secret.name == name).unwrap().text
    }

    /// Where its Unix socket is.
    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.files.0.path().join("broker.sock")
    }

    /// Every flow at the upstreams that know the secrets, and at one for each way to send them back.
    pub(super) fn config(&self, more: &str) -> String {
        let (sandbox, keys) = (self.tap.address.port(), self.keys.address.port());
        let tls = "certificate_file = \"server.pem\", key_file = \"server.key\"";
        let mut text = format!(
            "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\nreload_interval = \"20ms\"\n\
             drain_timeout = \"2s\"\n\
             [log]\nlevel = \"trace,h2=trace,hyper=trace,hyper_util=trace,rustls=trace,reqwest=trace,tonic=trace\"\n\
             [engine]\nmin_gap = \"10ms\"\n\
             [audit]\nsinks = [\"stdout\", \"file\"]\nfile = \"audit.jsonl\"\nrepeats_every = \"1s\"\n\
             [[listeners]]\nname = \"mesh\"\naddress = \"127.0.0.1:0\"\ncallers = \"certificate\"\n\
             tls = {{ {tls}, client_ca_file = \"ca.pem\" }}\n\
             [[listeners]]\nname = \"tokens\"\naddress = \"127.0.0.1:0\"\ncallers = \"bearer\"\ntls = {{ {tls} }}\n\
             [[listeners]]\nname = \"users\"\naddress = \"unix:{}\"\ncallers = \"peer_credentials\"\n\
             [[issuers]]\nname = \"cluster\"\nissuer = \"{ISSUER}\"\naudiences = [\"token-broker\"]\n\
             jwks_url = \"https://localhost:{keys}/keys\"\nallow_private = [\"localhost\"]\nca_file = \"ca.pem\"\n\
             token_file = \"keys-token\"\nrefresh_interval = \"1s\"\n\
             [[grants]]\ncaller = \"**\"\nworkspaces = [\"**\"]\nactions = [\"get\", \"watch\", \"report\", \"health\"]\n",
            self.socket().display()
        );
        for (kind, path) in [("emnify", ""), ("oauth2", "/oauth2/token"), ("sensos", "/sensos"), ("wyvern", "/wyvern")]
        {
            text += &knowing(kind, &format!("https://localhost:{sandbox}{path}"));
            (0..MODES).for_each(|mode| text += &self.echoing(kind, mode));
        }
        for row in &ROWS {
            text.push_str(&row.workspace(row.name, "sandbox"));
            (0..MODES).for_each(|mode| text.push_str(&row.workspace(&echoed(row, mode), &format!("echo-{mode}"))));
        }
        text + more
    }

    fn echoing(&self, kind: &str, mode: usize) -> String {
        let path = if kind == "oauth2" { "/token" } else { "" };
        format!(
            "[[upstreams]]\nname = \"echo-{mode}-{kind}\"\nkind = \"{kind}\"\n\
             url = \"http://{}/m{mode}{path}\"\nbudget = {{ logins = 100000 }}\ntimeout = \"2s\"\n",
            self.echo.address
        )
    }

    pub(super) async fn serve(&self) -> Broker {
        let mut command = token_broker(&["serve", "--config", &self.files.config()]);
        command.env(ENVIRONMENT, self.secret("environment"));
        command.env("RUST_LOG", "trace,h2=trace,hyper=trace,rustls=trace,reqwest=trace,tonic=trace,token_broker=trace");
        command.current_dir(self.files.0.path());
        let mut process = Process::start(command);
        let line = process.logged("serving").await;
        let address = |value: &Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
        let (grpc, probe) = (address(&line["grpc"]), address(&line["probes"]));
        let listeners: Vec<Value> =
            process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |name: &str| {
            let line = listeners.iter().find(|line| line["message"] == "listening" && line["listener"] == name);
            address(&line.unwrap()["address"])
        };
        Broker { grpc, probe, mesh: of("mesh"), tokens: of("tokens"), process }
    }

    /// A caller's JWT.
    pub(super) fn bearer(&self, subject: &str, seconds: i64) -> String {
        let now = Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let exp = i64::try_from(now).unwrap() + seconds;
        let claims = json!({ "iss": ISSUER, "aud": "token-broker", "sub": subject, "exp": exp });
        let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.issuer.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

/// An upstream that knows the secrets, and wants a certificate.
fn knowing(kind: &str, url: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"sandbox-{kind}\"\nkind = \"{kind}\"\nurl = \"{url}\"\n\
         budget = {{ logins = 100000 }}\nca_file = \"ca.pem\"\nallow_private = [\"localhost\"]\n\
         client_certificate = {{ cert_file = \"shown.pem\", key_file = \"shown.key\" }}\n"
    )
}

/// The issuer's keys.
async fn serve_keys(issuer: &KeyPair, serving: &mut JoinSet<()>) -> SocketAddr {
    let (x, y) = issuer.public_key_raw()[1..].split_at(32);
    let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
    let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": x, "y": y }] });
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new().fallback(move || std::future::ready(axum::Json(keys.clone())));
    serving.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

/// The broker's process.
pub(super) struct Broker {
    pub(super) process: Process,
    pub(super) grpc: SocketAddr,
    pub(super) probe: SocketAddr,
    pub(super) mesh: SocketAddr,
    pub(super) tokens: SocketAddr,
}

impl Broker {
    pub(super) async fn caller(&self) -> Caller {
        Caller::plain(self.grpc).await
    }

    pub(super) async fn callers(&self, count: usize) -> Vec<Caller> {
        let mut callers = Vec::new();
        for _ in 0..count {
            callers.push(self.caller().await);
        }
        callers
    }

    /// What the probe listener says, head and all.
    pub(super) async fn scraped(&self, path: &str) -> Vec<u8> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(self.probe).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it hung").unwrap();
        answer
    }
}
