//! A provider that answers as it is told, and counts.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use token_broker::provider::{Failure, FetchError, Fetched, Provider};
use token_broker::secret::AccessToken;
use token_broker::token::Presentation;
use tokio::sync::watch;

/// What every token of the provider begins with; its number follows.
pub(super) const VALUE: &str = "eyJ-a-token-that-nobody-may-see-";
pub(super) const EXTRA: &str = "a-second-key-that-nobody-may-see";

/// How long an exchange takes.
pub(super) const TAKES: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct FakeProvider {
    calls: AtomicU64,
    answer: Mutex<Result<Duration, Failure>>,
    /// Gives this token again and again.
    repeats: Mutex<Option<u64>>,
    open: watch::Sender<bool>,
}

impl Default for FakeProvider {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            answer: Mutex::new(Ok(Duration::from_secs(4 * 3600))),
            repeats: Mutex::new(None),
            open: watch::Sender::new(true),
        }
    }
}

impl FakeProvider {
    /// How many exchanges were begun.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// From now on: a token with this life, or a failure.
    pub(super) fn answers(&self, answer: Result<Duration, Failure>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// From now on: the token of this number.
    pub(super) fn repeats(&self, number: u64) {
        *self.repeats.lock().unwrap() = Some(number);
    }

    /// Exchanges hang until [`Self::goes_on`].
    pub(super) fn hangs(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn goes_on(&self) {
        self.open.send_replace(true);
    }

    async fn answer(&self) -> Result<Fetched, FetchError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(TAKES).await;
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let number = self.repeats.lock().unwrap().unwrap_or(number);
        let lifetime = self.answer.lock().unwrap().map_err(|kind| FetchError::new(kind, "as told"))?;
        Ok(Fetched {
            value: AccessToken::new(format!("{VALUE}{number}")),
            presentation: Presentation {
                extra_headers: vec![("x-second-key".to_owned(), AccessToken::new(EXTRA))],
                attributes: [("instance_url".to_owned(), "https://one.example".to_owned())].into(),
                ..Presentation::bearer()
            },
            lifetime,
        })
    }
}

impl Provider for FakeProvider {
    fn exchange(&self) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        self.answer().boxed()
    }
}
