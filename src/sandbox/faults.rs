//! What goes wrong on demand, and for which requests. Pure.
//!
//! Faults of different aspects add up: a slow answer may also be a 503 by a clock that is wrong. Of one aspect, a
//! request meets one: first those with a count, in the order they were set, then the standing one (the organisation's
//! own before everybody's). A standing fault replaces the one it stands beside.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The parts of the simulated APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `POST /api/v1/authenticate` and below.
    Authenticate,
    /// `/api/v1/application_token` and below.
    ApplicationToken,
    /// `GET /api/v1/endpoint`: emnify's protected route.
    Endpoint,
    /// `POST /sensos/v1/applications/token`.
    SensosToken,
    /// Everything else below `/sensos`.
    SensosProtected,
    /// `POST /wyvern/1.0/auth/token` and `/wyvern/token`.
    WyvernToken,
    /// `POST /wyvern/1.0/auth/token/refresh`.
    WyvernRefresh,
    /// Everything else below `/wyvern`.
    WyvernProtected,
    /// `POST /oauth2/token`.
    Oauth2Token,
    /// Everything else below `/oauth2`.
    Oauth2Protected,
    /// `/odd/{shape}/token`.
    OddToken,
    /// `/odd/{shape}/refresh`.
    OddRefresh,
    /// Everything else below `/odd`.
    OddProtected,
}

impl Route {
    /// Which part of which API a path belongs to.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (simulator, rest) = path.strip_prefix('/')?.split_once('/')?;
        Some(match (simulator, rest) {
            ("api", rest) => return Self::of_emnify(rest),
            ("sensos", "v1/applications/token") => Self::SensosToken,
            ("sensos", _) => Self::SensosProtected,
            ("wyvern", "1.0/auth/token" | "token") => Self::WyvernToken,
            ("wyvern", "1.0/auth/token/refresh") => Self::WyvernRefresh,
            ("wyvern", _) => Self::WyvernProtected,
            ("oauth2", "token") => Self::Oauth2Token,
            ("oauth2", _) => Self::Oauth2Protected,
            ("odd", rest) if rest.ends_with("/token") => Self::OddToken,
            ("odd", rest) if rest.ends_with("/refresh") => Self::OddRefresh,
            ("odd", _) => Self::OddProtected,
            (_, _) => return None,
        })
    }

    fn of_emnify(rest: &str) -> Option<Self> {
        match rest.strip_prefix("v1/")?.split('/').next()? {
            "authenticate" => Some(Self::Authenticate),
            "application_token" => Some(Self::ApplicationToken),
            "endpoint" => Some(Self::Endpoint),
            _ => None,
        }
    }
}

/// Which requests a fault is for. `default()` means all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope {
    /// Those of one organisation of the simulated emnify: by the application token, or by `esc.org` of the bearer
    /// token.
    pub organisation: Option<u64>,
    /// Those of one part of an API.
    pub route: Option<Route>,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is worked on only after so long.
    Latency(Duration),
    /// The clock of the sandbox is off by so many milliseconds: `Date`, `iat`, `exp`, and the check of `exp`.
    Skew(i64),
    /// This answer instead of the real one. Nothing is minted, no failure is counted.
    Answer(Answer),
    /// The connection ends without a (whole) answer.
    Cut(Cut),
    /// These bytes instead of an HTTP answer, then the end of the connection.
    Raw(Bytes),
    /// No answer until the faults are cleared; then the real one.
    Hang,
    /// A login at the simulated emnify gets the token of the login before it, as long as that lives for more than so
    /// long.
    SameToken(Duration),
}

/// An answer made up by whoever set the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, 200–599.
    pub status: u16,
    /// Sent as `application/json`, whatever it is; without a content type when empty.
    pub body: Bytes,
    /// `Retry-After`, as it is: seconds, a date or nonsense.
    pub retry_after: Option<String>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Before or in the answer.
    pub at: CutAt,
    /// By FIN or by RST.
    pub by: CutBy,
}

/// Where in the answer a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutAt {
    /// Before its first byte. The request is not worked on.
    Before,
    /// After its head and half of its body. The request **is** worked on, as where an answer is lost on its way.
    InBody,
}

/// How TCP says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    /// FIN.
    Close,
    /// RST.
    Reset,
}

/// For how many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Until cleared.
    Standing,
    /// The next so many.
    Next(u32),
}

impl Scope {
    /// Every request.
    pub const ALL: Self = Self { organisation: None, route: None };

    /// The requests of one organisation.
    pub fn organisation(id: u64) -> Self {
        Self { organisation: Some(id), route: None }
    }

    /// Only those for this part of an API.
    #[must_use]
    pub fn on(self, route: Route) -> Self {
        Self { route: Some(route), ..self }
    }

    fn covers(self, organisation: Option<u64>, route: Option<Route>) -> bool {
        (self.organisation.is_none() || self.organisation == organisation)
            && (self.route.is_none() || self.route == route)
    }

    fn narrowness(self) -> u8 {
        2 * u8::from(self.organisation.is_some()) + u8::from(self.route.is_some())
    }
}

impl Fault {
    /// A status with an empty body.
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer { status, body: Bytes::new(), retry_after: None })
    }

    /// 200 with this body.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self::Answer(Answer { status: 200, body: body.into(), retry_after: None })
    }

    fn aspect(&self) -> Aspect {
        match self {
            Self::Latency(_) => Aspect::Latency,
            Self::Skew(_) => Aspect::Skew,
            Self::Answer(_) | Self::Cut(_) | Self::Raw(_) | Self::Hang => Aspect::Answer,
            Self::SameToken(_) => Aspect::SameToken,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aspect {
    Latency,
    Skew,
    Answer,
    SameToken,
}

/// What a request meets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) latency: Option<Duration>,
    pub(super) skew_ms: i64,
    /// An `Answer`, `Cut`, `Raw` or `Hang`.
    pub(super) answer: Option<Fault>,
    pub(super) same_token: Option<Duration>,
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    scope: Scope,
    fault: Fault,
    times: Times,
}

impl Faults {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn set(&mut self, scope: Scope, fault: Fault, times: Times) {
        if times == Times::Next(0) {
            return;
        }
        if times == Times::Standing {
            self.0.retain(|old| {
                old.times != Times::Standing || old.scope != scope || old.fault.aspect() != fault.aspect()
            });
        }
        self.0.push(Entry { scope, fault, times });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What the next request meets; uses up counts.
    pub(super) fn take(&mut self, organisation: Option<u64>, route: Option<Route>) -> Met {
        let mut met = Met::default();
        for aspect in [Aspect::Latency, Aspect::Skew, Aspect::Answer, Aspect::SameToken] {
            match self.take_one(aspect, organisation, route) {
                None => {}
                Some(Fault::Latency(latency)) => met.latency = Some(latency),
                Some(Fault::Skew(ms)) => met.skew_ms = ms,
                Some(Fault::SameToken(while_left)) => met.same_token = Some(while_left),
                Some(fault @ (Fault::Answer(_) | Fault::Cut(_) | Fault::Raw(_) | Fault::Hang)) => {
                    met.answer = Some(fault);
                }
            }
        }
        met
    }

    /// By how much everybody's clock is off, apart from counted skews.
    pub(super) fn standing_skew_ms(&self) -> i64 {
        self.standing(Aspect::Skew, None, None).map_or(0, |fault| match fault {
            Fault::Skew(ms) => *ms,
            Fault::Latency(_)
            | Fault::Answer(_)
            | Fault::Cut(_)
            | Fault::Raw(_)
            | Fault::Hang
            | Fault::SameToken(_) => 0,
        })
    }

    fn take_one(&mut self, aspect: Aspect, organisation: Option<u64>, route: Option<Route>) -> Option<Fault> {
        self.take_counted(aspect, organisation, route).or_else(|| self.standing(aspect, organisation, route).cloned())
    }

    fn take_counted(&mut self, aspect: Aspect, organisation: Option<u64>, route: Option<Route>) -> Option<Fault> {
        let entry = self.0.iter_mut().find(|entry| {
            matches!(entry.times, Times::Next(left) if left > 0)
                && entry.fault.aspect() == aspect
                && entry.scope.covers(organisation, route)
        })?;
        if let Times::Next(left) = &mut entry.times {
            *left -= 1;
        }
        let fault = entry.fault.clone();
        self.0.retain(|entry| entry.times != Times::Next(0));
        Some(fault)
    }

    fn standing(&self, aspect: Aspect, organisation: Option<u64>, route: Option<Route>) -> Option<&Fault> {
        self.0
            .iter()
            .filter(|entry| {
                entry.times == Times::Standing
                    && entry.fault.aspect() == aspect
                    && entry.scope.covers(organisation, route)
            })
            .max_by_key(|entry| entry.scope.narrowness())
            .map(|entry| &entry.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Option<Route> = Some(Route::Authenticate);

    fn answer(faults: &mut Faults, organisation: u64) -> Option<Fault> {
        faults.take(Some(organisation), LOGIN).answer
    }

    #[test]
    fn a_path_belongs_to_one_part_of_one_api() {
        for (path, route) in [
            ("/api/v1/authenticate/workspace", Some(Route::Authenticate)),
            ("/api/v1/endpoint", Some(Route::Endpoint)),
            ("/api/v2/endpoint", None),
            ("/sensos/v1/applications/token", Some(Route::SensosToken)),
            ("/sensos/v1/devices", Some(Route::SensosProtected)),
            ("/wyvern/token", Some(Route::WyvernToken)),
            ("/wyvern/1.0/auth/token", Some(Route::WyvernToken)),
            ("/wyvern/1.0/auth/token/refresh", Some(Route::WyvernRefresh)),
            ("/wyvern/1.0/images", Some(Route::WyvernProtected)),
            ("/oauth2/token", Some(Route::Oauth2Token)),
            ("/oauth2/resource", Some(Route::Oauth2Protected)),
            ("/odd/nested/token", Some(Route::OddToken)),
            ("/odd/rotating/refresh", Some(Route::OddRefresh)),
            ("/odd/nested/resource", Some(Route::OddProtected)),
            ("/elsewhere/token", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn counted_faults_go_first_in_order_and_are_used_up() {
        let mut faults = Faults::default();
        faults.set(Scope::ALL, Fault::status(500), Times::Standing);
        faults.set(Scope::ALL, Fault::status(503), Times::Next(2));
        faults.set(Scope::ALL, Fault::Hang, Times::Next(1));
        let met: Vec<_> = (0..5).filter_map(|_| answer(&mut faults, 1)).collect();
        let (s503, s500) = (Fault::status(503), Fault::status(500));
        assert_eq!(met, [s503.clone(), s503, Fault::Hang, s500.clone(), s500]);
    }

    #[test]
    fn a_fault_of_one_organisation_leaves_the_others_alone() {
        let mut faults = Faults::default();
        faults.set(Scope::organisation(2), Fault::Hang, Times::Standing);
        assert_eq!(answer(&mut faults, 1), None);
        assert_eq!(answer(&mut faults, 2), Some(Fault::Hang));
        assert_eq!(faults.take(None, LOGIN).answer, None);
    }

    #[test]
    fn the_narrower_standing_fault_wins() {
        let mut faults = Faults::default();
        faults.set(Scope::organisation(2), Fault::status(404), Times::Standing);
        faults.set(Scope::ALL, Fault::status(500), Times::Standing);
        assert_eq!(answer(&mut faults, 1), Some(Fault::status(500)));
        assert_eq!(answer(&mut faults, 2), Some(Fault::status(404)));
    }

    #[test]
    fn a_standing_fault_replaces_the_one_it_stands_beside() {
        let mut faults = Faults::default();
        faults.set(Scope::ALL, Fault::Skew(5_000), Times::Standing);
        faults.set(Scope::ALL, Fault::Skew(-1), Times::Standing);
        assert_eq!(faults.take(None, None).skew_ms, -1);
        assert_eq!(faults.standing_skew_ms(), -1);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn a_fault_of_one_route_leaves_the_others_alone() {
        let mut faults = Faults::default();
        faults.set(Scope::ALL.on(Route::Authenticate), Fault::status(503), Times::Standing);
        assert_eq!(faults.take(Some(1), Some(Route::Endpoint)).answer, None);
        assert_eq!(answer(&mut faults, 1), Some(Fault::status(503)));
    }

    #[test]
    fn faults_of_different_aspects_add_up() {
        let mut faults = Faults::default();
        let second = Duration::from_secs(1);
        faults.set(Scope::ALL, Fault::Latency(second), Times::Next(1));
        faults.set(Scope::ALL, Fault::Skew(7), Times::Next(1));
        faults.set(Scope::ALL, Fault::status(503), Times::Next(1));
        faults.set(Scope::ALL, Fault::SameToken(second), Times::Next(1));
        assert_eq!(
            faults.take(None, None),
            Met { latency: Some(second), skew_ms: 7, answer: Some(Fault::status(503)), same_token: Some(second) }
        );
        assert_eq!(faults.take(None, None), Met::default());
    }
}
