//! Refusals, counted by who was refused and why. Pure; bounded: whoever makes up names makes no memory of them.

use super::record::{Record, Time};
use crate::error::Reason;
use crate::identity::Caller;
use crate::token::WorkspaceName;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// How many kinds of refusals are told apart at once.
pub(super) const MOST_KINDS: usize = 1_024;

/// One refused call.
#[derive(Debug, Clone)]
pub struct Denial<'a> {
    /// Who made it, or from where it came.
    pub by: By<'a>,
    /// Why it was refused.
    pub reason: Reason,
    /// What was asked for.
    pub action: &'static str,
    /// The listener that it came to.
    pub listener: &'a Arc<str>,
    /// The Workspace that was asked for.
    pub workspace: Option<&'a WorkspaceName>,
}

/// Whose call was refused.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// A caller's.
    Caller(&'a Caller),
    /// Somebody's at this address.
    Address(IpAddr),
    /// Nobody knows whose.
    Nobody,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    caller: Option<Caller>,
    address: Option<IpAddr>,
    reason: Reason,
    action: &'static str,
    listener: Arc<str>,
}

#[derive(Debug)]
struct Tally {
    count: u64,
    first: SystemTime,
    last: SystemTime,
}

/// The refusals since they were last written.
#[derive(Debug, Default)]
pub(super) struct Denials {
    kinds: HashMap<Kind, (Tally, Option<WorkspaceName>)>,
    /// Of kinds that found no place.
    others: Option<Tally>,
}

impl Denials {
    pub(super) fn add(&mut self, denial: &Denial<'_>, now: SystemTime) {
        let (caller, address) = match denial.by {
            By::Caller(caller) => (Some(caller.clone()), None),
            By::Address(address) => (None, Some(address)),
            By::Nobody => (None, None),
        };
        let Denial { reason, action, listener, workspace, .. } = denial;
        let kind = Kind { caller, address, reason: *reason, action, listener: Arc::clone(listener) };
        let has_place = self.kinds.len() < MOST_KINDS;
        match self.kinds.get_mut(&kind) {
            Some((tally, _)) => tally.add(now),
            None if has_place => drop(self.kinds.insert(kind, (Tally::new(now), workspace.cloned()))),
            None => match &mut self.others {
                Some(tally) => tally.add(now),
                None => self.others = Some(Tally::new(now)),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.others.is_none()
    }

    /// Each kind as a record.
    pub(super) fn for_each(&self, mut tell: impl FnMut(&Record<'_>)) {
        for (kind, (tally, workspace)) in &self.kinds {
            tell(&Record::Denials {
                caller: kind.caller.as_ref().map(Caller::as_str),
                address: kind.address,
                reason: kind.reason.as_str(),
                action: kind.action,
                listener: &kind.listener,
                count: tally.count,
                first: Time(tally.first),
                last: Time(tally.last),
                workspace: workspace.as_ref().map(WorkspaceName::as_str),
            });
        }
        if let Some(tally) = &self.others {
            tell(&Record::DenialsOther { count: tally.count, first: Time(tally.first), last: Time(tally.last) });
        }
    }
}

impl Tally {
    fn new(now: SystemTime) -> Self {
        Self { count: 1, first: now, last: now }
    }

    fn add(&mut self, now: SystemTime) {
        self.count += 1;
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Authenticated;
    use std::net::Ipv4Addr;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn lines(denials: &Denials) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        denials.for_each(|record| lines.push(serde_json::to_value(record).unwrap()));
        lines
    }

    #[test]
    fn a_hundred_thousand_names_of_one_caller_are_one_record() {
        let (caller, listener) = (Authenticated::loopback().caller, Arc::from("grpc"));
        let mut denials = Denials::default();
        for n in 0..100_000 {
            let name = WorkspaceName::parse(&format!("made-up/{n}")).unwrap();
            let by = By::Caller(&caller);
            let (reason, workspace) = (Reason::CallerForbidden, Some(&name));
            denials.add(&Denial { by, reason, action: "get", listener: &listener, workspace }, NOW);
        }
        let lines = lines(&denials);
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0]["count"].as_u64(), lines[0]["workspace"].as_str()), (Some(100_000), Some("made-up/0")));
    }

    #[test]
    fn a_hundred_thousand_strangers_take_the_places_that_there_are_and_all_are_counted() {
        let listener = Arc::from("grpc");
        let mut denials = Denials::default();
        for n in 0..100_000 {
            let by = By::Address(Ipv4Addr::from_bits(n).into());
            let (reason, workspace) = (Reason::CallerUnauthenticated, None);
            denials.add(&Denial { by, reason, action: "authenticate", listener: &listener, workspace }, NOW);
        }
        let lines = lines(&denials);
        assert_eq!(lines.len(), MOST_KINDS + 1);
        assert_eq!(lines[MOST_KINDS]["kind"], "denials_other");
        let counted: u64 = lines.iter().map(|line| line["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, 100_000);
    }
}
