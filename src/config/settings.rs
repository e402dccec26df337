//! `[server]`, `[log]` and `[engine]`: the sections of plain settings, which the environment may override.

use super::reader::{Section, Value};
use super::scalar::{choice, duration, hours, integer, minutes, parsed, seconds};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The keys of each section.
pub(super) const SERVER_KEYS: &[&str] =
    &["grpc_listen", "probe_listen", "drain_timeout", "max_connections", "max_connections_per_peer", "reload_interval"];
pub(super) const LOG_KEYS: &[&str] = &["format", "level"];
pub(super) const ENGINE_KEYS: &[&str] =
    &["serve_margin", "min_gap", "max_waiters_per_workspace", "max_workspaces", "max_watches"];

/// As many Workspaces as one file may hold: beyond, reading it takes seconds and gigabytes.
const MOST_WORKSPACES: u32 = 100_000;

/// Where the broker listens and how it stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// gRPC, plain and for loopback alone, where all callers are one. None if there are other listeners instead.
    pub grpc_listen: Option<SocketAddr>,
    /// Health, readiness and metrics, for whoever asks.
    pub probe_listen: SocketAddr,
    /// How long calls that are under way may take to end after a signal to stop.
    pub drain_timeout: Duration,
    /// gRPC connections at once.
    pub max_connections: usize,
    /// gRPC connections at once of one peer.
    pub max_connections_per_peer: usize,
    /// How often the configuration and the files that it names are looked at for changes. Zero: only on SIGHUP.
    pub reload_interval: Duration,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// What is logged at all.
    pub level: Directives,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// Filter directives of `tracing_subscriber`, such as `info,token_broker=debug`; known to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives(String);

/// The limits of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// A token with less than this left counts as expired (at most a tenth of its life).
    pub serve_margin: Duration,
    /// The least time between two exchanges that callers of one Workspace can cause.
    pub min_gap: Duration,
    /// How many callers may wait for one Workspace.
    pub max_waiters_per_workspace: usize,
    /// How many Workspaces there may be.
    pub max_workspaces: usize,
    /// How many Workspaces may be watched at a time, summed over all watchers.
    pub max_watches: usize,
}

impl Server {
    /// Where there are `other_listeners`, there is the one for gRPC only if it is written.
    pub(super) fn read(section: &mut Section<'_, '_>, other_listeners: bool) -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let drain = duration(Duration::ZERO..=hours(1));
        let connections = section.read("max_connections", integer(1..=1_000_000));
        let per_peer = section.read("max_connections_per_peer", integer(1..=1_000_000));
        let interval = duration(Duration::ZERO..=hours(1));
        let grpc_listen = section.read("grpc_listen", |value| address(value).and_then(on_loopback));
        let server = Self {
            grpc_listen: grpc_listen.or_else(|| (!other_listeners).then(|| loopback(7700))),
            probe_listen: section.read("probe_listen", address).unwrap_or_else(|| loopback(7701)),
            drain_timeout: section.read("drain_timeout", drain).unwrap_or(seconds(10)),
            max_connections: as_count(connections.unwrap_or(4096)),
            max_connections_per_peer: as_count(per_peer.unwrap_or(1024)),
            reload_interval: section.read("reload_interval", interval).unwrap_or(seconds(1)),
        };
        if server.grpc_listen == Some(server.probe_listen) && server.probe_listen.port() != 0 {
            let text = "must not be the same address as grpc_listen";
            section.problem_with("probe_listen", text);
        }
        server
    }
}

impl Log {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
        let level = parsed(DIRECTIVES, Directives::parse);
        Self {
            format: section.read("format", choice(&formats)).unwrap_or(LogFormat::Json),
            level: section.read("level", level).unwrap_or_else(|| Directives("info".to_owned())),
        }
    }
}

impl Engine {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let margin = duration(Duration::ZERO..=hours(1));
        let gap = duration(Duration::from_millis(10)..=hours(1));
        let waiters = section.read("max_waiters_per_workspace", integer(1..=1_000_000));
        let workspaces = section.read("max_workspaces", integer(1..=MOST_WORKSPACES));
        let watches = section.read("max_watches", integer(1..=10_000_000));
        Self {
            serve_margin: section.read("serve_margin", margin).unwrap_or(seconds(5)),
            min_gap: section.read("min_gap", gap).unwrap_or(seconds(10)),
            max_waiters_per_workspace: as_count(waiters.unwrap_or(50_000)),
            max_workspaces: as_count(workspaces.unwrap_or(MOST_WORKSPACES)),
            max_watches: as_count(watches.unwrap_or(250_000)),
        }
    }
}

const DIRECTIVES: &str =
    "a level (off, error, warn, info, debug, trace) or filter directives such as \"info,token_broker=debug\"";

impl Directives {
    fn parse(text: &str) -> Result<Self, String> {
        // A single word that is no level names a target to the filter: "inof" would be valid, and log nothing.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let is_plausible = |part: &str| part.contains(['=', '[']) || is_level(part);
        if text.split(',').all(is_plausible) && EnvFilter::builder().parse(text).is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("expected {DIRECTIVES}"))
        }
    }

    /// The text of the directives.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter that they make.
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

/// A count on a machine of at least 32 bits.
pub(super) fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn address(value: Value<'_>) -> Result<SocketAddr, String> {
    let expected = "an IP address and a port, such as \"127.0.0.1:7700\"";
    // The parser's own error is less plain.
    let parse = |text: &str| text.parse().ok().ok_or_else(|| format!("expected {expected}"));
    parsed(expected, parse)(value)
}

fn on_loopback(address: SocketAddr) -> Result<SocketAddr, String> {
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        let text = "must be a loopback address, such as \"127.0.0.1:7700\", for whoever reaches it is let in; \
                    [[listeners]] tell callers apart";
        Err(text.to_owned())
    }
}

/// The longest that one exchange may take: callers wait at most 30 s, and a flight may outlive them for a while.
pub(super) const LONGEST_TIMEOUT: Duration = minutes(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_target() {
        for good in ["info", "OFF", "info,token_broker=debug", "warn,hyper=off,[call]=trace"] {
            assert!(Directives::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "token_broker", "token_broker=loud", "a=b=c=d"] {
            assert!(Directives::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_is_plain() {
        for good in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:7700"] {
            assert!(address(Value::Text(good)).and_then(on_loopback).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:7700", "[::]:7700", "10.0.0.1:1"] {
            assert!(address(Value::Text(bad)).is_ok(), "{bad}");
            assert!(address(Value::Text(bad)).and_then(on_loopback).is_err(), "{bad}");
        }
        for bad in ["localhost:7700", "127.0.0.1", ":7700", ""] {
            assert!(address(Value::Text(bad)).is_err(), "{bad}");
        }
    }
}
