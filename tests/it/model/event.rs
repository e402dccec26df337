//! What can happen to an engine, and how it is drawn.

use fastrand::Rng;
use std::time::Duration;
use token_broker::failure::Failure;

/// How the upstream treats one Workspace from now on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    /// A new token.
    Fresh,
    /// The token of the last time while it lives, said to live for what is left of it.
    Same,
    /// The token of the last time while it lives, said to have its whole life before it.
    SameOverstated,
    /// No token.
    Fails(Failure),
    /// No answer.
    Hangs,
    /// A panic while the answer is waited for.
    Panics,
    /// A panic in the call itself.
    PanicsAtOnce,
    /// Each time another of these.
    Moody,
}

/// One step of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Event {
    Ask {
        workspace: usize,
        min_validity: Duration,
        patience: Duration,
    },
    AskForNobody,
    Report {
        workspace: usize,
        right: bool,
        patience: Duration,
    },
    /// The caller who has waited longest goes away.
    GoAway,
    Mood {
        workspace: usize,
        mood: Mood,
        latency: Duration,
    },
    StepWall {
        by_ms: i64,
    },
    Pass {
        time: Duration,
    },
    /// Closely: no timer fires much too late.
    Watch {
        time: Duration,
    },
    Create {
        workspace: usize,
    },
    Delete {
        workspace: usize,
    },
    Freeze {
        workspace: usize,
    },
    Unfreeze {
        workspace: usize,
    },
    Rekey {
        workspace: usize,
    },
}

/// How far the engine gets before the next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Settle {
    Not,
    /// Its tasks get so many turns.
    Turns(u8),
    /// It comes to rest.
    Wholly,
}

/// The steps of one sequence.
pub(super) fn sequence(rng: &mut Rng, workspaces: usize, length: usize) -> Vec<(Event, Settle)> {
    (0..length).map(|_| (event(rng, workspaces), settle(rng))).collect()
}

/// The first token of each Workspace, and then the same again for half a day.
pub(super) fn vigil(workspaces: usize) -> Vec<(Event, Settle)> {
    let latency = Duration::from_millis(20);
    let ask = |workspace| Event::Ask { workspace, min_validity: Duration::ZERO, patience: Duration::from_secs(10) };
    let asks = (0..workspaces).map(ask);
    let moods = (0..workspaces).map(|workspace| Event::Mood { workspace, mood: Mood::Same, latency });
    let answered = Event::Pass { time: Duration::from_secs(11) };
    let rest = [answered, Event::Watch { time: Duration::from_secs(43_200) }];
    asks.chain(moods).chain(rest).map(|event| (event, Settle::Wholly)).collect()
}

fn event(rng: &mut Rng, workspaces: usize) -> Event {
    let workspace = rng.usize(..workspaces);
    match rng.u8(..100) {
        0..28 => Event::Ask { workspace, min_validity: min_validity(rng), patience: patience(rng) },
        28 => Event::AskForNobody,
        29..35 => Event::Report { workspace, right: rng.u8(..4) > 0, patience: patience(rng) },
        35..38 => Event::GoAway,
        38..53 => Event::Mood { workspace, mood: mood(rng), latency: latency(rng) },
        53..57 => Event::StepWall { by_ms: spread(rng, 1_000, 7_200_000) * if rng.bool() { 1 } else { -1 } },
        57..83 => Event::Pass { time: time(rng) },
        83..87 => Event::Create { workspace },
        87..89 => Event::Delete { workspace },
        89..92 => Event::Freeze { workspace },
        92..96 => Event::Unfreeze { workspace },
        _ => Event::Rekey { workspace },
    }
}

fn settle(rng: &mut Rng) -> Settle {
    match rng.u8(..10) {
        0 => Settle::Not,
        1 | 2 => Settle::Turns(rng.u8(1..6)),
        _ => Settle::Wholly,
    }
}

fn mood(rng: &mut Rng) -> Mood {
    match rng.u8(..16) {
        0..6 => Mood::Fresh,
        6 => Mood::Same,
        7 => Mood::SameOverstated,
        8 | 9 => Mood::Moody,
        10 => Mood::Hangs,
        _ => trouble(rng),
    }
}

/// What a moody upstream does this time.
pub(super) fn whim(rng: &mut Rng) -> Mood {
    match rng.u8(..8) {
        0..4 => Mood::Fresh,
        4 => Mood::Same,
        5 => Mood::SameOverstated,
        _ => trouble(rng),
    }
}

fn trouble(rng: &mut Rng) -> Mood {
    match rng.u8(..11) {
        0 | 1 => Mood::Fails(Failure::Unreachable),
        2 | 3 => Mood::Fails(Failure::Unavailable),
        4 => Mood::Fails(Failure::Malformed),
        5 => Mood::Fails(Failure::Rejected),
        6 => Mood::Fails(Failure::LockedOut),
        7 => Mood::Fails(Failure::TenantMismatch),
        8 => Mood::Fails(Failure::Throttled { retry_after: rng.bool().then(|| retry_after(rng)) }),
        9 => Mood::Panics,
        _ => Mood::PanicsAtOnce,
    }
}

/// The longest `Retry-After` that is drawn.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(1_800);

fn retry_after(rng: &mut Rng) -> Duration {
    millis(spread(rng, 1, 1_800_000))
}

/// From 3 minutes to 10 days.
pub(super) fn lifetime(rng: &mut Rng) -> Duration {
    let longest = if rng.bool() { 3_600_000 } else { 864_000_000 };
    millis(spread(rng, 180_000, longest))
}

fn min_validity(rng: &mut Rng) -> Duration {
    if rng.u8(..10) < 7 { Duration::ZERO } else { millis(spread(rng, 1_000, 20_000_000)) }
}

fn patience(rng: &mut Rng) -> Duration {
    if rng.u8(..10) == 0 { Duration::ZERO } else { millis(spread(rng, 10, 30_000)) }
}

fn latency(rng: &mut Rng) -> Duration {
    if rng.u8(..3) == 0 { Duration::ZERO } else { millis(spread(rng, 1, 12_000)) }
}

fn time(rng: &mut Rng) -> Duration {
    match rng.u8(..20) {
        0..7 => millis(spread(rng, 1, 1_000)),
        7..15 => millis(spread(rng, 1_000, 20_000)),
        15..18 => millis(spread(rng, 20_000, 600_000)),
        _ => millis(spread(rng, 600_000, 14_400_000)),
    }
}

/// As likely between 1 and 2 as between 1,000 and 2,000.
fn spread(rng: &mut Rng, from: i64, to: i64) -> i64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "drawn numbers need no precision")]
    let drawn = (from as f64 * (to as f64 / from as f64).powf(rng.f64())) as i64;
    drawn.clamp(from, to)
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}
