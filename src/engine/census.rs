//! The health of a Workspace, and a look at all of them about once a second. Reading it uses no token: it keeps nothing
//! warm and causes no exchange.

use super::entry::Entry;
use super::{Engine, Snapshot};
use crate::clock::Now;
use crate::health::{Census, Health, Rule};
use crate::token::WorkspaceName;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// Between two looks at all Workspaces.
const REST: Duration = Duration::from_secs(1);
/// How many times longer than the look it is at least: looking takes no more than a tenth of a core.
const REST_PER_LOOK: u32 = 9;
/// Looked at in one go, before other tasks get their turn.
const AT_ONCE: usize = 1_000;

impl Engine {
    /// How a Workspace stands; `None` if there is none.
    pub fn snapshot(&self, name: &WorkspaceName) -> Option<Snapshot> {
        Some(self.snapshot_of(&*self.entry(name)?, self.0.clock.now()))
    }

    /// Whether a Workspace is well; `None` if there is none.
    pub fn health(&self, name: &WorkspaceName) -> Option<Health> {
        self.snapshot(name).map(|snapshot| snapshot.standing().health())
    }

    /// Counts the Workspaces in use and those of them that are unwell.
    pub async fn census(&self) -> Census {
        // Not looked at while the map is held: whoever puts a Workspace in would wait.
        let entries: Vec<Arc<Entry>> = self.0.entries.iter().map(|entry| Arc::clone(&entry)).collect();
        let mut census = Census::default();
        for some in entries.chunks(AT_ONCE) {
            let now = self.0.clock.now();
            for entry in some {
                census.count(self.snapshot_of(entry, now).standing());
            }
            yield_now().await;
        }
        census
    }

    /// Follows whether all Workspaces together are well. A rule that nothing can break costs nothing.
    pub fn judge(&self, rule: Rule) -> watch::Receiver<Health> {
        let (verdict, follower) = watch::channel(Health::Serving);
        if rule.can_be_broken() {
            self.0.supervisor.spawn_critical("census", judge_every_second(self.clone(), rule, verdict));
        }
        follower
    }

    fn snapshot_of(&self, entry: &Entry, now: Now) -> Snapshot {
        let held = entry.published().map(|published| published.held);
        let idle = entry.idle_for(now.mono);
        let core = entry.core();
        Snapshot {
            state: core.plan.state(now),
            expires_at: held.map(|held| held.validity.expires_at()),
            is_servable: held.is_some_and(|held| held.validity.is_servable(now)),
            is_disputed: held.is_some_and(|held| core.reporters.dispute(held.fingerprint)),
            is_wanted: core.plan.is_wanted(idle) || self.0.watchers.use_it(&entry.name),
            waiters: entry.waiters(),
        }
    }
}

async fn judge_every_second(engine: Engine, rule: Rule, verdict: watch::Sender<Health>) {
    while !engine.0.supervisor.is_draining() {
        let begun = Instant::now();
        let census = engine.census().await;
        let took = begun.elapsed();
        let health = rule.judge(census);
        // Only what differs is told: every stream would wake up once a second.
        if verdict.send_if_modified(|told| std::mem::replace(told, health) != health) {
            log(health, census);
        }
        tokio::select! {
            () = engine.0.supervisor.draining() => {}
            () = sleep(REST.max(took * REST_PER_LOOK)) => {}
        }
    }
}

fn log(health: Health, Census { in_use, unhealthy }: Census) {
    match health {
        Health::Serving => tracing::info!(in_use, unhealthy, "enough workspaces are healthy again"),
        Health::NotServing => tracing::error!(in_use, unhealthy, "too many workspaces are unhealthy"),
    }
}
