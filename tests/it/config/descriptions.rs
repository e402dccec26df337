//! Descriptions of flows: what each key becomes, and what is said of a wrong one.

use super::{SECRET, directory};
use std::time::Duration;
use token_broker::config::{Config, Environment};
use token_broker::provider::recipe::template::Template;
use token_broker::provider::recipe::{
    Assertion, Basic, Body, Class, Condition, Constant, Expiry, Field, Format, Holds, Json, Method, Path, Presence,
    Recipe, Source, TenantSource, Unit,
};

/// A description that uses each key, with a second flow for what can't stand beside it.
const DESCRIPTION: &str = r#"[[upstreams]]
name = "own"
kind = "http"
url = "https://api.example"

[upstreams.flows.full]
secrets = ["user", "password", "private_key", "device?"]
parameters = ["account", "region?", { name = "life", default = "3600" }]
needs_store = false
presentation = { header = "x-token", scheme = "Token" }
tenant = { claim = "esc.org", parameter = "account" }

[upstreams.flows.full.login]
method = "POST"
path = "/{account}/login"
query = { region = "{region?}" }
headers = { x-device = "{device?}" }
basic = { user = "{user}", password = "{password}", form_encoded = true }
json = { life = "{life|number}", deep = { list = ["{account}", 1, true] }, hash = "{password|sha1-hex}" }
extra_parameters = true
[upstreams.flows.full.login.assertion]
key = "private_key"
algorithm = "ES256"
lifetime = "1m"
backdate = "30s"
issued_at = true
id = false
header = { kid = "{account}" }
claims = { iss = "{account}", aud = "{endpoint}" }
[upstreams.flows.full.login.answer]
success = [200, 201]
when = [{ path = "ok", equals = [true, 1, "yes"] }, { path = "result", present = true }]
token = "result.token"
token_type = "result.type"
refresh_token = ["result", "refresh.token"]
expiry = [
    { jwt = "if-any" },
    { relative = "result.ttl", unit = "ms" },
    { absolute = "result.until", format = "unix-s" },
    { asked = "life", unit = "s" },
    { fixed = "1h" },
]
extra_headers = { x-second = "result.second" }
attributes = { host = "result.host" }
failures = [{ status = [409], when = [{ path = "why", equals = "busy" }], class = "unavailable", says = "it is busy" }]
[upstreams.flows.full.refresh]
path = "/refresh"
form = { refresh_token = "{refresh_token}" }
single_use = true
answer = { token = "result.token", expiry = [{ jwt = "required" }] }
[upstreams.flows.full.switch]
path = "/switch"
headers = { authorization = "Bearer {token}" }
answer = { token = { body = true }, expiry = [{ fixed = "1h" }] }

[upstreams.flows.raw]
secrets = ["key"]
login = { method = "GET", path = "", headers = { x-key = "{key}" }, answer = { token = { body = true }, expiry = [{ fixed = "1h" }] } }
"#;

fn parse(text: &str) -> Result<Config, String> {
    let directory = directory(&[]);
    Config::parse(text, directory.path(), &Environment::default()).map_err(|problems| problems.to_string())
}

fn recipe(name: &str) -> Recipe {
    let config = parse(DESCRIPTION).unwrap();
    let flow = config.upstreams[0].flows.iter().find(|flow| flow.name == name).unwrap();
    (*flow.recipe).clone()
}

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn path(names: &[&str]) -> Path {
    Path(names.iter().map(|name| (*name).to_owned()).collect())
}

fn field(name: &str, presence: Presence) -> Field {
    Field { name: name.to_owned(), presence }
}

#[test]
fn fields_presentation_and_tenant_are_read() {
    let recipe = recipe("full");
    assert_eq!(recipe.secrets[3], field("device", Presence::Optional));
    assert_eq!(recipe.secrets[0], field("user", Presence::Required));
    assert_eq!(
        recipe.parameters,
        [
            field("account", Presence::Required),
            field("region", Presence::Optional),
            field("life", Presence::Default(template("3600")))
        ]
    );
    assert_eq!((recipe.presentation.header.as_str(), recipe.presentation.scheme.as_str()), ("x-token", "Token"));
    let tenant = recipe.tenant.unwrap();
    assert_eq!((tenant.said, tenant.parameter.as_str()), (TenantSource::Claim("esc.org".to_owned()), "account"));
    assert!(!recipe.needs_store);
}

#[test]
fn a_request_is_read() {
    let request = recipe("full").login.request;
    assert_eq!((request.method, request.extra), (Method::Post, true));
    assert_eq!(request.path, template("/{account}/login"));
    assert_eq!(request.query, [("region".to_owned(), template("{region?}"))]);
    assert_eq!(request.headers, [("x-device".to_owned(), template("{device?}"))]);
    let basic = Basic { user: template("{user}"), password: template("{password}"), form_encoded: true };
    assert_eq!(request.basic, Some(basic));
    let list = Json::Array(vec![Json::Text(template("{account}")), Json::Number(1), Json::Boolean(true)]);
    let Body::Json(mut members) = request.body else { panic!("no JSON") };
    members.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("deep".to_owned(), Json::Object(vec![("list".to_owned(), list)])),
        ("hash".to_owned(), Json::Text(template("{password|sha1-hex}"))),
        ("life".to_owned(), Json::Text(template("{life|number}"))),
    ];
    assert_eq!(members, expected);
    let Assertion { key, algorithm, header, mut claims, lifetime, backdate, issued_at, id } =
        request.assertion.unwrap();
    assert_eq!((key.as_str(), algorithm, issued_at, id), ("private_key", template("ES256"), true, false));
    assert_eq!((lifetime, backdate), (Duration::from_secs(60), Duration::from_secs(30)));
    assert_eq!(header, [("kid".to_owned(), template("{account}"))]);
    claims.sort_by(|one, other| one.0.cmp(&other.0));
    let claim = |name: &str, text| (name.to_owned(), Json::Text(template(text)));
    assert_eq!(claims, [claim("aud", "{endpoint}"), claim("iss", "{account}")]);
}

#[test]
fn an_answer_is_read() {
    let answer = recipe("full").login.answer;
    assert_eq!(answer.success, [200, 201]);
    let ok = Holds::OneOf(vec![Constant::Boolean(true), Constant::Number(1), Constant::Text("yes".to_owned())]);
    let when =
        [Condition { path: path(&["ok"]), holds: ok }, Condition { path: path(&["result"]), holds: Holds::Present }];
    assert_eq!(answer.when, when);
    assert_eq!(answer.token, Source::Path(path(&["result", "token"])));
    assert_eq!(answer.scheme, Some(path(&["result", "type"])));
    assert_eq!(answer.refresh_token, Some(path(&["result", "refresh.token"])));
    let expiry = [
        Expiry::Jwt { required: false },
        Expiry::Relative(path(&["result", "ttl"]), Unit::Milliseconds),
        Expiry::Absolute(path(&["result", "until"]), Format::Unix(Unit::Seconds)),
        Expiry::Asked("life".to_owned(), Unit::Seconds),
        Expiry::Fixed(Duration::from_secs(3_600)),
    ];
    assert_eq!(answer.expiry, expiry);
    assert_eq!(answer.extra_headers, [("x-second".to_owned(), path(&["result", "second"]))]);
    assert_eq!(answer.attributes, [("host".to_owned(), path(&["result", "host"]))]);
    let rule = &answer.failures[0];
    assert_eq!(
        (rule.statuses.as_slice(), rule.class, rule.says.as_deref()),
        (&[409][..], Class::Unavailable, Some("it is busy"))
    );
    assert_eq!(rule.when.len(), 1);
}

#[test]
fn further_steps_are_read_and_what_is_left_out_has_its_default() {
    let full = recipe("full");
    let refresh = full.refresh.unwrap();
    assert!(refresh.single_use);
    assert_eq!(refresh.step.request.body, Body::Form(vec![("refresh_token".to_owned(), template("{refresh_token}"))]));
    assert_eq!(refresh.step.answer.expiry, [Expiry::Jwt { required: true }]);
    assert_eq!(full.switch.unwrap().answer.token, Source::Body);
    let raw = recipe("raw");
    assert_eq!((raw.login.request.method, raw.login.request.body), (Method::Get, Body::Empty));
    assert_eq!(raw.login.answer.success, [200]);
    assert_eq!((raw.presentation.header.as_str(), raw.presentation.scheme.as_str()), ("authorization", "Bearer"));
    assert!(raw.refresh.is_none() && raw.switch.is_none() && raw.tenant.is_none());
}

/// What is changed in the description, into what, and what is said of it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "secrets = [\"user\",",
        "secrets = [\"User\",",
        "full.secrets[0] (line 7): a name is of a-z, 0-9 and '_', at most 64 of them, with a '?' behind it if it is optional",
    ),
    (
        "secrets = [\"user\",",
        "secrets = [1,",
        "full.secrets[0] (line 7): expected a name, such as \"username\", found an integer",
    ),
    ("secrets = [\"user\",", "secrets = [\"user\", \"user\",", "full.secrets.user (line 7): is there twice"),
    (
        "secrets = [\"key\"]",
        "secrets = \"key\"",
        "raw.secrets (line 57): expected an array of names, such as [\"username\", \"fingerprint?\"], found a text",
    ),
    (
        "secrets = [\"key\"]",
        "secrets = [\"key\", { name = \"s3cret\", default = \"x\" }]",
        "raw.secrets[1] (line 57): expected a name, such as \"username\", found a table",
    ),
    (
        "secrets = [\"key\"]",
        "secrets = [\"key\", \"endpoint\"]",
        "raw.secrets.endpoint (line 57): is a name that the broker fills in itself\nraw.secrets.endpoint (line 57): is used nowhere",
    ),
    (
        "secrets = [\"key\"]",
        "secret = [\"key\"]",
        "raw.secret (line 57): unknown key; did you mean secrets?\nraw.login.headers.x-key (line 58): names 'key', which is neither a secret nor a parameter",
    ),
    ("\"region?\", ", "\"region?\", \"user\", ", "full.parameters.user (line 8): is there twice"),
    (
        "{ name = \"life\", default = \"3600\" }",
        "{ name = \"life\" }",
        "full.parameters[2].default (line 8): is missing; expected a text",
    ),
    (
        "{ name = \"life\", default = \"3600\" }",
        "{ name = \"life\", default = \"{account}\" }",
        "full.parameters.life (line 8): has a default that uses something other than {endpoint}",
    ),
    (
        "{ name = \"life\", default = \"3600\" }",
        "{ name = \"L\", default = \"{\" }",
        "full.parameters[2].name (line 8): expected a name of a-z, 0-9 and '_'\nfull.parameters[2].default (line 8): has a brace without its other half; write {{ or }} for the brace itself",
    ),
    ("needs_store = false", "needs_store = \"no\"", "full.needs_store (line 9): expected true or false, found a text"),
    (
        "header = \"x-token\"",
        "header = \"X-s3cret\"",
        "full.presentation.header (line 10): is no header name in lower case",
    ),
    (
        "header = \"x-token\"",
        "header = \"host\"",
        "full.presentation.header (line 10): is a header that belongs to the connection",
    ),
    ("header = \"x-token\"", "header = \"\"", "full.presentation.header (line 10): expected the name of a header"),
    (
        "scheme = \"Token\"",
        "scheme = \"a b\"",
        "full.presentation.scheme (line 10): must be one word, or empty for the bare token",
    ),
    (
        "tenant = { claim = \"esc.org\", parameter = \"account\" }",
        "tenant = { claim = \"esc.org\" }",
        "full.tenant.parameter (line 11): is missing; expected the name of a parameter",
    ),
    (
        "tenant = { claim = \"esc.org\", parameter = \"account\" }",
        "tenant = { parameter = \"account\" }",
        "full.tenant (line 11): expected one of claim and path, and parameter",
    ),
    (
        "tenant = { claim = \"esc.org\", parameter = \"account\" }",
        "tenant = { claim = \"a\", path = \"b\", parameter = \"account\" }",
        "full.tenant (line 11): expected one of claim and path, and parameter",
    ),
    (
        "tenant = { claim = \"esc.org\", parameter = \"account\" }",
        "tenant = { claim = \"esc.org\", parameter = \"user\" }",
        "full.tenant.parameter (line 11): names 'user', which is no parameter",
    ),
    ("method = \"POST\"", "method = \"PUT\"", "full.login.method (line 14): expected \"GET\" or \"POST\""),
    ("method = \"POST\"", "method = \"GET\"", "full.login.method (line 14): is GET, which has no body"),
    ("path = \"/{account}/login\"", "path = \"login\"", "full.login.path (line 15): must be empty or begin with '/'"),
    (
        "path = \"/{account}/login\"",
        "path = \"/login?s3cret\"",
        "full.login.path (line 15): holds a '?': the query has a key of its own, query",
    ),
    (
        "path = \"/{account}/login\"",
        "path = \"/{password}\"",
        "full.login.path (line 15): would put the secret 'password' into a URL; headers, json and form may hold it",
    ),
    (
        "path = \"/{account}/login\"",
        "path = \"/{region?}\"",
        "full.login.path (line 15): can't be left out, so 'region' must not be optional in it",
    ),
    (
        "path = \"/{account}/login\"",
        "path = \"/{account\"",
        "full.login.path (line 15): has a brace without its other half; write {{ or }} for the brace itself",
    ),
    ("path = \"/{account}/login\"", "path = 1", "full.login.path (line 15): expected a text, found an integer"),
    (
        "path = \"/refresh\"\n",
        "\n",
        "full.refresh.path (line 46): is missing; expected a path such as \"/v1/token\", or \"\" for the url of the upstream itself",
    ),
    (
        "query = { region = \"{region?}\" }",
        "query = { region = \"{region?}\", p = \"{password}\" }",
        "full.login.query.p (line 16): would put the secret 'password' into a URL; headers, json and form may hold it",
    ),
    (
        "query = { region = \"{region?}\" }",
        "query = [1]",
        "full.login.query (line 16): expected a table of texts, found an array",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { X-Device = \"{device?}\" }",
        "full.login.headers.X-Device (line 17): is no header name in lower case",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { x-device = \"{device}\" }",
        "full.login.headers.x-device (line 17): needs 'device', which may be left out: {device?}",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { x-device = \"{device?}\", content-length = \"1\" }",
        "full.login.headers.content-length (line 17): is a header that belongs to the connection",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { x-device = \"{device?}\", authorization = \"x\" }",
        "full.login.headers.authorization (line 17): is there beside basic, which is the same header",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { x-device = \"{device?}\", x-key = \"{private_key}\" }",
        "full.login.headers.x-key (line 17): would send 'private_key', which is a private key",
    ),
    ("basic = { user = \"{user}\", ", "basic = { ", "full.login.basic.user (line 18): is missing; expected a text"),
    (
        "password = \"{password}\", form_encoded = true",
        "password = \"{passwort}\", form_encoded = true",
        "full.login.basic.password (line 18): names 'passwort', which is neither a secret nor a parameter",
    ),
    (
        "password = \"{password}\", form_encoded = true",
        "password = \"{password}\", form_encoded = 1",
        "full.login.basic.form_encoded (line 18): expected true or false, found an integer",
    ),
    (
        "life = \"{life|number}\"",
        "life = \"{life|numeric}\"",
        "full.login.json.life (line 19): has a filter that is none of sha1-hex, number and path",
    ),
    (
        "life = \"{life|number}\"",
        "life = \"x{life|number}\"",
        "full.login.json.life (line 19): has a number beside other text",
    ),
    (
        "deep = { list = [\"{account}\", 1, true] }",
        "deep = { list = [\"{account}\", 1.5] }",
        "full.login.json.deep (line 19): expected texts, whole numbers, booleans, arrays and tables, found a floating-point number",
    ),
    (
        "extra_parameters = true",
        "extra_parameters = true\nform = {}",
        "full.login.form (line 21): there is json already; a body is one of them",
    ),
    (
        "extra_parameters = true",
        "extra_parameter = true",
        "full.login.extra_parameter (line 20): unknown key; did you mean extra_parameters?",
    ),
    (
        "key = \"private_key\"\n",
        "key = \"user\"\nlifetyme = \"1m\"\n",
        "full.login.assertion.lifetyme (line 23): unknown key; did you mean lifetime?",
    ),
    (
        "key = \"private_key\"\n",
        "key = \"account\"\n",
        "full.login.assertion.key (line 22): names 'account', which is no secret\nfull.secrets.private_key (line 7): is used nowhere",
    ),
    (
        "key = \"private_key\"\n",
        "key = \"device\"\n",
        "full.login.headers.x-device (line 17): would send 'device', which is a private key\nfull.login.assertion.key (line 22): is a secret that may be left out\nfull.secrets.private_key (line 7): is used nowhere",
    ),
    (
        "algorithm = \"ES256\"",
        "algorithm = \"HS256\"",
        "full.login.assertion.algorithm (line 23): is no algorithm that the broker signs with; expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
    ),
    (
        "lifetime = \"1m\"",
        "lifetime = \"2d\"",
        "full.login.assertion.lifetime (line 24): expected a duration from 1s to 1d, such as \"10s\", \"5m\" or \"250ms\"",
    ),
    (
        "claims = { iss = \"{account}\",",
        "claims = { exp = 1, iss = \"{account}\",",
        "full.login.assertion.claims.exp (line 29): is a claim that the broker writes itself",
    ),
    (
        "header = { kid = \"{account}\" }",
        "header = { alg = \"none\" }",
        "full.login.assertion.header.alg (line 28): is a member that the broker writes itself",
    ),
    (
        "[upstreams.flows.full.login.answer]\nsuccess",
        "[upstreams.flows.full.login.answers]\nsuccess",
        "full.login.answers (line 30): unknown key; did you mean answer?\nfull.login.answer (line 13): is missing; expected a table that says where the token is",
    ),
    (
        "success = [200, 201]",
        "success = [200, 301]",
        "full.login.answer.success (line 31): must be statuses of 200 to 299",
    ),
    (
        "success = [200, 201]",
        "success = 200",
        "full.login.answer.success (line 31): expected an array of statuses, such as [200, 201], found an integer",
    ),
    (
        "success = [200, 201]",
        "success = []",
        "full.login.answer.success (line 31): expected an array of statuses, such as [200, 201]",
    ),
    (
        "equals = [true, 1, \"yes\"]",
        "equals = [true, 1.5]",
        "full.login.answer.when[0].equals (line 32): expected a text, a whole number or a boolean, or an array of them",
    ),
    (
        "equals = [true, 1, \"yes\"]",
        "equals = true, present = true",
        "full.login.answer.when[0] (line 32): expected one of equals and present",
    ),
    (
        "{ path = \"result\", present = true }",
        "{ path = \"result\", present = false }",
        "full.login.answer.when[1].present (line 32): expected true",
    ),
    (
        "{ path = \"result\", present = true }",
        "{ path = \"result\" }",
        "full.login.answer.when[1] (line 32): expected one of equals and present",
    ),
    (
        "{ path = \"result\", present = true }",
        "{ present = true }",
        "full.login.answer.when[1].path (line 32): is missing; expected the path of a member of the body",
    ),
    (
        "token = \"result.token\"\ntoken_type",
        "token_type",
        "full.login.answer.token (line 30): is missing; expected the path of the token, or { body = true } where the whole body is the token",
    ),
    (
        "token = \"result.token\"\ntoken_type",
        "token = \"result..token\"\ntoken_type",
        "full.login.answer.token (line 33): expected a path such as \"result.token\", or an array of names where one of them holds a dot",
    ),
    (
        "token = \"result.token\"\ntoken_type",
        "token = { body = true }\ntoken_type",
        "full.login.answer.token (line 33): is the whole body, so that no member of it can be read",
    ),
    (
        "answer = { token = { body = true }, expiry = [{ fixed = \"1h\" }] }\n\n",
        "answer = { token = { body = false }, expiry = [{ fixed = \"1h\" }] }\n\n",
        "full.switch.answer.token.body (line 54): expected true",
    ),
    (
        "refresh_token = [\"result\", \"refresh.token\"]\n",
        "\n",
        "full.login.answer.refresh_token (line 30): is missing: the refresh would have nothing to send",
    ),
    (
        "refresh_token = [\"result\", \"refresh.token\"]",
        "refresh_token = [\"result\", 1]",
        "full.login.answer.refresh_token (line 35): expected a path such as \"result.token\", or an array of names where one of them holds a dot",
    ),
    (
        "{ jwt = \"if-any\" }",
        "{ jwt = true }",
        "full.login.answer.expiry[0].jwt (line 37): expected \"required\" or \"if-any\", found a boolean",
    ),
    (
        "{ jwt = \"if-any\" }",
        "{ jwt = \"if-any\", unit = \"s\" }",
        "full.login.answer.expiry[0].unit (line 37): means nothing beside jwt",
    ),
    (
        "{ jwt = \"if-any\" }",
        "{}",
        "full.login.answer.expiry[0] (line 37): expected one of jwt, relative, absolute, asked and fixed",
    ),
    (
        "{ relative = \"result.ttl\", unit = \"ms\" }",
        "{ relative = \"result.ttl\" }",
        "full.login.answer.expiry[1].unit (line 38): is missing; expected \"s\" or \"ms\"",
    ),
    (
        "{ relative = \"result.ttl\", unit = \"ms\" }",
        "{ relative = \"result.ttl\", unit = \"m\" }",
        "full.login.answer.expiry[1].unit (line 38): expected \"s\" or \"ms\"",
    ),
    (
        "{ relative = \"result.ttl\", unit = \"ms\" }",
        "{ relative = \"result.ttl\", unit = \"ms\", fixed = \"1h\" }",
        "full.login.answer.expiry[1] (line 38): expected one of jwt, relative, absolute, asked and fixed",
    ),
    (
        "{ absolute = \"result.until\", format = \"unix-s\" }",
        "{ absolute = \"result.until\", unit = \"s\" }",
        "full.login.answer.expiry[2].unit (line 39): means nothing beside absolute\nfull.login.answer.expiry[2].format (line 39): is missing; expected \"rfc3339\" or \"unix-s\" or \"unix-ms\"",
    ),
    (
        "claims = { iss = \"{account}\"",
        "claims = { iss = \"${account}\"",
        "full.login.assertion.claims.iss (line 29): has a '$' before a place, which would be sent; a place is written {name}",
    ),
    (
        "headers = { x-device = \"{device?}\" }",
        "headers = { x-device = \"{device?}\", content-type = \"application/json\" }",
        "full.login.headers.content-type (line 17): is there beside a body, whose type the broker writes itself",
    ),
    (
        "switch]\npath = \"/switch\"\nheaders = { authorization = \"Bearer {token}\" }\nanswer = { token = { body = true }, expiry = [{ fixed = \"1h\" }] }",
        "switch]\npath = \"/switch\"\nheaders = { authorization = \"Bearer {token}\" }\nanswer = { token = { body = true } }",
        "full.switch.answer.expiry (line 54): is missing: nothing says how long a token lives; expected it here, or token_lifetime of the upstream",
    ),
    (
        "token = \"result.token\"\n",
        "token = \"$.result.token\"\n",
        "full.login.answer.token (line 33): expected names with dots between and nothing else, such as \"items.0.token\" (no '$', '[0]' or '/'; a name that holds one of them stands in an array of names)",
    ),
    (
        "expiry = [{ jwt = \"required\" }] }",
        "expiry = { jwt = \"required\" } }",
        "full.refresh.answer.expiry (line 50): expected an array of tables, such as expiry = [{ relative = \"expires_in\", unit = \"s\" }], found a table",
    ),
    (
        "{ asked = \"life\", unit = \"s\" }",
        "{ asked = \"lives\", unit = \"s\" }",
        "full.login.answer.expiry[3].asked (line 40): names 'lives', which is no parameter",
    ),
    (
        "    { fixed = \"1h\" },",
        "    { fixed = \"1000000h\" },",
        "full.login.answer.expiry[4].fixed (line 41): expected a duration from 1s to 3650d, such as \"10s\", \"5m\" or \"250ms\"",
    ),
    (
        "extra_headers = { x-second = \"result.second\" }",
        "extra_headers = { x-token = \"result.second\" }",
        "full.login.answer.extra_headers.x-token (line 43): is there twice",
    ),
    (
        "attributes = { host = \"result.host\" }",
        "attributes = { host = 1 }",
        "full.login.answer.attributes.host (line 44): expected a path such as \"result.token\", or an array of names where one of them holds a dot, found an integer",
    ),
    (
        "failures = [{ status = [409], when = [{ path = \"why\", equals = \"busy\" }], class",
        "failures = [{ class",
        "full.login.answer.failures[0] (line 45): fits everything: it needs a status or a condition",
    ),
    (
        "class = \"unavailable\"",
        "class = \"s3cret\"",
        "full.login.answer.failures[0].class (line 45): expected \"rejected\" or \"locked-out\" or \"throttled\" or \"unavailable\" or \"malformed\"",
    ),
    (
        "class = \"unavailable\", says = \"it is busy\"",
        "says = \"it is busy\"",
        "full.login.answer.failures[0].class (line 45): is missing; expected \"rejected\" or \"locked-out\" or \"throttled\" or \"unavailable\" or \"malformed\"",
    ),
    (
        "says = \"it is busy\"",
        "says = \"two\\nlines\"",
        "full.login.answer.failures[0].says (line 45): must be one line of at most 200 bytes",
    ),
    (
        "status = [409]",
        "status = [999]",
        "full.login.answer.failures[0].status (line 45): must be statuses of 100 to 599",
    ),
    (
        "refresh_token = \"{refresh_token}\"",
        "refresh_token = \"{token}\"",
        "full.refresh.form.refresh_token (line 48): names 'token', which is neither a secret nor a parameter",
    ),
    (
        "authorization = \"Bearer {token}\"",
        "authorization = \"Bearer {refresh_token}\"",
        "full.switch.headers.authorization (line 53): names 'refresh_token', which is neither a secret nor a parameter",
    ),
    (
        "[upstreams.flows.raw]",
        "[upstreams.flows.\"R w\"]",
        "\"R w\" (line 56): a flow's name is of a-z, 0-9, '_' and '-', at most 64 of them",
    ),
    (
        "[upstreams.flows.raw]\nsecrets = [\"key\"]\nlogin",
        "[upstreams.flows.raw]\nsecrets = [\"key\"]\nlogon",
        "raw.logon (line 58): unknown key; did you mean login?\nraw.login (line 56): is missing; expected a table that describes the request and its answer",
    ),
    ("headers = { x-key = \"{key}\" }", "headers = {}", "raw.secrets.key (line 57): is used nowhere"),
    (
        "key = \"private_key\"\n",
        "key = \"-----BEGIN s3cret\"\n",
        "full.login.assertion.key (line 22): expected the name of a secret",
    ),
    (
        "{ asked = \"life\", unit = \"s\" }",
        "{ asked = \"S3cret\", unit = \"s\" }",
        "full.login.answer.expiry[3].asked (line 40): expected the name of a parameter",
    ),
];

#[test]
fn what_is_wrong_is_told_by_its_key_and_its_line() {
    for (from, to, expected) in WRONG {
        assert_eq!(DESCRIPTION.matches(from).count(), 1, "{from}");
        let said = parse(&DESCRIPTION.replace(from, to)).map(|_| ()).expect_err(to);
        assert!(!said.contains("s3cret") && !said.contains(SECRET), "{said}");
        assert_eq!(said.replace("upstreams[0].flows.", ""), *expected, "{from} → {to}");
    }
}

/// Each works, and is told of.
#[test]
fn what_is_unwise_in_a_description_is_warned_of() {
    let warnings = |text: &str| -> Vec<String> {
        parse(text)
            .unwrap()
            .warnings
            .iter()
            .map(|warning| warning.key.clone())
            .filter(|key| key != "workspaces")
            .collect()
    };
    assert_eq!(warnings(DESCRIPTION), Vec::<String>::new());
    let flow = "[[upstreams]]\nname = \"own\"\nkind = \"http\"\nurl = \"https://api.example\"\n\
                [upstreams.flows.one]\nsecrets = [\"key\"]\nparameters = [\"api_key?\"]\n\
                [upstreams.flows.one.login]\npath = \"\"\nheaders = { x-api-key = \"S3CRET\", authorization = \"{key}\", a = \"{api_key?}\" }\n\
                json = { clientSecret = \"S3CRET\", token_type = \"x\", password = \"{key}\" }\nextra_parameters = true\n\
                answer = { when = [{ path = \"ok\", equals = true }], token = \"t\", expiry = [{ jwt = \"required\" }] }\n\
                [[upstreams]]\nname = \"two\"\nkind = \"http\"\nurl = \"https://api.example\"\nflows = {}\n";
    let expected = [
        "upstreams[0].flows.one.login.headers.x-api-key",
        "upstreams[0].flows.one.login.json.clientSecret",
        "upstreams[0].flows.one.login.answer.when",
    ];
    assert_eq!(warnings(flow), expected);
    let given = format!("{flow}defaults = {{}}\n")
        .replace("[upstreams.flows.one]\n", "defaults = { api_key = \"S3CRET\" }\n[upstreams.flows.one]\n");
    assert!(warnings(&given).contains(&"upstreams[0].defaults.api_key".to_owned()));
}

#[test]
fn a_key_that_stands_twice_and_a_class_that_is_none_are_named() {
    let twice = DESCRIPTION.replace("method = \"POST\"", "method = \"POST\"\nmethod = \"POST\"");
    assert!(parse(&twice).unwrap_err().ends_with("duplicate key method"), "{}", parse(&twice).unwrap_err());
    let class = DESCRIPTION.replacen("class = \"unavailable\"", "class = \"reject\"", 1);
    assert_ne!(class, DESCRIPTION);
    let said = parse(&class).unwrap_err();
    assert!(said.ends_with("; did you mean \"rejected\"?"), "{said}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = DESCRIPTION
        .replace("method = \"POST\"", "method = \"PUT\"")
        .replace("unit = \"ms\"", "unit = \"m\"")
        .replace("single_use = true", "single_use = 1")
        .replace("secrets = [\"key\"]", "secrets = [\"key\", \"other\"]");
    let said = parse(&text).unwrap_err();
    let keys: Vec<_> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let flows = "upstreams[0].flows";
    assert_eq!(
        keys,
        [
            format!("{flows}.full.login.method"),
            format!("{flows}.full.login.answer.expiry[1].unit"),
            format!("{flows}.full.refresh.single_use"),
            format!("{flows}.raw.secrets.other"),
        ]
    );
}
