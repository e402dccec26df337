//! Who owns the tasks of the process, and how they end.
//!
//! Promises: no task outlives [`Supervisor::shutdown`] by more than a moment; a panic is caught, named and logged; a
//! critical task that ends early is told to whoever waits on [`Supervisor::failed`], because a broker that accepts no
//! calls must not look alive.
//!
//! Shutdown has three steps. *Drain*: no new work, what runs may finish. *Last call*, shortly before the deadline: who
//! still waits is told that it waits in vain, while there is time to say so. *Stop*, at the deadline: what still runs
//! is dropped where it stands. Must not know what the tasks do.

mod signals;

pub use signals::{Hangup, Signals};

use futures_util::FutureExt as _;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long dropped tasks may take to be gone. Dropping is immediate unless a task blocks its thread.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// How long before the deadline the last call is made, at most: enough for an answer to reach its caller.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Owns every task. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Supervisor {
    tracker: TaskTracker,
    drain: CancellationToken,
    last_call: CancellationToken,
    stop: CancellationToken,
    /// The first critical task that ended early.
    failed: watch::Sender<Option<&'static str>>,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every task finished by itself.
    Clean,
    /// The deadline came first and what still ran was dropped.
    Cut,
}

/// How one task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskEnd {
    Returned,
    Stopped,
    Panicked,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            last_call: CancellationToken::new(),
            stop: CancellationToken::new(),
            failed: watch::Sender::new(None),
        }
    }

    /// Runs a task that ends by itself, or is dropped at `stop`. Panics are logged under `name`.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.start(async move {
            observe(name, stop, task).await;
        });
    }

    /// Runs a task without which the process is of no use. If it returns or panics before the drain, [`Self::failed`]
    /// says so.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.start(async move {
            let end = observe(name, this.stop.clone(), task).await;
            if end != TaskEnd::Stopped && !this.is_draining() {
                tracing::error!(task.name = name, "a critical task ended early");
                this.failed.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(name);
                    is_first
                });
            }
        });
    }

    /// The same supervisor, with a narrower `stop`: its tasks are dropped together with the guard. For what belongs to
    /// one connection.
    pub fn scope(&self) -> (Self, DropGuard) {
        let stop = self.stop.child_token();
        let scoped = Self { stop: stop.clone(), ..self.clone() };
        (scoped, stop.drop_guard())
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits for the drain: take no new work, finish what runs, return.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for the last call: what can't be finished at once will be cut, so say so and return.
    pub async fn last_call(&self) {
        self.last_call.cancelled().await;
    }

    /// Runs what blocks its thread, such as reading files, beside the tasks. `None`: it panicked. Whoever drops this
    /// does not end it: at the end of the process it is not waited for.
    #[expect(clippy::disallowed_methods, reason = "the one place that does; callers keep it short, one at a time")]
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Some(done),
            Err(_panic) => {
                tracing::error!(task.name = name, "a task panicked");
                None
            }
        }
    }

    /// Runs what blocks for as long as it likes on a thread of its own, which is told to end by whoever starts it and
    /// never waited for: at the end of the process it just goes. A panic is logged under `name`.
    pub fn thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let watched = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!(task.name = name, "a task panicked");
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(watched).map(drop)
    }

    /// Waits for the first critical task that ends early and gives its name.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            // `self` holds the sender, so this can't end without a name.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Begins the drain, gives tasks until the deadline, with a last call shortly before, then drops those that are
    /// left.
    pub async fn shutdown(&self, deadline: Duration) -> Ended {
        self.drain.cancel();
        self.tracker.close();
        let notice = LAST_CALL.min(deadline / 10);
        let mut finished = timeout(deadline.saturating_sub(notice), self.tracker.wait()).await;
        self.last_call.cancel();
        if finished.is_err() {
            finished = timeout(notice, self.tracker.wait()).await;
        }
        self.stop.cancel();
        if finished.is_ok() {
            return Ended::Clean;
        }
        tracing::warn!(tasks = self.tracker.len(), "the drain deadline came, dropping what still runs");
        if timeout(STOP_WAIT, self.tracker.wait()).await.is_err() {
            tracing::error!(tasks = self.tracker.len(), "tasks block their threads");
        }
        Ended::Cut
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(task));
    }
}

/// Waits until then; for ever without a moment.
pub async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// hyper runs the streams of an HTTP/2 connection as tasks of their own.
impl<F> hyper::rt::Executor<F> for Supervisor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.spawn("http2 stream", stream);
    }
}

/// Runs a task to its end, to the stop or to its panic, whichever comes first.
async fn observe(name: &'static str, stop: CancellationToken, task: impl Future<Output = ()> + Send) -> TaskEnd {
    let task = AssertUnwindSafe(task).catch_unwind();
    match stop.run_until_cancelled(task).await {
        Some(Ok(())) => TaskEnd::Returned,
        Some(Err(_)) => {
            // The payload may quote what the task worked on; the panic hook tells where it happened.
            tracing::error!(task.name = name, "a task panicked");
            TaskEnd::Panicked
        }
        None => TaskEnd::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Whether a task's end of a channel is gone, or goes in a moment.
    async fn was_dropped(held: oneshot::Receiver<()>) -> bool {
        timeout(DEADLINE, held).await.is_ok_and(|end| end.is_err())
    }

    #[tokio::test(start_paused = true)]
    async fn what_finishes_in_time_makes_a_clean_end() {
        let supervisor = Supervisor::new();
        let (done, finished) = oneshot::channel();
        let inside = supervisor.clone();
        supervisor.spawn("worker", async move {
            inside.draining().await;
            sleep(Duration::from_secs(9)).await;
            done.send(()).unwrap();
        });
        let begun = Instant::now();
        assert_eq!(supervisor.shutdown(DEADLINE).await, Ended::Clean);
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        finished.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_cut_at_the_deadline() {
        let supervisor = Supervisor::new();
        let (held, dropped) = oneshot::channel::<()>();
        supervisor.spawn("stuck", async move {
            let _held = held;
            pending::<()>().await;
        });
        let begun = Instant::now();
        assert_eq!(supervisor.shutdown(DEADLINE).await, Ended::Cut);
        assert_eq!(begun.elapsed(), DEADLINE);
        assert!(was_dropped(dropped).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_the_last_call_before_the_deadline() {
        for (deadline, notice) in [(10_000, 250), (1_000, 100), (0, 0)] {
            let supervisor = Supervisor::new();
            let begun = Instant::now();
            let (told, heard) = oneshot::channel();
            let inside = supervisor.clone();
            supervisor.spawn("waiting", async move {
                inside.last_call().await;
                told.send(begun.elapsed()).unwrap();
            });
            supervisor.shutdown(Duration::from_millis(deadline)).await;
            if deadline > 0 {
                assert_eq!(heard.await.unwrap(), Duration::from_millis(deadline - notice));
            }
        }
    }

    #[tokio::test]
    async fn what_blocks_runs_beside_the_tasks_and_may_panic() {
        let supervisor = Supervisor::new();
        assert_eq!(supervisor.blocking("sum", || 1 + 1).await, Some(2));
        assert_eq!(supervisor.blocking("bug", || -> u8 { panic!("as told") }).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_early_is_told() {
        let supervisor = Supervisor::new();
        supervisor.spawn_critical("steady", pending());
        supervisor.spawn("brief", async {});
        supervisor.spawn_critical("flaky", async { panic!("as told") });
        assert_eq!(supervisor.failed().await, "flaky");
        supervisor.spawn_critical("late", async {});
        sleep(Duration::from_secs(1)).await;
        assert_eq!(supervisor.failed().await, "flaky", "the first one counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_may_end_once_draining() {
        let supervisor = Supervisor::new();
        let inside = supervisor.clone();
        supervisor.spawn_critical("listener", async move { inside.draining().await });
        assert_eq!(supervisor.shutdown(DEADLINE).await, Ended::Clean);
        let failed = timeout(Duration::from_secs(1), supervisor.failed()).await;
        assert!(failed.is_err(), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_drops_its_own_tasks_only() {
        let supervisor = Supervisor::new();
        let (outer, mut outer_dropped) = oneshot::channel::<()>();
        let (inner, inner_dropped) = oneshot::channel::<()>();
        supervisor.spawn("outer", async move {
            let _outer = outer;
            pending::<()>().await;
        });
        let (scoped, guard) = supervisor.scope();
        scoped.spawn("inner", async move {
            let _inner = inner;
            pending::<()>().await;
        });
        drop(guard);
        assert!(was_dropped(inner_dropped).await);
        assert!(outer_dropped.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
    }
}
