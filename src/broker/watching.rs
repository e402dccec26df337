//! Following tokens with the right to do so, which may go and come back.
//!
//! Promises: nothing of a Workspace is told once the right to it is seen to be lost, and each message is judged for
//! itself; the loss is told once, as a withdrawal; while it lasts the Workspace is not kept warm for this watcher; when
//! the right returns its state is told again.

use super::presence::Presence;
use super::telling::Telling;
use super::{Asker, Broker};
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
    asker: Asker,
    presence: Presence,
    telling: Telling,
    watch: Watch,
    /// Which Workspace is the next to be judged again, while that is under way.
    judging: Option<usize>,
}

impl Watching {
    pub(super) fn new(broker: Broker, asker: Asker, presence: Presence, watch: Watch) -> Self {
        Self { broker, asker, presence, telling: Telling::default(), watch, judging: None }
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
                    let seen = self.look(index);
                    if let Some(told) = self.tell(index, seen).await? {
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

    /// Has what was seen written down, if it is a token. That takes a while, in which the right to it may go.
    async fn tell(
        &mut self,
        index: usize,
        seen: Option<(WorkspaceName, View)>,
    ) -> Result<Option<(WorkspaceName, View)>, Error> {
        let Some(seen) = seen else { return Ok(None) };
        let Self { broker, asker, presence, telling, watch, .. } = self;
        let Some(told) = telling.tell((&*broker, &*asker, presence.clock()), watch, seen).await else {
            return Ok(None);
        };
        self.presence.check()?;
        Ok(Some(self.judge_one(index).unwrap_or(told)))
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
        let may = self.broker.still_may(self.asker.caller(), Action::Watch, name);
        match (may, self.watch.is_paused(index)) {
            (true, false) | (false, true) => None,
            (true, true) => {
                self.watch.resume(index);
                None
            }
            (false, false) => {
                let withdrawn = (name.clone(), View::Withdrawn(Error::new(Reason::CallerForbidden)));
                self.broker.denied(&self.asker, Action::Watch, Some(name), Reason::CallerForbidden);
                self.telling.withdrawn(name);
                self.watch.pause(index);
                Some(withdrawn)
            }
        }
    }
}
