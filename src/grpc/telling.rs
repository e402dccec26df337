//! What a stream may tell of the tokens that it follows: only what the audit has.

use super::token_service::Asker;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::engine::{View, Watch};
use crate::token::{Validity, WorkspaceName};
use std::collections::HashMap;

/// Between a stream and what it follows.
#[derive(Debug)]
pub(super) struct Teller {
    broker: Broker,
    asker: Asker,
    /// What whoever listens has of each Workspace.
    told: HashMap<WorkspaceName, Told>,
}

#[derive(Debug, Clone, Copy)]
enum Told {
    /// A token, for so long.
    Token(Validity),
    /// That there is none to be had.
    Nothing,
}

impl Teller {
    pub(super) fn new(broker: Broker, asker: Asker) -> Self {
        Self { broker, asker, told: HashMap::new() }
    }

    /// The next that may be told. A token whose record can't be written is tried again; meanwhile nothing is said for
    /// as long as the one before it lives, and then, once, that there is none. Can be dropped and called again.
    pub(super) async fn next(&mut self, watch: &mut Watch, clock: &Clock) -> (WorkspaceName, View) {
        loop {
            let (name, view) = watch.next().await;
            let View::Token(served) = &view else {
                self.told.insert(name.clone(), Told::Nothing);
                return (name, view);
            };
            // First of all, so that nothing is lost if this is dropped while the audit is waited for.
            let (now, retry) = (clock.now(), crate::audit::RETRY);
            watch.look_again(now.mono + retry);
            match self.broker.record_told(&self.asker.caller, served, &self.asker.via).await {
                Ok(()) => {
                    watch.told(served);
                    self.told.insert(name.clone(), Told::Token(served.held.validity));
                    return (name, view);
                }
                Err(error) => {
                    let is_silent = match self.told.get(&name) {
                        Some(Told::Token(validity)) => validity.is_servable(clock.now()),
                        Some(Told::Nothing) => true,
                        None => false,
                    };
                    if !is_silent {
                        self.told.insert(name.clone(), Told::Nothing);
                        return (name, View::Withdrawn(error));
                    }
                }
            }
        }
    }
}
