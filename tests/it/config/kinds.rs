//! Kinds and flows: which there are, which one a Workspace takes, and what it must give for it.

use super::directory;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use std::sync::{Arc, LazyLock};
use token_broker::app;
use token_broker::config::{Config, Environment, explain};
use token_broker::provider::recipe::Presence;

/// All kinds that ship with the broker.
pub(super) const PRESETS: [&str; 14] = [
    "emnify",
    "wyvern",
    "sensos",
    "oauth2",
    "1nce",
    "soracom",
    "thingsboard",
    "github-app",
    "auth0",
    "salesforce",
    "kore",
    "twilio",
    "notehub",
    "feishu",
];

/// An upstream of a kind that has a URL of its own or not.
fn upstream(kind: &str) -> String {
    format!("[[upstreams]]\nname = \"up\"\nkind = \"{kind}\"\nurl = \"https://api.example\"\ntoken_lifetime = \"1h\"\n")
}

fn with(kind: &str, workspace: &str) -> String {
    format!("{}[[workspaces]]\nname = \"a\"\nupstream = \"up\"\n{workspace}\n", upstream(kind))
}

/// Credentials are files of their own names.
fn credential(names: &[&str]) -> String {
    let sources = names.iter().map(|name| format!("{name} = {{ file = \"{name}\" }}"));
    format!("credential = {{ {} }}", sources.collect::<Vec<_>>().join(", "))
}

const SECRETS: [&str; 15] = [
    "application_token",
    "username",
    "password",
    "fingerprint",
    "application_secret",
    "client_secret",
    "key_id",
    "thumbprint",
    "refresh_token",
    "subject_token",
    "actor_token",
    "auth_key_id",
    "auth_key",
    "email",
    "app_secret",
];

/// A private key that signs with RS256.
pub(super) static KEY: LazyLock<String> =
    LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());

fn parse(text: &str) -> Result<Config, String> {
    let mut files: Vec<(&str, &str)> = SECRETS.iter().map(|name| (*name, "a s3cret\n")).collect();
    files.push(("private_key", &KEY));
    let directory = directory(&files);
    Config::parse(text, directory.path(), &Environment::default()).map_err(|problems| {
        let problems = problems.to_string();
        assert!(!problems.contains("s3cret"), "{problems}");
        problems
    })
}

/// Every flow of every kind is taken by a Workspace that gives all that it requires, and by one that gives all it
/// takes.
#[test]
fn every_flow_takes_what_it_says() {
    let mut flows = 0;
    for kind in PRESETS {
        let config = parse(&upstream(kind)).unwrap();
        for flow in &config.upstreams[0].flows {
            for all in [false, true] {
                let is_given = |presence: &Presence| all || *presence == Presence::Required;
                let secrets = flow.recipe.secrets.iter().filter(|field| is_given(&field.presence));
                let secrets: Vec<&str> = secrets.map(|field| field.name.as_str()).collect();
                let parameters = flow.recipe.parameters.iter().filter(|field| is_given(&field.presence));
                let parameters: Vec<_> = parameters.map(|field| format!("{} = 1", field.name)).collect();
                let workspace = format!(
                    "flow = \"{}\"\nparameters = {{ {} }}\n{}",
                    flow.name,
                    parameters.join(", "),
                    credential(&secrets)
                );
                let parsed = parse(&with(kind, &workspace));
                if flow.recipe.needs_store {
                    assert!(parsed.unwrap_err().contains("needs a store"), "{kind} {}", flow.name);
                    continue;
                }
                let config = parsed.unwrap_or_else(|problems| panic!("{kind} {}: {problems}", flow.name));
                let taken = &config.workspaces[0];
                assert!(Arc::ptr_eq(&taken.flow, flow), "{kind} {}: all share one", flow.name);
                assert_eq!(taken.fields.secrets.len(), secrets.len());
                assert_eq!(taken.fields.parameters.len(), parameters.len());
                flows += 1;
                if !all {
                    // With the defaults, requests can be written and signed.
                    app::rehearse_whole(config).unwrap_or_else(|problems| panic!("{kind} {}: {problems}", flow.name));
                }
            }
        }
    }
    assert_eq!(flows, 2 * 24, "all flows but the one that needs a store");
}

#[test]
fn a_flow_is_chosen_by_the_names_of_the_secrets() {
    let rows = [
        ("emnify", "", &["application_token"][..], Ok("application-token")),
        ("emnify", "flow = \"user\"", &["username", "password"], Ok("user")),
        ("emnify", "flow = \"user\"", &["username", "password", "fingerprint"], Ok("user")),
        (
            "emnify",
            "organisation = 1\nflow = \"user-in-workspace\"",
            &["username", "password"],
            Ok("user-in-workspace"),
        ),
        (
            "sensos",
            "parameters = { tenant_id = \"t\", application_id = \"a\" }",
            &["application_secret"],
            Ok("application"),
        ),
        ("soracom", "", &["auth_key_id", "auth_key"], Ok("auth-key")),
        ("soracom", "parameters = { operator = \"OP1\" }", &["username", "password"], Ok("sam-user")),
        ("soracom", "", &["email", "password"], Ok("operator")),
        ("oauth2", "parameters = { client_id = \"c\" }", &["subject_token"], Ok("token-exchange")),
        ("oauth2", "parameters = { client_id = \"c\" }", &["username", "password"], Ok("password")),
        (
            "emnify",
            "",
            &["username", "password"],
            Err(
                "workspaces[0].flow (line 6): is missing: the credential fits more than one flow of emnify: user, user-in-workspace",
            ),
        ),
        (
            "oauth2",
            "parameters = { client_id = \"c\" }",
            &["client_secret"],
            Err(
                "workspaces[0].flow (line 6): is missing: the credential fits more than one flow of oauth2: client-credentials, client-credentials-body",
            ),
        ),
        (
            "oauth2",
            "parameters = { client_id = \"c\" }",
            &["private_key"],
            Err(
                "workspaces[0].flow (line 6): is missing: the credential fits more than one flow of oauth2: jwt-bearer, private-key-jwt",
            ),
        ),
        (
            "emnify",
            "flow = \"usr\"",
            &["username"],
            Err("workspaces[0].flow (line 9): unknown flow; did you mean user?"),
        ),
    ];
    for (kind, lines, secrets, expected) in rows {
        let parsed = parse(&with(kind, &format!("{lines}\n{}", credential(secrets))));
        let chosen = parsed.as_ref().map(|config| config.workspaces[0].flow.name.as_str()).map_err(String::as_str);
        assert_eq!(chosen, expected, "{kind} {lines} {secrets:?}");
    }
}

/// Of which kind, the lines of the Workspace, the secrets of its credential unless it is among the lines, and what is
/// said.
const WRONG: &[(&str, &str, &[&str], &str)] = &[
    (
        "emnify",
        "flow = \"user\"",
        &["username"],
        "workspaces[0].credential.password (line 10): is missing: the flow user of emnify needs username and password",
    ),
    (
        "emnify",
        "",
        &["application_token", "fingerprint"],
        "workspaces[0].credential (line 10): fits no flow of emnify: application-token takes application_token; user takes username and password (fingerprint if wanted); user-in-workspace takes username and password (fingerprint if wanted)",
    ),
    (
        "emnify",
        "",
        &["username"],
        "workspaces[0].credential (line 10): fits no flow of emnify: application-token takes application_token; user takes username and password (fingerprint if wanted); user-in-workspace takes username and password (fingerprint if wanted)",
    ),
    (
        "emnify",
        "credential = { aplication_token = { file = \"application_token\" } }",
        &[],
        "workspaces[0].credential (line 9): fits no flow of emnify: application-token takes application_token; user takes username and password (fingerprint if wanted); user-in-workspace takes username and password (fingerprint if wanted)",
    ),
    (
        "wyvern",
        "credential = { usernam = { file = \"username\" }, password = { file = \"password\" } }",
        &[],
        "workspaces[0].credential.usernam (line 9): unknown secret; did you mean username?\nworkspaces[0].credential.username (line 9): is missing: the flow user of wyvern needs username and password",
    ),
    (
        "soracom",
        "",
        &["auth_key"],
        "workspaces[0].credential.auth_key_id (line 10): is missing: the flow auth-key of soracom needs auth_key_id and auth_key",
    ),
    (
        "wyvern",
        "credential = \"s3cret\"",
        &[],
        "workspaces[0].credential (line 9): expected { username = { file = … }, password = { file = … } }; a secret never stands in the configuration itself",
    ),
    (
        "wyvern",
        "credential = 1",
        &[],
        "workspaces[0].credential (line 9): expected { username = { file = … }, password = { file = … } }, found an integer",
    ),
    (
        "wyvern",
        "",
        &[],
        "workspaces[0].credential (line 6): is missing; expected { username = { file = … }, password = { file = … } }",
    ),
    (
        "emnify",
        "credential = {}",
        &[],
        "workspaces[0].credential (line 9): is empty; expected { application_token = { file = … } }",
    ),
    (
        "sensos",
        "parameters = { tenant_id = \"t\" }",
        &["application_secret"],
        "workspaces[0].parameters.application_id (line 9): is missing: the flow application of sensos needs tenant_id and application_id",
    ),
    (
        "sensos",
        "parameters = { tenant_id = true, application_id = \"\" }",
        &["application_secret"],
        "workspaces[0].parameters.application_id (line 9): expected a text of one line, at most 4096 bytes, or a whole number\nworkspaces[0].parameters.tenant_id (line 9): expected a text of one line, at most 4096 bytes, or a whole number, found a boolean",
    ),
    (
        "sensos",
        "parameters = { tenant_id = 1, application_id = 2, tenant = 3 }",
        &["application_secret"],
        "workspaces[0].parameters.tenant (line 9): unknown parameter; did you mean tenant_id?",
    ),
    (
        "1nce",
        "parameters = { scope = \"s\" }",
        &["username", "password"],
        "workspaces[0].parameters.scope (line 9): means nothing here: there are no parameters",
    ),
    (
        "1nce",
        "organisation = 1",
        &["username", "password"],
        "workspaces[0].organisation (line 9): means nothing to the flow user of 1nce, which has no such parameter",
    ),
    (
        "emnify",
        "organisation = 1\nparameters = { organisation = 1 }",
        &["application_token"],
        "workspaces[0].organisation (line 9): stands in parameters too",
    ),
    (
        "emnify",
        "flow = \"user-in-workspace\"",
        &["username", "password"],
        "workspaces[0].parameters.organisation (line 6): is missing: the flow user-in-workspace of emnify needs organisation",
    ),
    (
        "emnify",
        "extra_parameters = { scope = \"s\" }",
        &["application_token"],
        "workspaces[0].extra_parameters (line 9): means nothing to the flow application-token, whose requests take none",
    ),
    (
        "oauth2",
        "flow = \"rotating-refresh-token\"\nparameters = { client_id = \"c\" }",
        &["refresh_token"],
        "workspaces[0].flow (line 9): the flow rotating-refresh-token of oauth2 needs a store: each use of its credential brings another one, which has to be kept; use another flow, such as one whose server goes on accepting the same credential",
    ),
    (
        "github-app",
        "parameters = { app_id = 1, installation_id = 2 }\ncredential = { private_key = { file = \"password\" } }",
        &[],
        "workspaces[0].credential.private_key (line 10): the secret must be a private key in PEM form",
    ),
    (
        "1nce",
        "credential = { username = { file = \"username\" }, password = { file = \"private_key\" } }",
        &[],
        "workspaces[0].credential.password (line 9): the secret must be one line, and this is in PEM form",
    ),
];

#[test]
fn what_a_workspace_gives_wrongly_is_told_by_its_key() {
    for (kind, lines, secrets, expected) in WRONG {
        let credential = if secrets.is_empty() { String::new() } else { credential(secrets) };
        let said = parse(&with(kind, &format!("{lines}\n{credential}"))).map(|_| ()).unwrap_err();
        assert_eq!(said, *expected, "{kind}\n{lines}");
    }
}

/// What only shows when a request is written or a key is used, by its key and the line of its Workspace.
#[test]
fn a_workspace_that_does_not_fit_its_flow_is_told_by_its_key() {
    let rows = [
        (
            "oauth2",
            "flow = \"client-credentials\"\nparameters = { client_id = \"c\" }\nextra_parameters = { grant_type = \"s3cret\" }",
            &["client_secret"][..],
            "extra_parameters.grant_type (line 6): is one that",
        ),
        (
            "oauth2",
            "flow = \"private-key-jwt\"\nparameters = { client_id = \"c\", algorithm = \"ES256\" }",
            &["private_key"],
            "credential.private_key (line 6): is ",
        ),
        (
            "oauth2",
            "flow = \"private-key-jwt\"\nparameters = { client_id = \"c\", algorithm = \"s3cret\" }",
            &["private_key"],
            "parameters.algorithm (line 6): is no algorithm that the broker signs with; expected one of RS256, ",
        ),
        (
            "soracom",
            "parameters = { token_timeout_seconds = \"s3cret\" }",
            &["auth_key_id", "auth_key"],
            "parameters.token_timeout_seconds (line 6): is not a whole number",
        ),
        (
            "wyvern",
            "parameters = { login_path = \"s3cret\" }",
            &["username", "password"],
            "parameters.login_path (line 6): must ",
        ),
    ];
    for (kind, lines, secrets, expected) in rows {
        let config = parse(&with(kind, &format!("{lines}\n{}", credential(secrets)))).unwrap();
        let said = app::rehearse_whole(config).unwrap_err().to_string();
        assert!(said.starts_with(&format!("workspaces[0].{expected}")) && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn what_an_upstream_gives_wrongly_is_told_by_its_key() {
    let rows = [
        ("kind = \"soracon\"", "upstreams[0].kind (line 3): unknown kind; did you mean soracom?"),
        ("kind = 1", "upstreams[0].kind (line 3): expected the name of a kind, such as \"emnify\", found an integer"),
        ("kind = \"sensos\"", "upstreams[0].url (line 1): is missing: kind sensos has none of its own"),
        (
            "kind = \"emnify\"\nflows = {}",
            "upstreams[0].flows (line 4): is for kind http: kind emnify has flows of its own",
        ),
        (
            "kind = \"http\"\nurl = \"https://a.example\"",
            "upstreams[0].flows (line 1): is missing; expected a table for each flow, such as [upstreams.flows.login]",
        ),
        (
            "kind = \"salesforce\"",
            "upstreams[0].token_lifetime (line 1): is missing: in the flow jwt-bearer of salesforce nothing says how long a token lives",
        ),
        (
            "kind = \"emnify\"\ntoken_lifetime = \"0s\"",
            "upstreams[0].token_lifetime (line 4): expected a duration from 1s to 3650d, such as \"10s\", \"5m\" or \"250ms\"",
        ),
        (
            "kind = \"auth0\"\nurl = \"https://a.example\"\ndefaults = { audiense = \"a\" }",
            "upstreams[0].defaults.audiense (line 5): unknown parameter; did you mean audience?",
        ),
        (
            "kind = \"1nce\"\ndefaults = { audience = \"a\" }",
            "upstreams[0].defaults.audience (line 4): means nothing here: there are no parameters",
        ),
        (
            "kind = \"auth0\"\nurl = \"https://a.example\"\ndefaults = [1]",
            "upstreams[0].defaults (line 5): expected a table of texts and whole numbers, found an array",
        ),
    ];
    for (lines, expected) in rows {
        let text = format!("[[upstreams]]\nname = \"up\"\n{lines}\n");
        assert_eq!(parse(&text).unwrap_err(), expected, "{lines}");
    }
}

#[test]
fn defaults_stand_in_for_what_a_workspace_does_not_give() {
    let upstream = "[[upstreams]]\nname = \"up\"\nkind = \"auth0\"\nurl = \"https://a.example\"\n\
                    defaults = { client_id = \"shared\", audience = \"https://api.example\" }\n";
    let workspace = |lines| {
        format!(
            "{upstream}[[workspaces]]\nname = \"a\"\nupstream = \"up\"\n{lines}\n{}",
            credential(&["client_secret"])
        )
    };
    let given = |lines| parse(&workspace(lines)).unwrap().workspaces.remove(0).fields.parameters;
    let rows = [
        ("", "shared", "https://api.example"),
        ("parameters = { client_id = \"own\" }", "own", "https://api.example"),
        ("parameters = { audience = \"other\" }", "shared", "other"),
    ];
    for (lines, client_id, audience) in rows {
        let given = given(lines);
        assert_eq!((given["client_id"].as_str(), given["audience"].as_str()), (client_id, audience), "{lines}");
    }
    // A default that the flow does not take is another flow's.
    let text = format!(
        "[[upstreams]]\nname = \"up\"\nkind = \"oauth2\"\nurl = \"https://a.example\"\ndefaults = {{ issuer = \"i\", client_id = \"c\" }}\n\
         [[workspaces]]\nname = \"a\"\nupstream = \"up\"\nflow = \"client-credentials\"\n{}",
        credential(&["client_secret"])
    );
    let given = parse(&text).unwrap().workspaces.remove(0).fields.parameters;
    assert_eq!(given.into_iter().collect::<Vec<_>>(), [("client_id".to_owned(), "c".to_owned())]);
}

#[test]
fn check_config_counts_flows_and_reckons_with_known_lives() {
    let user = credential(&["username", "password"]);
    let text = format!(
        "[[upstreams]]\nname = \"up\"\nkind = \"emnify\"\n\
         [[upstreams]]\nname = \"own\"\nkind = \"http\"\nurl = \"https://a.example\"\n\
         flows.one = {{ secrets = [\"password\"], login = {{ path = \"\", json = {{ p = \"{{password}}\" }}, answer = {{ token = \"t\", expiry = [{{ jwt = \"required\" }}] }} }} }}\n\
         [[upstreams]]\nname = \"sf\"\nkind = \"salesforce\"\ntoken_lifetime = \"90m\"\n\
         [[workspaces]]\nname = \"a\"\nupstream = \"up\"\n{}\n\
         [[workspaces]]\nname = \"b\"\nupstream = \"up\"\nflow = \"user\"\n{user}\n\
         [[workspaces]]\nname = \"c\"\nupstream = \"own\"\n{}\n",
        credential(&["application_token"]),
        credential(&["password"]),
    );
    insta::assert_snapshot!(explain(&parse(&text).unwrap()).join("\n"), @r##"
    upstream up (emnify, https://cdn.emnify.net): Workspaces: 2
      Workspaces by flow: application-token: 1, user: 1, user-in-workspace: 0
      budget: 100 logins per 5m: 25 at once, of which 5 are kept for waiting callers, then 900 per hour
      if tokens live 4h: logins per hour when all are in use: 1 (1% of the budget); Workspaces that the budget carries at renew_at 0.5: 1800
      if tokens live 7d: logins per hour when all are in use: 1 (1% of the budget); Workspaces that the budget carries at renew_at 0.5: 75600
      cold start: about 0s by the budget (logins: 2)
    upstream own (http, https://a.example): Workspaces: 1
      Workspaces by flow: one: 1
      budget: 60 logins per 5m: 15 at once, of which 3 are kept for waiting callers, then 540 per hour
      how long tokens live, and so how many logins they take, is learnt only at run time
      cold start: about 0s by the budget (logins: 1)
    upstream sf (salesforce, https://login.salesforce.com): Workspaces: 0
      Workspaces by flow: jwt-bearer: 0
      budget: 60 logins per 5m: 15 at once, of which 3 are kept for waiting callers, then 540 per hour
      if tokens live 1h 30m: logins per hour when all are in use: 0 (0% of the budget); Workspaces that the budget carries at renew_at 0.5: 405
      cold start: about 0s by the budget (logins: 0)
    "##);
}
