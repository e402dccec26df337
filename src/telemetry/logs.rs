//! Log lines, on stderr: stdout belongs to what commands print.

use std::io;
use std::panic::{self, PanicHookInfo};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For eyes: coloured when stderr is a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// What is logged, to be changed while the process runs. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter is not valid: {0}")]
    Filter(#[from] ParseError),
    /// The process logs already.
    #[error("logging was set up before: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets the process's logging up, and its panic hook. `filter` is a level or a list as `EnvFilter` reads it, such as
/// `info,token_broker::engine=debug`.
pub fn init(format: Format, filter: &str) -> Result<Filter, Error> {
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    let (subscriber, filter) = subscriber(format, filter, colours, io::stderr)?;
    subscriber.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(filter)
}

impl Filter {
    /// Logs by this filter from now on.
    pub fn change(&self, filter: EnvFilter) {
        if let Err(error) = self.0.reload(filter) {
            tracing::error!(%error, "the log filter can't be changed");
        }
    }

    /// One that filters nothing.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self(reload::Layer::new(EnvFilter::default()).1)
    }
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Filter), ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(filter)?);
    let filter = filter.and(filter_fn(may_be_logged));
    let lines = match format {
        Format::Human => fmt::layer().with_ansi(colours).with_writer(writer).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed(),
    };
    Ok((registry().with(lines.with_filter(filter)), Filter(handle)))
}

/// Below INFO, libraries log headers and frames: tokens among them. No filter can ask for that.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    let ours = line.target().strip_prefix("token_broker").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    ours || *line.level() <= Level::INFO
}

/// Tells where a panic happened. Its text only if that is a literal: a formatted one may quote what was worked on.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload().downcast_ref::<&'static str>();
    let location = panic.location().map(ToString::to_string);
    tracing::error!(panic.location = location, panic.text = text, "a bug: something panicked");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, act: impl FnOnce()) -> String {
        logged_by(format, filter, |_| act())
    }

    fn logged_by(format: Format, filter: &str, act: impl FnOnce(Filter)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, filter) = subscriber(format, filter, false, move || writer.clone()).unwrap();
        with_default(subscriber, || act(filter));
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_never_log_below_info() {
        let text = logged(Format::Human, "trace,h2=trace,token_broker_like=trace", || {
            tracing::trace!(target: "token_broker::engine", "ours");
            tracing::trace!(target: "token_broker", "crate");
            tracing::debug!(target: "h2::codec", "hidden");
            tracing::debug!(target: "hyper_util::client", "hidden");
            tracing::trace!(target: "rustls::conn", "hidden");
            tracing::debug!(target: "reqwest::connect", "hidden");
            tracing::debug!(target: "tonic", "hidden");
            tracing::debug!(target: "token_broker_like", "hidden");
            tracing::info!(target: "h2::codec", "shown");
        });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn the_filter_holds_for_our_own_lines() {
        let text = logged(Format::Human, "warn,token_broker::engine=debug", || {
            tracing::debug!(target: "token_broker::engine", "wanted");
            tracing::info!(target: "token_broker::admin", "hidden");
        });
        assert!(text.contains("wanted") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn the_filter_can_change_but_never_lets_libraries_below_info_through() {
        let text = logged_by(Format::Human, "warn", |filter| {
            tracing::debug!(target: "token_broker::engine", "hidden");
            filter.change(EnvFilter::new("trace"));
            tracing::debug!(target: "token_broker::engine", "wanted");
            tracing::debug!(target: "h2::codec", "hidden");
            filter.change(EnvFilter::new("error"));
            tracing::warn!(target: "token_broker::engine", "hidden");
        });
        assert!(text.contains("wanted") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(Format::Json, "info", || {
            let span = tracing::info_span!("request", id = "r1");
            span.in_scope(|| tracing::info!(workspace.name = "demo/a", "two\nlines"));
            tracing::warn!("second");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["workspace.name"], "demo/a");
        assert_eq!(lines[0]["span"]["id"], "r1");
        assert_eq!(lines[1]["level"], "WARN");
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let outcome = subscriber(Format::Human, "token_broker=loud", false, io::sink);
        assert!(outcome.is_err());
    }
}
