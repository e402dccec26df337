//! The process around the engine: connections, drain, probes and metrics.

mod memory;
mod probes;
mod rpc;

use axum::Router;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use token_broker::listener::{Limits, Peer, serve_io};
use token_broker::supervisor::Supervisor;
use tokio::io::duplex;
use tonic::transport::{Channel, Endpoint};

/// A gRPC channel to these routes through the listener's own code, without a port.
async fn in_memory(routes: Router, supervisor: &Supervisor) -> Channel {
    let (client, server) = duplex(64 * 1024);
    let peer = Peer { addr: SocketAddr::from(([127, 0, 0, 1], 1)).into(), identity: None, listener: "grpc".into() };
    let serving = serve_io(server, peer, Limits::default(), routes, supervisor.clone());
    supervisor.spawn("connection", serving);
    let mut client = Some(TokioIo::new(client));
    let connector = tower::service_fn(move |_| {
        let client = client.take().ok_or(io::ErrorKind::NotConnected);
        async move { client.map_err(io::Error::from) }
    });
    Endpoint::from_static("http://memory").connect_with_connector(connector).await.unwrap()
}
