//! Unix sockets: their file, and who is at the other end.

use super::{Served, own_name, unix_path};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use token_broker::grpc::Means;
use token_broker::listener::{Address, Limits, Listener, Protocol};

async fn bind(path: &Path, mode: u32) -> io::Result<Listener> {
    Listener::bind(Address::Unix { path: path.to_owned(), mode }, Protocol::Http2, Limits::default()).await
}

#[tokio::test]
async fn the_file_has_its_mode_and_goes_with_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    for mode in [0o600, 0o660, 0o666] {
        let listener = bind(&path, mode).await.unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o7777, mode);
        drop(listener);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing stays");
    }
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    for left in [path.clone(), directory.path().join("broker.sock.new")] {
        // std leaves the file behind.
        drop(StdListener::bind(&left).unwrap());
        assert!(left.exists());
        drop(bind(&path, 0o600).await.unwrap());
        assert!(!left.exists());
    }
}

#[tokio::test]
async fn a_live_one_and_what_is_no_socket_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let first = bind(&path, 0o600).await.unwrap();
    let error = bind(&path, 0o600).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(path.exists());
    drop(first);
    fs::write(&path, "precious").unwrap();
    let error = bind(&path, 0o600).await.unwrap_err();
    assert_eq!((error.kind(), fs::read_to_string(&path).unwrap().as_str()), (io::ErrorKind::AddrInUse, "precious"));
}

#[tokio::test]
async fn the_file_of_a_successor_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let first = bind(&path, 0o600).await.unwrap();
    fs::remove_file(&path).unwrap();
    let second = bind(&path, 0o600).await.unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn its_peer_is_the_user_that_connects() {
    let served = Served::unix(Means::Channel).await;
    assert_eq!(served.ask(&[]).await, Ok(own_name()));
    let path = unix_path(&served.address);
    assert!(path.exists());
    // The end of the listener is the end of its file.
    let ended = served.supervisor.shutdown(crate::listener::PATIENCE);
    tokio::time::timeout(crate::listener::PATIENCE, ended).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn the_places_of_a_user_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let address = Address::Unix { path: directory.path().join("broker.sock"), mode: 0o600 };
    let limits = Limits { max_connections_per_peer: 1, ..Limits::default() };
    let served = Served::at(address, Means::Channel, None, limits).await;
    let mut first = super::Client::over(served.connect().await).await;
    assert_eq!(first.ask(&[]).await, Ok(own_name()));
    let refused = match super::Client::try_over(served.connect().await).await {
        Some(mut second) => second.try_ask(&[]).await,
        None => None,
    };
    assert_eq!(refused, None);
    assert_eq!(first.ask(&[]).await, Ok(own_name()));
}
