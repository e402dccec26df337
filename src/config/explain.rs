//! What a configuration amounts to: logins per hour, how many Workspaces a budget carries, how long a cold start takes.
//! Pure; in whole numbers, rounded against the operator.

use super::scalar::shown;
use super::{Config, Upstream};
use crate::upstream::Budget;
use std::collections::HashMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
/// Above this part of the budget, renewals are moved later in the life.
const COMFORTABLE_PERCENT: u128 = 60;
/// As late as renewals are moved.
const LATEST_RENEWAL: f64 = 0.85;
const LONG_COLD_START: Duration = Duration::from_secs(600);

/// What `check-config` prints, line by line.
pub fn explain(config: &Config) -> Vec<String> {
    let mut counts: HashMap<&str, HashMap<&str, u32>> = HashMap::new();
    for workspace in &config.workspaces {
        let of_upstream = counts.entry(workspace.upstream.as_str()).or_default();
        *of_upstream.entry(workspace.flow.name.as_str()).or_default() += 1;
    }
    let none = HashMap::new();
    let counts_of = |upstream: &Upstream| counts.get(upstream.name.as_str()).unwrap_or(&none);
    config.upstreams.iter().flat_map(|upstream| explain_upstream(upstream, counts_of(upstream))).collect()
}

fn explain_upstream(upstream: &Upstream, by_flow: &HashMap<&str, u32>) -> Vec<String> {
    let Upstream { budget, renew_at, flows, .. } = upstream;
    let workspaces = by_flow.values().sum();
    let flows = flows.iter().filter(|flow| !flow.recipe.needs_store).map(|flow| {
        let count = by_flow.get(flow.name.as_str()).copied().unwrap_or(0);
        format!("{}: {count}", flow.name)
    });
    let flows: Vec<_> = flows.collect();
    let mut lines = vec![
        format!("upstream {} ({}, {}): Workspaces: {workspaces}", upstream.name, upstream.kind.name, upstream.url()),
        format!("  Workspaces by flow: {}", flows.join(", ")),
        format!(
            "  budget: {} logins per {}: {} at once, of which {} are kept for waiting callers, then {} per hour",
            budget.logins,
            shown(budget.per),
            budget.capacity(),
            budget.kept_for_waiters(),
            sustained_per_hour(*budget),
        ),
    ];
    let known = lives(upstream);
    for life in known {
        lines.extend(explain_life(*budget, *renew_at, *life, workspaces));
    }
    if known.is_empty() {
        lines.push("  how long tokens live, and so how many logins they take, is learnt only at run time".to_owned());
    }
    lines.extend(explain_cold_start(*budget, workspaces));
    lines
}

/// The lives to reckon with: the one that is configured, or those that the kind is known to give.
fn lives(upstream: &Upstream) -> &[Duration] {
    upstream.token_lifetime.as_ref().map_or(&upstream.kind.lives, std::slice::from_ref)
}

fn explain_life(budget: Budget, renew_at: f64, life: Duration, workspaces: u32) -> Vec<String> {
    let interval = life.mul_f64(renew_at);
    let life_text = shown(life);
    let percent = percent_of_budget(budget, interval, workspaces);
    let mut lines = vec![format!(
        "  if tokens live {life_text}: logins per hour when all are in use: {} ({percent}% of the \
         budget); Workspaces that the budget carries at renew_at {renew_at}: {}",
        scheduled_per_hour(interval, workspaces),
        carried(budget, interval),
    )];
    let at_the_latest = carried(budget, life.mul_f64(renew_at.max(LATEST_RENEWAL)));
    if u128::from(workspaces) > at_the_latest {
        lines.push(format!(
            "  warning: if tokens live {life_text}, the budget carries {at_the_latest} of the {workspaces} \
             Workspaces at best; tokens will expire before they are renewed"
        ));
    } else if percent > COMFORTABLE_PERCENT {
        lines.push(format!(
            "  warning: if tokens live {life_text}, scheduled logins take more than {COMFORTABLE_PERCENT}% of the \
             budget; renewals will be moved later, toward {LATEST_RENEWAL} of the life"
        ));
    }
    lines
}

fn explain_cold_start(budget: Budget, workspaces: u32) -> Vec<String> {
    let takes = cold_start(budget, workspaces);
    let takes_text = shown(takes);
    let mut lines = vec![format!("  cold start: about {takes_text} by the budget (logins: {workspaces})")];
    if takes > LONG_COLD_START {
        let limit = shown(LONG_COLD_START);
        lines.push(format!(
            "  warning: a cold start takes longer than {limit}; until it is over, callers of the Workspaces still to \
             come wait or are told to come back"
        ));
    }
    lines
}

fn sustained_per_hour(budget: Budget) -> u128 {
    u128::from(budget.refill_per_window()) * HOUR.as_nanos() / budget.per.as_nanos().max(1)
}

fn scheduled_per_hour(interval: Duration, workspaces: u32) -> u128 {
    (u128::from(workspaces) * HOUR.as_nanos()).div_ceil(interval.as_nanos().max(1))
}

/// Against the whole budget, as the upstream counts it.
fn percent_of_budget(budget: Budget, interval: Duration, workspaces: u32) -> u128 {
    let scheduled = 100 * u128::from(workspaces) * budget.per.as_nanos();
    scheduled.div_ceil((interval.as_nanos() * u128::from(budget.logins.get())).max(1))
}

/// How many Workspaces can log in once per interval, by what flows into the bucket.
fn carried(budget: Budget, interval: Duration) -> u128 {
    u128::from(budget.refill_per_window()) * interval.as_nanos() / budget.per.as_nanos().max(1)
}

/// Background work takes what the full bucket gives it, and then what flows in.
fn cold_start(budget: Budget, workspaces: u32) -> Duration {
    let at_once = budget.capacity() - budget.kept_for_waiters();
    let later = u128::from(workspaces.saturating_sub(at_once));
    let per_login = u128::from(budget.refill_per_window()) * u128::from(1_000_000_000_u32);
    let seconds = (later * budget.per.as_nanos()).div_ceil(per_login);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const FOUR_HOURS: Duration = Duration::from_secs(4 * 3_600);
    const SEVEN_DAYS: Duration = Duration::from_secs(7 * 86_400);

    fn budget(logins: u32, seconds: u64) -> Budget {
        Budget { logins: NonZeroU32::new(logins).unwrap(), per: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_arithmetic_of_lives() {
        // budget, life, renew_at, Workspaces → logins per hour, % of the budget, Workspaces carried
        let emnify = budget(100, 300);
        let rows = [
            (emnify, FOUR_HOURS, 0.5, 0, 0, 0, 1_800),
            (emnify, FOUR_HOURS, 0.5, 1, 1, 1, 1_800),
            (emnify, FOUR_HOURS, 0.5, 1_440, 720, 60, 1_800),
            (emnify, FOUR_HOURS, 0.5, 1_441, 721, 61, 1_800),
            (emnify, FOUR_HOURS, 0.5, 1_800, 900, 75, 1_800),
            (emnify, FOUR_HOURS, 0.25, 1_800, 1_800, 150, 900),
            (emnify, SEVEN_DAYS, 0.5, 1_800, 22, 2, 75_600),
            (emnify, SEVEN_DAYS, 0.5, 100_000, 1_191, 100, 75_600),
            (budget(1, 60), FOUR_HOURS, 0.5, 120, 60, 100, 120),
        ];
        for (budget, life, renew_at, workspaces, per_hour, percent, carries) in rows {
            let interval = life.mul_f64(renew_at);
            let name = format!("{budget:?} {life:?} {renew_at} {workspaces}");
            assert_eq!(scheduled_per_hour(interval, workspaces), per_hour, "{name}");
            assert_eq!(percent_of_budget(budget, interval, workspaces), percent, "{name}");
            assert_eq!(carried(budget, interval), carries, "{name}");
        }
    }

    #[test]
    fn the_arithmetic_of_a_cold_start() {
        let rows = [
            (budget(100, 300), 0, 0),
            (budget(100, 300), 20, 0),
            (budget(100, 300), 21, 4),
            (budget(100, 300), 170, 600),
            (budget(100, 300), 171, 604),
            (budget(1, 60), 3, 120),
            (budget(1_000_000, 1), 100_000, 0),
        ];
        for (budget, workspaces, seconds) in rows {
            let expected = Duration::from_secs(seconds);
            assert_eq!(cold_start(budget, workspaces), expected, "{budget:?} {workspaces}");
        }
        assert_eq!(sustained_per_hour(budget(100, 300)), 900);
    }

    #[test]
    fn warnings_stand_exactly_where_they_should() {
        let warnings = |lines: Vec<String>| lines.iter().filter(|l| l.contains("warning")).count();
        let life = |n| warnings(explain_life(budget(100, 300), 0.5, FOUR_HOURS, n));
        assert_eq!([life(1_440), life(1_441), life(3_060), life(3_061)], [0, 1, 1, 1]);
        let too_many = explain_life(budget(100, 300), 0.5, FOUR_HOURS, 3_061);
        assert!(too_many[1].contains("3060 of the 3061"), "{too_many:?}");
        let cold = |n| warnings(explain_cold_start(budget(100, 300), n));
        assert_eq!([cold(170), cold(171)], [0, 1]);
    }
}
