//! Whether a Workspace is well, and whether all of them together are. Pure.
//!
//! Health answers one question: would a caller who asks now be served? A Workspace that nobody wants is therefore well
//! whatever its last exchange came to: asking is what tries again, and whoever asks only those that are well would
//! never find out that it recovered. Must not know who asks, nor how it is told.

use crate::engine::plan::State;

/// The two answers, in the words of `grpc.health.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// A caller who asks is served, as far as can be known without asking.
    Serving,
    /// A caller who asks is refused, or gets a token that its upstream rejects.
    NotServing,
}

/// What the health of a Workspace depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// In one word.
    pub state: State,
    /// Whether there is a token that may be handed out now.
    pub is_servable: bool,
    /// Whether at least two callers say that the upstream rejects that token.
    pub is_disputed: bool,
    /// Whether somebody used it lately, watches it in order to use it, or the configuration keeps it warm.
    pub is_wanted: bool,
}

/// When all Workspaces together are well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The largest part of the Workspaces in use that may be unwell, 0 to 1. With 0 a single one is too many; with 1
    /// there is no limit.
    pub max_unhealthy: f64,
}

/// How many Workspaces are in use, and how many of those are unwell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Wanted by somebody, and neither idle nor frozen.
    pub in_use: u32,
    /// Those of them that are not [`Health::Serving`].
    pub unhealthy: u32,
}

impl Standing {
    /// Whether the Workspace is well. Readiness never waits for warm-up, and nor does this.
    pub fn health(self) -> Health {
        let is_disputed = self.is_servable && self.is_disputed;
        let is_missed = !self.is_servable && self.is_wanted;
        match self.state {
            State::Frozen => Health::NotServing,
            _ if is_disputed => Health::NotServing,
            State::Expired | State::Rejected if is_missed => Health::NotServing,
            State::Idle | State::Warming | State::Fresh | State::Stale | State::Expired | State::Rejected => {
                Health::Serving
            }
        }
    }

    /// Whether the Workspace counts among those in use. A frozen one does not: that an operator withdrew it says
    /// nothing of this replica.
    fn is_in_use(self) -> bool {
        match self.state {
            State::Idle | State::Frozen => false,
            State::Warming | State::Fresh | State::Stale | State::Expired | State::Rejected => self.is_wanted,
        }
    }
}

impl Census {
    /// Counts one more Workspace.
    pub fn count(&mut self, standing: Standing) {
        if standing.is_in_use() {
            self.in_use = self.in_use.saturating_add(1);
            self.unhealthy = self.unhealthy.saturating_add(u32::from(standing.health() == Health::NotServing));
        }
    }
}

impl Rule {
    /// Whether any census at all could break it.
    pub fn can_be_broken(self) -> bool {
        self.max_unhealthy < 1.0
    }

    /// Whether all together are well.
    pub fn judge(self, census: Census) -> Health {
        let Census { in_use, unhealthy } = census;
        // Divided rather than multiplied out: 29 of 100 are exactly 0.29.
        if in_use > 0 && f64::from(unhealthy) / f64::from(in_use) > self.max_unhealthy {
            Health::NotServing
        } else {
            Health::Serving
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{NotServing, Serving};

    const STATES: [State; 7] =
        [State::Idle, State::Warming, State::Fresh, State::Stale, State::Expired, State::Rejected, State::Frozen];

    fn standing(state: State, is_servable: bool, is_disputed: bool, is_wanted: bool) -> Standing {
        Standing { state, is_servable, is_disputed, is_wanted }
    }

    /// The health with: a token, a disputed one, none though wanted, none and not wanted.
    fn row(state: State) -> [Health; 4] {
        let hands = [(true, false, true), (true, true, true), (false, false, true), (false, false, false)];
        hands.map(|(servable, disputed, wanted)| standing(state, servable, disputed, wanted).health())
    }

    #[test]
    fn every_state_has_its_health() {
        let rows = [
            (State::Idle, [Serving, NotServing, Serving, Serving]),
            (State::Warming, [Serving, NotServing, Serving, Serving]),
            (State::Fresh, [Serving, NotServing, Serving, Serving]),
            (State::Stale, [Serving, NotServing, Serving, Serving]),
            (State::Expired, [Serving, NotServing, NotServing, Serving]),
            (State::Rejected, [Serving, NotServing, NotServing, Serving]),
            (State::Frozen, [NotServing, NotServing, NotServing, NotServing]),
        ];
        assert_eq!(rows.map(|(state, _)| state), STATES);
        for (state, expected) in rows {
            assert_eq!(row(state), expected, "{state:?}");
        }
    }

    #[test]
    fn a_token_that_can_not_be_served_is_not_disputed_any_more() {
        assert_eq!(standing(State::Idle, false, true, true).health(), Serving);
        assert_eq!(standing(State::Warming, false, true, true).health(), Serving);
    }

    #[test]
    fn idle_frozen_and_unwanted_ones_are_left_out() {
        let mut census = Census::default();
        for state in STATES {
            census.count(standing(state, false, false, false));
            census.count(standing(state, true, true, false));
        }
        assert_eq!(census, Census::default());
        for state in STATES {
            census.count(standing(state, false, false, true));
        }
        assert_eq!(census, Census { in_use: 5, unhealthy: 2 });
        census.count(standing(State::Fresh, true, true, true));
        census.count(standing(State::Rejected, true, false, true));
        assert_eq!(census, Census { in_use: 7, unhealthy: 3 });
    }

    #[test]
    fn the_rule_is_a_share_of_those_in_use() {
        let rows = [
            (0.0, 0, 0, Serving),
            (0.0, 0, 100, Serving),
            (0.0, 1, 100_000, NotServing),
            (0.29, 29, 100, Serving),
            (0.29, 30, 100, NotServing),
            (0.5, 1, 2, Serving),
            (0.5, 2, 3, NotServing),
            (1.0, 100, 100, Serving),
        ];
        for (max_unhealthy, unhealthy, in_use, expected) in rows {
            let rule = Rule { max_unhealthy };
            assert_eq!(rule.judge(Census { in_use, unhealthy }), expected, "{unhealthy} of {in_use}, {max_unhealthy}");
        }
        for (max_unhealthy, can_be_broken) in [(0.0, true), (0.999, true), (1.0, false)] {
            assert_eq!(Rule { max_unhealthy }.can_be_broken(), can_be_broken, "{max_unhealthy}");
        }
    }
}
