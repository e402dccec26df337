//! `docs/audit.md` says what is written: no field more, no field less.

use std::collections::BTreeSet;
use std::time::SystemTime;
use token_broker::audit::{Record, Time};
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;

fn every_kind() -> Vec<Record<'static>> {
    let fingerprint = Fingerprint::of(&AccessToken::new("abc"));
    let time = Time(SystemTime::UNIX_EPOCH);
    let (caller, workspace, listener, count) = ("loopback", "fleet/europe", "grpc", 1);
    let (face, peer, request_id) = ("get", None, None);
    vec![
        Record::Start { version: "1" },
        Record::Stop { unrecorded: 0 },
        Record::Release { caller, workspace, fingerprint, face, listener, peer, request_id, expires_at: time },
        Record::Repeats { caller, workspace, fingerprint, face, count, since: time },
        Record::Denials {
            caller: None,
            address: None,
            reason: "CALLER_FORBIDDEN",
            action: "get",
            listener,
            count,
            first: time,
            last: time,
            workspace: None,
        },
        Record::DenialsOther { count, first: time, last: time },
        Record::ConfigurationAccepted { generation: 1 },
        Record::ConfigurationRefused { generation: 1, problems: 1 },
        Record::PolicyChanged { generation: 1 },
        Record::SinkFailed { sink: "file" },
        Record::SinkRecovered { sink: "file", missing: 0 },
        Record::Unrecorded { count },
    ]
}

#[test]
fn the_page_lists_the_fields_that_are_written() {
    let mut written = BTreeSet::new();
    for record in every_kind() {
        // Without a wildcard: a new kind does not compile until it stands above.
        match record {
            Record::Start { .. }
            | Record::Stop { .. }
            | Record::Release { .. }
            | Record::Repeats { .. }
            | Record::Denials { .. }
            | Record::DenialsOther { .. }
            | Record::ConfigurationAccepted { .. }
            | Record::ConfigurationRefused { .. }
            | Record::PolicyChanged { .. }
            | Record::SinkFailed { .. }
            | Record::SinkRecovered { .. }
            | Record::Unrecorded { .. } => {}
        }
        let value = serde_json::to_value(&record).unwrap();
        let kind = value["kind"].as_str().unwrap().to_owned();
        let fields = value.as_object().unwrap().keys().filter(|field| *field != "kind");
        written.extend(fields.map(|field| (kind.clone(), field.clone())));
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    let told: BTreeSet<_> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let is_field = cells.len() == 6 && line.starts_with("| `") && !cells[2].is_empty();
            is_field.then(|| (cells[1].to_owned(), cells[2].to_owned()))
        })
        .collect();
    assert_eq!(written, told);
}
