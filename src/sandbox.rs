//! Simulated upstreams over HTTP, for the tests and the `dev` command; the feature `sandbox` builds them in.
//!
//! | simulator | paths | after |
//! |---|---|---|
//! | `emnify` | `/api/v1/…` | documentation and recorded traffic; the official SDK works unchanged |
//! | `sensos` | `/sensos/…` | documentation |
//! | `wyvern` | `/wyvern/…` | documentation; the refresh route is invented |
//! | `oauth2` | `/oauth2/…` | RFC 6749, 7523, 8693 and 8707, read strictly |
//! | `odd` | `/odd/{shape}/…` | the odd shapes of many others, one path each |
//!
//! All share one address, one clock, which stamps `iat`, `exp` and every `Date`, and what [`Control`] and `/_control`
//! do: faults for one part of an API ([`Route`]) or one emnify organisation, counters of the same, rejected tokens, a
//! reset. emnify's lockout and its limit of logins are its own.
//!
//! Promises that nothing outlives [`Sandbox::run`]: it owns every connection and ends them all. Must not be used for
//! anything of value: its secrets are known to everybody. Knows nothing of the broker.

mod bearer;
mod connection;
mod control;
mod counters;
mod emnify;
mod families;
mod faults;
mod issued;
mod jwt;
mod limits;
mod login;
mod oauth2;
mod odd;
mod pass;
mod sensos;
mod world;
mod wyvern;

pub use control::Control;
pub use counters::{Calls, Counters};
pub use emnify::{Organisation, Refresh, User};
pub use faults::{Answer, Cut, CutAt, CutBy, Fault, Route, Scope};
pub use limits::{Limits, RetryAfter};
pub use login::Login;
pub use oauth2::{BadKey, Client, Consent, Expiry, Grant, Method, OAuth2};
pub use sensos::Application;
pub use world::ApiKey;
pub use wyvern::Wyvern;

use crate::clock::Clock;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How long the accept loop rests when the machine has no more connections to give.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What a sandbox is at its beginning, and after a reset.
#[derive(Clone)]
pub struct Settings {
    /// Who exists.
    pub organisations: Vec<Organisation>,
    /// Who may log in with a password.
    pub users: Vec<User>,
    /// Lockout and rate limit.
    pub limits: Limits,
    /// The `api_key` claim.
    pub api_key: ApiKey,
    /// Whether a JWT may create and change application tokens.
    pub management: Management,
    /// What a refresh token is worth.
    pub refresh: Refresh,
    /// Who exchanges at the simulated Sensos.
    pub applications: Vec<Application>,
    /// The simulated Wyvern.
    pub wyvern: Wyvern,
    /// The simulated authorization server.
    pub oauth2: OAuth2,
    /// Whose credentials the odd shapes take: the name is `client_id`, the password `client_secret`.
    pub odd: Login,
    /// What JWTs are signed with. The same in every sandbox unless set, so that tokens outlive a restart.
    pub signing_key: Vec<u8>,
    /// More connections than this wait to be accepted.
    pub max_connections: usize,
}

/// Whether application tokens can be made and revoked with a JWT of an application token. Not documented at emnify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Management {
    /// They can.
    #[default]
    Allowed,
    /// 403.
    Forbidden,
}

impl Default for Settings {
    /// Two organisations, with the two lifetimes that were seen at emnify, and somebody at each simulator:
    ///
    /// | simulator | who |
    /// |---|---|
    /// | `emnify` | application tokens `sandbox-application-token-1` and `-2`; the user below, no second factor |
    /// | `sensos` | application `sandbox-application`, secret `sandbox-application-secret`; three tenants, see below |
    /// | `wyvern` | user `sandbox-user@example.com`, password `sandbox-password` |
    /// | `oauth2` | client `sandbox-client`, secret `sandbox-client-secret`, scopes `read` and `write`; the same user |
    /// | `odd` | the same client |
    ///
    /// The tenants are `sandbox-tenant`, `sandbox-tenant-ten-hours` and `sandbox-tenant-mismatch`; emnify's user has
    /// the password as SHA-1; the client's refresh token is `sandbox-refresh-token`.
    fn default() -> Self {
        let four_hours = Duration::from_secs(14_400);
        let a_week = Duration::from_secs(604_800);
        Self {
            organisations: vec![
                Organisation::new(1, "Sandbox One", "sandbox-application-token-1", four_hours),
                Organisation::new(2, "Sandbox Two", "sandbox-application-token-2", a_week),
            ],
            users: vec![User::demo()],
            limits: Limits::default(),
            api_key: ApiKey::default(),
            management: Management::default(),
            refresh: Refresh::default(),
            applications: Application::demo(),
            wyvern: Wyvern::default(),
            oauth2: OAuth2::default(),
            odd: odd::demo(),
            signing_key: b"the sandbox guards nothing".to_vec(),
            max_connections: 1_024,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("organisations", &self.organisations)
            .field("users", &self.users)
            .field("limits", &self.limits)
            .field("api_key", &self.api_key)
            .field("management", &self.management)
            .field("refresh", &self.refresh)
            .field("applications", &self.applications)
            .field("wyvern", &self.wyvern)
            .field("oauth2", &self.oauth2)
            .field("odd", &self.odd)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// A simulated upstream that has its address and waits to be run.
#[derive(Debug)]
pub struct Sandbox {
    listener: TcpListener,
    address: SocketAddr,
    control: Control,
    max_connections: usize,
}

impl Sandbox {
    /// Takes the address; connections wait until [`Self::run`].
    pub async fn bind(address: SocketAddr, settings: Settings, clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            max_connections: settings.max_connections,
            control: Control::new(settings, clock),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What sets faults and counts.
    pub fn handle(&self) -> Control {
        self.control.clone()
    }

    /// Serves until `stop` is done, then drops every connection where it stands.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        let router = router(&self.control);
        let mut stop = pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < self.max_connections;
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a sandbox connection panicked");
                    }
                }
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(connection::serve(stream, peer.ip(), router.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the sandbox can't accept a connection");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }
}

fn router(control: &Control) -> Router {
    let apis = Router::new()
        .merge(emnify::router(control))
        .merge(sensos::router(control))
        .merge(wyvern::router(control))
        .merge(oauth2::router(control))
        .merge(odd::router(control))
        .fallback(emnify::no_such_resource)
        .layer(from_fn_with_state(control.clone(), pass::pass));
    Router::new()
        .nest("/_control", control::routes::router(control.clone()))
        .merge(apis)
        .layer(from_fn_with_state(control.clone(), date))
}

/// Every answer has a `Date`; those of the API have theirs already.
async fn date(State(control): State<Control>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(header::DATE)
        && let Some(date) = world::http_date(control.now())
    {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_what_debug_prints() {
        let settings = Settings::default();
        let secrets = [
            settings.organisations[0].application_tokens[0].as_str(),
            settings.users[0].password_sha1.as_str(),
            settings.applications[0].secret.as_str(),
            settings.wyvern.users[0].password.as_str(),
            settings.oauth2.consents[0].refresh_token.as_str(),
            settings.odd.password.as_str(),
            "guards nothing",
        ];
        let settings_text = format!("{settings:?}");
        let control = format!("{:?}", Control::new(settings.clone(), Clock::system()));
        assert!(control.contains("sandbox-tenant") && settings_text.contains("sandbox-tenant"));
        for secret in secrets {
            assert!(!settings_text.contains(secret) && !control.contains(secret), "{secret}");
        }
    }
}
