//! Following Workspaces: what each looks like now, and again whenever that changes.
//!
//! Promises: the first look at every Workspace comes at once; a watcher that looks late sees the newest state, never a
//! backlog; a token that expires without a successor is withdrawn at that moment; watching in order to use keeps a
//! Workspace warm like calls do.

use super::ask::worth_waiting;
use super::entry::Entry;
use super::plan::{Answer, Held, MIN_RETRY, Urgency, Want};
use super::watchers::{Mailbox, Places, Watcher};
use super::{Engine, Origin, Served, Source, unknown};
use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::supervisor::at;
use crate::token::WorkspaceName;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Why somebody watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// To use the tokens: a Workspace without one gets one, and is renewed for as long as it is watched.
    Use,
    /// To know how it stands. Changes nothing.
    Status,
}

/// What a watcher sees of a Workspace.
#[derive(Debug, Clone)]
pub enum View {
    /// Its token.
    Token(Served),
    /// No token can be had, for this reason.
    Withdrawn(Error),
}

/// Somebody who follows some Workspaces.
pub struct Watch {
    engine: Engine,
    id: u64,
    interest: Interest,
    slots: Vec<Slot>,
    /// When tokens that were seen stop being servable.
    ends: BTreeSet<(Instant, usize)>,
    mailbox: Arc<Mailbox>,
    /// What [`Self::look`] gave last.
    given: Option<usize>,
    _places: Places,
}

/// One Workspace that is watched.
#[derive(Debug)]
struct Slot {
    name: WorkspaceName,
    end: Option<Instant>,
    told: Option<Told>,
    /// Not looked at, and not used.
    paused: bool,
}

/// What was last told of a Workspace.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Token(Held),
    Withdrawn(Reason),
}

impl Engine {
    /// Follows these Workspaces, which need not exist; none may stand twice. Refused when too much is watched already,
    /// by this caller or by all.
    pub fn watch(&self, names: Vec<WorkspaceName>, interest: Interest, origin: Origin) -> Result<Watch, Error> {
        let watchers = &self.0.watchers;
        let places = watchers.reserve(names.len(), origin)?;
        let (id, mailbox) = (watchers.new_id(), Arc::new(Mailbox::default()));
        for (index, name) in names.iter().enumerate() {
            let mailbox = Arc::clone(&mailbox);
            mailbox.put(index);
            watchers.add(name, id, Watcher { mailbox, index, uses: interest == Interest::Use });
        }
        let slots = names.into_iter().map(|name| Slot { name, end: None, told: None, paused: false }).collect();
        let (engine, ends) = (self.clone(), BTreeSet::new());
        Ok(Watch { engine, id, interest, slots, ends, mailbox, given: None, _places: places })
    }

    /// What a caller would get now, without waiting. Who watches in order to use it asks like a caller: for an
    /// exchange, for a probe, again and again until there is a token.
    fn view(&self, name: &WorkspaceName, interest: Interest) -> View {
        let Some(entry) = self.entry(name) else { return View::Withdrawn(unknown()) };
        let (now, want) = (self.0.clock.now(), Want::Token { min_validity: Duration::ZERO });
        let refusal = match interest {
            Interest::Use => {
                let idle = entry.touch(now.mono);
                let (answer, queued) = {
                    let mut core = entry.core();
                    if core.deleted {
                        drop(core);
                        // Another may have taken its place.
                        let is_current = self.is_current(name, &entry);
                        return if is_current { View::Withdrawn(unknown()) } else { self.view(name, interest) };
                    }
                    (core.plan.answer(now, want), core.plan.is_queued())
                };
                let refusal = Self::act_on(&entry, now, answer, queued);
                if refusal.is_some() {
                    self.tell_if_missed(&entry, idle);
                }
                refusal
            }
            Interest::Status => refusal_of(entry.core().plan.clone().answer(now, want)),
        };
        let served = entry.published().map(|published| published.served(Source::Cache));
        match (refusal, served) {
            (Some(error), _) => View::Withdrawn(error),
            (None, Some(served)) if served.token.workspace != *name => {
                tracing::error!(workspace.name = %name, "a token of another workspace was about to be served");
                View::Withdrawn(Error::new(Reason::Bug))
            }
            (None, Some(served)) if served.is_servable(now) => View::Token(served),
            // Between the answer and this line it was withdrawn, which will be told.
            (None, _) => View::Withdrawn(pending()),
        }
    }

    /// Does what the plan says. Gives what to tell if there is no token.
    fn act_on(entry: &Arc<Entry>, now: Now, answer: Answer, queued: bool) -> Option<Error> {
        match &answer {
            Answer::ServeAndRenew(urgency) => drop(entry.dispatch.enqueue(entry, *urgency, now.mono)),
            Answer::Wait if queued => {
                let outlook = entry.dispatch.enqueue(entry, Urgency::Waiting, now.mono);
                if let Err(refusal) = worth_waiting(outlook, now.mono, now.mono) {
                    return Some(refusal);
                }
            }
            Answer::Refuse { probe: Some(from), .. } => entry.dispatch.want_probe(entry, *from),
            Answer::Serve | Answer::Wait | Answer::Refuse { probe: None, .. } => {}
        }
        refusal_of(answer)
    }
}

fn refusal_of(answer: Answer) -> Option<Error> {
    match answer {
        Answer::Serve | Answer::ServeAndRenew(_) => None,
        Answer::Wait => Some(pending()),
        Answer::Refuse { error, .. } => Some(error),
    }
}

fn pending() -> Error {
    Error::retry(Reason::TokenPending, MIN_RETRY)
}

impl Watch {
    /// Waits until a Workspace looks different from what was last told of it, and says how. Can be dropped and called
    /// again: nothing is lost.
    pub async fn next(&mut self) -> (WorkspaceName, View) {
        loop {
            let index = self.changed().await;
            if let Some((name, view)) = self.look(index) {
                return (name, view);
            }
        }
    }

    /// What is to be told of a Workspace, by its place in the list: nothing if it looks as it did before, or is left
    /// alone.
    pub fn look(&mut self, index: usize) -> Option<(WorkspaceName, View)> {
        let slot = self.slots.get_mut(index).filter(|slot| !slot.paused)?;
        let view = self.engine.view(&slot.name, self.interest);
        let told = Told::of(&view);
        if slot.told.replace(told) == Some(told) {
            return None;
        }
        self.given = Some(index);
        Some((slot.name.clone(), view))
    }

    /// What was given last was not told after all: gives it again at that moment, or earlier if it changes.
    pub fn look_again(&mut self, when: Instant) {
        let Some((index, slot)) = self.given.and_then(|index| Some((index, self.slots.get_mut(index)?))) else {
            return;
        };
        slot.told = None;
        let when = slot.end.map_or(when, |end| end.min(when));
        if let Some(before) = slot.end.replace(when) {
            self.ends.remove(&(before, index));
        }
        self.ends.insert((when, index));
    }

    /// What was given last was this token, and it was told.
    pub fn told(&mut self, served: &Served) {
        let Some((index, slot)) = self.given.and_then(|index| Some((index, self.slots.get_mut(index)?))) else {
            return;
        };
        slot.told = Some(Told::Token(served.held));
        self.follow_end(index);
    }

    /// How many Workspaces are watched.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Which Workspace has this place in the list.
    pub fn name(&self, index: usize) -> Option<&WorkspaceName> {
        self.slots.get(index).map(|slot| &slot.name)
    }

    /// Whether a Workspace is left alone.
    pub fn is_paused(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| slot.paused)
    }

    /// Leaves a Workspace alone: nothing of it is told, and it is not kept warm by this watcher.
    pub fn pause(&mut self, index: usize) {
        self.set_paused(index, true);
    }

    /// Looks at a Workspace again, and tells how it stands as if nothing had been told yet.
    pub fn resume(&mut self, index: usize) {
        self.set_paused(index, false);
        self.mailbox.put(index);
    }

    fn set_paused(&mut self, index: usize, paused: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        (slot.paused, slot.told) = (paused, None);
        let uses = self.interest == Interest::Use;
        if uses && let Some(entry) = self.engine.entry(&slot.name) {
            // Used until, or from, this moment, and said before it stops being used.
            entry.touch(self.engine.0.clock.now().mono);
        }
        let mailbox = Arc::clone(&self.mailbox);
        // In the place of the one that there is.
        self.engine.0.watchers.add(&slot.name, self.id, Watcher { mailbox, index, uses: uses && !paused });
    }

    /// Waits until a Workspace may look different, and says which, by its place in the list.
    pub async fn changed(&mut self) -> usize {
        loop {
            if let Some(index) = self.mailbox.take() {
                self.follow_end(index);
                return index;
            }
            let end = self.ends.first().map(|(end, _)| *end);
            tokio::select! {
                () = self.mailbox.bell.notified() => {}
                () = at(end) => self.look_at_ended(),
            }
        }
    }

    /// Tokens end without anybody saying so: by the stricter clock, as it is now.
    fn follow_end(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let now = self.engine.0.clock.now();
        let published = self.engine.entry(&slot.name).and_then(|entry| entry.published());
        let left = published.map(|published| published.held.validity.servable_for(now)).filter(|left| !left.is_zero());
        let end = left.map(|left| now.mono + left);
        if let Some(before) = std::mem::replace(&mut slot.end, end) {
            self.ends.remove(&(before, index));
        }
        self.ends.extend(end.map(|end| (end, index)));
    }

    fn look_at_ended(&mut self) {
        let now = self.engine.0.clock.now().mono;
        while let Some((end, index)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, index));
            self.mailbox.put(index);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let now = self.engine.0.clock.now().mono;
        for slot in &self.slots {
            if self.interest == Interest::Use
                && let Some(entry) = self.engine.entry(&slot.name)
            {
                // Used until this moment, and said before it stops being used.
                entry.touch(now);
            }
            self.engine.0.watchers.remove(&slot.name, self.id);
        }
    }
}

impl Told {
    fn of(view: &View) -> Self {
        match view {
            View::Token(served) => Self::Token(served.held),
            View::Withdrawn(error) => Self::Withdrawn(error.reason),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("workspaces", &self.slots.len()).finish_non_exhaustive()
    }
}
