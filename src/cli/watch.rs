//! `watch`: a line per change of a Workspace, and a file that always holds its token.

mod sink;

use super::ask::as_json;
use super::{Broker, Failure, say};
use crate::client::{Error, Event, State, Token};
use crate::supervisor::Signals;
use clap::Args;
use serde_json::{Value, json};
use sink::Sink;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// The reason that says that a token is on its way.
const PENDING: &str = "TOKEN_PENDING";

/// What to follow.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The Workspaces, 1,000 at most.
    #[arg(required = true, value_name = "WORKSPACE")]
    workspaces: Vec<String>,
    /// Keep the bare token in this file, for a program that only reads files. It is replaced as a whole, readable by
    /// its owner alone, and removed when the token is withdrawn or ends. One Workspace only.
    #[arg(long, value_name = "PATH")]
    write_file: Option<PathBuf>,
    /// Print each change as one line of JSON that holds everything, the token itself too.
    #[arg(long)]
    json: bool,
    /// End as soon as each Workspace has a token or a reason why not, within --timeout; the exit code is 1 if one has
    /// none.
    #[arg(long)]
    once: bool,
}

pub(super) async fn watch(broker: Broker, options: Options) -> Result<(), Failure> {
    let (once, limit) = (options.once, broker.timeout);
    if options.write_file.is_some() && options.workspaces.len() != 1 {
        return Err(Failure::Usage("--write-file takes exactly one workspace".to_owned()));
    }
    let mut signals = Signals::install()?;
    let mut session = Session::new(broker, options);
    let following = async {
        if once {
            timeout(limit, session.follow()).await.map_err(|_elapsed| Error::TimedOut(limit))?
        } else {
            session.follow().await
        }
    };
    tokio::select! {
        biased;
        ended = following => ended,
        // Before everything was said: it would have ended by itself.
        _ = signals.next() => if once { Err(interrupted()) } else { Ok(()) },
    }
}

/// What is followed, and what was said of it.
struct Session {
    broker: Arc<Broker>,
    options: Options,
    sink: Option<Sink>,
    /// The last line of each Workspace, so that what did not change is not said again after a reconnection.
    said: HashMap<String, String>,
    /// The last of each Workspace but that a token is on its way.
    settled: HashMap<String, Outcome>,
    back_off: Duration,
    complained: bool,
    /// Whether the broker has told this caller anything yet.
    was_let_in: bool,
}

/// What came of one Workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Token,
    None,
}

impl Session {
    fn new(broker: Broker, options: Options) -> Self {
        let sink = options.write_file.clone().map(Sink::new);
        if let Some(Err(error)) = sink.as_ref().map(Sink::remove_leftovers) {
            say_aside(&format!("can't look for what an earlier one left: {error}"));
        }
        let (said, settled) = (HashMap::new(), HashMap::new());
        let broker = Arc::new(broker);
        let (back_off, complained, was_let_in) = (FIRST_BACK_OFF, false, false);
        Self { broker, options, sink, said, settled, back_off, complained, was_let_in }
    }

    /// Goes on over any number of streams, until nobody reads any more or, with `--once`, everything is said.
    async fn follow(&mut self) -> Result<(), Failure> {
        loop {
            match self.one_stream().await? {
                None => return Ok(()),
                Some(error) if !self.goes_on_after(&error) => return Err(error.into()),
                Some(error) => self.complain(&error),
            }
            let pause = self.back_off.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
            self.ending(sleep(pause)).await?;
        }
    }

    /// A stream ends with the certificate or the token that opened it, and their successors may come late.
    fn goes_on_after(&self, error: &Error) -> bool {
        error.passes() || (self.was_let_in && error.is_of_credentials())
    }

    /// Until there is no more to say, or to the error that broke it off.
    async fn one_stream(&mut self) -> Result<Option<Error>, Failure> {
        let (broker, workspaces) = (Arc::clone(&self.broker), self.options.workspaces.clone());
        // The files of TLS and of the token are read anew: they may be why the last stream ended.
        let opening = async move { broker.connect().await?.watch(&workspaces).await };
        let mut stream = match self.ending(opening).await? {
            Ok(stream) => stream,
            Err(error) => return Ok(Some(error)),
        };
        loop {
            let event = match self.ending(stream.next()).await? {
                Ok(event) => event,
                Err(error) => return Ok(Some(error)),
            };
            (self.back_off, self.complained, self.was_let_in) = (FIRST_BACK_OFF, false, true);
            if self.take(&event)?.is_break() {
                return Ok(None);
            }
        }
    }

    /// Waits, and meanwhile removes a token from the file when it ends.
    async fn ending<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        let mut wait = std::pin::pin!(wait);
        loop {
            let Some(sink) = &mut self.sink else { return Ok(wait.await) };
            tokio::select! {
                done = wait.as_mut() => return Ok(done),
                () = sink.token_ends() => {
                    sink.remove()?;
                    say_aside(&format!("the token in {} is over: removed", sink.path().display()));
                }
            }
        }
    }

    /// One state: the file first, so that who reads the line finds it there.
    fn take(&mut self, event: &Event) -> Result<ControlFlow<()>, Failure> {
        if let Some(sink) = &mut self.sink {
            match &event.state {
                State::Token(token) => sink.write(token)?,
                // That the broker has none says nothing against the one in the file, until that ends.
                State::Withdrawn { reason, .. } if has_none(reason) && sink.holds_valid(Instant::now()) => {}
                State::Withdrawn { .. } => sink.remove()?,
            }
        }
        let is_read = self.print(event)?.is_continue();
        match self.settle(event)? {
            ControlFlow::Continue(()) if is_read => Ok(ControlFlow::Continue(())),
            ControlFlow::Continue(()) if self.options.once => Err(interrupted()),
            ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(ControlFlow::Break(())),
        }
    }

    fn print(&mut self, event: &Event) -> Result<ControlFlow<()>, Failure> {
        let line = line(event);
        if self.said.get(&event.workspace) == Some(&line) {
            return Ok(ControlFlow::Continue(()));
        }
        let shown = if self.options.json { json_line(event).to_string() } else { line.clone() };
        self.said.insert(event.workspace.clone(), line);
        match writeln!(io::stdout().lock(), "{shown}") {
            // Nobody reads any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            written => Ok(ControlFlow::Continue(written?)),
        }
    }

    /// With `--once`: whether all is said, and well.
    fn settle(&mut self, event: &Event) -> Result<ControlFlow<()>, Failure> {
        match &event.state {
            State::Token(_) => drop(self.settled.insert(event.workspace.clone(), Outcome::Token)),
            State::Withdrawn { reason, .. } if reason == PENDING => {}
            State::Withdrawn { .. } => drop(self.settled.insert(event.workspace.clone(), Outcome::None)),
        }
        let all = self.options.workspaces.len();
        if !self.options.once || self.settled.len() < all {
            return Ok(ControlFlow::Continue(()));
        }
        match self.settled.values().filter(|outcome| **outcome == Outcome::None).count() {
            0 => Ok(ControlFlow::Break(())),
            without => Err(Failure::Failed(format!("workspaces without a token: {without} of {all}").into())),
        }
    }

    /// Once per trouble, not once per attempt.
    fn complain(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.complained, true) {
            say_aside(&format!("{error}; trying again"));
        }
    }
}

/// Whether the broker only has no token to give: it was restarted, or the last one ended without a successor. With any
/// other reason the Workspace is withdrawn, and with it every token of it.
fn has_none(reason: &str) -> bool {
    const REASONS: [&str; 5] =
        [PENDING, "UPSTREAM_UNAVAILABLE", "UPSTREAM_THROTTLED", "UPSTREAM_MALFORMED", "CREDENTIAL_REJECTED"];
    REASONS.contains(&reason)
}

/// With `--once`, who waits for the end must not take it for the answer.
fn interrupted() -> Failure {
    Failure::Failed("interrupted".into())
}

/// What happened, without the token.
fn line(event: &Event) -> String {
    let Event { workspace, state } = event;
    match state {
        State::Token(Token { fingerprint, expires_at, .. }) => {
            let end = expires_at
                .map_or_else(String::new, |at| format!(" expires_at={}", humantime::format_rfc3339_millis(at)));
            format!("{workspace} token fingerprint={fingerprint}{end}")
        }
        State::Withdrawn { reason, .. } => format!("{workspace} withdrawn reason={reason}"),
    }
}

/// The keys of `get --json`, or the reason.
fn json_line(event: &Event) -> Value {
    match &event.state {
        State::Token(token) => {
            let mut value = as_json(&event.workspace, token);
            if let Some(object) = value.as_object_mut() {
                object.remove("source");
                object.insert("state".to_owned(), "token".into());
            }
            value
        }
        State::Withdrawn { reason, retry_after } => json!({
            "workspace": event.workspace,
            "state": "withdrawn",
            "reason": reason,
            "retry_after_seconds": retry_after.map(|after| after.as_secs_f64()),
        }),
    }
}

/// Beside the output: stderr.
fn say_aside(text: &str) {
    say(text, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn only_what_says_nothing_against_a_token_leaves_it_where_it_is() {
        let kept = Reason::ALL.iter().filter(|reason| has_none(reason.as_str()));
        let kept: Vec<_> = kept.collect();
        let expected = [
            Reason::CredentialRejected,
            Reason::TokenPending,
            Reason::UpstreamUnavailable,
            Reason::UpstreamThrottled,
            Reason::UpstreamMalformed,
        ];
        assert!(expected.iter().eq(kept), "a new reason needs a thought");
        assert!(!has_none("WHAT_A_NEWER_BROKER_SAYS"));
    }
}
