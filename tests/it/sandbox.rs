//! The simulated upstreams, over real sockets: a test per fact of the wire. What stands here is emnify's.

mod endpoint;
mod faults;
mod management;
mod oauth2;
mod odd;
mod sdk;
mod sensos;
mod users;
mod wyvern;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use token_broker::clock::Clock;
use token_broker::sandbox::{ApiKey, Control, Fault, Limits, Organisation, RetryAfter, Sandbox, Scope, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use url::form_urlencoded;

const TOKEN_1: &str = "sandbox-application-token-1";
const TOKEN_2: &str = "sandbox-application-token-2";
/// Nothing here takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

/// A sandbox that is being served.
struct Running {
    address: SocketAddr,
    control: Control,
    clock: Clock,
    client: Client,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let clock = Clock::simulated();
        let any_port = "127.0.0.1:0".parse().unwrap();
        let sandbox = Sandbox::bind(any_port, settings, clock.clone()).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let (address, control) = (sandbox.addr(), sandbox.handle());
        let mut tasks = JoinSet::new();
        tasks.spawn(sandbox.run(async { drop(stopped.await) }));
        Self { address, control, clock, client: client(), stop, tasks }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }

    async fn send(&self, path: &str, body: &Value) -> Response {
        self.post(path, body).send().await.unwrap()
    }

    /// A form.
    fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let typed = "application/x-www-form-urlencoded; charset=UTF-8";
        self.client.post(self.url(path)).header("content-type", typed).body(body)
    }

    async fn get(&self, path: &str, bearer: &str) -> Response {
        self.client.get(self.url(path)).bearer_auth(bearer).send().await.unwrap()
    }

    /// Moves the clock of the sandbox.
    fn pass(&self, seconds: i64) {
        self.clock.step_wall_ms(seconds * 1_000);
    }

    async fn log_in(&self, application_token: &str) -> Response {
        self.authenticate(&json!({ "application_token": application_token })).await
    }

    async fn authenticate(&self, body: &Value) -> Response {
        let request = self.post("/api/v1/authenticate", body);
        request.send().await.unwrap()
    }

    async fn jwt(&self, application_token: &str) -> String {
        let response = self.log_in(application_token).await;
        assert_eq!(response.status(), 200);
        text_at(&body(response).await, "auth_token")
    }

    async fn endpoints(&self, bearer: &str) -> Response {
        let request = self.client.get(self.url("/api/v1/endpoint"));
        request.bearer_auth(bearer).send().await.unwrap()
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(LIMIT).build().unwrap()
}

async fn body(response: Response) -> Value {
    response.json().await.unwrap()
}

fn life(jwt: &str) -> i64 {
    let claims = claims(jwt);
    claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
}

fn text_at(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap().to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The claims as they stand on the wire.
fn claims_text(jwt: &str) -> String {
    let payload = jwt.split('.').nth(1).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn claims(jwt: &str) -> Value {
    serde_json::from_str(&claims_text(jwt)).unwrap()
}

fn date(response: &Response) -> i64 {
    let date = httpdate::parse_http_date(header(response, "date").unwrap()).unwrap();
    seconds(date)
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

async fn assert_locked(response: Response) {
    assert_eq!(response.status(), 401);
    let body = body(response).await;
    assert_eq!(body["error_code"], 1105);
    assert_eq!(body["error_token"], "TooManyRequests");
    assert!(body["message"].is_string());
}

async fn assert_empty_401(response: Response) {
    assert_eq!(response.status(), 401);
    assert_eq!(header(&response, "content-type"), None);
    assert_eq!(response.text().await.unwrap(), "");
}

async fn assert_gateway_401(response: Response, message: &str) {
    assert_eq!(response.status(), 401);
    let error_type = header(&response, "x-amzn-errortype");
    assert_eq!(error_type, Some("AccessDeniedException"));
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(body(response).await, json!({ "message": message }));
}

#[tokio::test]
async fn an_application_token_brings_an_auth_token_and_no_refresh_token() {
    let sandbox = Running::start().await;
    let response = sandbox.log_in(TOKEN_1).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "cache-control"), Some("max-age=0"));
    let body = body(response).await;
    let fields: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["auth_token"]);
}

#[tokio::test]
async fn the_jwt_has_the_recorded_header_and_the_eight_claims_in_order() {
    let sandbox = Running::start().await;
    let jwt = sandbox.jwt(TOKEN_1).await;
    assert!(jwt.starts_with(&format!("{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS384"}"#))));
    let claims = claims(&jwt);
    let exp = claims["exp"].as_i64().unwrap();
    let api_key = text_at(&claims, "api_key");
    assert_eq!(
        claims_text(&jwt),
        format!(
            concat!(
                r#"{{"aud":"/api/v1/authentication","esc.app":1001,"api_key":"{}","esc.org":1,"#,
                r#""esc.orgName":"Sandbox One","iss":"spc-frontend001@spc-frontend","exp":{},"iat":{}}}"#
            ),
            api_key,
            exp,
            exp - 14_400
        )
    );
    assert_eq!(api_key.len(), 40);
    assert!(api_key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!((357..=410).contains(&jwt.len()), "{}", jwt.len());
}

#[tokio::test]
async fn lifetimes_are_those_of_the_organisation() {
    let mut settings = Settings::default();
    let short = Organisation::new(3, "Short", "short", Duration::from_secs(5));
    settings.organisations.push(short);
    let sandbox = Running::with(settings).await;
    for (token, life) in [(TOKEN_1, 14_400), (TOKEN_2, 604_800), ("short", 5)] {
        let claims = claims(&sandbox.jwt(token).await);
        let (exp, iat) = (claims["exp"].as_i64(), claims["iat"].as_i64());
        assert_eq!(exp.unwrap() - iat.unwrap(), life, "{token}");
    }
}

#[tokio::test]
async fn a_junk_authorization_header_is_ignored_at_login() {
    let sandbox = Running::start().await;
    for junk in ["Bearer None", "Bearer a.b.c", "nonsense"] {
        let body = json!({ "application_token": TOKEN_1 });
        let request = sandbox.post("/api/v1/authenticate", &body);
        let response = request.header("authorization", junk).send().await.unwrap();
        assert_eq!(response.status(), 200, "{junk}");
    }
}

#[tokio::test]
async fn two_logins_within_a_second_differ_unless_the_api_key_is_empty() {
    let sandbox = Running::start().await;
    let first = sandbox.jwt(TOKEN_1).await;
    assert_ne!(first, sandbox.jwt(TOKEN_1).await);
    let empty = Running::with(Settings { api_key: ApiKey::Empty, ..Settings::default() }).await;
    assert_eq!(claims(&empty.jwt(TOKEN_1).await)["api_key"], "");
}

#[tokio::test]
async fn an_unknown_application_token_gets_401_with_an_empty_body() {
    let sandbox = Running::start().await;
    assert_empty_401(sandbox.log_in("unknown").await).await;
}

#[tokio::test]
async fn three_unknown_tokens_lock_the_address_for_unknown_tokens_only() {
    let sandbox = Running::start().await;
    for _ in 0..3 {
        assert_empty_401(sandbox.log_in("unknown").await).await;
    }
    assert_locked(sandbox.log_in("another").await).await;
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
}

#[tokio::test]
async fn three_failures_lock_the_organisation_but_no_other() {
    let sandbox = Running::start().await;
    let (revoked, text) = sandbox.control.create_application_token(1).unwrap();
    assert!(sandbox.control.revoke_application_token(revoked));
    for _ in 0..3 {
        assert_empty_401(sandbox.log_in(&text).await).await;
    }
    assert_locked(sandbox.log_in(&text).await).await;
    assert_locked(sandbox.log_in(TOKEN_1).await).await;
    assert_eq!(sandbox.log_in(TOKEN_2).await.status(), 200);
}

#[tokio::test]
async fn a_success_between_failures_prevents_the_lock() {
    let sandbox = Running::start().await;
    let (revoked, text) = sandbox.control.create_application_token(1).unwrap();
    assert!(sandbox.control.revoke_application_token(revoked));
    for _ in 0..3 {
        assert_empty_401(sandbox.log_in(&text).await).await;
        assert_empty_401(sandbox.log_in(&text).await).await;
        assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    }
}

#[tokio::test]
async fn a_lock_ends_after_the_configured_time() {
    let sandbox = Running::with(Settings {
        limits: Limits { failures: 1, lockout: Duration::from_millis(100), logins: 1_000_000, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    let (revoked, text) = sandbox.control.create_application_token(1).unwrap();
    assert!(sandbox.control.revoke_application_token(revoked));
    let locked_at = tokio::time::Instant::now();
    assert_empty_401(sandbox.log_in(&text).await).await;
    let unlocked = async { while sandbox.log_in(TOKEN_1).await.status() != 200 {} };
    tokio::time::timeout(LIMIT, unlocked).await.unwrap();
    assert!(locked_at.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn the_hundred_and_first_login_in_five_minutes_gets_429_without_retry_after() {
    let sandbox = Running::start().await;
    for _ in 0..50 {
        assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
        assert_eq!(sandbox.log_in(TOKEN_2).await.status(), 200);
    }
    let response = sandbox.log_in(TOKEN_1).await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "retry-after"), None);
    let body = body(response).await;
    assert_eq!(body["error_code"], 1105);
    assert_eq!(body["error_token"], "TooManyRequests");
}

#[tokio::test]
async fn a_429_says_when_to_come_back_if_told_to() {
    let sandbox = Running::with(Settings {
        limits: Limits { logins: 1, retry_after: RetryAfter::Sent, ..Limits::default() },
        ..Settings::default()
    })
    .await;
    assert_eq!(sandbox.log_in(TOKEN_1).await.status(), 200);
    let response = sandbox.log_in(TOKEN_1).await;
    assert_eq!(response.status(), 429);
    let seconds: u64 = header(&response, "retry-after").unwrap().parse().unwrap();
    assert!((270..=300).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn malformed_json_gets_400_in_the_documented_shape() {
    let sandbox = Running::start().await;
    for text in ["", "{", "[]", "\"x\"", r#"{"application_token": 7}"#] {
        let request = sandbox.client.post(sandbox.url("/api/v1/authenticate"));
        let response = request.body(text).send().await.unwrap();
        assert_eq!(response.status(), 400, "{text}");
        let body = body(response).await;
        assert_eq!(body["error_code"], 1000, "{text}");
        assert_eq!(body["error_token"], "BadRequest", "{text}");
    }
}

#[tokio::test]
async fn missing_fields_get_400_with_the_field_in_errors() {
    let sandbox = Running::start().await;
    for fields in [json!({}), json!({ "username": "u" }), json!({ "code": "1" })] {
        let response = sandbox.authenticate(&fields).await;
        assert_eq!(response.status(), 400);
        let body = body(response).await;
        assert_eq!(body["error_code"], 1400);
        assert_eq!(body["errors"][0]["error_code"], 1402);
        assert_eq!(body["errors"][0]["error_token"], "Required");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let sandbox = Running::start().await;
    let response = sandbox.log_in(&"x".repeat(70_000)).await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn an_unknown_path_gets_404() {
    let sandbox = Running::start().await;
    let request = sandbox.client.get(sandbox.url("/api/v1/sim"));
    assert_eq!(request.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn iat_is_the_date_of_the_answer_under_any_skew() {
    let sandbox = Running::start().await;
    for skew in [0, -90_500, 7_250, 86_400_000] {
        sandbox.control.set_fault(Scope::ALL, Fault::Skew(skew));
        let response = sandbox.log_in(TOKEN_1).await;
        let date = date(&response);
        let jwt = text_at(&body(response).await, "auth_token");
        assert_eq!(claims(&jwt)["iat"].as_i64(), Some(date), "{skew}");
        let off = date - seconds(sandbox.clock.now().wall);
        let expected = skew.div_euclid(1_000);
        assert!((expected - 2..=expected + 1).contains(&off), "{skew}: {off}");
    }
}

#[tokio::test]
async fn every_answer_has_the_date_of_the_sandboxs_clock() {
    let sandbox = Running::start().await;
    let year = 365 * 86_400;
    let skew = Fault::Skew(-year * 1_000);
    sandbox.control.set_fault(Scope::ALL, skew);
    for path in ["/api/v1/endpoint", "/api/v1/nothing", "/_control/counters"] {
        let request = sandbox.client.get(sandbox.url(path));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers().get_all("date").iter().count(), 1);
        let off = date(&response) - seconds(sandbox.control.now());
        assert!((-1..=0).contains(&off), "{path}: {off}");
    }
}

#[tokio::test]
async fn stop_ends_every_connection() {
    let mut sandbox = Running::start().await;
    sandbox.control.set_fault(Scope::ALL, Fault::Hang);
    let mut clients = JoinSet::new();
    let request = sandbox.client.get(sandbox.url("/api/v1/endpoint"));
    let login = sandbox.post("/api/v1/authenticate", &json!({}));
    clients.spawn(request.send());
    clients.spawn(login.send());
    sandbox.control.authenticate_calls_reach(1).await;
    sandbox.stop.send(()).unwrap();
    let ended = async {
        while let Some(answer) = clients.join_next().await {
            assert!(answer.unwrap().is_err());
        }
        sandbox.tasks.join_next().await.unwrap().unwrap();
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_a_place() {
    let sandbox = Running::with(Settings { max_connections: 1, ..Settings::default() }).await;
    sandbox.control.set_fault_times(Scope::ALL, Fault::Hang, 1);
    let log_in = || {
        let login = json!({ "application_token": TOKEN_1 });
        let url = sandbox.url("/api/v1/authenticate");
        // A client of its own has a connection of its own.
        client().post(url).json(&login).send()
    };
    let mut first = JoinSet::new();
    first.spawn(log_in());
    sandbox.control.authenticate_calls_reach(1).await;
    let second = tokio::time::timeout(Duration::from_millis(200), log_in());
    assert!(second.await.is_err());
    assert_eq!(sandbox.control.counters().authenticate.total, 1);
    sandbox.control.clear();
    let answer = first.join_next().await.unwrap().unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(log_in().await.unwrap().status(), 200);
}
