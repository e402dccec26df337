use super::super::*;
use super::Problem;
use crate::provider::recipe::template::Template;

fn t(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn path(text: &str) -> Path {
    Path(text.split('.').map(str::to_owned).collect())
}

fn field(name: &str, presence: Presence) -> Field {
    Field { name: name.to_owned(), presence }
}

/// A recipe with all parts in use.
fn sound() -> Recipe {
    let answer = Answer {
        success: vec![200],
        when: Vec::new(),
        failures: Vec::new(),
        token: Source::Path(path("token")),
        scheme: Some(path("type")),
        refresh_token: Some(path("refresh")),
        expiry: vec![Expiry::Relative(path("expires_in"), Unit::Seconds)],
        extra_headers: vec![("x-key".to_owned(), path("key"))],
        attributes: vec![("url".to_owned(), path("url"))],
    };
    let assertion = Assertion {
        key: "private_key".to_owned(),
        algorithm: t("{algorithm}"),
        header: vec![("kid".to_owned(), t("{key_id?}"))],
        claims: vec![("aud".to_owned(), Json::Text(t("{endpoint}")))],
        lifetime: Duration::from_secs(300),
        backdate: Duration::ZERO,
        issued_at: true,
        id: true,
    };
    let request = Request {
        method: Method::Post,
        path: t("/orgs/{organisation}/token"),
        query: vec![("v".to_owned(), t("{version}"))],
        headers: vec![("x-api-key".to_owned(), t("{key}"))],
        basic: Some(Basic { user: t("{user}"), password: t("{password}"), form_encoded: true }),
        body: Body::Form(vec![("assertion".to_owned(), t("{assertion}"))]),
        assertion: Some(assertion),
        extra: true,
    };
    let plain = Request {
        path: t("/refresh"),
        query: Vec::new(),
        headers: Vec::new(),
        basic: None,
        body: Body::Json(vec![("refresh".to_owned(), Json::Text(t("{refresh_token}")))]),
        assertion: None,
        extra: false,
        ..request
    };
    let required = |name| field(name, Presence::Required);
    Recipe {
        secrets: ["private_key", "key", "user", "password"].map(required).to_vec(),
        parameters: vec![
            required("organisation"),
            required("algorithm"),
            field("key_id", Presence::Optional),
            field("version", Presence::Default(t("1"))),
        ],
        login: Step { request, answer: answer.clone() },
        refresh: Some(Refresh { step: Step { request: plain, answer }, single_use: false }),
        switch: None,
        presentation: Presented { header: "authorization".to_owned(), scheme: "Bearer".to_owned() },
        tenant: Some(Tenant { said: TenantSource::Answer(path("org")), parameter: "organisation".to_owned() }),
        needs_store: false,
    }
}

fn at(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.at.as_str()).collect()
}

#[test]
fn a_sound_recipe_has_no_problem() {
    assert_eq!(sound().check(), []);
    assert!(!sound().needs_lifetime());
    let mut silent = sound();
    silent.refresh.as_mut().unwrap().step.answer.expiry.clear();
    assert!(silent.needs_lifetime());
    silent.switch = Some(Step { request: silent.refresh.as_ref().unwrap().step.request.clone(), ..sound().login });
    assert!(!silent.needs_lifetime(), "the switch decides");
}

type Case = (&'static str, fn(&mut Recipe));

const REQUESTS: &[Case] = &[
    ("login.path", |r| r.login.request.path = t("/{organisation}/{key}")),
    ("login.path", |r| r.login.request.path = t("/{organisation}/{endpoint}")),
    ("login.path", |r| r.login.request.path = t("{organisation}/x")),
    ("login.path", |r| r.login.request.path = t("/{organisation}/../x")),
    ("login.path", |r| r.login.request.path = t("/{organisation}?x=1")),
    ("login.path", |r| r.login.request.path = t("/{organisation?}")),
    ("login.path", |r| r.login.request.path = t("{organisation|number}")),
    ("login.path", |r| {
        r.parameters[3].presence = Presence::Default(t("{endpoint}"));
        r.login.request.path = t("/{organisation}/{version}");
    }),
    ("login.query.v", |r| r.login.request.query[0].1 = t("{version}{password}")),
    ("login.query.v", |r| r.login.request.query[0].1 = t("{version}{assertion}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key}{nobody}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key}{token}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key}{refresh_token}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key}{key_id}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key}{private_key}")),
    ("login.headers.x-api-key", |r| r.login.request.headers[0].1 = t("{key|path}")),
    ("login.headers.X-Key", |r| r.login.request.headers[0].0 = "X-Key".to_owned()),
    ("login.headers.host", |r| r.login.request.headers[0].0 = "host".to_owned()),
    ("login.headers.transfer-encoding", |r| r.login.request.headers[0].0 = "transfer-encoding".to_owned()),
    ("login.headers.content-length", |r| r.login.request.headers[0].0 = "content-length".to_owned()),
    ("login.headers.authorization", |r| r.login.request.headers[0].0 = "authorization".to_owned()),
    ("login.headers.x-api-key", |r| r.login.request.headers.push(("x-api-key".to_owned(), t("a")))),
    ("login.method", |r| r.login.request.method = Method::Get),
    ("refresh.extra_parameters", |r| {
        let step = &mut r.refresh.as_mut().unwrap().step;
        step.request.body = Body::Empty;
        step.request.extra = true;
    }),
    ("login.form.assertion", |r| r.login.request.assertion = None),
    ("login.form.assertion", |r| r.login.request.body = Body::Form(vec![("assertion".to_owned(), t("{key|number}"))])),
    ("refresh.json.a[0].b", |r| {
        let deep = Json::Array(vec![Json::Object(vec![("b".to_owned(), Json::Text(t("{nobody}")))])]);
        let Body::Json(members) = &mut r.refresh.as_mut().unwrap().step.request.body else { panic!() };
        members.push(("a".to_owned(), deep));
    }),
    ("login.assertion.key", |r| r.login.request.assertion.as_mut().unwrap().key = "organisation".to_owned()),
    ("login.assertion.algorithm", |r| r.login.request.assertion.as_mut().unwrap().algorithm = t("HS256")),
    ("login.assertion.lifetime", |r| r.login.request.assertion.as_mut().unwrap().lifetime = Duration::ZERO),
    ("login.assertion.claims.exp", |r| {
        r.login.request.assertion.as_mut().unwrap().claims.push(("exp".to_owned(), Json::Number(1)));
    }),
    ("login.assertion.claims.aud", |r| {
        r.login.request.assertion.as_mut().unwrap().claims[0].1 = Json::Text(t("{assertion}"));
    }),
    ("login.assertion.header.alg", |r| {
        r.login.request.assertion.as_mut().unwrap().header.push(("alg".to_owned(), t("none")));
    }),
];

const ANSWERS: &[Case] = &[
    ("login.answer.success", |r| r.login.answer.success.clear()),
    ("login.answer.success", |r| r.login.answer.success.push(302)),
    ("login.answer.token", |r| r.login.answer.token = Source::Path(Path(Vec::new()))),
    ("login.answer.token", |r| r.login.answer.token = Source::Body),
    ("login.answer.refresh_token", |r| r.login.answer.refresh_token = None),
    ("login.answer.refresh_token", |r| r.refresh = None),
    ("switch.answer.refresh_token", |r| {
        r.switch = r.refresh.as_ref().map(|refresh| refresh.step.clone());
    }),
    ("login.answer.expiry[0].asked", |r| {
        r.login.answer.expiry = vec![Expiry::Asked("nobody".to_owned(), Unit::Seconds)];
    }),
    ("login.answer.expiry[0].asked", |r| r.login.answer.expiry = vec![Expiry::Asked("key".to_owned(), Unit::Seconds)]),
    ("login.answer.expiry[0].fixed", |r| r.login.answer.expiry = vec![Expiry::Fixed(Duration::ZERO)]),
    ("login.answer.extra_headers.host", |r| r.login.answer.extra_headers[0].0 = "host".to_owned()),
    ("login.answer.extra_headers.authorization", |r| r.login.answer.extra_headers[0].0 = "authorization".to_owned()),
    ("login.answer.when[0].equals", |r| {
        r.login.answer.when.push(Condition { path: path("code"), holds: Holds::OneOf(Vec::new()) });
    }),
    ("login.answer.failures[0]", |r| {
        let class = Class::Rejected;
        r.login.answer.failures.push(Rule { statuses: Vec::new(), when: Vec::new(), class, says: None });
    }),
    ("login.answer.failures[0].says", |r| {
        let says = Some("two\nlines".to_owned());
        r.login.answer.failures.push(Rule { statuses: vec![401], when: Vec::new(), class: Class::Rejected, says });
    }),
    ("presentation.header", |r| r.presentation.header = "Authorization".to_owned()),
    ("presentation.scheme", |r| r.presentation.scheme = "two words".to_owned()),
    ("tenant.parameter", |r| r.tenant.as_mut().unwrap().parameter = "nobody".to_owned()),
    ("tenant.claim", |r| r.tenant.as_mut().unwrap().said = TenantSource::Claim(String::new())),
    ("secrets.unused", |r| r.secrets.push(field("unused", Presence::Required))),
    ("parameters.organisation", |r| r.secrets[1].name = "organisation".to_owned()),
    ("secrets.key", |r| r.secrets[1].presence = Presence::Default(t("a"))),
    ("secrets", |r| r.secrets[1].name = "Key".to_owned()),
    ("parameters.version", |r| r.parameters[3].presence = Presence::Default(t("{organisation}"))),
    ("parameters.refresh_token", |r| r.parameters.push(field("refresh_token", Presence::Optional))),
];

#[test]
fn each_fault_is_found_where_it_is() {
    for (expected, spoil) in REQUESTS.iter().chain(ANSWERS) {
        let mut recipe = sound();
        spoil(&mut recipe);
        let problems = recipe.check();
        assert!(at(&problems).contains(expected), "{expected}: {problems:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let mut recipe = sound();
    recipe.login.answer.success.clear();
    recipe.login.request.query[0].1 = t("{version}{password}");
    recipe.presentation.header.clear();
    assert_eq!(at(&recipe.check()), ["login.query.v", "login.answer.success", "presentation.header"]);
}
