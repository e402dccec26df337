use super::super::Fields;
use super::super::given::Given;
use super::*;
use crate::provider::recipe::{Answer, Field, Presence, Presented, Source, Step};
use crate::secret::{LongLivedSecret, Sealed};
use crate::token::WorkspaceName;

fn t(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn post(path: &str, body: Body) -> recipe::Request {
    recipe::Request {
        method: Method::Post,
        path: t(path),
        query: Vec::new(),
        headers: Vec::new(),
        basic: None,
        body,
        assertion: None,
        extra: false,
    }
}

/// A recipe with this request, and a Workspace that gives these values.
fn of(request: recipe::Request, parameters: &[(&str, &str)]) -> (Recipe, Given) {
    let optional = |name: &str| Field { name: name.to_owned(), presence: Presence::Optional };
    let answer = Answer {
        success: vec![200],
        when: Vec::new(),
        failures: Vec::new(),
        token: Source::Body,
        scheme: None,
        refresh_token: None,
        expiry: Vec::new(),
        extra_headers: Vec::new(),
        attributes: Vec::new(),
    };
    let recipe = Recipe {
        secrets: ["user", "password", "absent"].map(optional).to_vec(),
        parameters: ["a", "b", "none"].map(optional).to_vec(),
        login: Step { request, answer },
        refresh: None,
        switch: None,
        presentation: Presented { header: "authorization".to_owned(), scheme: String::new() },
        tenant: None,
        needs_store: false,
    };
    let secrets = [("user", "us er"), ("password", "p:w\"ü%")];
    let fields = Fields {
        secrets: secrets
            .map(|(name, value)| (name.to_owned(), Sealed::new(&LongLivedSecret::new(value), "t", name)))
            .into(),
        parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        extra: [("audience".to_owned(), "x&y".to_owned())].into(),
    };
    let (given, _) = Given::new(&recipe, WorkspaceName::parse("t").unwrap(), fields, &[]).unwrap();
    (recipe, given)
}

/// The URL, the headers that were asked for, and the body.
type Written = (String, Vec<(String, String, bool)>, Option<String>);

fn written(request: recipe::Request, parameters: &[(&str, &str)], shown: Shown) -> Result<Written, Error> {
    let (recipe, given) = of(request, parameters);
    let base = Url::parse("https://api.example/base/").unwrap();
    let opened = given.open(&recipe, None).unwrap();
    let env = Env { shown, ..Env::new(&recipe, &given, &opened) };
    let url = endpoint(&recipe.login.request, &env, &base)?;
    let at = url.to_string();
    let draft = Draft::new(&recipe.login.request, &Env { endpoint: &at, ..env }, url)?;
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let headers = draft.headers.iter().map(|h| (h.name.to_owned(), text(&h.value), h.sensitive)).collect();
    if let Some((_, body)) = &draft.body {
        let grown = matches!(recipe.login.request.body, Body::Json(_)) && body.capacity() != body.len();
        assert!(!grown, "a buffer that grows leaves what it held behind");
    }
    let query = draft.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    Ok((format!("{at}{query}"), headers, draft.body_text().map(Cow::into_owned)))
}

fn url(path: &str, parameters: &[(&str, &str)]) -> Result<String, Error> {
    written(post(path, Body::Empty), parameters, Shown::Whole).map(|(url, _, _)| url)
}

#[test]
fn a_path_stands_behind_the_base() {
    let table = [
        ("", "", "https://api.example/base"),
        ("/v1/token", "", "https://api.example/base/v1/token"),
        ("/v1/{a}/token", "a/b ?#ü", "https://api.example/base/v1/a%2Fb%20%3F%23%C3%BC/token"),
        ("{a|path}", "/1.0/auth/token", "https://api.example/base/1.0/auth/token"),
        ("{a|path}/x", "/a b", "https://api.example/base/a%20b/x"),
    ];
    for (path, value, expected) in table {
        assert_eq!(url(path, &[("a", value)]).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_path_leads_nowhere_else() {
    for (path, value) in [
        ("/v1/{a}/x", ".."),
        ("/v1/{a}", "."),
        ("/v1/{a}", ""),
        ("/v1/.{a}/x", "."),
        ("{a|path}", "v1"),
        ("{a|path}", "/../x"),
        ("{a|path}", "/%2e%2E/x"),
        ("{a|path}", "/x?y"),
        ("{a|path}", "/x#y"),
        ("{a|path}", "//host\\x"),
    ] {
        assert!(matches!(url(path, &[("a", value)]), Err(Error::Path { .. })), "{path} {value}");
    }
}

#[test]
fn a_query_is_encoded_and_left_out() {
    let pair = |name: &str, text: &str| (name.to_owned(), t(text));
    let query = vec![pair("x", "{a}"), pair("y", "{none?}"), pair("at", "{endpoint}")];
    let (url, ..) =
        written(recipe::Request { query, ..post("/q", Body::Empty) }, &[("a", "b&c d")], Shown::Whole).unwrap();
    assert_eq!(url, "https://api.example/base/q?x=b%26c+d&at=https%3A%2F%2Fapi.example%2Fbase%2Fq");
    let query = vec![pair("y", "{none?}")];
    let (url, ..) = written(recipe::Request { query, ..post("/q", Body::Empty) }, &[], Shown::Whole).unwrap();
    assert_eq!(url, "https://api.example/base/q");
}

fn json() -> Body {
    let text = |text: &str| Json::Text(t(text));
    let member = |name: &str, value: Json| (name.to_owned(), value);
    Body::Json(vec![
        member("password", text("{password}")),
        member("hash", text("{password|sha1-hex}")),
        member("gone", text("{absent?}")),
        member("number", text("{a|number}")),
        member("inner", Json::Object(vec![member("flag", Json::Boolean(true)), member("gone", text("{none?}"))])),
        member("list", Json::Array(vec![Json::Number(-1), text("{{{b}}}"), text("{none?}")])),
    ])
}

#[test]
fn a_json_body_holds_its_fields() {
    let request = recipe::Request { extra: true, ..post("", json()) };
    let (_, headers, body) = written(request.clone(), &[("a", "42"), ("b", "x")], Shown::Whole).unwrap();
    let body: serde_json::Value = serde_json::from_str(&body.unwrap()).unwrap();
    let expected = serde_json::json!({
        "password": "p:w\"ü%",
        // printf 'p:w"ü%%' | openssl sha1
        "hash": "7d02376b1d41dbd0083c5c07a79f896fe297924f",
        "number": 42,
        "inner": {"flag": true},
        "list": [-1, "{x}"],
        "audience": "x&y",
    });
    assert_eq!(body, expected);
    assert_eq!(headers, []);
    let (_, _, masked) = written(request, &[("a", "42"), ("b", "x")], Shown::Masked).unwrap();
    let expected = r#"{"password":"‹password›","hash":"‹password›","number":42,"inner":{"flag":true},"list":[-1,"{x}"],"audience":"‹extra audience›"}"#;
    assert_eq!(masked.as_deref(), Some(expected));
}

#[test]
fn a_number_is_one() {
    for (text, good) in [
        ("0", true),
        ("-7", true),
        ("18446744073709551615", true),
        ("007", false),
        ("+1", false),
        ("1.5", false),
        ("", false),
    ] {
        let body = Body::Json(vec![("n".to_owned(), Json::Text(t("{a|number}")))]);
        let written = written(post("", body), &[("a", text)], Shown::Whole);
        let expected = if good { Ok(Some(format!("{{\"n\":{text}}}"))) } else { Err(Error::Number("a".to_owned())) };
        assert_eq!(written.map(|(_, _, body)| body), expected, "{text}");
    }
}

#[test]
fn a_form_body_is_encoded() {
    let pair = |name: &str, text: &str| (name.to_owned(), t(text));
    let pairs = vec![pair("grant type", "{a}"), pair("gone", "{none?}"), pair("pw", "{password}")];
    let request = recipe::Request { extra: true, ..post("", Body::Form(pairs)) };
    let (_, _, body) = written(request.clone(), &[("a", "b=c d")], Shown::Whole).unwrap();
    assert_eq!(body.as_deref(), Some("grant+type=b%3Dc+d&pw=p%3Aw%22%C3%BC%25&audience=x%26y"));
    let (_, _, masked) = written(request, &[("a", "b=c d")], Shown::Masked).unwrap();
    assert_eq!(masked.as_deref(), Some("grant type=b=c d&pw=‹password›&audience=‹extra audience›"));
}

#[test]
fn basic_is_encoded_as_its_recipe_says() {
    let basic = |user: &str, password: &str, form_encoded| recipe::Request {
        basic: Some(Basic { user: t(user), password: t(password), form_encoded }),
        ..post("", Body::Empty)
    };
    let value = |request| {
        written(request, &[("a", "x:y")], Shown::Whole).map(|(_, headers, _)| {
            headers
                .into_iter()
                .map(|(name, value, sensitive)| {
                    assert!(name == "authorization" && sensitive);
                    let pair = STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap();
                    String::from_utf8(pair).unwrap()
                })
                .next()
        })
    };
    assert_eq!(value(basic("{user}", "{password}", false)), Ok(Some("us er:p:w\"ü%".to_owned())));
    assert_eq!(value(basic("{user}", "{password}", true)), Ok(Some("us+er:p%3Aw%22%C3%BC%25".to_owned())));
    assert_eq!(value(basic("{a}", "{password}", false)), Err(Error::Colon));
    assert_eq!(value(basic("{a}", "{absent?}", false)), Ok(None), "left out as a whole");
}

#[test]
fn headers_that_hold_secrets_are_sensitive() {
    let header = |name: &str, text: &str| (name.to_owned(), t(text));
    let headers = vec![header("x-key", "Key {user}"), header("x-version", "{a}"), header("x-gone", "{none?}")];
    let request = recipe::Request { headers, ..post("", Body::Empty) };
    let (_, headers, _) = written(request, &[("a", "1")], Shown::Whole).unwrap();
    let expected = [("x-key", "Key us er", true), ("x-version", "1", false)];
    assert_eq!(headers, expected.map(|(name, value, sensitive)| (name.to_owned(), value.to_owned(), sensitive)));
}
