//! Following tokens with the right to do so, which may go and come back.
//!
//! Promises: nothing of a Workspace is told once the right to it is seen to be lost, and each message is judged for
//! itself; the loss is told once, as a withdrawal; while it lasts the Workspace is not kept warm for this watcher; when
//! the right returns its state is told again.

use super::Broker;
use super::presence::Presence;
use crate::engine::{View, Watch};
use crate::error::{Error, Reason};
use crate::policy::Action;
use crate::token::WorkspaceName;
use tokio::task::yield_now;

/// So many Workspaces are judged between two chances for others to run.
const AT_ONCE: usize = 64;

/// Somebody who follows some Workspaces, and is asked for the right to it again and again.
#[derive(Debug)]
pub struct Watching {
    broker: Broker,
    presence: Presence,
    watch: Watch,
    /// Which Workspace is the next to be judged again, while that is under way.
    judging: Option<usize>,
}

impl Watching {
    pub(super) fn new(broker: Broker, presence: Presence, watch: Watch) -> Self {
        Self { broker, presence, watch, judging: None }
    }

    /// Waits until a Workspace looks different from what was last told of it, and says how. Fails when the caller is
    /// not believed any more. Can be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<(WorkspaceName, View), Error> {
        loop {
            self.presence.check()?;
            if let Some(from) = self.judging {
                if let Some(withdrawn) = self.judge(from) {
                    return Ok(withdrawn);
                }
                yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                judged = self.presence.judged_again() => {
                    judged?;
                    self.judging = Some(0);
                }
                index = self.watch.changed() => {
                    self.presence.check()?;
                    if let Some(told) = self.look(index) {
                        return Ok(told);
                    }
                }
            }
        }
    }

    /// What is to be told of a Workspace that may look different, if its right still stands.
    fn look(&mut self, index: usize) -> Option<(WorkspaceName, View)> {
        self.judge_one(index).or_else(|| self.watch.look(index))
    }

    /// Judges some Workspaces, up to the first to which the right was lost: what is to be told of that one.
    fn judge(&mut self, from: usize) -> Option<(WorkspaceName, View)> {
        let (end, most) = (self.watch.len(), from.saturating_add(AT_ONCE));
        for index in from..end.min(most) {
            self.judging = Some(index + 1);
            if let Some(withdrawn) = self.judge_one(index) {
                return Some(withdrawn);
            }
        }
        self.judging = self.judging.filter(|next| *next < end);
        None
    }

    fn judge_one(&mut self, index: usize) -> Option<(WorkspaceName, View)> {
        let name = self.watch.name(index)?;
        let may = self.broker.still_may(self.presence.caller(), Action::Watch, name);
        match (may, self.watch.is_paused(index)) {
            (true, false) | (false, true) => None,
            (true, true) => {
                self.watch.resume(index);
                None
            }
            (false, false) => {
                let withdrawn = (name.clone(), View::Withdrawn(Error::new(Reason::CallerForbidden)));
                self.watch.pause(index);
                Some(withdrawn)
            }
        }
    }
}
