//! The handle on a running sandbox: sets faults, revokes, counts. The same over HTTP is in [`routes`].

pub(super) mod routes;

use super::Settings;
use super::counters::Counters;
use super::emnify::{Organisation, Status, Wanted, create_application_token};
use super::faults::{Fault, Met, Route, Scope, Times};
use super::issued::Owner;
use super::limits::Limits;
use super::oauth2::{Client, grant_refresh_token, revoke_refresh_tokens};
use super::world::World;
use crate::clock::{Clock, Now};
use axum::http::StatusCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// A handle on a sandbox. Cheap to clone; works as long as anybody holds it, served or not.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    world: Mutex<World>,
    /// Changes when the faults are cleared.
    cleared: watch::Sender<()>,
    /// Changes when a call has arrived and was counted.
    arrived: watch::Sender<()>,
}

impl Control {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let world = World::new(settings, clock.now().wall);
        Self(Arc::new(Shared {
            clock,
            world: Mutex::new(world),
            cleared: watch::Sender::new(()),
            arrived: watch::Sender::new(()),
        }))
    }

    /// Lets something go wrong until [`Self::clear`]. Replaces the standing fault of the same scope and aspect.
    pub fn set_fault(&self, scope: Scope, fault: Fault) {
        self.world().faults.set(scope, fault, Times::Standing);
    }

    /// Lets something go wrong for the next so many requests; these faults queue.
    pub fn set_fault_times(&self, scope: Scope, fault: Fault, times: u32) {
        self.world().faults.set(scope, fault, Times::Next(times));
    }

    /// Ends all faults; what hangs goes on.
    pub fn clear(&self) {
        let mut world = self.world();
        world.faults.clear();
        self.0.cleared.send_replace(());
    }

    /// Back to the beginning: faults, counters, limits, lockouts, organisations and application tokens. JWTs that were
    /// rejected are good again.
    pub fn reset(&self) {
        let mut world = self.world();
        *world = World::new(world.settings.clone(), self.0.clock.now().wall);
        self.0.cleared.send_replace(());
    }

    /// What was asked so far.
    pub fn counters(&self) -> Counters {
        self.world().counters.clone()
    }

    /// Waits until so many authenticate calls have arrived since the start or the last reset. Give it a time limit.
    pub async fn authenticate_calls_reach(&self, calls: u64) {
        self.calls_reach(Route::Authenticate, calls).await;
    }

    /// The same of any part of the APIs.
    pub async fn calls_reach(&self, route: Route, calls: u64) {
        let mut arrived = self.0.arrived.subscribe();
        while self.world().counters.of(route).total < calls {
            // The sender lives in `self`, so this can't fail.
            drop(arrived.changed().await);
        }
    }

    /// The time of day by the sandbox's clock, with the skew that everybody meets.
    pub fn now(&self) -> SystemTime {
        let skew_ms = self.world().faults.standing_skew_ms();
        self.moment(skew_ms).wall
    }

    /// How strict the sandbox is from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.world().limits = limits;
    }

    /// How strict the sandbox is.
    pub fn limits(&self) -> Limits {
        self.world().limits
    }

    /// Adds an organisation, or changes one: application tokens only get more. Forgotten by [`Self::reset`].
    pub fn add_organisation(&self, organisation: Organisation) {
        let at = self.0.clock.now().wall;
        self.world().accounts.add(organisation, at);
    }

    /// Makes another application token; its id and text. `None` where there is no such organisation.
    pub fn create_application_token(&self, organisation: u64) -> Option<(u64, String)> {
        let at = self.now();
        create_application_token(&mut self.world(), organisation, Wanted::default(), at)
    }

    /// The ids of an organisation's application tokens, the oldest first.
    pub fn application_token_ids(&self, organisation: u64) -> Vec<u64> {
        let world = self.world();
        world.accounts.of(organisation).map(|token| token.id).collect()
    }

    /// Revokes an application token; `false` where there is none. JWTs it has brought live on.
    pub fn revoke_application_token(&self, id: u64) -> bool {
        let mut world = self.world();
        let Some(token) = world.accounts.token_mut(id) else {
            return false;
        };
        token.status = Status::Revoked;
        true
    }

    /// Revokes all application tokens of an organisation; `false` where it has none.
    pub fn revoke_organisation(&self, organisation: u64) -> bool {
        self.world().accounts.revoke_all(organisation)
    }

    /// The protected routes refuse the JWT with this [fingerprint](crate::token::Fingerprint) from now on.
    pub fn reject_token(&self, fingerprint: &str) {
        self.world().issued.reject(fingerprint);
    }

    /// The same for all JWTs of an organisation that were issued up to now; says how many they are.
    pub fn reject_organisation(&self, organisation: u64) -> usize {
        self.world().issued.reject_all(organisation)
    }

    /// A good JWT of an organisation, without a login: what a fault may hand to somebody else.
    pub fn mint(&self, organisation: u64) -> Option<String> {
        let at = self.now();
        let mut world = self.world();
        let application_token = world.accounts.of(organisation).next().map(|token| token.id);
        let owner = Owner { organisation, application_token };
        world.mint(owner, None, at)
    }

    /// Adds a client to the simulated authorization server, or replaces the one with its id. Forgotten by
    /// [`Self::reset`].
    pub fn add_client(&self, client: Client) {
        self.world().oauth2.add(client);
    }

    /// A refresh token of the simulated authorization server, as if this person had given consent to this client.
    /// `None` where there is no such client.
    pub fn grant_refresh_token(&self, client: &str, subject: &str) -> Option<String> {
        let at = self.now();
        grant_refresh_token(&mut self.world(), client, subject, None, at)
    }

    /// Ends all refresh tokens of a client of the simulated authorization server; says how many they are.
    pub fn revoke_refresh_tokens(&self, client: &str) -> usize {
        revoke_refresh_tokens(&mut self.world(), client)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks, the wall clock off by so many milliseconds; as far as a `SystemTime` goes.
    pub(super) fn moment(&self, skew_ms: i64) -> Now {
        let now = self.0.clock.now();
        let by = Duration::from_millis(skew_ms.unsigned_abs());
        let skewed = if skew_ms >= 0 { now.wall.checked_add(by) } else { now.wall.checked_sub(by) };
        Now { wall: skewed.unwrap_or(now.wall), ..now }
    }

    /// What a new request meets, and what tells it that the faults were cleared since.
    pub(super) fn arrived(&self, route: Option<Route>, organisation: Option<u64>) -> (Met, watch::Receiver<()>) {
        let at_ms = unix_ms(self.0.clock.now().wall);
        let mut world = self.world();
        let met = world.arrived(route, organisation, at_ms);
        self.0.arrived.send_replace(());
        (met, self.0.cleared.subscribe())
    }

    pub(super) fn answered(&self, route: Option<Route>, organisation: Option<u64>, status: StatusCode) {
        if let Some(route) = route {
            let counters = &mut self.world().counters;
            counters.answered(route, organisation, status.as_u16());
        }
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
