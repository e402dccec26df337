//! SIGHUP before the broker serves.

use super::super::{Process, token_broker};
use super::{AMPLE, Broker, Client, Files, PATIENCE, SECRET, Serving, Upstream, workspace};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

/// So many warnings that a pipe does not hold them: the start waits for somebody who reads.
const WARNINGS: usize = 1_000;

/// Whether a process does not die of SIGHUP any more, by the mask of the signals that it catches.
fn takes_sighup(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
}

#[tokio::test]
async fn sighup_before_it_serves_is_a_reload_and_not_the_end() {
    let upstream = Upstream::start().await;
    let files = Files::for_upstream(upstream.address, "reload_interval = \"0s\"", AMPLE);
    let mut config = fs::read_to_string(files.config()).unwrap();
    for number in 0..WARNINGS {
        write!(config, "{}", workspace(&format!("many/{number}"), "", "env = \"A_SECRET\"")).unwrap();
    }
    files.write("token-broker.toml", &config);
    let mut command = token_broker(&["serve", "--config", &files.config()]);
    let child = command.env("A_SECRET", SECRET).spawn().unwrap();
    let taken = async {
        while !takes_sighup(&child) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("it would have died of SIGHUP while it started");
    // From here on it is read.
    let process = Process::of(child);
    process.signal("HUP").await;
    let serving = Serving::over(process).await;
    let client = Client::connect(&serving.grpc, PATIENCE).await.unwrap();
    Broker { upstream, files, serving, client }.accepts(2).await;
}
