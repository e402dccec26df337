//! The tasks of the engine: one driver per upstream, one flight per exchange.

use super::ask::worth_waiting;
use super::dispatch::Dispatch;
use super::entry::{Core, Entry, Landed, Published};
use super::plan::{Arrived, Chance, Landing, MIN_RETRY, Ticket, Urgency};
use super::queue::{Launch, Next};
use super::{Engine, schedule};
use crate::error::{Error, Reason};
use crate::failure::Failure;
use crate::provider::{FetchError, Fetched, Provider};
use crate::token::{Fingerprint, Token, WorkspaceName};
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Runs an upstream until the drain: fires its timers and starts what its queue allows.
pub(super) async fn drive(engine: Engine, dispatch: Arc<Dispatch>) {
    let supervisor = engine.0.supervisor.clone();
    while !supervisor.is_draining() {
        fire_timers(&engine, &dispatch);
        let next = launch_ready(&engine, &dispatch);
        let now = engine.0.clock.now().mono;
        let wake_at = match next {
            Some(at) => at.min(dispatch.wake_at(now)),
            None => dispatch.wake_at(now),
        };
        tokio::select! {
            () = dispatch.bell.notified() => {}
            () = sleep_until(wake_at) => {}
            () = supervisor.draining() => {}
        }
    }
    turn_away(&engine, &dispatch);
}

fn fire_timers(engine: &Engine, dispatch: &Arc<Dispatch>) {
    let now = engine.0.clock.now();
    if dispatch.wall_was_stepped(now) {
        tracing::warn!(upstream.name = %dispatch.name, "the wall clock was stepped");
        for entry in entries_of(engine, dispatch) {
            engine.look_after(&entry, now);
            engine.0.watchers.tell(&entry.name);
        }
    }
    for (at, name) in dispatch.due(now.mono) {
        let Some(entry) = engine.entry(&name) else { continue };
        let mine = {
            let mut core = entry.core();
            let mine = core.timer == Some(at);
            core.timer = core.timer.filter(|_| !mine);
            mine
        };
        if mine {
            engine.look_after(&entry, now);
        }
    }
}

/// Starts what may start. Returns when to come back.
fn launch_ready(engine: &Engine, dispatch: &Arc<Dispatch>) -> Option<tokio::time::Instant> {
    loop {
        match dispatch.next(engine.0.clock.now().mono) {
            Next::Start(launch) => start(engine, dispatch, launch),
            Next::At(at) => return Some(at),
            Next::Idle => return None,
        }
    }
}

fn start(engine: &Engine, dispatch: &Arc<Dispatch>, launch: Launch) {
    let now = engine.0.clock.now();
    let entry = engine.entry(&launch.workspace).filter(|entry| Arc::ptr_eq(&entry.dispatch, dispatch));
    let Some(entry) = entry else {
        return dispatch.aborted(now.mono, &launch);
    };
    let cleared = {
        let mut core = entry.core();
        let ticket = core.plan.start(now).filter(|_| !core.deleted);
        if ticket.is_none() && core.plan.is_at_rest() {
            core.announce(Landed::Discarded);
        }
        ticket.map(|ticket| (ticket, Arc::clone(&core.provider), core.flight_ends_by()))
    };
    let Some((ticket, provider, cancel)) = cleared else {
        dispatch.aborted(now.mono, &launch);
        Engine::set_timer(&entry);
        return engine.0.watchers.tell(&entry.name);
    };
    let flight = Flight { engine: engine.clone(), entry, launch, ticket, settled: false };
    engine.0.supervisor.spawn("exchange", flight.fly(provider, cancel));
}

/// The drain has begun: whoever waits for a flight that will not start is told so.
fn turn_away(engine: &Engine, dispatch: &Arc<Dispatch>) {
    for entry in entries_of(engine, dispatch) {
        let mut core = entry.core();
        if core.plan.is_queued() {
            core.announce(Landed::Failed(Error::retry(Reason::Draining, MIN_RETRY)));
        }
    }
}

fn entries_of(engine: &Engine, dispatch: &Arc<Dispatch>) -> Vec<Arc<Entry>> {
    let all = engine.0.entries.iter();
    let of_this = all.filter(|entry| Arc::ptr_eq(&entry.dispatch, dispatch));
    of_this.map(|entry| Arc::clone(&entry)).collect()
}

/// One exchange under way.
struct Flight {
    engine: Engine,
    entry: Arc<Entry>,
    launch: Launch,
    ticket: Ticket,
    settled: bool,
}

impl Flight {
    async fn fly(self, provider: Arc<dyn Provider>, cancel: CancellationToken) {
        let limit = self.time_limit();
        // Within the guard from the first call on: a panic that gets past it would keep the flight's place for ever.
        let exchange = AssertUnwindSafe(async { provider.exchange().await }).catch_unwind();
        // The provider does not know whose exchange it makes; whoever reads its lines must.
        let exchange = exchange.instrument(tracing::warn_span!("exchange", workspace.name = %self.entry.name));
        if cancel.is_cancelled() {
            // Before its first step: a credential that was replaced or withdrawn is not even sent.
            return self.called_off();
        }
        let outcome = cancel.run_until_cancelled(timeout(limit, exchange)).await;
        let answer = match outcome {
            None => return self.called_off(),
            Some(Err(_elapsed)) => Err(FetchError::new(Failure::Unreachable, "no answer in time")),
            Some(Ok(Err(_panic))) => Err(FetchError::new(Failure::Malformed, "the provider panicked")),
            Some(Ok(Ok(answer))) => answer,
        };
        self.land(answer);
    }

    fn time_limit(&self) -> Duration {
        let dispatch = &self.entry.dispatch;
        let in_an_outage = self.launch.is_probe() || self.ticket.retrying;
        let patience = in_an_outage.then(|| dispatch.patience()).flatten();
        let timeout = dispatch.limits().timeout;
        patience.map_or(timeout, |patience| patience.min(timeout))
    }

    fn called_off(mut self) {
        let unwanted = Err(FetchError::new(Failure::Unreachable, "called off"));
        self.entry.dispatch.called_off(&self.launch);
        self.settle(unwanted);
    }

    fn land(mut self, answer: Result<Fetched, FetchError>) {
        let now = self.engine.0.clock.now().mono;
        let took = now.saturating_duration_since(self.ticket.started.mono);
        let failure = answer.as_ref().err().map(|error| error.kind);
        self.observe(&answer);
        // The plan first: who is asked for by the landing finds the token there.
        let dispatch = Arc::clone(&self.entry.dispatch);
        let (engine, launch) = (self.engine.clone(), self.launch.clone());
        self.settle(answer);
        let (in_vain, outlook) = dispatch.landed(now, &launch, took, failure);
        if let Err(refusal) = worth_waiting(outlook, now, now) {
            refuse_waiters(&engine, &in_vain, &refusal);
        }
    }

    /// Tells the plan, publishes what it accepts, wakes those who wait, and sets the next timer.
    fn settle(&mut self, answer: Result<Fetched, FetchError>) {
        self.settled = true;
        let Self { engine, entry, ticket, .. } = &*self;
        let now = engine.0.clock.now();
        let chance = Chance { renew_fraction: entry.dispatch.renew_fraction(), random: engine.random() };
        let arrival = match &answer {
            Ok(fetched) => Ok(Arrived { fingerprint: Fingerprint::of(&fetched.value), lifetime: fetched.lifetime }),
            Err(error) => Err(error.kind),
        };
        let (queued, discarded) = {
            let mut core = entry.core();
            let landing = core.plan.landed(now, *ticket, arrival, chance);
            let discarded = landing == Landing::Discarded && !core.deleted;
            self.publish(&mut core, landing, answer);
            (core.plan.is_queued(), discarded)
        };
        match (queued, discarded) {
            (true, _) => {
                entry.dispatch.enqueue(entry, Urgency::Waiting, now.mono);
            }
            // Unfrozen while this flight was still under way: nobody else looks whether a token is wanted.
            (false, true) => engine.look_after(entry, now),
            (false, false) => Engine::set_timer(entry),
        }
        engine.0.watchers.tell(&entry.name);
    }

    fn publish(&self, core: &mut Core, landing: Landing, answer: Result<Fetched, FetchError>) {
        let landed = match (landing, answer) {
            (Landing::Replaced(held), Ok(fetched)) => {
                let demand = schedule::demand_of(held.validity.lifetime);
                let before = std::mem::replace(&mut core.demand, demand);
                self.entry.dispatch.change_demand(before, demand);
                let token = Arc::new(self.token(fetched));
                self.entry.publish(Some(Published { token, held }));
                self.entry.fade();
                Landed::Token
            }
            (Landing::Kept(held), _) => {
                let token = self.entry.published().map(|published| Arc::clone(&published.token));
                self.entry.publish(token.map(|token| Published { token, held }));
                Landed::Token
            }
            (Landing::Failed(error), _) => Landed::Failed(error),
            (Landing::Discarded, _) => Landed::Discarded,
            (Landing::Replaced(_), Err(_)) => Landed::Failed(Error::new(Reason::Bug)),
        };
        core.announce(landed);
    }

    fn token(&self, fetched: Fetched) -> Token {
        let Fetched { value, presentation, lifetime: _ } = fetched;
        Token {
            workspace: self.entry.name.clone(),
            fingerprint: Fingerprint::of(&value),
            value,
            presentation,
            generation: self.engine.next_generation(self.ticket.started.wall),
        }
    }

    /// One line and one count per exchange.
    fn observe(&self, answer: &Result<Fetched, FetchError>) {
        let Self { engine, entry, ticket, .. } = self;
        let took = engine.0.clock.now().mono.saturating_duration_since(ticket.started.mono);
        let outcome = answer.as_ref().map_or_else(|error| error.kind.as_str(), |_| "token");
        engine.0.metrics.exchanged(&entry.dispatch.name, outcome, took);
        let (workspace, upstream, duration_ms) =
            (&entry.name, &entry.dispatch.name, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        match answer {
            Ok(fetched) => tracing::info!(
                workspace.name = %workspace,
                upstream.name = %upstream,
                duration_ms,
                lifetime_seconds = fetched.lifetime.as_secs(),
                fingerprint = %Fingerprint::of(&fetched.value),
                "token exchanged"
            ),
            Err(error) if needs_an_operator(error.kind) => tracing::error!(
                workspace.name = %workspace, upstream.name = %upstream, duration_ms, outcome,
                detail = %error, "the credential is of no use"
            ),
            Err(error) => tracing::warn!(
                workspace.name = %workspace, upstream.name = %upstream, duration_ms, outcome,
                detail = %error, "exchange failed"
            ),
        }
    }
}

/// A flight that ends in any other way must not keep its place, nor leave the plan waiting for it.
impl Drop for Flight {
    fn drop(&mut self) {
        if !self.settled {
            self.entry.dispatch.called_off(&self.launch);
            self.settle(Err(FetchError::new(Failure::Malformed, "the exchange was lost")));
        }
    }
}

/// They stay in the queue; only those who wait for them do not.
fn refuse_waiters(engine: &Engine, workspaces: &[WorkspaceName], refusal: &Error) {
    for entry in workspaces.iter().filter_map(|name| engine.entry(name)) {
        let mut core = entry.core();
        if core.plan.is_queued() {
            core.announce(Landed::Failed(refusal.clone()));
        }
        drop(core);
        engine.0.watchers.tell(&entry.name);
    }
}

fn needs_an_operator(failure: Failure) -> bool {
    match failure {
        Failure::Rejected | Failure::LockedOut | Failure::TenantMismatch => true,
        Failure::Unreachable | Failure::Unavailable | Failure::Throttled { .. } | Failure::Malformed => false,
    }
}
