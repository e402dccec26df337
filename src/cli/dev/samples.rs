//! The Workspaces of `dev`: one of each kind that the sandbox simulates.

use crate::sandbox::{Organisation, Settings};
use std::net::SocketAddr;
use std::time::Duration;

/// A Workspace of the sandbox.
pub(super) struct Sample {
    pub(super) workspace: &'static str,
    pub(super) shows: &'static str,
    /// Its table in the configuration, but for the name and the credential.
    table: &'static str,
    /// What its credential is made of: names, and secrets that guard nothing.
    credential: &'static [(&'static str, &'static str)],
}

/// The user whom the sandbox knows wherever there are users.
const USER: &[(&str, &str)] = &[("username", "sandbox-user@example.com"), ("password", "sandbox-password")];

pub(super) const SAMPLES: [Sample; 10] = [
    Sample {
        workspace: "demo/emnify",
        shows: "an application token of emnify; tokens live four hours",
        table: "upstream = \"emnify\"\norganisation = 1",
        credential: &[("application_token", "sandbox-application-token-1")],
    },
    Sample {
        workspace: "demo/emnify-weekly",
        shows: "tokens live a week",
        table: "upstream = \"emnify\"\norganisation = 2",
        credential: &[("application_token", "sandbox-application-token-2")],
    },
    Sample {
        workspace: "demo/emnify-short",
        shows: "tokens live a minute: watch them being renewed",
        table: "upstream = \"emnify\"\norganisation = 3",
        credential: &[("application_token", "sandbox-application-token-3")],
    },
    Sample {
        workspace: "demo/emnify-revoked",
        shows: "the credential is refused: see what that looks like",
        table: "upstream = \"emnify\"\norganisation = 4",
        credential: &[("application_token", "sandbox-application-token-4")],
    },
    Sample {
        workspace: "demo/emnify-user",
        shows: "a user of emnify, renewed with the refresh token",
        table: "upstream = \"emnify\"\norganisation = 1\nflow = \"user\"",
        credential: USER,
    },
    Sample {
        workspace: "demo/emnify-switched",
        shows: "the same user, switched to another organisation",
        table: "upstream = \"emnify\"\norganisation = 2\nflow = \"user-in-workspace\"",
        credential: USER,
    },
    Sample {
        workspace: "demo/wyvern",
        shows: "a login with a refresh token",
        table: "upstream = \"wyvern\"",
        credential: USER,
    },
    Sample {
        workspace: "demo/sensos",
        shows: "an application of Sensos, where two statements of the life disagree",
        table: "upstream = \"sensos\"\n\
                parameters = { tenant_id = \"sandbox-tenant-mismatch\", application_id = \"sandbox-application\" }",
        credential: &[("application_secret", "sandbox-application-secret")],
    },
    Sample {
        workspace: "demo/oauth2",
        shows: "OAuth 2.0 client credentials",
        table: "upstream = \"oauth2\"\nflow = \"client-credentials\"\n\
                parameters = { client_id = \"sandbox-client\", scope = \"read\" }",
        credential: &[("client_secret", "sandbox-client-secret")],
    },
    Sample {
        workspace: "demo/described",
        shows: "an API that the configuration describes: the token is nested, failures come with status 200",
        table: "upstream = \"described\"\nparameters = { client_id = \"sandbox-client\" }",
        credential: &[("client_secret", "sandbox-client-secret")],
    },
];

/// What the simulated upstreams know. Everybody but the last organisation.
pub(super) fn settings() -> Settings {
    let short = Organisation::new(3, "Sandbox Three", "sandbox-application-token-3", Duration::from_secs(60));
    let mut settings = Settings::default();
    settings.organisations.push(short);
    settings
}

/// `[[upstreams]]` and `[[workspaces]]`.
pub(super) fn tables(api: SocketAddr) -> String {
    let workspaces = SAMPLES.iter().map(|Sample { workspace, table, credential, .. }| {
        let source = |name: &str| format!("{name} = {{ file = \"secrets.toml\", key = \"{workspace} {name}\" }}");
        let credential: Vec<_> = credential.iter().map(|(name, _)| source(name)).collect();
        let credential = credential.join(", ");
        format!("[[workspaces]]\nname = \"{workspace}\"\n{table}\ncredential = {{ {credential} }}\n")
    });
    std::iter::once(upstreams(api)).chain(workspaces).collect()
}

/// The file that the credentials point to.
pub(super) fn secrets() -> String {
    let of = |sample: &Sample| {
        let Sample { workspace, credential, .. } = *sample;
        let lines = credential.iter().map(move |(name, secret)| format!("\"{workspace} {name}\" = \"{secret}\"\n"));
        lines.collect::<String>()
    };
    SAMPLES.iter().map(of).collect()
}

fn upstreams(api: SocketAddr) -> String {
    let rows = [("emnify", ""), ("wyvern", "/wyvern"), ("sensos", "/sensos"), ("oauth2", "/oauth2/token")];
    let preset =
        |(kind, path)| format!("[[upstreams]]\nname = \"{kind}\"\nkind = \"{kind}\"\nurl = \"http://{api}{path}\"\n");
    let presets: String = rows.into_iter().map(preset).collect();
    format!(
        "{presets}[[upstreams]]\nname = \"described\"\nkind = \"http\"\nurl = \"http://{api}/odd/nested\"\n\
         [upstreams.flows.login]\nsecrets = [\"client_secret\"]\nparameters = [\"client_id\"]\n\
         [upstreams.flows.login.login]\npath = \"/token\"\n\
         json = {{ client_id = \"{{client_id}}\", client_secret = \"{{client_secret}}\" }}\n\
         [upstreams.flows.login.login.answer]\nwhen = [{{ path = \"success\", equals = true }}]\n\
         failures = [{{ status = [200], class = \"rejected\" }}]\ntoken = \"result.access_token\"\n\
         expiry = [{{ relative = \"result.expire_time\", unit = \"s\" }}]\n"
    )
}
