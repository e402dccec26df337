//! Who has which token by which face: what decides whether a release needs a record first.
//!
//! A look is one lock of one shard for reading and allocates nothing. The memory is bounded: what is over goes first,
//! then anything. Whatever was forgotten gets a record again, which does no harm.

use super::record::{Record, Time};
use crate::identity::Caller;
use crate::token::{Fingerprint, WorkspaceName};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) const SHARDS: usize = 64;
/// What all pairs together may take, in bytes, by [`cost`].
const MOST_BYTES: usize = 64 << 20;
/// What a pair takes beside its names.
const OVERHEAD: usize = 256;
/// So many ended pairs are looked for before a live one has to go.
const MOST_LOOKS: usize = 64;

/// By which way a token leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// The answer to `GetToken`.
    Get,
    /// The answer to `ReportRejectedToken`.
    Report,
    /// A message of `WatchTokens`.
    Watch,
}

impl Face {
    /// In the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Report => "report",
            Self::Watch => "watch",
        }
    }
}

/// What a pair is found by.
pub(super) trait Parts {
    fn parts(&self) -> (&str, &str, Fingerprint, Face);
}

/// What a pair is kept under.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) caller: Caller,
    pub(super) workspace: WorkspaceName,
    pub(super) fingerprint: Fingerprint,
    pub(super) face: Face,
}

/// How the record of a pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// On its way.
    Writing,
    /// Written.
    Written,
    /// Nobody waits any longer.
    GivenUp,
}

const WRITING: u8 = 0;
const WRITTEN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// A caller, a Workspace, a token and a face, and what became of the record of it.
#[derive(Debug)]
pub(super) struct Pair {
    standing: AtomicU8,
    repeats: AtomicU64,
    /// From when on the repeats are counted, in milliseconds since 1970.
    since: AtomicU64,
    /// The end of the token.
    ends: Instant,
    /// How long whoever waits for the record does so.
    pub(super) patience: Instant,
    settled: Notify,
}

/// All that were released and may be again.
#[derive(Debug)]
pub(super) struct Pairs(Box<[RwLock<Shard>]>);

#[derive(Debug, Default)]
struct Shard {
    pairs: HashMap<Key, Arc<Pair>>,
    bytes: usize,
}

/// What there is to do for a release.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing: it was written before, and is counted.
    Repeat,
    /// A record is to be written, or on its way.
    First,
}

// === impl Key ===

impl Parts for Key {
    fn parts(&self) -> (&str, &str, Fingerprint, Face) {
        (self.caller.as_str(), self.workspace.as_str(), self.fingerprint, self.face)
    }
}

impl Hash for dyn Parts + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Parts + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Parts + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl<'a> Borrow<dyn Parts + 'a> for Key {
    fn borrow(&self) -> &(dyn Parts + 'a) {
        self
    }
}

// === impl Pair ===

impl Pair {
    pub(super) fn new(now: SystemTime, ends: Instant, patience: Instant) -> Self {
        Self {
            standing: AtomicU8::new(WRITING),
            repeats: AtomicU64::new(0),
            since: AtomicU64::new(millis(now)),
            ends,
            patience,
            settled: Notify::new(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            WRITTEN => Standing::Written,
            GIVEN_UP => Standing::GivenUp,
            _ => Standing::Writing,
        }
    }

    /// The record is written. Too late if whoever waited gave it up: then it is one too many.
    pub(super) fn written(&self) {
        self.settle(WRITTEN);
    }

    /// Gives the record up, unless it is written.
    pub(super) fn give_up(&self) -> Standing {
        self.settle(GIVEN_UP);
        self.standing()
    }

    /// Waits until it is written or given up.
    pub(super) async fn settled(&self) -> Standing {
        loop {
            let settled = self.settled.notified();
            let standing = self.standing();
            if standing != Standing::Writing {
                return standing;
            }
            settled.await;
        }
    }

    fn settle(&self, to: u8) {
        if self.standing.compare_exchange(WRITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.settled.notify_waiters();
        }
    }

    pub(super) fn repeat(&self) {
        self.repeats.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Pairs ===

impl Default for Pairs {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| RwLock::default()).collect())
    }
}

impl Pairs {
    /// What a release takes. Reads no clock: that is what most calls end with.
    pub(super) fn look(&self, parts: &dyn Parts) -> Look {
        let (.., fingerprint, _) = parts.parts();
        let Some(shard) = self.shard(fingerprint) else { return Look::First };
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        let Some(pair) = shard.pairs.get(parts) else { return Look::First };
        match pair.standing() {
            Standing::Written => {
                pair.repeat();
                Look::Repeat
            }
            // `begin` knows whether somebody else has it written already.
            Standing::Writing | Standing::GivenUp => Look::First,
        }
    }

    /// Puts in a pair whose record is about to be written; the one that there is if somebody else was quicker. Gives
    /// what had to go for it, with repeats that are not written yet.
    pub(super) fn begin(&self, key: Key, pair: Pair, now: Instant) -> (Begun, Vec<(Key, Arc<Pair>)>) {
        let mut gone = Vec::new();
        let pair = Arc::new(pair);
        let Some(shard) = self.shard(key.fingerprint) else { return (Begun::First(pair), gone) };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = shard.pairs.get(&key) {
            match other.standing() {
                Standing::Written => {
                    other.repeat();
                    return (Begun::Repeat, gone);
                }
                Standing::Writing if now < other.patience => return (Begun::Shared(Arc::clone(other)), gone),
                Standing::Writing | Standing::GivenUp => drop(other.give_up()),
            }
        }
        shard.make_room(cost(&key), now, &mut gone);
        shard.put(key, Arc::clone(&pair));
        (Begun::First(pair), gone)
    }

    /// Forgets the pairs of a shard whose tokens are over, and gives what there is to write of all in it: who, how
    /// often, and since when. Takes at most so many.
    pub(super) fn sweep(&self, shard: usize, now: Instant, wall: SystemTime, most: usize) -> Sweep {
        let mut sweep = Sweep::default();
        let Some(shard) = self.0.get(shard) else { return sweep };
        let mut over = Vec::new();
        {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (key, pair) in &shard.pairs {
                if pair.repeats.load(Ordering::Relaxed) > 0 {
                    if sweep.repeats.len() >= most {
                        sweep.more = true;
                        break;
                    }
                    sweep.repeats.extend(pair.take_repeats(key, wall));
                }
                if pair.ends <= now {
                    over.push(key.clone());
                }
            }
        }
        if !over.is_empty() {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            for key in over {
                if let Some(pair) = shard.remove(&key) {
                    sweep.repeats.extend(pair.take_repeats(&key, wall));
                }
            }
        }
        sweep
    }

    /// Forgets a pair whose record nobody waits for any longer.
    pub(super) fn forget(&self, parts: &dyn Parts, pair: &Arc<Pair>) {
        let (.., fingerprint, _) = parts.parts();
        let Some(shard) = self.shard(fingerprint) else { return };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.pairs.get(parts).is_some_and(|there| Arc::ptr_eq(there, pair)) {
            shard.remove_by(parts);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.read().unwrap().pairs.len()).sum()
    }

    fn shard(&self, fingerprint: Fingerprint) -> Option<&RwLock<Shard>> {
        self.0.get(usize::from(fingerprint.first_byte()) % SHARDS)
    }
}

/// Who has the record written.
#[derive(Debug)]
pub(super) enum Begun {
    /// Whoever asked.
    First(Arc<Pair>),
    /// Somebody who was quicker.
    Shared(Arc<Pair>),
    /// Nobody: it is written.
    Repeat,
}

/// What came of looking through a shard.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) repeats: Vec<Repeats>,
    /// There was more than was asked for.
    pub(super) more: bool,
}

/// Repeats to be written.
#[derive(Debug)]
pub(super) struct Repeats {
    key: Key,
    pub(super) count: u64,
    since: SystemTime,
}

impl Repeats {
    pub(super) fn record(&self) -> Record<'_> {
        Record::Repeats {
            caller: self.key.caller.as_str(),
            workspace: self.key.workspace.as_str(),
            fingerprint: self.key.fingerprint,
            face: self.key.face.as_str(),
            count: self.count,
            since: Time(self.since),
        }
    }
}

impl Pair {
    /// The repeats since they were last taken, if there are any.
    pub(super) fn take_repeats(&self, key: &Key, now: SystemTime) -> Option<Repeats> {
        let count = self.repeats.swap(0, Ordering::Relaxed);
        let since = self.since.swap(millis(now), Ordering::Relaxed);
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since);
        (count > 0).then(|| Repeats { key: key.clone(), count, since })
    }
}

impl Shard {
    fn put(&mut self, key: Key, pair: Arc<Pair>) {
        let bytes = cost(&key);
        if self.pairs.insert(key, pair).is_none() {
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Pair>> {
        self.remove_by(key)
    }

    fn remove_by(&mut self, parts: &dyn Parts) -> Option<Arc<Pair>> {
        let (key, pair) = self.pairs.remove_entry(parts)?;
        self.bytes -= cost(&key);
        Some(pair)
    }

    fn make_room(&mut self, bytes: usize, now: Instant, gone: &mut Vec<(Key, Arc<Pair>)>) {
        while self.bytes + bytes > MOST_BYTES / SHARDS {
            let mut looked = self.pairs.iter().take(MOST_LOOKS);
            let over = looked.find(|(_, pair)| pair.ends <= now).or_else(|| self.pairs.iter().next());
            let Some(key) = over.map(|(key, _)| key.clone()) else { return };
            if let Some(pair) = self.remove(&key) {
                gone.push((key, pair));
            }
        }
    }
}

fn cost(key: &Key) -> usize {
    OVERHEAD + key.caller.as_str().len() + key.workspace.as_str().len()
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Authenticated;
    use crate::secret::AccessToken;

    const HOUR: Duration = Duration::from_secs(3_600);
    const WALL: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(n: usize) -> Key {
        Key {
            caller: Authenticated::loopback().caller,
            workspace: WorkspaceName::parse(&format!("a/{n}")).unwrap(),
            fingerprint: Fingerprint::of(&AccessToken::new(n.to_string())),
            face: Face::Get,
        }
    }

    fn begin(pairs: &Pairs, n: usize, now: Instant) -> Begun {
        pairs.begin(key(n), Pair::new(WALL, now + HOUR, now + HOUR), now).0
    }

    #[test]
    fn one_writes_the_others_wait_and_then_it_is_a_repeat() {
        let (pairs, now) = (Pairs::default(), Instant::now());
        assert!(matches!(pairs.look(&key(1)), Look::First));
        let Begun::First(first) = begin(&pairs, 1, now) else { panic!("not the first") };
        assert!(matches!(begin(&pairs, 1, now), Begun::Shared(_)));
        first.written();
        assert!(matches!(pairs.look(&key(1)), Look::Repeat));
        assert!(matches!(begin(&pairs, 1, now), Begun::Repeat));
        let other_face = Key { face: Face::Watch, ..key(1) };
        assert!(matches!(pairs.look(&other_face), Look::First));
        assert_eq!(first.repeats.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_is_given_up_or_late_is_begun_anew_and_never_counts_as_written() {
        let (pairs, now) = (Pairs::default(), Instant::now());
        let Begun::First(first) = begin(&pairs, 1, now) else { panic!("not the first") };
        assert_eq!(first.give_up(), Standing::GivenUp);
        first.written();
        assert_eq!(first.standing(), Standing::GivenUp);
        let Begun::First(second) = begin(&pairs, 1, now) else { panic!("not begun anew") };
        let late = now + HOUR;
        assert!(matches!(pairs.look(&key(1)), Look::First));
        assert!(matches!(begin(&pairs, 1, late), Begun::First(_)));
        assert_eq!(second.standing(), Standing::GivenUp, "whoever still waits for it hears of it");
    }

    #[test]
    fn repeats_are_taken_once_and_pairs_end_with_their_tokens() {
        let (pairs, now) = (Pairs::default(), Instant::now());
        let Begun::First(first) = begin(&pairs, 1, now) else { panic!("not the first") };
        first.written();
        for _ in 0..3 {
            assert!(matches!(pairs.look(&key(1)), Look::Repeat));
        }
        let sweep = |now| (0..SHARDS).flat_map(|shard| pairs.sweep(shard, now, WALL, 9).repeats).collect::<Vec<_>>();
        assert_eq!(sweep(now).iter().map(|repeats| repeats.count).collect::<Vec<_>>(), [3]);
        assert!(sweep(now).is_empty());
        pairs.look(&key(1));
        assert_eq!(sweep(now + HOUR).len(), 1, "the last repeats are not lost with the pair");
        assert_eq!(pairs.len(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_what_goes_is_given_back() {
        let (pairs, now) = (Pairs::default(), Instant::now());
        let mut gone = 0;
        for n in 0..300_000 {
            gone += pairs.begin(key(n), Pair::new(WALL, now + HOUR, now + HOUR), now).1.len();
        }
        assert_eq!(pairs.len() + gone, 300_000);
        let bytes: usize = pairs.0.iter().map(|shard| shard.read().unwrap().bytes).sum();
        assert!(gone > 0 && bytes <= MOST_BYTES, "{gone} {bytes}");
    }
}
