//! The vendor's own Python SDK, unchanged, against the sandbox: what proves the simulation.

use super::{Running, TOKEN_2};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use token_broker::sandbox::Settings;
use tokio::process::Command;

/// The SDK may have to be installed first.
const LIMIT: Duration = Duration::from_secs(300);

async fn run(sandbox: &Running, application_token: &str, expected: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run.sh");
    let output = Command::new(script)
        .env("EMNIFY_SDK_API_ENDPOINT_URL", sandbox.url("/api"))
        .env("EMNIFY_APPLICATION_TOKEN", application_token)
        .env("EXPECTED", expected)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_official_python_sdk_logs_in_and_lists_endpoints() {
    let mut settings = Settings::default();
    // More than a page, so that the SDK has to ask for the second.
    settings.organisations[1].endpoints = 150;
    let sandbox = Running::with(settings).await;
    run(&sandbox, TOKEN_2, "150").await;
    let counters = sandbox.control.counters();
    assert_eq!(counters.authenticate.total, 1);
    assert_eq!(counters.protected.with_status(401), 1, "`Bearer None`");
    assert_eq!(counters.protected.with_status(200), 2);
    run(&sandbox, "wrong", "refused").await;
    assert_eq!(sandbox.control.counters().authenticate.with_status(401), 1);
}
