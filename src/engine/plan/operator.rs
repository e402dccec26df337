//! What an operator changes about a Workspace while it stands. Pure.

use super::{Flight, Landing, Plan, Rules, Ticket};

impl Plan {
    /// The operator set other rules. They hold for what is decided from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The operator's rules.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The credential changed: whatever is under way is worthless, what the old one brought upon itself is forgiven,
    /// and the new one is tried at once. The token in hand is served until then.
    pub fn rekey(&mut self) {
        self.epoch += 1;
        self.trouble = None;
        self.renew_floor = 0.0;
        self.reported_in_a_row = 0;
        self.report_pending = false;
        self.rekeyed = true;
        if self.flight == Flight::Grounded {
            self.try_new_credential();
        }
    }

    /// Withdraws the Workspace: no token is served, none is fetched.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.forget_token();
    }

    /// Takes the withdrawal back. Starts without a token.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Drops the token and whatever is under way.
    pub fn forget_token(&mut self) {
        self.epoch += 1;
        self.held = None;
        self.learned_lifetime = None;
        self.unqueue();
    }

    /// Exchanges are made in another way from now on: what the old one brought upon itself is forgiven, and so is the
    /// failure of a flight that is still under way. Its token is welcome.
    pub fn forgive(&mut self) {
        self.way += 1;
        self.trouble = None;
    }

    /// The old way failed after it was given up, which says nothing of the new one.
    pub(super) fn try_new_way(&mut self, ticket: Ticket) -> Landing {
        self.flight = Flight::Queued;
        self.report_pending |= ticket.reported;
        Landing::Discarded
    }

    pub(super) fn try_new_credential(&mut self) {
        if std::mem::take(&mut self.rekeyed) && !self.frozen {
            self.flight = Flight::Queued;
        }
    }

    fn unqueue(&mut self) {
        if self.flight == Flight::Queued {
            self.flight = Flight::Grounded;
        }
    }
}
