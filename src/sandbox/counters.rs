//! What was asked of the sandbox, counted. Pure.

use super::faults::Route;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// How many times of authenticate calls are kept; older ones are dropped.
const MAX_TIMES: usize = 100_000;

/// Everything that was asked since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// All calls by the part of an API that they were for; emnify's, which are counted below as well, included.
    pub by_route: BTreeMap<Route, Calls>,
    /// `POST /api/v1/authenticate` and below.
    pub authenticate: Calls,
    /// The same by organisation, as far as the request tells it.
    pub authenticate_by_organisation: BTreeMap<u64, Calls>,
    /// When those calls arrived, in Unix milliseconds of the unskewed clock. At most the last 100,000.
    pub authenticate_at_ms: VecDeque<u64>,
    /// Calls that need a JWT of the simulated emnify.
    pub protected: Calls,
    /// Those of them that came with a JWT that was over.
    pub protected_expired: u64,
}

/// The calls of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Arrived, answered or not.
    pub total: u64,
    /// Answered, by HTTP status. What was cut off, or given up by the client, is missing here.
    pub by_status: BTreeMap<u16, u64>,
}

impl Calls {
    /// How many were answered with this status.
    pub fn with_status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    fn answered(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }
}

impl Counters {
    /// The calls for one part of an API.
    pub fn of(&self, route: Route) -> Calls {
        self.by_route.get(&route).cloned().unwrap_or_default()
    }

    pub(super) fn arrived(&mut self, route: Route, organisation: Option<u64>, at_ms: u64) {
        for calls in self.calls(route, organisation) {
            calls.total += 1;
        }
        if route == Route::Authenticate {
            if self.authenticate_at_ms.len() >= MAX_TIMES {
                self.authenticate_at_ms.pop_front();
            }
            self.authenticate_at_ms.push_back(at_ms);
        }
    }

    pub(super) fn answered(&mut self, route: Route, organisation: Option<u64>, status: u16) {
        for calls in self.calls(route, organisation) {
            calls.answered(status);
        }
    }

    fn calls(&mut self, route: Route, organisation: Option<u64>) -> impl Iterator<Item = &mut Calls> {
        let (all, own) = match (route, organisation) {
            (Route::Authenticate, Some(id)) => {
                let own = self.authenticate_by_organisation.entry(id).or_default();
                (Some(&mut self.authenticate), Some(own))
            }
            (Route::Authenticate, None) => (Some(&mut self.authenticate), None),
            (Route::ApplicationToken | Route::Endpoint, _) => (Some(&mut self.protected), None),
            (
                Route::SensosToken
                | Route::SensosProtected
                | Route::WyvernToken
                | Route::WyvernRefresh
                | Route::WyvernProtected
                | Route::Oauth2Token
                | Route::Oauth2Protected
                | Route::OddToken
                | Route::OddRefresh
                | Route::OddProtected,
                _,
            ) => (None, None),
        };
        let by_route = self.by_route.entry(route).or_default();
        std::iter::once(by_route).chain(all).chain(own)
    }
}
