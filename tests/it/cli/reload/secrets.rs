//! Secrets that change on disk.

use super::{AMPLE, Broker, Files, OFTEN, PATIENCE, SECRET, Upstream, WORKSPACE, workspace};
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use token_broker::sandbox::{Fault, Organisation, Scope};
use tokio::time::timeout;

/// The secret of the second organisation: whose token it is tells which credential was used.
const SECOND: &str = "the-application-token-of-the-second";

/// A broker whose one Workspace takes tokens of any organisation, its secret in this file.
async fn broker(file: &str, prepare: impl FnOnce(&Path)) -> Broker {
    let upstream = Upstream::start().await;
    upstream.control.add_organisation(Organisation::new(2, "Two", SECOND, Duration::from_secs(14_400)));
    let files = Files::for_upstream(upstream.address, OFTEN, AMPLE);
    prepare(files.0.path());
    let text = fs::read_to_string(files.config()).unwrap();
    let (head, _) = text.split_once("[[workspaces]]").unwrap();
    files.write("token-broker.toml", &format!("{head}{}", workspace(WORKSPACE, "", &format!("file = \"{file}\""))));
    Broker::with(upstream, files).await
}

/// The token of the first organisation is served until that of the second is there.
async fn is_rotated(broker: &Broker, replace: impl FnOnce(&Broker)) {
    let before = broker.fingerprint().await;
    broker.upstream.control.set_fault(Scope::organisation(2), Fault::Hang);
    replace(broker);
    broker.accepts(2).await;
    broker.logins(2, 1).await;
    assert_eq!(broker.fingerprint().await, before, "a valid token is served while the new credential is tried");
    broker.upstream.control.clear();
    broker.gives_another_than(&before).await;
    assert_eq!(broker.upstream.control.counters().authenticate_by_organisation[&1].total, 1);
    let said = format!("{}{}", broker.serving.process.stderr(), broker.record().await);
    assert!(!said.contains(SECOND) && !said.contains(SECRET), "{said}");
}

#[tokio::test]
async fn a_secret_file_that_is_renamed_over_is_taken_up() {
    let broker = broker("secret", |_| {}).await;
    is_rotated(&broker, |broker| broker.rename_over("secret", SECOND)).await;
}

#[tokio::test]
async fn a_secret_file_that_is_written_in_place_is_taken_up_whole() {
    let broker = broker("secret", |_| {}).await;
    is_rotated(&broker, |broker| {
        let mut file = fs::OpenOptions::new().write(true).open(broker.path("secret")).unwrap();
        file.set_len(0).unwrap();
        let (first, rest) = SECOND.split_at(10);
        file.rewind().unwrap();
        file.write_all(first.as_bytes()).unwrap();
        file.sync_all().unwrap();
        file.write_all(rest.as_bytes()).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_kubernetes_swaps_is_taken_up() {
    let version = |directory: &Path, name: &str, secret: &str| {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("token"), secret).unwrap();
    };
    let prepare = |directory: &Path| {
        version(directory, "..v1", SECRET);
        symlink("..v1", directory.join("..data")).unwrap();
        symlink("..data/token", directory.join("token")).unwrap();
    };
    let broker = broker("token", prepare).await;
    is_rotated(&broker, |broker| {
        version(broker.files.0.path(), "..v2", SECOND);
        symlink("..v2", broker.path("..data_tmp")).unwrap();
        fs::rename(broker.path("..data_tmp"), broker.path("..data")).unwrap();
        fs::remove_dir_all(broker.path("..v1")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_new_secret_that_is_refused_takes_nothing_away() {
    let broker = broker("secret", |_| {}).await;
    let before = broker.fingerprint().await;
    broker.rename_over("secret", "not-a-secret-of-anybody");
    broker.accepts(2).await;
    let refused = || broker.upstream.control.counters().authenticate.with_status(401);
    let until_refused = async {
        while refused() == 0 {
            assert_eq!(broker.fingerprint().await, before);
        }
    };
    timeout(PATIENCE, until_refused).await.expect("it was not tried");
    assert_eq!(broker.fingerprint().await, before);
    // No waiting for the end of the breaker: a changed secret resets it.
    broker.rename_over("secret", SECOND);
    broker.accepts(3).await;
    broker.logins(2, 1).await;
    broker.gives_another_than(&before).await;
}

#[tokio::test]
async fn a_file_that_is_written_again_as_it_was_changes_nothing() {
    let broker = broker("secret", |_| {}).await;
    let before = broker.record().await;
    broker.rename_over("secret", SECRET);
    // The next change would show that this one had been counted.
    broker.change("level = \"trace\"", "level = \"debug\"");
    broker.accepts(2).await;
    assert_eq!(before["generation"], 1);
    assert_eq!(broker.upstream.control.counters().authenticate.total, 0);
}
