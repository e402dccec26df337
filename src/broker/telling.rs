//! What a stream may tell of the tokens that it follows: only what the audit has.
//!
//! A token whose record can't be written is tried again; meanwhile nothing is said for as long as the one before it
//! lives, and then, once, that there is none.

use super::{Asker, Broker};
use crate::audit::{Face, RETRY};
use crate::clock::Clock;
use crate::engine::{View, Watch};
use crate::token::{Validity, WorkspaceName};
use std::collections::HashMap;

/// What whoever listens has of each Workspace.
#[derive(Debug, Default)]
pub(super) struct Telling(HashMap<WorkspaceName, Told>);

#[derive(Debug, Clone, Copy)]
enum Told {
    /// A token, for so long.
    Token(Validity),
    /// That there is none to be had.
    Nothing,
}

impl Telling {
    /// What was seen, if it may be told. Can be dropped: then it is seen again.
    pub(super) async fn tell(
        &mut self,
        (broker, asker, clock): (&Broker, &Asker, &Clock),
        watch: &mut Watch,
        (name, view): (WorkspaceName, View),
    ) -> Option<(WorkspaceName, View)> {
        let View::Token(served) = view else {
            self.withdrawn(&name);
            return Some((name, view));
        };
        // First of all, so that nothing is lost if this is dropped while the audit is waited for.
        watch.look_again(clock.now().mono + RETRY);
        match broker.record(asker, &served, Face::Watch).await {
            Ok(()) => {
                watch.told(&served);
                self.0.insert(name.clone(), Told::Token(served.held.validity));
                Some((name, View::Token(served)))
            }
            Err(_) if self.is_silent(&name, clock) => None,
            Err(error) => {
                self.withdrawn(&name);
                Some((name, View::Withdrawn(error)))
            }
        }
    }

    /// Whoever listens was told that there is nothing to be had.
    pub(super) fn withdrawn(&mut self, name: &WorkspaceName) {
        self.0.insert(name.clone(), Told::Nothing);
    }

    fn is_silent(&self, name: &WorkspaceName, clock: &Clock) -> bool {
        match self.0.get(name) {
            Some(Told::Token(validity)) => validity.is_servable(clock.now()),
            Some(Told::Nothing) => true,
            None => false,
        }
    }
}
