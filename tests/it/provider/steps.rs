//! Exchanges of several requests: refresh, login and switch.

use super::observed::{PATIENT, captured};
use super::recipes::{answer, exchange, fields, json, optional, path, post, required, template, user};
use super::script::{Act, Script, ok, script};
use crate::logs::Capture;
use std::sync::Mutex;
use std::time::Duration;
use token_broker::failure::Failure;
use token_broker::provider::exchange::Exchange;
use token_broker::provider::exchange::explain::Event;
use token_broker::provider::recipe::{
    Answer, Condition, Constant, Expiry, Holds, Json, Recipe, Refresh, Request, Stage, Step, Tenant, TenantSource, Unit,
};
use token_broker::provider::{FetchError, Fetched, Provider as _};
use tokio::time::Instant;

const LOGIN: &str = r#"POST /login {"username":"u","password":"hunter2"}"#;
const REFUSED: Act = Act::Answer(401, String::new());

/// A login whose refresh tokens are exchanged at `/refresh`.
fn refreshing(single_use: bool) -> Recipe {
    let answer = Answer { refresh_token: Some(path("refresh_token")), ..answer("access_token") };
    let login = Step { answer: answer.clone(), ..user().login };
    let step = Step { request: post("/refresh", json(&[("refresh", "{refresh_token}")])), answer };
    Recipe { login, refresh: Some(Refresh { step, single_use }), ..user() }
}

fn of_user(script: &Script, recipe: Recipe) -> Exchange {
    exchange(&script.url, PATIENT, recipe, fields(&[("username", "u"), ("password", "hunter2")], &[]))
}

fn token(name: &str, refresh: &str) -> Act {
    ok(&format!(r#"{{"access_token":"{name}","expires_in":3600,"refresh_token":"{refresh}"}}"#))
}

fn bare(name: &str) -> Act {
    ok(&format!(r#"{{"access_token":"{name}","expires_in":3600}}"#))
}

fn refresh(with: &str) -> String {
    format!(r#"POST /refresh {{"refresh":"{with}"}}"#)
}

fn brought(result: Result<Fetched, FetchError>) -> String {
    result.unwrap().value.expose().to_owned()
}

/// Makes as many exchanges as are expected, each with the token or the failure that it comes to.
async fn comes_to(exchange: &Exchange, expected: &[Result<&str, Failure>]) {
    for expected in expected {
        let result = exchange.exchange().await;
        let result = result.map(|fetched| fetched.value.expose().to_owned()).map_err(|error| error.kind);
        assert_eq!(result, expected.map(str::to_owned));
    }
}

#[tokio::test]
async fn a_refresh_token_is_used_and_replaced() {
    let script = script(&[token("a", "r1"), token("b", "r2"), bare("c"), bare("d")]).await;
    comes_to(&of_user(&script, refreshing(false)), &[Ok("a"), Ok("b"), Ok("c"), Ok("d")]).await;
    assert_eq!(script.requests(), [LOGIN.to_owned(), refresh("r1"), refresh("r2"), refresh("r2")]);
}

#[tokio::test]
async fn a_refresh_token_for_one_use_is_used_once() {
    let script = script(&[token("a", "r1"), token("b", "r2"), bare("c"), token("d", "r3")]).await;
    comes_to(&of_user(&script, refreshing(true)), &[Ok("a"), Ok("b"), Ok("c"), Ok("d")]).await;
    assert_eq!(script.requests(), [LOGIN.to_owned(), refresh("r1"), refresh("r2"), LOGIN.to_owned()]);
}

#[tokio::test]
async fn the_login_follows_a_refused_refresh_in_the_same_attempt() {
    for single_use in [false, true] {
        let script = script(&[token("a", "r1"), REFUSED, token("b", "r2"), bare("c")]).await;
        comes_to(&of_user(&script, refreshing(single_use)), &[Ok("a"), Ok("b"), Ok("c")]).await;
        assert_eq!(script.requests(), [LOGIN.to_owned(), refresh("r1"), LOGIN.to_owned(), refresh("r2")]);
    }
}

#[tokio::test]
async fn a_login_that_is_refused_after_the_refresh_is_the_outcome() {
    let script = script(&[token("a", "r1"), REFUSED, REFUSED, bare("b")]).await;
    comes_to(&of_user(&script, refreshing(false)), &[Ok("a"), Err(Failure::Rejected), Ok("b")]).await;
    assert_eq!(script.requests()[2..], [LOGIN, LOGIN]);
}

#[tokio::test]
async fn a_lost_answer_costs_only_a_refresh_token_for_one_use() {
    let acts = [token("a", "r1"), Act::Cut, bare("b")];
    for (single_use, third) in [(false, refresh("r1")), (true, LOGIN.to_owned())] {
        let script = script(&acts).await;
        let expected = [Ok("a"), Err(Failure::Unreachable), Ok("b")];
        comes_to(&of_user(&script, refreshing(single_use)), &expected).await;
        assert_eq!(script.requests(), [LOGIN.to_owned(), refresh("r1"), third]);
    }
}

#[tokio::test]
async fn a_refresh_that_never_works_gives_way_to_the_login() {
    let missing = Act::Answer(404, String::new());
    let script = script(&[token("a", "r1"), missing.clone(), missing.clone(), missing, bare("b")]).await;
    let unavailable = Err(Failure::Unavailable);
    let expected = [Ok("a"), unavailable, unavailable, unavailable, Ok("b")];
    comes_to(&of_user(&script, refreshing(false)), &expected).await;
    assert_eq!(script.requests()[3..], [refresh("r1"), LOGIN.to_owned()]);
}

#[tokio::test]
async fn a_refresh_that_brings_nonsense_gives_way_to_the_login() {
    let script = script(&[token("a", "r1"), ok(r#"{"refresh_token":"r2"}"#), bare("b")]).await;
    comes_to(&of_user(&script, refreshing(false)), &[Ok("a"), Err(Failure::Malformed), Ok("b")]).await;
    assert_eq!(script.requests(), [LOGIN.to_owned(), refresh("r1"), LOGIN.to_owned()]);
}

#[tokio::test]
async fn a_throttled_refresh_keeps_its_refresh_token() {
    let script = script(&[token("a", "r1"), Act::Answer(429, String::new()), bare("b")]).await;
    let expected = [Ok("a"), Err(Failure::Throttled { retry_after: None }), Ok("b")];
    comes_to(&of_user(&script, refreshing(false)), &expected).await;
    assert_eq!(script.requests()[1..], [refresh("r1"), refresh("r1")]);
}

/// A token of the home tenant is switched for one of the wanted tenant.
fn switching() -> Recipe {
    let target = Json::Object(vec![("id".to_owned(), Json::Text(template("{organisation|number}")))]);
    let switch = Step {
        request: Request {
            headers: vec![("authorization".to_owned(), template("Bearer {token}"))],
            ..post("/switch", token_broker::provider::recipe::Body::Json(vec![("target".to_owned(), target)]))
        },
        answer: answer("switched"),
    };
    let tenant = Tenant { said: TenantSource::Answer(path("organisation")), parameter: "organisation".to_owned() };
    let login = Step {
        answer: Answer { expiry: Vec::new(), ..refreshing(false).login.answer },
        request: refreshing(false).login.request,
    };
    Recipe {
        parameters: vec![required("organisation")],
        switch: Some(switch),
        tenant: Some(tenant),
        login,
        ..refreshing(false)
    }
}

#[tokio::test]
async fn a_switch_follows_every_token() {
    let home = ok(r#"{"access_token":"home","organisation":1,"refresh_token":"r1"}"#);
    let switched =
        |name: &str| ok(&format!(r#"{{"switched":"{name}","expires_in":600,"organisation":42,"refresh_token":"no"}}"#));
    let script = script(&[home.clone(), switched("a"), home, switched("b")]).await;
    let given = fields(&[("username", "u"), ("password", "hunter2")], &[("organisation", "42")]);
    let exchange = exchange(&script.url, PATIENT, switching(), given);
    let fetched = exchange.exchange().await.unwrap();
    assert_eq!((fetched.value.expose(), fetched.lifetime), ("a", Duration::from_secs(600)));
    assert_eq!(brought(exchange.exchange().await), "b");
    let switch = r#"POST /switch {"target":{"id":42}}"#.to_owned();
    assert_eq!(script.requests(), [LOGIN.to_owned(), switch.clone(), refresh("r1"), switch]);
}

#[tokio::test]
async fn the_tenant_is_that_of_the_last_answer() {
    let home = ok(r#"{"access_token":"home","organisation":42}"#);
    let script = script(&[home, ok(r#"{"switched":"a","expires_in":600,"organisation":1}"#)]).await;
    let given = fields(&[("username", "u"), ("password", "hunter2")], &[("organisation", "42")]);
    let error = exchange(&script.url, PATIENT, switching(), given).exchange().await.unwrap_err();
    assert_eq!(error.kind, Failure::TenantMismatch);
    assert_eq!(error.detail, "switch: the token is for organisation 1, not 42");
}

/// The credential is itself a refresh token.
fn rotating() -> Recipe {
    let login = Step {
        request: post("/login", json(&[("refresh", "{refresh_token}")])),
        answer: Answer { refresh_token: Some(path("refresh_token")), ..answer("access_token") },
    };
    Recipe { secrets: vec![required("refresh_token")], login, ..user() }
}

#[tokio::test]
async fn a_credential_that_is_replaced_is_used_in_its_newest_form() {
    let acts = [token("a", "r1"), token("b", "r2"), token("c", "r2"), REFUSED, token("d", "r9"), bare("e")];
    let script = script(&acts).await;
    let capture = Capture::default();
    let logs = captured(&capture);
    let exchange = exchange(&script.url, PATIENT, rotating(), fields(&[("refresh_token", "r0")], &[]));
    comes_to(&exchange, &[Ok("a"), Ok("b"), Ok("c"), Ok("d"), Ok("e")]).await;
    drop(logs);
    let sent = ["r0", "r1", "r2", "r2", "r0", "r9"].map(|token| format!(r#"POST /login {{"refresh":"{token}"}}"#));
    assert_eq!(script.requests(), sent);
    assert_eq!(capture.text().matches("needs a store").count(), 1, "said once");
}

/// Whoever refuses the client has not looked at the refresh token.
#[tokio::test]
async fn a_newer_credential_outlives_a_refusal_that_the_configured_one_meets_too() {
    let refused = Act::Answer(401, r#"{"error":"invalid_client"}"#.to_owned());
    let script = script(&[token("a", "r1"), refused.clone(), refused, bare("b"), REFUSED, bare("c"), bare("d")]).await;
    let exchange = exchange(&script.url, PATIENT, rotating(), fields(&[("refresh_token", "r0")], &[]));
    comes_to(&exchange, &[Ok("a"), Err(Failure::Rejected), Ok("b"), Ok("c"), Ok("d")]).await;
    let sent = ["r0", "r1", "r0", "r1", "r1", "r0", "r0"];
    assert_eq!(script.requests(), sent.map(|token| format!(r#"POST /login {{"refresh":"{token}"}}"#)));
}

#[tokio::test]
async fn a_credential_that_is_given_back_is_not_replaced() {
    let script = script(&[token("a", "r0"), token("b", "r0")]).await;
    let capture = Capture::default();
    let logs = captured(&capture);
    let exchange = exchange(&script.url, PATIENT, rotating(), fields(&[("refresh_token", "r0")], &[]));
    comes_to(&exchange, &[Ok("a"), Ok("b")]).await;
    drop(logs);
    assert!(!capture.text().contains("needs a store"));
}

/// The refresh takes two thirds of the time, and the login would take for ever.
#[tokio::test]
async fn all_steps_share_one_deadline() {
    let (limit, slow) = (Duration::from_secs(3), Duration::from_secs(2));
    let late = Act::Late(slow, 401, String::new());
    let script = script(&[token("a", "r1"), late, Act::Hang]).await;
    let given = fields(&[("username", "u"), ("password", "hunter2")], &[]);
    let exchange = exchange(&script.url, limit, refreshing(false), given);
    assert_eq!(brought(exchange.exchange().await), "a");
    let started = Instant::now();
    assert_eq!(exchange.exchange().await.unwrap_err().kind, Failure::Unreachable);
    let took = started.elapsed();
    assert_eq!(script.requests().len(), 3, "the login was tried");
    assert!(took >= limit && took < limit + slow, "{took:?}");
}

#[tokio::test]
async fn a_listener_is_told_of_everything_but_the_secrets() {
    let script = script(&[token("secret-a", "secret-r1"), REFUSED, token("secret-b", "secret-r2")]).await;
    let exchange = of_user(&script, refreshing(false));
    let heard = Mutex::new(Vec::new());
    for _ in 0..2 {
        exchange.exchange_aloud(&|event| heard.lock().unwrap().push(event)).await.unwrap();
    }
    let heard = heard.into_inner().unwrap();
    let shown = format!("{heard:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("secret-"), "{shown}");
    let bodies: Vec<_> = heard
        .iter()
        .filter_map(|event| match event {
            Event::Sent(sent) => Some((sent.stage, sent.body.clone().unwrap())),
            Event::Answered(_) => None,
        })
        .collect();
    let login = (Stage::Login, r#"{"username":"‹username›","password":"‹password›"}"#.to_owned());
    let refresh = (Stage::Refresh, r#"{"refresh":"‹refresh_token›"}"#.to_owned());
    assert_eq!(bodies, [login.clone(), refresh, login]);
    let Event::Answered(answered) = &heard[3] else { panic!("{shown}") };
    assert_eq!((answered.status, answered.body_bytes), (Some(401), Some(0)));
    assert_eq!(answered.outcome, "rejected: status 401: the credential is refused");
    let Event::Answered(answered) = &heard[5] else { panic!("{shown}") };
    assert_eq!(answered.members, ["access_token: text", "expires_in: number", "refresh_token: text"]);
    assert_eq!(answered.outcome, "a token for 3600 s");
}

#[tokio::test]
async fn members_are_told_by_their_kinds_and_codes_by_their_values() {
    let said = r#"{"code":1003,"state":"denied","pin":123456,"error_code":12345678,"ok":false,
        "data":{"items":[{"expires_at":"2026-11-21","status":true},{"other":1}]},"nothing":null}"#;
    let script = script(&[ok(said)]).await;
    let equals = |name, constant| Condition { path: path(name), holds: Holds::OneOf(vec![constant]) };
    let when = vec![equals("ok", Constant::Boolean(true)), equals("state", Constant::Text("granted".to_owned()))];
    let answer = Answer { when, ..answer("access_token") };
    let mut login = Step { answer, ..user().login };
    login.request.extra = true;
    let mut given = fields(&[("username", "u"), ("password", "hunter2")], &[]);
    given.extra.insert("api_secret".to_owned(), "EXTRA-S3CRET".to_owned());
    let exchange = exchange(&script.url, PATIENT, Recipe { login, ..user() }, given);
    let heard = Mutex::new(Vec::new());
    exchange.exchange_aloud(&|event| heard.lock().unwrap().push(event)).await.unwrap_err();
    assert!(script.requests()[0].contains("EXTRA-S3CRET"));
    let heard = heard.into_inner().unwrap();
    let [Event::Sent(sent), Event::Answered(answered)] = heard.as_slice() else { panic!("{heard:?}") };
    let body = r#"{"username":"‹username›","password":"‹password›","api_secret":"‹extra api_secret›"}"#;
    assert_eq!(sent.body.as_deref(), Some(body));
    assert_eq!(
        answered.members,
        [
            "code: number 1003",
            "data: object",
            "data.items: array",
            "data.items.0: object",
            "data.items.0.expires_at: text",
            "data.items.0.status: boolean true",
            "error_code: number",
            "nothing: null",
            "ok: boolean false",
            "pin: number",
            "state: text",
        ]
    );
    assert_eq!(answered.outcome, "malformed: status 200: when is not met: ok (boolean false)");
}

#[tokio::test]
async fn the_lines_of_several_steps_name_them() {
    let script = script(&[token("a", "r1"), REFUSED, Act::Answer(429, String::new())]).await;
    let exchange = of_user(&script, refreshing(false));
    let capture = Capture::default();
    let guard = captured(&capture);
    exchange.exchange().await.unwrap();
    let error = exchange.exchange().await.unwrap_err();
    drop(guard);
    assert_eq!(error.detail, "login: status 429: too many requests");
    let logs = capture.text();
    let lines: Vec<_> = logs.lines().filter(|line| line.contains(" INFO ")).collect();
    let expected = [
        "answer step=\"login\" status=200",
        "answer step=\"refresh\" status=401",
        "the refresh token is refused: the login follows",
        "answer step=\"login\" status=429",
    ];
    assert_eq!(lines.len(), expected.len(), "{logs}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "{part}\nis not in\n{line}");
    }
}

#[tokio::test]
async fn a_configured_life_is_one_more_source() {
    let asked = Recipe {
        parameters: vec![optional("seconds")],
        login: Step {
            answer: Answer {
                expiry: vec![
                    Expiry::Asked("seconds".to_owned(), Unit::Seconds),
                    Expiry::Fixed(Duration::from_secs(900)),
                ],
                ..answer("access_token")
            },
            ..user().login
        },
        ..user()
    };
    for (given, life) in [(vec![("seconds", "600")], 600), (vec![], 900), (vec![("seconds", "1000")], 900)] {
        let script = script(&[ok(r#"{"access_token":"a"}"#)]).await;
        let given = fields(&[("username", "u"), ("password", "hunter2")], &given);
        let fetched = exchange(&script.url, PATIENT, asked.clone(), given).exchange().await.unwrap();
        assert_eq!(fetched.lifetime, Duration::from_secs(life));
    }
}
