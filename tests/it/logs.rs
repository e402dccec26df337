//! What is logged on one thread, for tests that look into it.

use std::sync::LazyLock;
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::util::SubscriberInitExt as _;

/// tracing asks only the thread that first comes by whether a line is of interest, for as long as there is but one
/// subscriber in the process: another test's thread, which has none, would then answer for all. So there are always two.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// Takes what this thread logs until the guard is dropped. The runtime must have no other thread.
pub(crate) fn captured_by(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    LazyLock::force(&ANOTHER);
    // With what comes through the log crate.
    subscriber.set_default()
}
