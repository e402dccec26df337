use super::*;
use crate::clock::Clock;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn chance(renew_fraction: f64, random: f64) -> Chance {
    Chance { renew_fraction, random }
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}

#[tokio::test(start_paused = true)]
async fn the_fraction_is_spread_by_a_tenth_and_ends_before_the_token_does() {
    let now = Clock::simulated().now();
    let validity = Validity::new(now, secs(1_000), secs(5));
    let rows = [
        (chance(0.5, 0.0), 0.0, 450_000),
        (chance(0.5, 0.5), 0.0, 500_000),
        (chance(0.5, 1.0), 0.0, 550_000),
        (chance(0.5, 0.0), 0.7, 700_000),
        (chance(0.95, 1.0), 0.0, 945_250),
        (chance(1.0, 1.0), 1.0, 945_250),
    ];
    for (chance, floor, expected) in rows {
        let after = renew_at(validity, floor, chance) - now.mono;
        assert_eq!((after.as_secs_f64() * 1_000.0).round().to_string(), expected.to_string(), "{chance:?} {floor}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_brought_nothing_is_tried_half_way_to_the_end() {
    let clock = Clock::simulated();
    let validity = Validity::new(clock.now(), secs(1_000), secs(5));
    for (age, expected) in [(0, 0.5), (500, 0.75), (800, 0.9), (950, 0.95), (2_000, 0.95)] {
        let mut now = validity.started;
        now.mono += secs(age);
        assert!(close(later_than(validity, now), expected), "{age}: {}", later_than(validity, now));
    }
}

#[test]
fn the_planner_moves_from_the_configured_fraction_to_85_percent() {
    let rows = [
        (0.5, 0.0, 1.0, 0.5),
        (0.5, 0.29, 1.0, 0.5),
        (0.5, 0.36, 1.0, 0.6),
        (0.5, 0.48, 1.0, 0.8),
        (0.5, 5.0, 1.0, 0.85),
        (0.9, 5.0, 1.0, 0.9),
        (0.5, 1.0, 0.0, 0.85),
    ];
    for (configured, demand, budget, expected) in rows {
        let fraction = renew_fraction(configured, demand, budget);
        assert!(close(fraction, expected), "{configured} {demand} {budget}: {fraction}");
    }
}

#[test]
fn demand_adds_up_without_loss() {
    assert_eq!(demand_of(secs(1)), 1_000_000_000);
    assert_eq!(demand_of(secs(14_400)), 69_444);
    assert_eq!(demand_of(secs(730 * 86_400)), 15);
    assert_eq!(demand_of(Duration::ZERO), 1_000_000_000_000);
}
