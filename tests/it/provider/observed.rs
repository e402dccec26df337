//! One exchange and what could be seen of it: the outcome, and all that was logged at TRACE.

use super::case::Expected;
use crate::logs::{Capture, captured_by};
use std::time::Duration;
use token_broker::failure::Failure;
use token_broker::provider::{FetchError, Fetched, Provider};
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;

/// What an exchange came to, and all that was logged meanwhile.
pub(super) struct Observed {
    pub(super) result: Result<Fetched, FetchError>,
    pub(super) logs: String,
    pub(super) took: Duration,
}

/// More than any exchange takes.
pub(super) const PATIENT: Duration = Duration::from_secs(20);

/// Every log line of this thread at TRACE, until this is dropped. The runtime has no other thread.
pub(super) fn captured(capture: &Capture) -> DefaultGuard {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(capture.clone());
    captured_by(subscriber.finish())
}

/// One exchange, with what is logged meanwhile.
pub(super) async fn observe(provider: &dyn Provider) -> Observed {
    let capture = Capture::default();
    let guard = captured(&capture);
    tracing::debug!(?provider, "exchange");
    let started = Instant::now();
    let result = provider.exchange().await;
    let took = started.elapsed();
    tracing::debug!(?provider, ?result, "exchanged");
    drop(guard);
    let logs = capture.text();
    assert!(logs.contains("starting new connection"), "nothing was captured");
    Observed { result, logs, took }
}

impl Observed {
    /// As it is written down.
    pub(super) fn summary(&self, requests: usize) -> Expected {
        let requests = (requests != 1).then_some(requests);
        match &self.result {
            Ok(Fetched { lifetime, presentation, .. }) => {
                let shown = format!("{}: {}", presentation.header_name, presentation.token_type);
                Expected {
                    lifetime_seconds: Some(lifetime.as_secs()),
                    presentation: Some(shown).filter(|shown| shown != "authorization: Bearer"),
                    extra_headers: presentation.extra_headers.iter().map(|(name, _)| name.clone()).collect(),
                    attributes: presentation.attributes.clone(),
                    requests,
                    ..Expected::default()
                }
            }
            Err(error) => Expected {
                failure: Some(error.kind.as_str().to_owned()),
                retry_after_seconds: match error.kind {
                    Failure::Throttled { retry_after } => retry_after.map(|wait| wait.as_secs()),
                    _ => None,
                },
                says: Some(error.detail.clone()),
                requests,
                ..Expected::default()
            },
        }
    }

    pub(super) fn failure(&self) -> Failure {
        self.result.as_ref().unwrap_err().kind
    }

    /// Nothing that a person or a machine may see holds any of these texts.
    pub(super) fn keeps_quiet_about<'s>(&self, secrets: impl IntoIterator<Item = &'s str>) {
        assert_eq!(self.leaked(secrets), None);
    }

    /// Which of these texts can be seen, and where.
    pub(super) fn leaked<'s>(&self, secrets: impl IntoIterator<Item = &'s str>) -> Option<String> {
        let shown = match &self.result {
            Ok(fetched) => format!("{fetched:?}"),
            Err(error) => format!("{error:?} {error}"),
        };
        secrets.into_iter().filter(|secret| !secret.is_empty()).find_map(|secret| {
            let line = self.logs.lines().find(|line| line.contains(secret));
            let place = if shown.contains(secret) { "the outcome" } else { line? };
            Some(format!("{secret:?} is in {place}"))
        })
    }
}

#[test]
fn a_leak_is_found_in_the_outcome_and_in_the_logs() {
    let observed = |said: &str, logs: &str| Observed {
        result: Err(FetchError::new(Failure::Rejected, said)),
        logs: logs.to_owned(),
        took: Duration::ZERO,
    };
    assert_eq!(observed("no", "nothing\nhere").leaked(["hunter2", ""]), None);
    assert!(observed("no: hunter2", "").leaked(["hunter2"]).is_some_and(|leak| leak.contains("the outcome")));
    assert!(observed("no", "a\nb hunter2\nc").leaked(["hunter2"]).is_some_and(|leak| leak.contains("b hunter2")));
}
