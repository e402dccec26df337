//! What goes wrong on demand, by handle and over `/_control`.

use super::{LIMIT, Running, TOKEN_1, TOKEN_2, body, claims, text_at};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use token_broker::sandbox::{Answer, Cut, CutAt, CutBy, Fault, Route, Scope};
use token_broker::secret::AccessToken;
use token_broker::token::Fingerprint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

impl Running {
    async fn control(&self, path: &str, order: &Value) -> u16 {
        let request = self.post(&format!("/_control/{path}"), order);
        request.send().await.unwrap().status().as_u16()
    }

    /// Logs in over a bare connection and reads until its end.
    async fn raw_log_in(&self) -> (Vec<u8>, io::Result<()>) {
        let login = format!(r#"{{"application_token":"{TOKEN_1}"}}"#);
        let request = format!(
            "POST /api/v1/authenticate HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {}\r\n\r\n{login}",
            login.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer));
        let ended = read.await.expect("the connection must end");
        (answer, ended.map(drop))
    }
}

fn cut(at: CutAt, by: CutBy) -> Fault {
    Fault::Cut(Cut { at, by })
}

#[tokio::test]
async fn a_status_fault_is_for_the_next_n_requests() {
    let sandbox = Running::start().await;
    let fault = Fault::Answer(Answer { status: 503, body: "busy".into(), retry_after: Some("7".to_owned()) });
    sandbox.control.set_fault_times(Scope::ALL, fault, 2);
    for _ in 0..2 {
        let response = sandbox.log_in(TOKEN_1).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.text().await.unwrap(), "busy");
    }
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn a_fault_can_be_for_one_organisation_alone() {
    let sandbox = Running::start().await;
    let jwts = [sandbox.jwt(TOKEN_1).await, sandbox.jwt(TOKEN_2).await];
    let scope = Scope::organisation(2);
    sandbox.control.set_fault(scope, Fault::status(500));
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    assert_eq!(sandbox.log_in(TOKEN_2).await.status(), 500);
    assert_eq!(sandbox.endpoints(&jwts[0]).await.status(), 200);
    assert_eq!(sandbox.endpoints(&jwts[1]).await.status(), 500);
}

#[tokio::test]
async fn a_fault_can_be_for_one_route_alone() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let scope = Scope::ALL.on(Route::Authenticate);
    sandbox.control.set_fault(scope, Fault::status(500));
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 500);
    assert_eq!(sandbox.endpoints(&jwt).await.status(), 200);
}

#[tokio::test]
async fn latency_delays_the_answer() {
    let sandbox = Running::start().await;
    let latency = Duration::from_millis(150);
    sandbox.control.set_fault_times(Scope::ALL, Fault::Latency(latency), 1);
    let start = tokio::time::Instant::now();
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    assert!(start.elapsed() >= latency);
}

#[tokio::test]
async fn a_cut_before_the_answer_leaves_nothing_of_it() {
    let sandbox = Running::start().await;
    let fault = cut(CutAt::Before, CutBy::Close);
    sandbox.control.set_fault(Scope::ALL, fault);
    let (answer, ended) = sandbox.raw_log_in().await;
    assert_eq!(answer, b"");
    assert!(ended.is_ok(), "{ended:?}");
    let calls = sandbox.control.counters().authenticate;
    assert_eq!((calls.total, calls.by_status.len()), (1, 0));
}

#[tokio::test]
async fn a_cut_by_reset_is_an_rst() {
    let sandbox = Running::start().await;
    let fault = cut(CutAt::Before, CutBy::Reset);
    sandbox.control.set_fault(Scope::ALL, fault);
    let (answer, ended) = sandbox.raw_log_in().await;
    assert_eq!(answer, b"");
    let kind = ended.unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_in_the_body_leaves_the_head_and_half_of_the_body() {
    let sandbox = Running::start().await;
    let fault = cut(CutAt::InBody, CutBy::Close);
    sandbox.control.set_fault_times(Scope::ALL, fault, 1);
    let (answer, ended) = sandbox.raw_log_in().await;
    assert!(ended.is_ok(), "{ended:?}");
    let answer = String::from_utf8(answer).unwrap();
    let (head, half) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().parse().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    assert!(half.starts_with(r#"{"auth_token":""#));
    assert_eq!(half.len(), length / 2);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn raw_bytes_replace_the_answer() {
    let sandbox = Running::start().await;
    let hostile = b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n\0\xff".to_vec();
    let fault = Fault::Raw(hostile.clone().into());
    sandbox.control.set_fault(Scope::ALL, fault);
    let (answer, ended) = sandbox.raw_log_in().await;
    assert_eq!(answer, hostile);
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_hang_ends_when_the_faults_are_cleared() {
    let sandbox = Running::start().await;
    sandbox.control.set_fault(Scope::ALL, Fault::Hang);
    let clear = async {
        sandbox.control.authenticate_calls_reach(1).await;
        assert_eq!(sandbox.control.counters().authenticate.by_status.len(), 0);
        sandbox.control.clear();
    };
    let (response, ()) = tokio::join!(sandbox.log_in(TOKEN_1), clear);
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_body_fault_may_carry_another_tenants_token() {
    let sandbox = Running::start().await;
    let foreign = sandbox.control.mint(2).unwrap();
    let answer = json!({ "auth_token": foreign }).to_string();
    let scope = Scope::organisation(1);
    sandbox.control.set_fault(scope, Fault::body(answer));
    let jwt = sandbox.jwt(TOKEN_1).await;
    assert_eq!(claims(&jwt)["esc.org"], 2);
    assert_eq!(sandbox.endpoints(&foreign).await.status(), 200);
}

#[tokio::test]
async fn the_same_token_comes_again_while_it_has_time_left() {
    let sandbox = Running::start().await;
    let first = sandbox.jwt(TOKEN_1).await;
    let fault = Fault::SameToken(Duration::from_secs(1_200));
    sandbox.control.set_fault(Scope::ALL, fault);
    assert_eq!(sandbox.jwt(TOKEN_1).await, first);
    sandbox.clock.step_wall_ms(13_000_000);
    assert_eq!(sandbox.jwt(TOKEN_1).await, first);
    sandbox.clock.step_wall_ms(300_000);
    assert_ne!(sandbox.jwt(TOKEN_1).await, first);
}

#[tokio::test]
async fn counters_tell_what_was_asked() {
    let sandbox = Running::start().await;
    let before = sandbox.clock.now().wall;
    let jwt = sandbox.jwt(TOKEN_1).await;
    sandbox.log_in(TOKEN_2).await;
    sandbox.log_in("unknown").await;
    sandbox.endpoints(&jwt).await;
    sandbox.endpoints("None").await;
    let counters = sandbox.control.counters();
    assert_eq!(counters.authenticate.total, 3);
    assert_eq!(counters.authenticate.with_status(200), 2);
    assert_eq!(counters.authenticate.with_status(401), 1);
    assert_eq!(counters.authenticate_by_organisation.len(), 2);
    assert_eq!(counters.authenticate_by_organisation[&1].total, 1);
    assert_eq!(counters.authenticate_by_organisation[&2].with_status(200), 1);
    assert_eq!(counters.protected.total, 2);
    assert_eq!(counters.protected.with_status(200), 1);
    assert_eq!(counters.protected.with_status(401), 1);
    assert_eq!(counters.protected_expired, 0);
    let at: Vec<_> = counters.authenticate_at_ms.iter().copied().collect();
    let from = before.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(at.len(), 3);
    assert!(at.is_sorted());
    assert!(u128::from(at[0]) >= from.as_millis());
}

#[tokio::test]
async fn reset_begins_anew() {
    let sandbox = Running::start().await;
    sandbox.control.set_fault(Scope::ALL, Fault::status(500));
    assert!(sandbox.control.revoke_organisation(1));
    sandbox.log_in(TOKEN_1).await;
    assert_eq!(sandbox.control("reset", &json!({})).await, 204);
    assert_eq!(sandbox.control.counters().authenticate.total, 0);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn control_sets_faults_over_http() {
    let sandbox = Running::start().await;
    let order = json!({ "organisation": 2, "times": 1, "status": 429, "retry_after": "3" });
    assert_eq!(sandbox.control("faults", &order).await, 204);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    let response = sandbox.log_in(TOKEN_2).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "3");
    assert_eq!(sandbox.log_in(TOKEN_2).await.status(), 200);

    let body_bytes = json!({ "body_bytes": 100_000, "times": 1 });
    assert_eq!(sandbox.control("faults", &body_bytes).await, 204);
    let huge = sandbox.log_in(TOKEN_1).await.bytes().await.unwrap();
    assert_eq!(huge.len(), 100_000);

    let raw = json!({ "raw": STANDARD.encode(b"\0\0\0"), "times": 1 });
    assert_eq!(sandbox.control("faults", &raw).await, 204);
    assert_eq!(sandbox.raw_log_in().await.0, b"\0\0\0");

    let half = json!({ "cut": "in_body", "reset": true, "times": 1 });
    assert_eq!(sandbox.control("faults", &half).await, 204);
    assert!(sandbox.raw_log_in().await.1.is_err());
}

#[tokio::test]
async fn control_clears_faults_over_http() {
    let sandbox = Running::start().await;
    let order = json!({ "route": "authenticate", "status": 500 });
    assert_eq!(sandbox.control("faults", &order).await, 204);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 500);
    let request = sandbox.client.delete(sandbox.url("/_control/faults"));
    assert_eq!(request.send().await.unwrap().status(), 204);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn control_refuses_what_it_does_not_understand() {
    let sandbox = Running::start().await;
    for order in [
        json!({}),
        json!({ "organisation": 1 }),
        json!({ "latency": 5 }),
        json!({ "raw": "not base64!" }),
        json!({ "status": 99 }),
        json!({ "body": "a", "body_bytes": 1 }),
    ] {
        assert_eq!(sandbox.control("faults", &order).await, 422, "{order}");
    }
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn control_revokes_and_rejects_over_http() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    let id = sandbox.control.application_token_ids(1)[0];
    let order = json!({ "application_token_id": id });
    assert_eq!(sandbox.control("revoke", &order).await, 204);
    let nobody = json!({ "organisation": 77 });
    assert_eq!(sandbox.control("revoke", &nobody).await, 404);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 401);
    assert_eq!(sandbox.endpoints(&jwt).await.status(), 200);
    let fingerprint = Fingerprint::of(&AccessToken::new(jwt.clone())).to_string();
    let order = json!({ "fingerprint": fingerprint });
    assert_eq!(sandbox.control("reject", &order).await, 204);
    assert_eq!(sandbox.endpoints(&jwt).await.status(), 401);
}

#[tokio::test]
async fn control_changes_limits_over_http() {
    let sandbox = Running::start().await;
    let order = json!({ "logins": 1, "retry_after": true });
    let request = sandbox.client.put(sandbox.url("/_control/limits"));
    let changed = request.json(&order).send().await.unwrap();
    assert_eq!(changed.status(), 204);
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    let response = sandbox.log_in(TOKEN_1).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn control_shows_counters_and_time_over_http_and_is_not_counted_itself() {
    let sandbox = Running::start().await;
    sandbox.control.set_fault(Scope::ALL, Fault::Skew(5_000));
    sandbox.log_in(TOKEN_1).await;
    let get = |path: &str| {
        let request = sandbox.client.get(sandbox.url(&format!("/_control/{path}")));
        async { body(request.send().await.unwrap()).await }
    };
    let counters = get("counters").await;
    assert_eq!(counters["authenticate"]["total"], 1);
    assert_eq!(counters["authenticate"]["by_status"]["200"], 1);
    assert_eq!(counters["protected"]["total"], 0);
    let now_ms = get("now").await["now_ms"].as_u64().unwrap();
    let wall = sandbox.clock.now().wall;
    let wall_ms = wall.duration_since(std::time::UNIX_EPOCH).unwrap();
    let ahead = i128::from(now_ms) - i128::try_from(wall_ms.as_millis()).unwrap();
    assert!((3_000..=5_000).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn control_mints_over_http() {
    let sandbox = Running::start().await;
    let request = sandbox.post("/_control/mint", &json!({ "organisation": 2 }));
    let minted = body(request.send().await.unwrap()).await;
    let jwt = text_at(&minted, "auth_token");
    assert_eq!(sandbox.endpoints(&jwt).await.status(), 200);
}
