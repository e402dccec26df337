//! When a renewal is due. Pure.

use super::plan::Chance;
use crate::clock::Now;
use crate::token::Validity;
use std::time::Duration;
use tokio::time::Instant;

/// Renewal is never planned later than this fraction of the time for which the token may be served.
const LATEST: f64 = 0.95;
/// The planner moves renewals at most this far to save the upstream's budget.
const LATEST_FOR_BUDGET: f64 = 0.85;
/// The share of the upstream's budget that scheduled logins may take before renewals move later.
const BUDGET_SHARE: f64 = 0.6;
/// Renewals are spread by this much to either side.
const JITTER: f64 = 0.1;

/// When to renew: the fraction of the life, ±10 %, not before the learned floor, always while the token can be served.
pub(super) fn renew_at(validity: Validity, floor: f64, chance: Chance) -> Instant {
    let spread = 1.0 + JITTER * (2.0 * chance.random - 1.0);
    at_fraction(validity, (chance.renew_fraction * spread).max(floor))
}

/// The moment at which this fraction of the life is over, at the latest shortly before the token can't be served.
pub(super) fn at_fraction(validity: Validity, fraction: f64) -> Instant {
    let latest = validity.lifetime.saturating_sub(validity.margin).mul_f64(LATEST);
    let wanted = validity.lifetime.mul_f64(fraction.clamp(0.0, 1.0));
    validity.started.mono + wanted.min(latest)
}

/// Half-way from now to the end of the life: what a renewal that brought nothing teaches.
pub(super) fn later_than(validity: Validity, now: Now) -> f64 {
    let age = now.mono.saturating_duration_since(validity.started.mono);
    let fraction = age.as_secs_f64() / validity.lifetime.as_secs_f64().max(f64::EPSILON);
    f64::midpoint(fraction.min(1.0), 1.0).min(LATEST)
}

/// The fraction in force at an upstream: the configured one, moved toward 0.85 when the logins that it brings about
/// (`per_second_at_whole_life` of them if every token were used to its end) exceed 60 % of the budget.
pub(super) fn renew_fraction(configured: f64, per_second_at_whole_life: f64, budget_per_second: f64) -> f64 {
    let affordable = budget_per_second * BUDGET_SHARE;
    let needed = per_second_at_whole_life / affordable.max(f64::EPSILON);
    needed.clamp(configured, LATEST_FOR_BUDGET.max(configured))
}

/// Logins per second that a token of this life costs when it is used to its end, in billionths: sums stay exact.
pub(super) fn demand_of(lifetime: Duration) -> u64 {
    let millis = lifetime.as_millis().max(1);
    u64::try_from(1_000_000_000_000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
