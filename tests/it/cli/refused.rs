//! Bad credentials at the doors of a real process: each is refused before any handler has run. What shows it is that no
//! call of `GetToken` was answered, and that the upstream was never asked for a token.

use super::doors::{Doors, URI, claims, dial, get};
use super::{PATIENCE, WORKSPACE};
use crate::bearer::signer::{Signer, encode};
use crate::listener::raw::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_to, frame, next_frame};
use crate::tls::pki::{Authority, Identity, Spec, client};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::KeyAndValueRef;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

const GET_TOKEN: &str = "/tokenbroker.v1.TokenService/GetToken";

/// A whole call, for those who keep to no client: greeting, headers, message.
fn whole_call() -> Vec<u8> {
    let name = WORKSPACE.as_bytes();
    let length = u8::try_from(name.len()).unwrap();
    let message = [&[0, 0, 0, 0, length + 2, 0x0a, length], name].concat();
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &call_to(GET_TOKEN)),
        frame(DATA, END_STREAM, 1, &message),
    ]
    .concat()
}

fn issue(authority: &Authority, name: &str, extensions: &str) -> Identity {
    authority.issue(name, &Spec { extensions, ..Spec::default() })
}

/// Certificates with which nobody comes in.
fn certificates(doors: &Doors) -> Vec<(&'static str, Identity)> {
    let (pki, callers) = (&doors.pki, &doors.callers);
    let extensions = client(URI);
    let at = |start, end| Spec { extensions: &extensions, start, end, ..Spec::default() };
    let leaf = |further: &str| format!("basicConstraints=critical,CA:FALSE\n{further}\nsubjectAltName={URI}");
    let own = pki.root_like("own", &Spec { extensions: &extensions, ..Spec::default() });
    let below = pki.below("below", callers);
    let two = format!("{URI},URI:spiffe://prod.example/ns/payments/sa/web");
    let named = |what: &str, names: &str| callers.caller(&what.replace(' ', "-"), names);
    let mut all = vec![
        ("expired", callers.issue("old", &at("20200101000000Z", "20200102000000Z"))),
        ("not yet valid", callers.issue("new", &at("20980101000000Z", "20990102000000Z"))),
        ("wrong authority", pki.root("stranger").caller("leaf", URI)),
        ("authority of the same name", pki.root("other/callers").caller("leaf", URI)),
        ("the broker's own authority", doors.servers.caller("leaf", URI)),
        ("for servers", issue(callers, "eku", &leaf("extendedKeyUsage=serverAuth"))),
        ("for any use", issue(callers, "any", &leaf("extendedKeyUsage=anyExtendedKeyUsage"))),
        (
            "an authority as a leaf",
            issue(callers, "authority", &format!("basicConstraints=critical,CA:TRUE\nsubjectAltName={URI}")),
        ),
        ("CN only", issue(callers, "cn", "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth")),
        ("self-signed", Identity { certificate: own.certificate(), key: own.key() }),
        ("without its intermediate", below.caller("lone", URI)),
        ("another's key", Identity { key: doors.good().key, ..callers.caller("keyless", URI) }),
    ];
    for (what, names) in [
        ("two URIs", two.as_str()),
        ("wildcard", "DNS:*.payments.example"),
        ("two hosts", "DNS:a.example,DNS:b.example"),
        ("address only", "IP:127.0.0.1"),
        ("another trust domain", "URI:spiffe://other.example/ns/payments/sa/api"),
        ("trust domain in capitals", "URI:spiffe://PROD.example/ns/payments/sa/api"),
        ("a port in the ID", "URI:spiffe://prod.example:443/ns/payments/sa/api"),
        ("dots in the ID", "URI:spiffe://prod.example/ns/x/../payments/sa/api"),
        ("no path in the ID", "URI:spiffe://prod.example"),
        ("a query in the ID", "URI:spiffe://prod.example/ns/payments/sa/api?a=b"),
    ] {
        all.push((what, named(what, names)));
    }
    all
}

/// What became of a call with this certificate, where no handler may be reached: nothing was answered by gRPC.
async fn asks(doors: &Doors, address: SocketAddr, config: rustls::ClientConfig) -> Result<(), String> {
    let Ok(channel) = doors.channel_to(address, config).await else { return Ok(()) };
    match get(channel, WORKSPACE, &[]).await {
        Ok(_) => Err("let in".to_owned()),
        Err(status) if status.metadata().contains_key("grpc-status-details-bin") => Err(format!("{status:?}")),
        // It was made by the client, for the connection ended.
        Err(_) => Ok(()),
    }
}

/// Whatever is said in answer to these bytes until the connection ends, or nothing more comes.
async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be sent away before all is written.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is kept"));
    answer
}

/// A good caller's connection through somebody who notes what it sends.
async fn recorded(doors: &Doors, version: &'static rustls::SupportedProtocolVersion) -> Vec<u8> {
    let between = TcpListener::bind(super::ANY_PORT).await.unwrap();
    let (address, broker) = (between.local_addr().unwrap(), doors.mesh);
    let proxy = async move {
        let (near, _) = between.accept().await.unwrap();
        let far = TcpStream::connect(broker).await.unwrap();
        let ((mut from_client, mut to_client), (mut from_broker, mut to_broker)) =
            (near.into_split(), far.into_split());
        let up = async {
            let (mut noted, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                noted.extend_from_slice(&buffer[..count]);
                to_broker.write_all(&buffer[..count]).await.unwrap();
            }
            drop(to_broker);
            noted
        };
        // Ends with the broker's side.
        let (noted, _copied) = tokio::join!(up, copy(&mut from_broker, &mut to_client));
        noted
    };
    let config = crate::tls::client(&doors.servers, &[version], Some(&doors.good()));
    let call = async {
        let mut stream = dial(address, Arc::new(config), None).await.unwrap();
        stream.write_all(&whole_call()).await.unwrap();
        // Headers, message, trailers.
        while next_frame(&mut stream).await.expect("no answer").kind != DATA {}
        stream.shutdown().await.unwrap();
    };
    timeout(PATIENCE, async { tokio::join!(proxy, call).0 }).await.expect("it hung")
}

/// What `openssl s_client` says, having been told this.
async fn s_client(doors: &Doors, address: SocketAddr, line: &[&str], told: &[u8]) -> String {
    let good = doors.good();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", "broker", "-alpn", "h2"]);
    command.arg("-cert").arg(&good.certificate).arg("-key").arg(&good.key);
    command.arg("-CAfile").arg(doors.servers.certificate()).args(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have been sent away already.
    drop(stdin.write_all(told).await);
    drop(stdin);
    let out = timeout(PATIENCE, child.wait_with_output()).await.expect("it hung").unwrap();
    [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// Early data needs a session to go on from. The broker gives none, so one is had from another server with its name.
async fn early_data(doors: &Doors) -> String {
    let path = |name: &str| doors.pki.path(name).to_str().unwrap().to_owned();
    let (session, early, shown) = (path("session.pem"), path("early.bin"), doors.servers.server("generous"));
    let port = TcpListener::bind(super::ANY_PORT).await.unwrap().local_addr().unwrap();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &port.to_string(), "-tls1_3", "-alpn", "h2", "-max_early_data", "16384"]);
    server.arg("-www").arg("-cert").arg(&shown.certificate).arg("-key").arg(&shown.key);
    let server = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _server = server.spawn().unwrap();
    let kept = async {
        loop {
            let line = ["-tls1_3", "-sess_out", &session, "-ign_eof"];
            s_client(doors, port, &line, b"GET / HTTP/1.0\r\n\r\n").await;
            if std::fs::read_to_string(&session).is_ok_and(|text| text.contains("BEGIN SSL SESSION")) {
                return;
            }
        }
    };
    timeout(PATIENCE, kept).await.expect("openssl gives no session");
    std::fs::write(&early, whole_call()).unwrap();
    s_client(doors, doors.mesh, &["-tls1_3", "-sess_in", &session, "-early_data", &early], b"Q\n").await
}

/// No certificate, and a good caller's bytes sent again.
async fn nobody_and_replayed(doors: &Doors) -> usize {
    for version in [&TLS13, &TLS12] {
        let none = crate::tls::client(&doors.servers, &[version], None);
        asks(doors, doors.mesh, none).await.expect("no certificate");
        let bytes = recorded(doors, version).await;
        assert!(bytes.len() > 500, "{}", bytes.len());
        let before = doors.gets().await;
        let answer = answer_to(doors.mesh, &bytes).await;
        assert!(!String::from_utf8_lossy(&answer).contains("grpc"));
        assert_eq!(doors.gets().await, before, "replayed, {version:?}");
    }
    4
}

/// Other protocols than TLS 1.3 or 1.2 and HTTP/2 in it.
async fn other_protocols(doors: &Doors) -> usize {
    let good = doors.good();
    for offered in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = doors.client(Some(&good));
        config.alpn_protocols = offered;
        asks(doors, doors.mesh, config).await.expect("another protocol");
    }
    for version in ["-tls1_1", "-tls1"] {
        let said = s_client(doors, doors.mesh, &[version, "-cipher", "ALL:@SECLEVEL=0"], b"Q\n").await;
        assert!(said.contains("Cipher is (NONE)"), "{said}");
    }
    for address in [doors.mesh, doors.tokens] {
        // An alert at most.
        assert!(answer_to(address, &whole_call()).await.len() <= 7);
    }
    6
}

/// Those that need no certificate at all, or have a good one. How many there are.
async fn other_ways(doors: &Doors) -> usize {
    let tried = nobody_and_replayed(doors).await + other_protocols(doors).await;
    let said = early_data(doors).await;
    assert!(said.contains("Early data was rejected"), "{said}");
    tried + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_certificates_reach_no_handler() {
    let doors = Doors::new().await;
    let revoked = doors.callers.caller("revoked", URI);
    doors.callers.revoke(&revoked.certificate);
    super::doors::replace(
        &doors.files.0.path().join("crl.pem"),
        &(doors.callers.revocations() + &doors.next.revocations()),
    );
    doors.metric_reaches("tls_reloads_total{listener=\"mesh\",outcome=\"accepted\"}", 1.0).await;
    let mut all = certificates(&doors);
    all.push(("revoked", revoked));
    let mut wrong = Vec::new();
    for (at, (what, identity)) in all.iter().enumerate() {
        // In turn, so that both versions see all kinds.
        let version = if at % 2 == 0 { &TLS13 } else { &TLS12 };
        let config = crate::tls::client(&doors.servers, &[version], Some(identity));
        if let Err(why) = asks(&doors, doors.mesh, config).await {
            wrong.push(format!("{what}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((doors.gets().await.len(), doors.logins()), (0, 0), "{:?}", doors.gets().await);
    let tried = other_ways(&doors).await;
    // Two good callers were recorded.
    assert_eq!(doors.gets().await.into_iter().collect::<Vec<_>>(), [("OK".to_owned(), 2)]);
    assert!(all.len() + tried >= 30, "{} and {}", all.len(), tried);
    get(doors.mesh_channel(&doors.good()).await, WORKSPACE, &[]).await.unwrap();
    assert_eq!(doors.gets().await["OK"], 3);
    crate::holds::report(
        "bad credentials at a certificate listener",
        format!("{} refused before any handler", all.len() + tried),
    );
}

type Metadata = Vec<(&'static str, String)>;

/// What is shown in the place of a bearer.
fn bearers(doors: &Doors) -> Vec<(&'static str, Metadata)> {
    let (good, stranger, rsa) = (doors.bearer(&json!({})), Signer::p256("stranger"), Signer::rsa("first"));
    let one = |value: &str| vec![("authorization", value.to_owned())];
    let token = |value: &str| one(&format!("Bearer {value}"));
    let other = |changed| token(&doors.bearer(&changed));
    let elsewhere = |name| vec![(name, format!("Bearer {good}"))];
    let none = format!("{}.{}.", encode("{\"alg\":\"none\"}"), encode(claims(&json!({})).to_string()));
    let two = [token(&good), token(&good)].concat();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let flipped = signature.chars().rev().collect::<String>();
    let mut all = vec![
        ("none", vec![]),
        ("expired", other(json!({ "exp": super::doors::now() - 1 }))),
        ("another issuer", other(json!({ "iss": "https://other.example" }))),
        ("another audience", other(json!({ "aud": "another" }))),
        ("not valid yet", other(json!({ "nbf": super::doors::now() + 3600 }))),
        ("no end", other(json!({ "exp": null }))),
        ("no subject", other(json!({ "sub": null }))),
        ("a star as subject", other(json!({ "sub": "*" }))),
        ("bound to a key", other(json!({ "cnf": { "jkt": "x" } }))),
        ("alg none", token(&none)),
        ("an unknown key", token(&stranger.token(&claims(&json!({}))))),
        ("a stranger's key of a known name", token(&Signer::p256("first").token(&claims(&json!({}))))),
        ("a key of another kind", token(&rsa.token(&claims(&json!({}))))),
        ("two of them", two),
        ("another scheme", one(&format!("Basic {good}"))),
        ("no scheme", one(&good)),
        ("truncated", token(&good.chars().take(good.len() - 10).collect::<String>())),
        ("without its signature", token(&format!("{head}."))),
        ("another signature", token(&format!("{head}.{flipped}"))),
        ("in proxy-authorization", elsewhere("proxy-authorization")),
        ("in x-authorization", elsewhere("x-authorization")),
        ("in a cookie", vec![("cookie", format!("authorization=Bearer {good}"))]),
        (
            "with an identity in a header",
            [token(&good), vec![("x-spiffe-id", "spiffe://prod.example/a".to_owned())]].concat(),
        ),
    ];
    all.extend(rsa.confused(&claims(&json!({}))).iter().map(|confused| ("a shared secret", token(confused))));
    all
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn refused_with(channel: Channel, shown: &Metadata) -> Result<Code, String> {
    let shown: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
    match get(channel, WORKSPACE, &shown).await {
        Ok(_) => Err("let in".to_owned()),
        Err(status) => match (status.code(), reason(&status).as_str()) {
            // The second: a name of a key that could be new, and the keys were looked at a moment ago.
            (code @ Code::Unauthenticated, "CALLER_UNAUTHENTICATED")
            | (code @ Code::Unavailable, "CALLER_UNVERIFIABLE") => Ok(code),
            _ => Err(format!("{status:?}")),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bearers_reach_no_handler() {
    let doors = Doors::new().await;
    let channel = doors.tokens_channel().await;
    let (mut wrong, mut unverifiable) = (Vec::new(), 0);
    let all = bearers(&doors);
    for (what, shown) in &all {
        match refused_with(channel.clone(), shown).await {
            Ok(Code::Unavailable) => unverifiable += 1,
            Ok(_) => {}
            Err(why) => wrong.push(format!("{what}: {why}")),
        }
    }
    // A certificate in the place of a bearer, and a bearer in the place of a certificate or of nothing.
    let good = vec![("authorization", format!("Bearer {}", doors.bearer(&json!({}))))];
    let forwarded = vec![("x-forwarded-client-cert", "URI=spiffe://prod.example/ns/payments/sa/api".to_owned())];
    let with_certificate = doors.channel_to(doors.tokens, doors.client(Some(&doors.good()))).await.unwrap();
    let elsewhere = [
        ("a certificate only", with_certificate, &vec![]),
        ("a bearer beside a certificate", doors.mesh_channel(&doors.good()).await, &good),
        ("an envoy's header beside a certificate", doors.mesh_channel(&doors.good()).await, &forwarded),
        ("a bearer on loopback", doors.plain_channel().await, &good),
        ("an envoy's header on loopback", doors.plain_channel().await, &forwarded),
        ("a bearer on a Unix socket", doors.unix_channel().await, &good),
        ("an envoy's header on a Unix socket", doors.unix_channel().await, &forwarded),
    ];
    let count = all.len() + elsewhere.len();
    for (what, channel, shown) in elsewhere {
        if let Err(why) = refused_with(channel, shown).await {
            wrong.push(format!("{what}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unverifiable <= 1, "{unverifiable}");
    let gets = doors.gets().await;
    assert!(gets.keys().all(|code| ["UNAUTHENTICATED", "UNAVAILABLE"].contains(&code.as_str())), "{gets:?}");
    assert_eq!((gets.values().sum::<u64>(), doors.logins()), (count as u64, 0), "{gets:?}");
    let shown = format!("Bearer {}", doors.bearer(&json!({})));
    get(channel, WORKSPACE, &[("authorization", &shown)]).await.unwrap();
    assert_eq!((doors.gets().await["OK"], doors.logins()), (1, 1));
    crate::holds::report("bad credentials at other listeners", format!("{count} refused before any handler"));
}

/// Everything that a caller sees of a refusal.
fn seen(status: &Status) -> (Code, String, Vec<u8>, Vec<String>) {
    let keys = status.metadata().iter().map(|entry| match entry {
        KeyAndValueRef::Ascii(key, _) => key.to_string(),
        KeyAndValueRef::Binary(key, _) => key.to_string(),
    });
    (status.code(), status.message().to_owned(), status.details().to_vec(), keys.collect())
}

#[tokio::test]
async fn who_has_no_grant_can_not_tell_a_workspace_from_none() {
    let doors = Doors::new().await;
    let stranger = doors.callers.caller("stranger", "URI:spiffe://prod.example/ns/other/sa/api");
    let shown = format!("Bearer {}", doors.bearer(&json!({})));
    doors.grant("[[grants]]\ncaller = \"jwt:idp:svc-1\"\nworkspaces = [\"fleet/asia\"]\nactions = [\"get\"]\n");
    doors.metric_reaches("config_generation ", 2.0).await;
    let channels = [
        (doors.mesh_channel(&stranger).await, vec![]),
        (doors.tokens_channel().await, vec![("authorization", shown.as_str())]),
        (doors.unix_channel().await, vec![]),
        (doors.plain_channel().await, vec![]),
    ];
    for (channel, metadata) in channels {
        let [there, not_there] = [WORKSPACE, "fleet/nowhere"];
        let there = get(channel.clone(), there, &metadata).await.unwrap_err();
        let not_there = get(channel, not_there, &metadata).await.unwrap_err();
        assert_eq!((there.code(), reason(&there).as_str()), (Code::PermissionDenied, "CALLER_FORBIDDEN"));
        assert_eq!(seen(&there), seen(&not_there));
    }
    let gets = doors.gets().await;
    assert_eq!((gets.len(), gets["PERMISSION_DENIED"], doors.logins()), (1, 8, 0), "{gets:?}");
}

/// Asks for a method of any name.
async fn call(channel: Channel, path: &'static str, shown: Option<&str>) -> Status {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(shown) = shown {
        request.metadata_mut().insert("authorization", shown.parse().unwrap());
    }
    let codec = ProstCodec::<(), ()>::default();
    grpc.unary(request, PathAndQuery::from_static(path), codec).await.unwrap_err()
}

#[tokio::test]
async fn there_is_no_reflection_and_nothing_to_administer() {
    let doors = Doors::new().await;
    let shown = format!("Bearer {}", doors.bearer(&json!({})));
    let channels = [
        (doors.mesh_channel(&doors.good()).await, None),
        (doors.tokens_channel().await, Some(shown.as_str())),
        (doors.unix_channel().await, None),
        (doors.plain_channel().await, None),
        (Endpoint::from_shared(doors.serving.probe.clone()).unwrap().connect().await.unwrap(), None),
    ];
    let paths = [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus",
        "/tokenbroker.v1.AdminService/Reload",
        "/tokenbroker.v1.TokenService/DeleteWorkspace",
        "/tokenbroker.v1.TokenService/gettoken",
        "/TokenService/GetToken",
    ];
    for (channel, shown) in channels {
        for path in paths {
            let status = call(channel.clone(), path, shown).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        }
    }
    assert_eq!((doors.gets().await.len(), doors.logins()), (0, 0));
}
