//! What is written down: one JSON object per line. Pure.
//!
//! The fields are a fixed list, described in `docs/audit.md`, which a test compares with what is written. A token is
//! named by its fingerprint. All texts are bounded where they are made, and JSON escapes what is not plain.

use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// The version of the schema. It moves when a field changes its meaning or goes; new fields and kinds may come without.
pub const SCHEMA: u32 = 1;

/// The last second that RFC 3339 can say.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// One record, without what all have in common.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record<'a> {
    /// The process begins.
    Start {
        /// Of the broker.
        version: &'a str,
    },
    /// The process ends, in order.
    Stop {
        /// Releases without a record since the last time that was said.
        unrecorded: u64,
    },
    /// A token leaves for a caller by a face for the first time.
    Release {
        /// Who.
        caller: &'a str,
        /// Whose token.
        workspace: &'a str,
        /// Which one.
        #[serde(serialize_with = "shown")]
        fingerprint: crate::token::Fingerprint,
        /// By which way.
        face: &'static str,
        /// The listener.
        listener: &'a str,
        /// The other end of the connection.
        peer: Option<SocketAddr>,
        /// The request, as in the logs and in `x-request-id`.
        request_id: Option<&'a str>,
        /// When the token ends.
        expires_at: Time,
    },
    /// The same token left for the same caller by the same face again.
    Repeats {
        /// Who.
        caller: &'a str,
        /// Whose token.
        workspace: &'a str,
        /// Which one.
        #[serde(serialize_with = "shown")]
        fingerprint: crate::token::Fingerprint,
        /// By which way.
        face: &'static str,
        /// How often.
        count: u64,
        /// From when on these are counted.
        since: Time,
    },
    /// Calls that were refused for who made them.
    Denials {
        /// Who, if that is known.
        caller: Option<&'a str>,
        /// From where, if nobody knows who.
        address: Option<IpAddr>,
        /// Why.
        reason: &'static str,
        /// What was asked for.
        action: &'static str,
        /// The listener.
        listener: &'a str,
        /// How often.
        count: u64,
        /// The first of these.
        first: Time,
        /// The last of these.
        last: Time,
        /// One of the Workspaces that were asked for.
        workspace: Option<&'a str>,
    },
    /// Further refusals, of so many kinds that they are no longer told apart.
    DenialsOther {
        /// How often.
        count: u64,
        /// The first of these.
        first: Time,
        /// The last of these.
        last: Time,
    },
    /// A configuration came into force.
    ConfigurationAccepted {
        /// Its number in this process.
        generation: u64,
    },
    /// A configuration was refused; the one before stays.
    ConfigurationRefused {
        /// The one that stays.
        generation: u64,
        /// How much is wrong.
        problems: u64,
    },
    /// Other callers may do other things.
    PolicyChanged {
        /// The configuration that says so.
        generation: u64,
    },
    /// A sink no longer takes records; written to the others.
    SinkFailed {
        /// Which.
        sink: &'static str,
    },
    /// A sink takes records again; the first line after what it lacks.
    SinkRecovered {
        /// Which.
        sink: &'static str,
        /// How many records it lacks. The sequence numbers leave as many out.
        missing: u64,
    },
    /// Tokens left without a record, as `when_unavailable = "allow"` lets them.
    Unrecorded {
        /// How often.
        count: u64,
    },
}

/// A moment of the local wall clock: RFC 3339, UTC, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
        serializer.collect_str(&humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since))
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    at: Time,
    process: &'a str,
    #[serde(flatten)]
    record: &'a Record<'a>,
}

fn shown<S: Serializer>(fingerprint: &crate::token::Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(fingerprint)
}

/// A line but for its number, which the sink gives it.
pub(super) fn body(at: SystemTime, process: &str, record: &Record<'_>) -> Box<[u8]> {
    // Numbers and texts under names that are no secret can always be written.
    serde_json::to_vec(&Envelope { at: Time(at), process, record }).unwrap_or_default().into_boxed_slice()
}

/// Appends the whole line.
pub(super) fn append(line: &mut Vec<u8>, seq: u64, body: &[u8]) {
    line.extend_from_slice(format!("{{\"v\":{SCHEMA},\"seq\":{seq},").as_bytes());
    line.extend_from_slice(body.split_first().map_or(b"}", |(_brace, rest)| rest));
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::AccessToken;
    use crate::token::Fingerprint;

    fn line(record: &Record<'_>) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let mut line = Vec::new();
        append(&mut line, 7, &body(at, "0123456789abcdef", record));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_release_is_one_line_with_a_fingerprint_and_no_token() {
        let release = Record::Release {
            caller: "unix:0",
            workspace: "fleet/europe",
            fingerprint: Fingerprint::of(&AccessToken::new("abc")),
            face: "get",
            listener: "grpc",
            peer: Some(([127, 0, 0, 1], 5).into()),
            request_id: Some("abc-1"),
            expires_at: Time(SystemTime::UNIX_EPOCH),
        };
        assert_eq!(
            line(&release),
            "{\"v\":1,\"seq\":7,\"at\":\"2027-01-15T08:00:00.123Z\",\"process\":\"0123456789abcdef\",\
             \"kind\":\"release\",\"caller\":\"unix:0\",\"workspace\":\"fleet/europe\",\
             \"fingerprint\":\"MuKcNVrA5JdLBEuiqcxaYQ\",\"face\":\"get\",\"listener\":\"grpc\",\
             \"peer\":\"127.0.0.1:5\",\"request_id\":\"abc-1\",\"expires_at\":\"1970-01-01T00:00:00.000Z\"}\n"
        );
    }

    #[test]
    fn no_text_ends_a_line_or_a_string() {
        let hostile = "a\"\n\\{\u{7f}\u{2028}";
        let text = line(&Record::Start { version: hostile });
        assert_eq!(text.lines().count(), 1, "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["version"], hostile);
    }

    #[test]
    fn no_moment_is_too_early_or_too_late() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        for (moment, told) in [
            (far, "9999-12-31T23:59:59.000Z"),
            (SystemTime::UNIX_EPOCH - Duration::from_secs(1), "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(serde_json::to_value(Time(moment)).unwrap(), told);
        }
    }
}
