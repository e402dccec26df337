//! A `serve` process with a door of each kind, the authorities and the issuer whose callers come in there, and what
//! gets through.

use super::{ANY_PORT, Files, SECRET, Serving, Upstream, WORKSPACE, finish};
use crate::bearer::signer::Signer;
use crate::tls::pki::{Authority, Identity, Pki, Spec, client};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use token_broker::clock::Clock;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use token_broker::grpc::pb::{GetTokenRequest, GetTokenResponse, WatchTokensRequest, WatchTokensResponse};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

pub(super) const URI: &str = "URI:spiffe://prod.example/ns/payments/sa/api";
pub(super) const ISSUER: &str = "https://idp.example";
pub(super) const AUDIENCE: &str = "token-broker";
const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";
/// For one answer: a machine may be busy.
const ANSWER: Duration = Duration::from_secs(20);

/// Which files of the certificate listener there are, beside its certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Revocations {
    None,
    Listed,
}

pub(super) struct Doors {
    pub(super) upstream: Upstream,
    pub(super) files: Files,
    pub(super) serving: Serving,
    /// Of certificates, and of bearers.
    pub(super) mesh: SocketAddr,
    pub(super) tokens: SocketAddr,
    pub(super) pki: Pki,
    pub(super) servers: Authority,
    pub(super) callers: Authority,
    /// Trusted beside `callers`.
    pub(super) next: Authority,
    pub(super) issuer: Signer,
}

impl Doors {
    pub(super) async fn new() -> Self {
        Self::with(Revocations::Listed, "").await
    }

    /// These lines stand in `[server]`.
    pub(super) async fn with(revocations: Revocations, server: &str) -> Self {
        let (pki, upstream, issuer) = (Pki::new(), Upstream::start().await, Signer::p256("first"));
        let (servers, callers, next) = (pki.root("servers"), pki.root("callers"), pki.root("next"));
        let files = Files::new("");
        files.write("secret", SECRET);
        let shown = servers.server("broker");
        files.write("tls.crt", &shown.pem());
        files.write("tls.key", &shown.key_pem());
        files.write("ca.crt", &(callers.pem() + &next.pem()));
        files.write("crl.pem", &(callers.revocations() + &next.revocations()));
        files.write("keys.json", &key_set(&[&issuer]));
        files.write("token-broker.toml", &config(&files, upstream.address, revocations, server, GRANTS));
        let serving = Serving::start(&files, &[]).await;
        let [mesh, tokens] = [listening(&serving, "mesh"), listening(&serving, "tokens")];
        let [mesh, tokens] = [mesh, tokens].map(|address| address.parse().unwrap());
        Self { upstream, files, serving, mesh, tokens, pki, servers, callers, next, issuer }
    }

    /// Other grants, under the same rest.
    pub(super) fn grant(&self, grants: &str) {
        let text = config(&self.files, self.upstream.address, Revocations::Listed, "", grants);
        self.files.write("token-broker.toml", &text);
    }

    pub(super) fn unix(&self) -> PathBuf {
        self.files.0.path().join("users.sock")
    }

    /// What a client of this identity, or of none, does by default.
    pub(super) fn client(&self, identity: Option<&Identity>) -> ClientConfig {
        crate::tls::client(&self.servers, &[&TLS13, &TLS12], identity)
    }

    pub(super) fn good(&self) -> Identity {
        self.callers.caller("good", URI)
    }

    /// A caller of certificates, until the given moment from now.
    pub(super) async fn short_lived(&self, authority: &Authority, life: Duration) -> Identity {
        let at = format!("@{}", now() + life.as_secs());
        let mut command = Command::new("date");
        command.args(["-u", "-d", &at, "+%Y%m%d%H%M%SZ"]);
        let end = finish(command).await.stdout;
        authority.issue("short", &Spec { extensions: &client(URI), end: end.trim(), ..Spec::default() })
    }

    pub(super) fn bearer(&self, changed: &Value) -> String {
        self.issuer.token(&claims(changed))
    }

    pub(super) async fn channel_to(&self, address: SocketAddr, config: ClientConfig) -> Result<Channel, String> {
        channel(address, config, None).await
    }

    pub(super) async fn mesh_channel(&self, identity: &Identity) -> Channel {
        self.channel_to(self.mesh, self.client(Some(identity))).await.unwrap()
    }

    pub(super) async fn tokens_channel(&self) -> Channel {
        self.channel_to(self.tokens, self.client(None)).await.unwrap()
    }

    pub(super) async fn unix_channel(&self) -> Channel {
        let path = self.unix();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://users").connect_with_connector(connector).await.unwrap()
    }

    pub(super) async fn plain_channel(&self) -> Channel {
        Endpoint::from_shared(self.serving.grpc.clone()).unwrap().connect().await.unwrap()
    }

    pub(super) async fn metrics(&self) -> String {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", &format!("{}/metrics", self.serving.probe)]);
        let done = finish(command).await;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout
    }

    /// The value of a metric, by what it begins with.
    pub(super) async fn metric(&self, begin: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix("token_broker_")?.strip_prefix(begin));
        value.unwrap_or_else(|| panic!("no {begin}")).trim().parse().unwrap()
    }

    /// Waits until a metric is this much at least.
    pub(super) async fn metric_reaches(&self, begin: &str, least: f64) {
        let reached = async {
            while self.metric(begin).await < least {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(super::PATIENCE, reached).await.unwrap_or_else(|_| panic!("{begin} never reached {least}"));
    }

    /// How many calls of `GetToken` ended with which code, where any did.
    pub(super) async fn gets(&self) -> BTreeMap<String, u64> {
        let begin = format!("token_broker_rpc_calls_total{{method=\"{GET_TOKEN}\",code=\"");
        let text = self.metrics().await;
        let counts = text.lines().filter_map(|line| {
            let (code, count) = line.strip_prefix(&begin)?.split_once("\"} ")?;
            Some((code.to_owned(), count.parse::<u64>().unwrap()))
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Logins that the upstream has seen.
    pub(super) fn logins(&self) -> u64 {
        self.upstream.control.counters().authenticate.total
    }
}

pub(super) const GRANTS: &str = "[[grants]]\ncaller = \"spiffe://prod.example/ns/payments/sa/*\"\n\
                                 workspaces = [\"**\"]\nactions = [\"get\", \"watch\", \"report\", \"health\"]\n\
                                 [[grants]]\ncaller = \"jwt:idp:*\"\nworkspaces = [\"**\"]\n\
                                 actions = [\"get\", \"watch\", \"report\", \"health\"]\n";

fn config(files: &Files, upstream: SocketAddr, revocations: Revocations, server: &str, grants: &str) -> String {
    let crl = if revocations == Revocations::Listed { ", crl_file = \"crl.pem\"" } else { "" };
    format!(
        "[server]\ngrpc_listen = \"{ANY_PORT}\"\nprobe_listen = \"{ANY_PORT}\"\nreload_interval = \"100ms\"\n{server}\n\
         [audit]\nsinks = [\"file\"]\nfile = \"audit.jsonl\"\n\
         [[listeners]]\nname = \"mesh\"\naddress = \"{ANY_PORT}\"\ncallers = \"certificate\"\n\
         trust_domains = [\"prod.example\"]\n\
         tls = {{ certificate_file = \"tls.crt\", key_file = \"tls.key\", client_ca_file = \"ca.crt\"{crl} }}\n\
         [[listeners]]\nname = \"tokens\"\naddress = \"{ANY_PORT}\"\ncallers = \"bearer\"\n\
         tls = {{ certificate_file = \"tls.crt\", key_file = \"tls.key\" }}\n\
         [[listeners]]\nname = \"users\"\naddress = \"unix:{}/users.sock\"\ncallers = \"peer_credentials\"\n\
         [[issuers]]\nname = \"idp\"\nissuer = \"{ISSUER}\"\naudiences = [\"{AUDIENCE}\"]\njwks_file = \"keys.json\"\n\
         refresh_interval = \"1s\"\n\
         {grants}\
         [[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://{upstream}\"\n\
         [[workspaces]]\nname = \"{WORKSPACE}\"\nupstream = \"one\"\norganisation = 1\n\
         credential = {{ application_token = {{ file = \"secret\" }} }}\n",
        files.0.path().display()
    )
}

/// Where the listener of this name is.
fn listening(serving: &Serving, name: &str) -> String {
    // `serving` was logged after all of them.
    let log = serving.process.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["message"] == "listening" && line["listener"] == name);
    line.unwrap_or_else(|| panic!("no {name} in {log}"))["address"].as_str().unwrap().to_owned()
}

pub(super) fn key_set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

pub(super) fn now() -> u64 {
    Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Those of a good token, with some others; null takes one away.
pub(super) fn claims(changed: &Value) -> Value {
    let mut all = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "svc-1", "exp": now() + 600, "iat": now() });
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}

/// A TLS connection, from this address of the machine if one is named.
pub(super) async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    from: Option<[u8; 4]>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    if let Some(host) = from {
        socket.bind(SocketAddr::from((host, 0)))?;
    }
    let stream = socket.connect(address).await?;
    let name = ServerName::try_from("broker").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// A channel whose every connection begins with this TLS.
pub(super) async fn channel(
    address: SocketAddr,
    config: ClientConfig,
    from: Option<[u8; 4]>,
) -> Result<Channel, String> {
    let config = Arc::new(config);
    let connector = tower::service_fn(move |_| {
        let config = Arc::clone(&config);
        async move { dial(address, config, from).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://broker");
    timeout(ANSWER, endpoint.connect_with_connector(connector))
        .await
        .expect("it hung")
        .map_err(|error| format!("{error:?}"))
}

/// Asks for the token of a Workspace.
pub(super) async fn get(
    channel: Channel,
    workspace: &str,
    metadata: &[(&'static str, &str)],
) -> Result<GetTokenResponse, Status> {
    let mut request = Request::new(GetTokenRequest { workspace: workspace.to_owned(), min_validity: None });
    fill(request.metadata_mut(), metadata);
    let answer = timeout(ANSWER, TokenServiceClient::new(channel).get_token(request)).await;
    answer.expect("it hung").map(tonic::Response::into_inner)
}

/// Follows the token of the Workspace that there is.
pub(super) async fn watch(
    channel: Channel,
    metadata: &[(&'static str, &str)],
) -> Result<Streaming<WatchTokensResponse>, Status> {
    let mut request = Request::new(WatchTokensRequest { workspaces: vec![WORKSPACE.to_owned()] });
    fill(request.metadata_mut(), metadata);
    let answer = timeout(ANSWER, TokenServiceClient::new(channel).watch_tokens(request)).await;
    answer.expect("it hung").map(tonic::Response::into_inner)
}

fn fill(metadata: &mut MetadataMap, with: &[(&'static str, &str)]) {
    for (name, value) in with {
        metadata.append(AsciiMetadataKey::from_static(name), value.parse().unwrap());
    }
}

/// Puts another content in a file's place.
pub(super) fn replace(path: &std::path::Path, text: &str) {
    // As who renews certificates does: never half a file.
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}
