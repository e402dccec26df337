//! Who owns tasks, and how they end: drain, then stop, within a deadline.
//!
//! Nothing else spawns (clippy keeps it so). A task that panics is logged and never lost silently; a *critical* task
//! that ends before the drain ends the process.

use futures_util::FutureExt as _;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks get to notice `stop` before shutdown returns without them.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Owns every task of the process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    tracker: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every task ended by itself.
    Clean,
    /// The deadline came first, and the rest was cut off.
    Cut,
}

impl Supervisor {
    /// With no task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that may end at any time. It is dropped when the process stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.start(async move {
            let guarded = AssertUnwindSafe(task).catch_unwind();
            if let Some(Err(panic)) = stop.run_until_cancelled(guarded).await {
                log_panic(name, panic.as_ref());
            }
        });
    }

    /// Runs a task that the process can't do without: if it ends before the drain, the process has failed.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.start(async move {
            let guarded = AssertUnwindSafe(task).catch_unwind();
            let Some(result) = this.stop.run_until_cancelled(guarded).await else {
                return;
            };
            if let Err(panic) = result {
                log_panic(name, panic.as_ref());
            } else if this.drain.is_cancelled() {
                return;
            }
            tracing::error!(task = name, "a critical task ended");
            this.failed.cancel();
        });
    }

    /// Ends when the process should stop taking on work.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Ends when a critical task has died.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Drains, waits for the tasks until the deadline, then stops whatever is left.
    pub async fn shutdown(&self, deadline: Duration) -> Ended {
        self.drain.cancel();
        self.tracker.close();
        if timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Ended::Clean;
        }
        self.stop.cancel();
        if timeout(STOP_GRACE, self.tracker.wait()).await.is_err() {
            tracing::error!(tasks = self.tracker.len(), "tasks did not stop");
        }
        Ended::Cut
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.tracker.track_future(task)));
    }
}

impl<F> hyper::rt::Executor<F> for Supervisor
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn("http2", async move {
            task.await;
        });
    }
}

fn log_panic(task: &'static str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(task, panic = text.unwrap_or("of another type"), "a task panicked");
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::Cut => "cut",
        })
    }
}
