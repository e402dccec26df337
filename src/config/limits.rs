//! `[limits]`: what one caller, and all of them together, may take of the broker.

use super::reader::Section;
use super::scalar::integer;
use super::settings::as_count;
use crate::limits::{Pace, PerAction, Settings};

/// The keys of the section.
pub(super) const KEYS: &[&str] = &[
    "max_in_flight",
    "max_in_flight_per_caller",
    "max_callers",
    "get_per_second",
    "get_burst",
    "watch_per_second",
    "watch_burst",
    "report_per_second",
    "report_burst",
    "health_per_second",
    "health_burst",
];

const MOST: u32 = 1_000_000;

pub(super) fn read(section: &mut Section<'_, '_>) -> Settings {
    let usual = Settings::default();
    let PerAction { get, watch, report, health } = usual.rates;
    let rates = PerAction {
        get: pace(section, ["get_per_second", "get_burst"], get),
        watch: pace(section, ["watch_per_second", "watch_burst"], watch),
        report: pace(section, ["report_per_second", "report_burst"], report),
        health: pace(section, ["health_per_second", "health_burst"], health),
    };
    let settings = Settings {
        max_in_flight: count(section, "max_in_flight", usual.max_in_flight),
        max_in_flight_per_caller: count(section, "max_in_flight_per_caller", usual.max_in_flight_per_caller),
        max_callers: count(section, "max_callers", usual.max_callers),
        rates,
    };
    // What is not written may not be what is wrong with what is.
    if section.has("max_in_flight_per_caller") && settings.max_in_flight_per_caller > settings.max_in_flight {
        section.problem_with("max_in_flight_per_caller", "must not be more than max_in_flight");
    }
    settings
}

fn pace(section: &mut Section<'_, '_>, [per_second, burst]: [&str; 2], usual: Pace) -> Pace {
    Pace {
        per_second: section.read(per_second, integer(1..=MOST)).unwrap_or(usual.per_second),
        burst: section.read(burst, integer(1..=MOST)).unwrap_or(usual.burst),
    }
}

fn count(section: &mut Section<'_, '_>, key: &str, usual: usize) -> usize {
    section.read(key, integer(1..=MOST)).map_or(usual, as_count)
}
