//! `[[listeners]]` in a whole process.

use super::own_uid;
use crate::listener::PATIENCE;
use std::fs;
use token_broker::app::App;
use token_broker::config::{Config, Environment};
use token_broker::grpc::Reflection;
use token_broker::grpc::pb::GetTokenRequest;
use token_broker::grpc::pb::token_service_client::TokenServiceClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

/// Ports are any, so that tests run beside each other.
const SERVER: &str = "[server]\nprobe_listen = \"127.0.0.1:0\"\ndrain_timeout = \"1s\"\n";

fn config(text: &str) -> Config {
    Config::parse(&format!("{SERVER}{text}"), std::path::Path::new("/"), &Environment::default()).unwrap()
}

async fn asks(channel: tonic::transport::Channel) -> Code {
    let request = GetTokenRequest { workspace: "fleet/europe".to_owned(), ..GetTokenRequest::default() };
    let answer = TokenServiceClient::new(channel).get_token(request).await;
    answer.expect_err("there is no Workspace").code()
}

#[tokio::test]
async fn all_of_them_serve_at_once_and_end_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let text = format!(
        "[[listeners]]\nname = \"users\"\naddress = \"unix:{}\"\ncallers = \"peer_credentials\"\n\
         [[listeners]]\nname = \"local\"\naddress = \"127.0.0.1:0\"\ncallers = \"loopback\"\n\
         [[listeners]]\nname = \"tokens\"\naddress = \"127.0.0.1:0\"\ncallers = \"bearer\"\n\
         [[grants]]\ncaller = \"loopback\"\nworkspaces = [\"**\"]\nactions = [\"get\"]\n",
        path.display()
    );
    let app = App::bind(config(&text), Reflection::Off).await.unwrap();
    let (local, supervisor) = (app.grpc_address().unwrap(), app.supervisor().clone());
    let mut running = tokio::task::JoinSet::new();
    running.spawn(app.run());
    let tcp = Endpoint::from_shared(format!("http://{local}")).unwrap().connect().await.unwrap();
    // The grant is for `loopback` alone.
    assert_eq!(asks(tcp).await, Code::NotFound);
    let place = path.clone();
    let connector = tower::service_fn(move |_| {
        let place = place.clone();
        async move { UnixStream::connect(place).await.map(hyper_util::rt::TokioIo::new) }
    });
    let unix = Endpoint::from_static("http://unix").connect_with_connector(connector).await.unwrap();
    assert_eq!(asks(unix).await, Code::PermissionDenied, "unix:{} has no grant", own_uid());
    supervisor.spawn_critical("doomed", async {});
    let ended = timeout(PATIENCE, running.join_next()).await.expect("it goes on").unwrap().unwrap();
    assert!(ended.is_err());
    assert!(!path.exists(), "the socket stays behind");
}

#[tokio::test]
async fn without_its_own_address_there_is_no_plaintext_listener() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("[[listeners]]\nname = \"users\"\naddress = \"unix:{}/a\"\n", directory.path().display());
    let app = App::bind(config(&format!("{unix}callers = \"peer_credentials\"\n")), Reflection::Off).await.unwrap();
    assert_eq!(app.grpc_address(), None);
}

#[tokio::test]
async fn files_that_are_of_no_use_are_told_before_anything_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tls.pem");
    fs::write(&file, "nothing").unwrap();
    let file = file.display();
    let text = format!(
        "[[listeners]]\nname = \"mesh\"\naddress = \"127.0.0.1:0\"\ncallers = \"certificate\"\n\
         tls = {{ certificate_file = \"{file}\", key_file = \"{file}\", client_ca_file = \"{file}\" }}\n"
    );
    let problems = token_broker::app::rehearse(&config(&text)).unwrap_err().to_string();
    assert!(problems.starts_with("listeners[0].tls (line 4)"), "{problems}");
    assert!(App::bind(config(&text), Reflection::Off).await.is_err());
}
