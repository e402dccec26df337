//! The odd shapes of the field, each by a description that an operator could have written.

mod over_time;

use super::{Broker, Upstream, claims, reason};
use std::collections::BTreeMap;
use token_broker::engine::Served;
use token_broker::error::Reason;
use token_broker::sandbox::{Route, Settings};

const SECRET: (&str, &str) = ("client_secret", "sandbox-client-secret");
const JSON: &str = "json = { client_id = \"{client_id}\", client_secret = \"{client_secret}\" }";
const FORM: &str = "form = { client_id = \"{client_id}\", client_secret = \"{client_secret}\" }";
const SECONDS: &str = "token = \"access_token\"\nexpiry = [{ relative = \"expires_in\", unit = \"s\" }]";
const NO_LIFE: &str = "token = \"access_token\"\nexpiry = [{ jwt = \"if-any\" }]";

/// A shape, and how it is described.
struct Shape {
    name: &'static str,
    /// Further keys of the upstream.
    upstream: &'static str,
    /// Further keys of the flow.
    flow: &'static str,
    /// The keys of the login but its path.
    login: &'static str,
    /// The keys of its answer.
    answer: &'static str,
}

impl Shape {
    const fn new(name: &'static str, answer: &'static str) -> Self {
        Self { name, upstream: "", flow: "", login: JSON, answer }
    }

    fn config(&self) -> String {
        let Self { name, upstream, flow, login, answer } = self;
        let (parameters, defaults) = if login.contains("{client_id}") {
            ("parameters = [\"client_id\"]", "defaults = { client_id = \"sandbox-client\" }")
        } else {
            ("", "")
        };
        format!(
            "[[upstreams]]\nname = \"odd\"\nkind = \"http\"\nurl = \"SANDBOX/odd/{name}\"\n{upstream}\n\
             budget = {{ logins = 100000 }}\n{defaults}\n\
             [upstreams.flows.login]\nsecrets = [\"client_secret\"]\n{parameters}\n{flow}\n\
             [upstreams.flows.login.login]\npath = \"/token\"\n{login}\n\
             [upstreams.flows.login.login.answer]\n{answer}\n\
             [[workspaces]]\nname = \"one\"\nupstream = \"odd\"\ncredential = {{ client_secret = @client_secret }}\n"
        )
    }

    fn start(&self, upstream: &Upstream) -> Broker {
        Broker::start(upstream, &self.config(), &[SECRET])
    }
}

/// Whether the simulator's protected resource takes the token, as the broker says that it is to be presented.
async fn opens(upstream: &Upstream, shape: &Shape, served: &Served) -> bool {
    let presentation = &served.token.presentation;
    let value = format!("{} {}", presentation.token_type, served.token.value.expose());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(upstream.url(&format!("/odd/{}/resource", shape.name)));
    request = request.header(&presentation.header_name, value.trim_start());
    for (name, value) in &presentation.extra_headers {
        request = request.header(name, value.expose());
    }
    request.send().await.unwrap().status() == 200
}

#[tokio::test(start_paused = true)]
async fn every_shape_can_be_described() {
    let nested = "when = [{ path = \"success\", equals = true }]\ntoken = \"result.access_token\"\n\
                  expiry = [{ relative = \"result.expire_time\", unit = \"s\" }]";
    let code = "when = [{ path = \"code\", equals = 0 }]\ntoken = \"tenant_access_token\"\n\
                expiry = [{ relative = \"expire\", unit = \"s\" }]";
    let created = "success = [201]\ntoken = \"token\"\nexpiry = [{ absolute = \"expires_at\", format = \"rfc3339\" }]";
    let milliseconds = "token = \"access_token\"\nexpiry = [{ relative = \"expires_in\", unit = \"ms\" }]";
    let epoch = "token = \"access_token\"\nexpiry = [{ absolute = \"expires_at\", format = \"unix-ms\" }]";
    let raw = "token = { body = true }\nexpiry = [{ jwt = \"required\" }]";
    let key = "method = \"GET\"\nheaders = { x-api-key = \"{client_secret}\" }";
    let typed = "token = \"access_token\"\ntoken_type = \"token_type\"\n\
                 expiry = [{ relative = \"expires_in\", unit = \"s\" }]";
    let companion = "token = \"access_token\"\nexpiry = [{ fixed = \"30m\" }]\n\
                     attributes = { instance_url = \"instance_url\" }";
    for (shape, life) in [
        (Shape::new("same-until-late", SECONDS), 7_200),
        (Shape::new("milliseconds", milliseconds), 3_600),
        (Shape { upstream: "token_lifetime = \"20m\"", ..Shape::new("no-expiry", NO_LIFE) }, 1_200),
        (Shape::new("nested", nested), 3_600),
        (Shape::new("raw", raw), 3_599),
        (Shape { login: FORM, ..Shape::new("raw", raw) }, 3_599),
        (Shape::new("created", created), 3_599),
        (Shape::new("code", code), 3_600),
        (Shape::new("nulls", typed), 3_600),
        (Shape::new("rotating", SECONDS), 3_600),
        (Shape::new("three-minutes", SECONDS), 180),
        (Shape::new("two-years", SECONDS), 2 * 365 * 86_400),
        (Shape { upstream: "longest_lifetime = \"7d\"", ..Shape::new("two-years", SECONDS) }, 7 * 86_400),
        (Shape { upstream: "token_lifetime = \"10m\"", ..Shape::new("two-years", SECONDS) }, 600),
        (Shape::new("float", SECONDS), 3_600),
        (Shape::new("text", SECONDS), 3_600),
        (Shape { login: FORM, ..Shape::new("text", SECONDS) }, 3_600),
        (Shape::new("epoch-milliseconds", epoch), 3_599),
        (Shape::new("companion", companion), 1_800),
        (Shape { login: key, ..Shape::new("header-key", SECONDS) }, 3_600),
    ] {
        let upstream = Upstream::start(Settings::default()).await;
        let served = shape.start(&upstream).get("one").await.unwrap();
        let name = shape.name;
        assert_eq!(served.held.validity.lifetime.as_secs(), life, "{name}");
        assert!(opens(&upstream, &shape, &served).await, "{name}");
        let presentation = &served.token.presentation;
        assert_eq!((presentation.header_name.as_str(), presentation.token_type.as_str()), ("authorization", "Bearer"));
        let attributes: BTreeMap<_, _> =
            [("instance_url".to_owned(), "https://eu1.instance.example".to_owned())].into();
        let expected = if name == "companion" { attributes } else { BTreeMap::new() };
        assert_eq!(presentation.attributes, expected, "{name}");
        assert!(presentation.extra_headers.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_travels_in_two_headers_and_without_a_scheme() {
    let answer = "token = \"token\"\nexpiry = [{ jwt = \"required\" }]\nextra_headers = { x-api-key = \"apiKey\" }";
    let flow = "presentation = { header = \"x-token\", scheme = \"\" }";
    let shape = Shape { flow, ..Shape::new("pair", answer) };
    let upstream = Upstream::start(Settings::default()).await;
    let broker = shape.start(&upstream);
    let served = broker.get("one").await.unwrap();
    assert_eq!(served.held.validity.lifetime.as_secs(), 3_599);
    assert_eq!(claims(&served)["sub"], "sandbox-client");
    let presentation = &served.token.presentation;
    assert_eq!((presentation.header_name.as_str(), presentation.token_type.as_str()), ("x-token", ""));
    assert_eq!(presentation.extra_headers.len(), 1);
    assert!(opens(&upstream, &shape, &served).await);
    assert_eq!(broker.renewed("one").await.outcome, "token");
    let next = broker.get("one").await.unwrap();
    assert!(opens(&upstream, &shape, &next).await, "both were replaced");
}

/// Failures that come as 200.
#[tokio::test(start_paused = true)]
async fn a_success_that_is_none_is_what_the_description_says() {
    let nested = "when = [{ path = \"success\", equals = true }]\ntoken = \"result.access_token\"\n\
                  expiry = [{ relative = \"result.expire_time\", unit = \"s\" }]\n";
    let code = "when = [{ path = \"code\", equals = 0 }]\ntoken = \"tenant_access_token\"\n\
                expiry = [{ relative = \"expire\", unit = \"s\" }]\n";
    for (name, answer, failures, outcome, expected) in [
        (
            "nested",
            nested,
            "[{ when = [{ path = \"code\", equals = 1004 }], class = \"rejected\", says = \"a bad sign\" }]",
            "rejected",
            Reason::CredentialRejected,
        ),
        (
            "code",
            code,
            "[{ status = [200], when = [{ path = \"code\", equals = [10013, 10014] }], class = \"rejected\" }]",
            "rejected",
            Reason::CredentialRejected,
        ),
        (
            "code",
            code,
            "[{ when = [{ path = \"code\", equals = 10014 }], class = \"unavailable\" }]",
            "unavailable",
            Reason::UpstreamUnavailable,
        ),
        ("code", code, "[]", "malformed", Reason::UpstreamMalformed),
    ] {
        let answer = format!("{answer}failures = {failures}").leak();
        let shape = Shape::new(name, answer);
        let upstream = Upstream::start(Settings::default()).await;
        let broker = Broker::start(&upstream, &shape.config(), &[("client_secret", "a-wrong-secret")]);
        assert_eq!(reason(&broker.get("one").await), Some(expected), "{name} {failures}");
        let [only] = broker.exchanges().try_into().unwrap();
        assert_eq!(only.outcome, outcome, "{name} {failures}");
        assert!(name != "nested" || only.detail.contains("a bad sign"), "{only:?}");
        assert!(!only.detail.contains("sign invalid") && !only.detail.contains("app secret invalid"), "{only:?}");
        assert_eq!(upstream.control.counters().of(Route::OddToken).total, 1);
    }
}

/// What the answer does not say and nobody else does either can't be guessed.
#[tokio::test(start_paused = true)]
async fn a_life_that_nobody_knows_is_asked_for() {
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Shape::new("no-expiry", NO_LIFE).start(&upstream);
    assert_eq!(reason(&broker.get("one").await), Some(Reason::UpstreamMalformed));
}
