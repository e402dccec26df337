//! What the error codes of RFC 6749 §5.2 come to: for callers, for the log, and for the next attempt.

use super::{ID, SECRET, USERNAME, Upstream, client_id, reason, start, with};
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::sandbox::{Answer, Client, Fault, Grant, Refresh, Route, Scope};
use tokio::time::advance;

fn calls(upstream: &Upstream) -> u64 {
    upstream.control.counters().of(Route::Oauth2Token).total
}

/// The next answer is this error.
fn fails_once(upstream: &Upstream, status: u16, code: &str) {
    let body = format!("{{\"error\":\"{code}\",\"error_description\":\"what-the-server-says\"}}");
    let answer = Answer { status, body: body.into(), retry_after: None };
    upstream.control.set_fault_times(Scope::ALL.on(Route::Oauth2Token), Fault::Answer(answer), 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_must_mend_is_told_and_not_tried_again() {
    let clients = vec![
        Client::new("restricted").secret(SECRET.1).grants(&[Grant::Password]),
        Client::new("bound").secret(SECRET.1).targets(&["api"]),
    ];
    let upstream = Upstream::start(with(clients, Refresh::Kept)).await;
    let wrong = ("client_secret", "a-wrong-secret");
    let id = client_id(ID);
    let user = [("username", USERNAME), ("password", "a-wrong-password"), SECRET];
    let cases = [
        ("client-credentials", id.clone(), vec![wrong], "invalid_client"),
        ("client-credentials-body", id.clone(), vec![wrong], "invalid_client"),
        ("client-credentials", client_id("nobody"), vec![SECRET], "invalid_client"),
        ("client-credentials", client_id("restricted"), vec![SECRET], "unauthorized_client"),
        ("client-credentials", format!("{id}, scope = \"admin\""), vec![SECRET], "invalid_scope"),
        ("client-credentials", format!("{}, audience = \"other\"", client_id("bound")), vec![SECRET], "invalid_target"),
        ("password", id, user.to_vec(), "invalid_grant"),
    ];
    for (flow, parameters, secrets, code) in cases {
        let before = calls(&upstream);
        let broker = start(&upstream, flow, &parameters, "", &secrets);
        for _ in 0..3 {
            assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected), "{code}");
            advance(Duration::from_secs(60)).await;
        }
        let [only] = broker.exchanges().try_into().unwrap();
        assert!(only.outcome == "rejected" && only.detail.contains(code), "{code}: {only:?}");
        assert_eq!(calls(&upstream) - before, 1, "{code}");
    }
}

/// A server that does not offer the flow, and no fault of the simulator's own.
#[tokio::test(start_paused = true)]
async fn a_flow_that_the_server_does_not_offer_is_told() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Kept)).await;
    let broker = start(&upstream, "client-credentials", &client_id(ID), "", &[SECRET]);
    fails_once(&upstream, 400, "unsupported_grant_type");
    assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
    let [only] = broker.exchanges().try_into().unwrap();
    assert!(only.detail.contains("unsupported_grant_type"), "{only:?}");
    assert!(!only.detail.contains("what-the-server-says"));
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_is_tried_again() {
    for (status, code) in [
        (400, "temporarily_unavailable"),
        (503, "temporarily_unavailable"),
        (400, "server_error"),
        (500, "server_error"),
    ] {
        let upstream = Upstream::start(with(Vec::new(), Refresh::Kept)).await;
        let broker = start(&upstream, "client-credentials", &client_id(ID), "", &[SECRET]);
        fails_once(&upstream, status, code);
        assert_eq!(reason(&broker.get("one").await), Some(Reason::UpstreamUnavailable), "{status} {code}");
        assert_eq!(broker.exchanged_after("one", Duration::from_secs(3)).await.outcome, "token", "{status} {code}");
        assert!(broker.get("one").await.is_ok());
        assert_eq!(broker.outcomes(), ["unavailable", "token"], "{status} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_leaves_the_token_in_hand() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Kept)).await;
    let broker = start(&upstream, "client-credentials", &client_id(ID), "", &[SECRET]);
    let before = broker.get("one").await.unwrap().token.fingerprint;
    fails_once(&upstream, 401, "invalid_client");
    assert_eq!(broker.renewed("one").await.outcome, "rejected");
    assert_eq!(broker.get("one").await.unwrap().token.fingerprint, before);
    assert_eq!(calls(&upstream), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_fewer_requests_is_left_alone_for_as_long_as_it_says() {
    let upstream = Upstream::start(with(Vec::new(), Refresh::Kept)).await;
    let broker = start(&upstream, "client-credentials", &client_id(ID), "", &[SECRET]);
    let answer = Answer { status: 429, body: Vec::new().into(), retry_after: Some("120".to_owned()) };
    upstream.control.set_fault_times(Scope::ALL.on(Route::Oauth2Token), Fault::Answer(answer), 1);
    for waited in [0, 60, 119] {
        let refused = broker.get("one").await.unwrap_err();
        assert_eq!(refused.reason, Reason::UpstreamThrottled);
        assert!(refused.retry_after >= Some(Duration::from_secs(120 - waited)), "{refused:?} after {waited} s");
        let next = if waited == 0 { 60 } else { 59 };
        advance(Duration::from_secs(next)).await;
    }
    assert_eq!(calls(&upstream), 1);
}
