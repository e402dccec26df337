//! The stream of `WatchTokens` as a client reads it.

use super::error::refused;
use super::{Error, Token};
use crate::grpc::pb;
use std::time::Duration;
use tonic::Streaming;

/// A stream under way.
#[derive(Debug)]
pub struct Watch(pub(super) Streaming<pb::WatchTokensResponse>);

/// The state of one Workspace.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub workspace: String,
    /// What it has.
    pub state: State,
}

/// What a Workspace has.
#[derive(Debug)]
pub enum State {
    /// Its token.
    Token(Token),
    /// None.
    Withdrawn {
        /// One of the reasons in `docs/errors.md`.
        reason: String,
        /// When a call might succeed.
        retry_after: Option<Duration>,
    },
}

impl Watch {
    /// Waits for the next state, however long that takes.
    pub async fn next(&mut self) -> Result<Event, Error> {
        let message = self.0.message().await.map_err(|status| refused(&status))?.ok_or(Error::Ended)?;
        let state = match message.state.ok_or(Error::Incomplete)? {
            pb::watch_tokens_response::State::Token(token) => {
                State::Token(Token::read(Some(token), message.valid_for, None)?)
            }
            pb::watch_tokens_response::State::Withdrawn(withdrawn) => State::Withdrawn {
                reason: withdrawn.reason,
                retry_after: withdrawn.retry_after.and_then(|after| after.try_into().ok()),
            },
        };
        Ok(Event { workspace: message.workspace, state })
    }
}
