//! `[health]`: when all Workspaces together count as unwell.

use super::reader::Section;
use super::scalar::fraction;
use crate::health::Rule;

/// The keys of the section.
pub(super) const KEYS: &[&str] = &["max_unhealthy"];

pub(super) fn read(section: &mut Section<'_, '_>) -> Rule {
    Rule { max_unhealthy: section.read("max_unhealthy", fraction(0.0..=1.0)).unwrap_or(1.0) }
}
