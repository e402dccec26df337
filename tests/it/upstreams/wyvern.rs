//! Wyvern: a login and a refresh, each at a path that may be given.

use super::{Broker, Upstream, claims, reason};
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::sandbox::{Cut, CutAt, CutBy, Fault, Refresh, Route, Scope, Settings, Wyvern};

const USERNAME: &str = "sandbox-user@example.com";
const SECRETS: [(&str, &str); 2] = [("username", USERNAME), ("password", "sandbox-password")];

fn settings(refresh: Refresh) -> Settings {
    Settings { wyvern: Wyvern { refresh, ..Wyvern::default() }, ..Settings::default() }
}

fn config(more: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"wyvern\"\nkind = \"wyvern\"\nurl = \"SANDBOX/wyvern\"\n\
         [[workspaces]]\nname = \"one\"\nupstream = \"wyvern\"\n{more}\n\
         credential = {{ username = @username , password = @password }}\n"
    )
}

/// How often the login and the refresh were asked.
fn asked(upstream: &Upstream) -> [u64; 2] {
    let counters = upstream.control.counters();
    [Route::WyvernToken, Route::WyvernRefresh].map(|route| counters.of(route).total)
}

#[tokio::test(start_paused = true)]
async fn a_login_is_renewed_by_refreshes() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    let served = broker.get("one").await.unwrap();
    assert_eq!(claims(&served)["sub"], USERNAME);
    assert_eq!(served.held.validity.lifetime.as_secs(), 3_599);
    for _ in 0..5 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
    }
    assert_eq!(asked(&upstream), [1, 5]);
    assert_eq!(upstream.control.counters().of(Route::WyvernRefresh).with_status(200), 5);
}

#[tokio::test(start_paused = true)]
async fn where_a_refresh_brings_no_new_refresh_token_every_other_renewal_is_a_login() {
    let upstream = Upstream::start(settings(Refresh::Kept)).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    broker.get("one").await.unwrap();
    for _ in 0..3 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
    }
    assert_eq!(broker.steps(), ["login", "refresh", "login", "refresh"]);
}

/// What the preset does not know of a server, a description may say: that it keeps its refresh tokens.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_said_to_be_kept_is_used_again_and_again() {
    let login =
        "{ path = \"/token\", json = { username = \"{username}\", password = \"{password}\" }, answer = @answer }";
    let refresh = "{ path = \"/1.0/auth/token/refresh\", single_use = false, \
                   json = { refresh_token = \"{refresh_token}\" }, answer = @answer }";
    let answer = "{ token = \"token\", refresh_token = \"refresh_token\", \
                  expiry = [{ relative = \"expires_in\", unit = \"s\" }] }";
    let flow = format!("secrets = [\"username\", \"password\"]\nlogin = {login}\nrefresh = {refresh}");
    let described = format!("kind = \"http\"\n[upstreams.flows.own]\n{}", flow.replace("@answer", answer));
    let (head, tail) = config("").split_once("[[workspaces]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let head = head.replace("kind = \"wyvern\"\n", "");
    let upstream = Upstream::start(settings(Refresh::Kept)).await;
    let broker = Broker::start(&upstream, &format!("{head}{described}\n[[workspaces]]{tail}"), &SECRETS);
    broker.get("one").await.unwrap();
    for _ in 0..4 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
    }
    let lost = Fault::Cut(Cut { at: CutAt::InBody, by: CutBy::Close });
    upstream.control.set_fault_times(Scope::ALL.on(Route::WyvernRefresh), lost, 1);
    assert_eq!(broker.renewed("one").await.outcome, "unavailable");
    assert_eq!(broker.exchanged_after("one", Duration::from_secs(3)).await.outcome, "token");
    assert_eq!(asked(&upstream), [1, 6], "it is good after an answer that was lost");
}

#[tokio::test(start_paused = true)]
async fn the_paths_are_parameters() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let paths = "login_path = \"/wyvern/token\", refresh_path = \"/wyvern/1.0/auth/token/refresh\"";
    // Neither of the default paths is there.
    let config = config(&format!("parameters = {{ {paths} }}")).replace("SANDBOX/wyvern", "SANDBOX");
    let broker = Broker::start(&upstream, &config, &SECRETS);
    broker.get("one").await.unwrap();
    assert_eq!(broker.renewed("one").await.outcome, "token");
    assert_eq!(asked(&upstream), [1, 1]);
    let wrong = config.replace("/wyvern/token", "/nowhere");
    let broker = Broker::start(&upstream, &wrong, &SECRETS);
    assert!(broker.get("one").await.is_err(), "the path that is given is the one that is asked");
    assert_eq!(asked(&upstream), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_refresh_the_login_follows_in_the_same_attempt() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let broker = Broker::start(&upstream, &config("parameters = { refresh_path = \"/nowhere\" }"), &SECRETS);
    broker.get("one").await.unwrap();
    for _ in 0..3 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
    }
    assert_eq!(broker.outcomes(), ["token"; 4]);
    assert_eq!(asked(&upstream), [4, 0]);
    assert_eq!(broker.steps(), ["login", "refresh", "login", "refresh", "login", "refresh", "login"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_was_used_up_elsewhere_costs_nobody_a_failure() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let broker = Broker::start(&upstream, &config(""), &SECRETS);
    broker.get("one").await.unwrap();
    upstream.control.set_fault_times(Scope::ALL.on(Route::WyvernRefresh), Fault::status(401), 1);
    assert_eq!(broker.renewed("one").await.outcome, "token");
    assert_eq!(broker.renewed("one").await.outcome, "token");
    assert_eq!(broker.steps(), ["login", "refresh", "login", "refresh"]);
    assert_eq!(asked(&upstream), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_told_and_not_tried_again() {
    let upstream = Upstream::start(settings(Refresh::Rotated)).await;
    let broker = Broker::start(&upstream, &config(""), &[SECRETS[0], ("password", "a-wrong-password")]);
    for _ in 0..3 {
        assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
    }
    assert_eq!(asked(&upstream), [1, 0]);
}
