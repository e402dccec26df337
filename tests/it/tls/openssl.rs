//! openssl as a client, over TCP: what is not spoken, and that nothing is resumed.

use super::pki::Identity;
use super::{URI, World};
use std::net::SocketAddr;
use std::process::Stdio;
use token_broker::tls::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Talks to whoever gets in, and reads what he says, until he goes.
async fn serve(server: Server) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let server = server.clone();
            connections.spawn(async move {
                let Ok((stream, Some(_proven))) = server.accept(socket).await else { return };
                let (mut from, mut to) = tokio::io::split(stream);
                let (mut sink, mut dots) = (tokio::io::sink(), tokio::io::repeat(b'.'));
                // Until the client ends it, or breaks off; what rustls has to answer goes out with what is written.
                let _ended = tokio::select! {
                    ended = tokio::io::copy(&mut from, &mut sink) => ended,
                    ended = tokio::io::copy(&mut dots, &mut to) => ended,
                };
            });
        }
    });
    (address, serving)
}

/// What `s_client` says, having been told this.
async fn s_client(world: &World, address: SocketAddr, identity: &Identity, further: &[&str], told: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", "broker"]);
    command.arg("-cert").arg(&identity.certificate).arg("-key").arg(&identity.key);
    command.arg("-CAfile").arg(world.servers.certificate()).args(further);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(told.as_bytes()).await.unwrap();
    let out = child.wait_with_output().await.unwrap();
    drop(stdin);
    [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

#[tokio::test]
async fn both_versions_are_spoken_and_nothing_older() {
    let world = World::new();
    let good = world.callers.caller("good", URI);
    let (address, _serving) = serve(world.server()).await;
    for version in ["-tls1_3", "-tls1_2"] {
        let said = s_client(&world, address, &good, &["-alpn", "h2", version], "Q\n").await;
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    for version in ["-tls1_1", "-tls1"] {
        let line = ["-alpn", "h2", version, "-cipher", "ALL:@SECLEVEL=0"];
        let said = s_client(&world, address, &good, &line, "Q\n").await;
        assert!(said.contains("SSL alert number") && said.contains("Cipher is (NONE)"), "{said}");
    }
}

#[tokio::test]
async fn nothing_is_resumed_and_no_early_data_taken() {
    let world = World::new();
    let good = world.callers.caller("good", URI);
    let (address, _serving) = serve(world.server()).await;
    let said = s_client(&world, address, &good, &["-alpn", "h2", "-tls1_2", "-reconnect"], "Q\n").await;
    assert!(said.contains("New, TLSv1.2") && !said.contains("Reused, "), "{said}");
    assert!(!said.contains("TLS session ticket"), "{said}");
    let said = s_client(&world, address, &good, &["-alpn", "h2", "-tls1_3", "-reconnect"], "Q\n").await;
    assert!(said.contains("New, TLSv1.3") && !said.contains("Reused, "), "{said}");
    assert!(!said.contains("Post-Handshake New Session Ticket"), "{said}");
    assert!(said.contains("Early data was not sent") && !said.contains("Max Early Data: 1"), "{said}");
}

#[tokio::test]
async fn renegotiation_is_refused() {
    let world = World::new();
    let good = world.callers.caller("good", URI);
    let (address, _serving) = serve(world.server()).await;
    let said = s_client(&world, address, &good, &["-alpn", "h2", "-tls1_2"], "R\n").await;
    assert!(said.contains("RENEGOTIATING\n") && said.contains("SSL routines"), "{said}");
}
