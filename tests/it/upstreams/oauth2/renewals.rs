//! Refresh tokens: those of a login, and those that are the credential itself.

use super::{Broker, ID, SECRET, USERNAME, Upstream, claims, client_id, config, start, with};
use std::time::Duration;
use token_broker::sandbox::{Cut, CutAt, CutBy, Expiry, Fault, Refresh, Route, Scope};

const REFRESH_TOKEN: (&str, &str) = ("refresh_token", "sandbox-refresh-token");

fn by_refresh_token(upstream: &Upstream) -> Broker {
    start(upstream, "refresh-token", &client_id(ID), "", &[REFRESH_TOKEN, SECRET])
}

/// How often the token endpoint said no.
fn refusals(upstream: &Upstream) -> u64 {
    let calls = upstream.control.counters().of(Route::Oauth2Token);
    calls.total - calls.with_status(200)
}

/// A server that rotates ends the whole family when an old one comes again.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_used_for_as_long_as_it_is_the_newest() {
    for (refresh, warnings) in [(Refresh::Kept, 0), (Refresh::Rotated, 1)] {
        let upstream = Upstream::start(with(Vec::new(), refresh)).await;
        let broker = by_refresh_token(&upstream);
        assert_eq!(claims(&broker.get("one").await.unwrap())["sub"], USERNAME);
        for _ in 0..8 {
            assert_eq!(broker.renewed("one").await.outcome, "token", "{refresh:?}");
        }
        assert_eq!(broker.steps(), ["login"; 9], "{refresh:?}");
        assert_eq!(refusals(&upstream), 0, "{refresh:?}");
        assert_eq!(broker.said("rotates refresh tokens"), warnings, "{refresh:?}");
    }
}

/// The configured one may have been given anew, so it is tried; here it is spent.
#[tokio::test(start_paused = true)]
async fn where_the_newest_is_refused_the_configured_one_is_tried_and_then_nothing() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Rotated)).await;
    let broker = by_refresh_token(&upstream);
    broker.get("one").await.unwrap();
    assert_eq!(broker.renewed("one").await.outcome, "token");
    assert!(upstream.control.revoke_refresh_tokens(ID) > 0);
    let refused = broker.renewed("one").await;
    assert!(refused.outcome == "rejected" && refused.detail.contains("invalid_grant"), "{refused:?}");
    assert_eq!(refusals(&upstream), 2);
    assert!(broker.get("one").await.is_ok(), "the token in hand is good until it ends");
    assert_eq!(refusals(&upstream), 2, "and nothing is asked meanwhile");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_before_the_server_works_on_it_costs_nothing() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Rotated)).await;
    let broker = by_refresh_token(&upstream);
    broker.get("one").await.unwrap();
    let cut = Fault::Cut(Cut { at: CutAt::Before, by: CutBy::Close });
    upstream.control.set_fault_times(Scope::ALL.on(Route::Oauth2Token), cut, 1);
    assert_eq!(broker.renewed("one").await.outcome, "unreachable");
    assert_eq!(broker.exchanged_after("one", Duration::from_secs(3)).await.outcome, "token");
    assert_eq!(broker.renewed("one").await.outcome, "token");
}

#[tokio::test(start_paused = true)]
async fn a_login_by_password_is_renewed_by_its_refresh_tokens() {
    let secrets = [("username", USERNAME), ("password", "sandbox-password"), SECRET];
    for (refresh, steps) in [
        (Refresh::Rotated, ["login", "refresh", "refresh", "refresh", "refresh", "refresh"]),
        // Each is for one use here: where the answer brings no other, the login follows.
        (Refresh::Kept, ["login", "refresh", "login", "refresh", "login", "refresh"]),
    ] {
        let upstream = Upstream::start(with(Vec::new(), refresh)).await;
        let broker = start(&upstream, "password", &client_id(ID), "", &secrets);
        broker.get("one").await.unwrap();
        for _ in 0..5 {
            assert_eq!(broker.renewed("one").await.outcome, "token", "{refresh:?}");
        }
        assert_eq!(broker.steps(), steps);
        assert_eq!(refusals(&upstream), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_answer_does_not_say_how_long_the_token_lives_the_token_does() {
    let client = token_broker::sandbox::Client::new("terse").secret(SECRET.1);
    let life = Duration::from_secs(1_800);
    let upstream = Upstream::start(with(vec![client.lifetime(life, Expiry::Unsaid)], Refresh::Kept)).await;
    let broker = start(&upstream, "client-credentials", &client_id("terse"), "", &[SECRET]);
    assert_eq!(broker.get("one").await.unwrap().held.validity.lifetime.as_secs(), 1_799);
    assert_eq!(broker.renewed("one").await.outcome, "token");
}

/// Its credential is spent by its use, and there is nothing yet that keeps the next one.
#[tokio::test(start_paused = true)]
async fn a_credential_that_is_spent_by_its_use_needs_a_store() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Rotated)).await;
    let secrets = [REFRESH_TOKEN, SECRET];
    let text = config("rotating-refresh-token", &client_id(ID), "", &secrets);
    let problems = upstream.config(&text, &secrets).map(drop).unwrap_err();
    assert!(problems.contains("needs a store") && problems.contains("workspaces[0].flow"), "{problems}");
    assert_eq!(upstream.control.counters().of(Route::Oauth2Token).total, 0);
}
