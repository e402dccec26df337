//! emnify: users, whose password, refresh token, second factor and Workspaces an application token does not have.

use super::{Broker, Upstream, claims, reason};
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::sandbox::{Cut, CutAt, CutBy, Fault, Organisation, Refresh, Route, Scope, Settings, User};
use tokio::time::advance;

const USERNAME: &str = "sandbox-user@example.com";
const PASSWORD: &str = "sandbox-password";
const SECRETS: [(&str, &str); 2] = [("username", USERNAME), ("password", PASSWORD)];

fn settings(refresh: Refresh) -> Settings {
    Settings { refresh, ..Settings::default() }
}

fn user(change: impl FnOnce(&mut User)) -> Settings {
    let mut settings = settings(Refresh::Rotated);
    change(&mut settings.users[0]);
    settings
}

const UPSTREAM: &str =
    "[[upstreams]]\nname = \"emnify\"\nkind = \"emnify\"\nurl = \"SANDBOX\"\nbudget = { logins = 100000 }\n";

/// An upstream with one Workspace `one` of organisation 1.
fn config(more: &str) -> String {
    format!("{UPSTREAM}{}", workspace("one", "user", 1, more))
}

fn workspace(name: &str, flow: &str, organisation: u64, more: &str) -> String {
    format!(
        "[[workspaces]]\nname = \"{name}\"\nupstream = \"emnify\"\nflow = \"{flow}\"\norganisation = {organisation}\n\
         credential = {{ username = @username , password = @password {more} }}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_user_is_renewed_by_the_refresh_token_of_each_answer() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    let mut tokens = vec![broker.get("one").await.unwrap()];
    assert_eq!(claims(&tokens[0])["sub"], USERNAME);
    assert_eq!(tokens[0].held.validity.lifetime, Duration::from_secs(14_399));
    for _ in 0..5 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
        tokens.push(broker.get("one").await.unwrap());
    }
    assert_eq!(broker.steps(), ["login", "refresh", "refresh", "refresh", "refresh", "refresh"]);
    assert!(tokens.windows(2).all(|pair| pair[0].token.fingerprint != pair[1].token.fingerprint));
    assert_eq!(upstream.control.counters().authenticate.with_status(200), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_not_replaced_is_used_once() {
    let upstream = Upstream::start(settings(Refresh::Kept)).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    broker.get("one").await.unwrap();
    for _ in 0..3 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
    }
    assert_eq!(broker.steps(), ["login", "refresh", "login", "refresh"]);
    assert_eq!(upstream.control.counters().authenticate.with_status(200), 4);
}

/// Its refresh tokens live for 30 days.
#[tokio::test(start_paused = true)]
async fn where_the_refresh_token_is_refused_the_login_follows_at_once() {
    let life = Duration::from_secs(100 * 86_400);
    let mut settings = settings(Refresh::Rotated);
    settings.organisations[0].lifetime = life;
    let upstream = Upstream::start(settings).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    let first = broker.get("one").await.unwrap();
    assert_eq!(broker.renewed("one").await.outcome, "token");
    let second = broker.get("one").await.unwrap();
    assert_ne!(second.token.fingerprint, first.token.fingerprint);
    // The second is over before it is renewed: whoever asks now waits for both requests.
    advance(life).await;
    let third = broker.get("one").await.unwrap();
    assert_ne!(third.token.fingerprint, second.token.fingerprint);
    assert_eq!(broker.steps(), ["login", "refresh", "login", "refresh", "login"]);
    assert_eq!(broker.outcomes(), ["token"; 3], "no attempt failed");
    assert_eq!(upstream.control.counters().authenticate.with_status(401), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_refresh_whose_answer_is_lost_the_login_follows() {
    for (at, outcome) in [(CutAt::InBody, "unavailable"), (CutAt::Before, "unreachable")] {
        let upstream = Upstream::start(settings(Refresh::Rotated)).await;
        let broker = Broker::start(&upstream, &config(""), &SECRETS);
        let before = broker.get("one").await.unwrap();
        let lost = Fault::Cut(Cut { at, by: CutBy::Close });
        upstream.control.set_fault_times(Scope::ALL.on(Route::Authenticate), lost, 1);
        assert_eq!(broker.renewed("one").await.outcome, outcome);
        let meanwhile = broker.get("one").await.unwrap();
        assert_eq!(meanwhile.token.fingerprint, before.token.fingerprint, "callers see nothing of it");
        assert_eq!(broker.exchanged_after("one", Duration::from_secs(3)).await.outcome, "token");
        assert_eq!(broker.steps(), ["login", "refresh", "login"], "what may be used up is not sent again");
        assert_eq!(broker.renewed("one").await.outcome, "token");
        assert_eq!(broker.steps().last().unwrap(), "refresh");
        assert_eq!(upstream.control.counters().authenticate.with_status(401), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_with_a_second_factor_needs_a_trusted_device() {
    let upstream = Upstream::start(user(|user| user.code = Some("123456".to_owned()))).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    for _ in 0..3 {
        assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
    }
    let exchanges = broker.exchanges();
    assert_eq!(exchanges.len(), 1, "nobody tries it again");
    assert!(exchanges[0].detail.contains("trusted device"), "{}", exchanges[0].detail);
    assert_eq!(upstream.control.counters().authenticate.total, 1);
}

#[tokio::test(start_paused = true)]
async fn the_fingerprint_of_a_trusted_device_is_enough() {
    let upstream = Upstream::start(user(|user| {
        user.code = Some("123456".to_owned());
        user.trusted_devices = vec!["the-broker-s-device".to_owned()];
    }));
    let upstream = upstream.await;
    for (fingerprint, expected) in [("the-broker-s-device", None), ("another-device", Some(Reason::CredentialRejected))]
    {
        let secrets = [SECRETS[0], SECRETS[1], ("fingerprint", fingerprint)];
        let broker = Broker::start(&upstream, &config(", fingerprint = @fingerprint "), &secrets);
        assert_eq!(reason(&broker.get("one").await), expected, "{fingerprint}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_user_serves_two_workspaces_by_switching() {
    let mut settings = settings(Refresh::Rotated);
    settings.organisations[1].lifetime = Duration::from_secs(7_200);
    let upstream = Upstream::start(settings).await;
    let (one, two) = (workspace("one", "user-in-workspace", 1, ""), workspace("two", "user-in-workspace", 2, ""));
    let broker = Broker::start(&upstream, &format!("{UPSTREAM}{one}{two}"), &SECRETS);
    for (workspace, organisation, life) in [("one", 1, 14_399), ("two", 2, 7_199)] {
        let served = broker.get(workspace).await.unwrap();
        let claims = claims(&served);
        assert_eq!((&claims["esc.org"], &claims["sub"]), (&organisation.into(), &USERNAME.into()));
        assert_eq!(served.held.validity.lifetime.as_secs(), life, "that of the token of the switch");
    }
    assert_eq!(broker.steps(), ["login", "switch", "login", "switch"]);
    assert_eq!(broker.renewed("two").await.outcome, "token");
    assert_eq!(broker.steps()[4..], ["refresh", "switch"]);
    assert_eq!(claims(&broker.get("two").await.unwrap())["esc.org"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_is_refused_is_a_credential_that_is_refused() {
    let upstream = Upstream::start(user(|user| user.workspaces = vec![1])).await;
    let two = workspace("two", "user-in-workspace", 2, "");
    let broker = Broker::start(&upstream, &format!("{UPSTREAM}{two}"), &SECRETS);
    for _ in 0..3 {
        assert_eq!(reason(&broker.get("two").await), Some(Reason::CredentialRejected));
    }
    assert_eq!(broker.steps(), ["login", "switch"]);
    assert_eq!(broker.outcomes(), ["rejected"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_of_another_organisation_is_told_from_a_wrong_password() {
    let mut settings = settings(Refresh::Rotated);
    settings.organisations.push(Organisation::new(3, "Three", "unused", Duration::from_secs(3_600)));
    settings.users[0].organisation = 3;
    let upstream = Upstream::start(settings).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    assert_eq!(reason(&broker.get("one").await), Some(Reason::TenantMismatch));
    let broker = Broker::start(&upstream, &config(""), &[SECRETS[0], ("password", "a-wrong-password")]);
    assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
}
