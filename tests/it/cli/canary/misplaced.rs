//! Secrets in the wrong place, and files that hold no good ones: what the configuration's errors say.

use super::super::{Files, finish, token_broker};
use super::scanner::{Scanner, Secret, Seen};
use rcgen::KeyPair;
use std::fs;

const HEAD: &str = "[server]\ngrpc_listen = \"127.0.0.1:0\"\nprobe_listen = \"127.0.0.1:0\"\n";
const UPSTREAM: &str = "[[upstreams]]\nname = \"one\"\nkind = \"emnify\"\nurl = \"http://127.0.0.1:1\"\n";
const WORKSPACE: &str = "[[workspaces]]\nname = \"a\"\nupstream = \"one\"\n";
const CREDENTIAL: &str = "credential = { application_token = { file = \"good\" } }\n";
const ISSUER: &str = "[[issuers]]\nname = \"i\"\nissuer = \"https://i.example\"\naudiences = [\"a\"]\n";
const LISTENER: &str = "[[listeners]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n";
const OAUTH2: &str = "[[upstreams]]\nname = \"two\"\nkind = \"oauth2\"\nurl = \"http://127.0.0.1:1/token\"\n\
                      [[workspaces]]\nname = \"b\"\nupstream = \"two\"\nflow = \"private-key-jwt\"\n\
                      parameters = { client_id = \"c\" }\n";

/// A section, its beginning, and the keys that take a text.
const TEXTS: &[(&str, &str, &[&str])] = &[
    ("[server]\n", "", &["grpc_listen", "probe_listen", "drain_timeout", "max_connections", "reload_interval"]),
    ("[log]\n", "", &["format", "level"]),
    ("[engine]\n", "", &["serve_margin", "min_gap", "max_workspaces"]),
    ("[limits]\n", "", &["max_in_flight", "get_per_second"]),
    ("[health]\n", "", &["max_unhealthy"]),
    ("[audit]\n", "", &["sinks", "file", "when_unavailable", "timeout", "repeats_every", "fsync"]),
    ("[[listeners]]\n", "callers = \"loopback\"\n", &["name", "address", "trust_domains", "issuers", "unix_mode"]),
    (LISTENER, "", &["callers", "tls", "proxies", "plaintext_lets_the_network_read_tokens"]),
    (ISSUER, "", &["jwks_url", "jwks_file", "ca_file", "token_file", "timeout", "algorithms", "allow_private"]),
    ("[[issuers]]\n", "", &["name", "issuer", "audiences"]),
    (UPSTREAM, "", &["token_lifetime", "defaults", "failures", "flows", "timeout", "budget", "renew_at", "proxy"]),
    (UPSTREAM, "", &["ca_file", "client_certificate", "allow_private", "max_concurrent", "shortest_lifetime"]),
    ("[[upstreams]]\n", "", &["name", "kind", "url"]),
    (WORKSPACE, CREDENTIAL, &["flow", "parameters", "organisation", "extra_parameters", "keep_warm"]),
    ("[[workspaces]]\n", CREDENTIAL, &["name", "upstream"]),
    (WORKSPACE, "", &["credential"]),
    ("[[grants]]\n", "", &["caller", "workspaces", "actions"]),
];

/// `@` stands for a secret as a TOML text, `#` for one that has letters and digits only.
const SHAPED: &[&str] = &[
    "[#]\n",
    "[@]\n",
    "[[#]]\n",
    "# = 1\n",
    "@ = 1\n",
    "@\n",
    "#\n",
    "[log]\nlevel = \"#\n",
    "[log]\nlevel = \"\"\"#\n",
    "[log]\n# = 1\n# = 2\n",
    "[log]\nlevel = '#' '#'\n",
    "[log]\nlevel = \"info,#=loud\"\n",
    "[log]\nlevel = #\n",
    "[log\n#]\n",
    "[audit]\nsinks = [\"file\"]\nfile = \"/nowhere/#/audit\"\n",
    "[audit]\nsinks = [\"file\"]\nfile = \"good/#\"\n",
    "[audit]\nsinks = [@]\n",
    "LISTENER callers = \"certificate\"\ntls = { certificate_file = @, key_file = @, client_ca_file = @ }\n",
    "LISTENER callers = \"certificate\"\ntls = { certificate_file = \"key.pem\", key_file = \"key.pem\", client_ca_file = \"key.pem\" }\n",
    "LISTENER callers = \"certificate\"\ntls = { @ = @ }\n",
    "LISTENER callers = \"bearer\"\nissuers = [@]\n",
    "[[listeners]]\nname = \"l\"\naddress = \"unix:/nowhere/#\"\ncallers = \"peer_credentials\"\n",
    "[[listeners]]\nname = \"l\"\naddress = \"tcp://user:#@127.0.0.1:1\"\ncallers = \"loopback\"\n",
    "ISSUER jwks_url = \"https://user:#@keys.example/\"\n",
    "ISSUER jwks_url = \"https://keys.example/?token=#\"\n",
    "ISSUER jwks_file = \"nowhere/#\"\n",
    "ISSUER algorithms = [@]\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"https://user:#@api.example/\"\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"https://#@api.example/\"\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"https://api.example/?key=#\"\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"http://#.example/\"\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"#://api.example/\"\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"emnify\"\nurl = \"https://api.example:#/\"\n",
    "UPSTREAM proxy = \"http://user:#@proxy.example\"\n",
    "UPSTREAM ca_file = \"nowhere/#\"\n",
    "UPSTREAM ca_file = \"key.pem\"\n",
    "UPSTREAM client_certificate = { cert_file = @, key_file = @ }\n",
    "UPSTREAM client_certificate = { cert_file = \"key.pem\", key_file = \"good\" }\n",
    "UPSTREAM allow_private = [@]\n",
    "UPSTREAM defaults = { @ = @ }\n",
    "UPSTREAM budget = { @ = 1 }\n",
    "UPSTREAM budget = { logins = @ }\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n[upstreams.flows.#]\nlogin = @\n",
    "[[upstreams]]\nname = \"x\"\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n[upstreams.flows.a]\nsecrets = [@]\nlogin = { path = @, json = { @ = \"{#}\" } }\n",
    "WORKSPACE credential = { application_token = @ }\n",
    "WORKSPACE credential = { application_token = { inline = @ } }\n",
    "WORKSPACE credential = { application_token = { value = @, file = \"good\" } }\n",
    "WORKSPACE credential = { application_token = { @ = \"good\" } }\n",
    "WORKSPACE credential = { application_token = { file = @ } }\n",
    "WORKSPACE credential = { application_token = { file = \"nowhere/#\" } }\n",
    "WORKSPACE credential = { application_token = { file = \"good\", key = @ } }\n",
    "WORKSPACE credential = { application_token = { file = \"keyed.toml\", key = @ } }\n",
    "WORKSPACE credential = { application_token = { file = @, key = \"a\" } }\n",
    "WORKSPACE credential = { application_token = { env = @ } }\n",
    "WORKSPACE credential = { application_token = { env = \"#\" } }\n",
    "WORKSPACE credential = { application_token = [@] }\n",
    "WORKSPACE credential = { @ = { file = \"good\" } }\n",
    "WORKSPACE credential = { application_token = { file = \"good\" }, # = { file = \"good\" } }\n",
    "WORKSPACE credential = { username = { file = \"good\" }, # = @ }\n",
    "WORKSPACE CREDENTIAL parameters = { @ = @ }\n",
    "WORKSPACE CREDENTIAL parameters = { organisation = @ }\n",
    "WORKSPACE CREDENTIAL extra_parameters = { @ = @ }\n",
    "WORKSPACE CREDENTIAL # = 1\n",
    "WORKSPACE CREDENTIAL WORKSPACE CREDENTIAL # = 2\n",
    "[[workspaces]]\nname = \"#\"\nupstream = \"one\"\nCREDENTIAL[[workspaces]]\nname = \"#\"\nupstream = \"one\"\nCREDENTIAL",
    "[[workspaces]]\nname = \"#\"\nupstream = \"two\"\nCREDENTIAL",
    "[[workspaces]]\nname = \"#\"\nupstream = \"one\"\nflow = \"none\"\nCREDENTIAL",
    "[[workspaces]]\nname = \"//#\"\nupstream = \"one\"\nCREDENTIAL",
    "[[workspaces]]\nname = \"a\"\nupstream = \"#\"\nCREDENTIAL",
    "[[grants]]\ncaller = \"spiffe://#/*x\"\nworkspaces = [\"a\"]\nactions = [\"get\"]\n",
    "[[grants]]\ncaller = @\nworkspaces = [@]\nactions = [@]\n",
    "[[grants]]\ncaller = \"jwt:#:x\"\nworkspaces = [\"a\"]\nactions = [\"get\"]\nCREDENTIAL",
];

/// What a file of secrets may hold that is no good; `#` stands for the secret.
const CONTENTS: &[(&str, &str)] = &[
    ("app", ""),
    ("app", "# #\n#"),
    ("app", "#\n\n#"),
    ("app", "#\u{7}"),
    ("app", "#\u{fc}"),
    ("app", "\u{feff}#"),
    ("keyed.toml", "a = \"#\n"),
    ("keyed.toml", "a = #\n"),
    ("keyed.toml", "#\n"),
    ("keyed.toml", "a = \"#\"\na = \"#\"\n"),
    ("keyed.toml", "# = \"#\"\n[#]\nx = \"#\"\n"),
    ("keyed.toml", "a = [\"#\"]\n"),
    ("keyed.toml", "a = { x = \"#\" }\n"),
    ("keyed.toml", "a = \"#\\u00\"\n"),
    ("keyed.toml", "a = \"#\\q\"\n"),
    ("keyed.json", "{\"a\": \"#"),
    ("keyed.json", "{\"a\": #}"),
    ("keyed.json", "#"),
    ("keyed.json", "{\"a\": \"#\", \"a\": \"#\"}"),
    ("keyed.json", "{\"a\": [\"#\"]}"),
    ("keyed.json", "{\"a\": \"#\\q\"}"),
    ("keyed.json", "[\"#\"]"),
    ("keyed.json", "\"#\""),
    ("keyed.json", "{\"a\": \"#\"} #"),
    ("pem", "#"),
    ("pem", "-----BEGIN PRIVATE KEY-----\n#\n-----END PRIVATE KEY-----\n"),
    ("pem", "-----BEGIN #-----\nAAAA\n-----END #-----\n"),
    ("pem", "A-WHOLE-ONE"),
    ("pem", "ONE-THAT-IS-CUT"),
];

struct Bad {
    secrets: Vec<Secret>,
    quoted: String,
    plain: String,
    key: String,
    seen: Seen,
    accepted: Vec<String>,
}

impl Bad {
    fn new() -> Self {
        let (quoted, plain) = (Secret::planted("misplaced"), Secret::plain("misplaced, plainly"));
        let key = KeyPair::generate().unwrap().serialize_pem();
        let (text, id) = (serde_json::to_string(&quoted.text).unwrap(), plain.text.clone());
        let secrets = vec![quoted, plain, Secret::key("a private key", &key)];
        Self { secrets, quoted: text, plain: id, key, seen: Seen::default(), accepted: Vec::new() }
    }

    fn filled(&self, text: &str) -> String {
        let words = [("UPSTREAM ", UPSTREAM), ("WORKSPACE ", WORKSPACE), ("CREDENTIAL", CREDENTIAL)];
        let words = words.into_iter().chain([("ISSUER ", ISSUER), ("LISTENER ", LISTENER)]);
        let text = words.fold(text.to_owned(), |text, (word, meant)| text.replace(word, meant));
        text.replace('#', &self.plain).replace('@', &self.quoted)
    }

    fn files(&self, config: &str) -> Files {
        let files = Files::new(config);
        for (name, text) in
            [("good", "a-good-secret"), ("key.pem", &self.key), ("keyed.toml", "a = \"a-good-secret\"\n")]
        {
            files.write(name, text);
        }
        files
    }

    /// Whatever reads a configuration says what is wrong, or nothing is.
    async fn read(&mut self, what: &str, files: &Files, variables: &[(String, String)]) {
        let config = files.config();
        let commands: [&[&str]; 2] = [&["check-config", &config], &["serve", "--config", &config]];
        for arguments in commands {
            let mut command = token_broker(arguments);
            command.envs(variables.iter().map(|(name, value)| (name, value))).env("RUST_LOG", "trace");
            let done = finish(command).await;
            let label = format!("{} with {what}", arguments[0]);
            self.seen.add(format!("{label}, stdout"), done.stdout);
            self.seen.add(format!("{label}, stderr"), done.stderr);
            if done.code == Some(0) {
                // Nothing is wrong with it, and `serve` would go on.
                self.accepted.push(label);
                return;
            }
        }
    }

    fn is_quiet(&self, atleast: usize) {
        let hits = self.seen.hits(&Scanner::new(&self.secrets));
        assert!(hits.is_empty(), "{hits:#?}");
        assert!(self.seen.len() >= atleast, "{} outputs; accepted: {:#?}", self.seen.len(), self.accepted);
        let refused = self.seen.all().filter(|(what, text)| what.ends_with("stderr") && !text.is_empty()).count();
        assert!(refused * 3 >= self.seen.len(), "most are refused: {refused}; accepted: {:#?}", self.accepted);
    }
}

#[tokio::test]
async fn no_error_of_the_configuration_quotes_a_value() {
    let mut bad = Bad::new();
    for (begin, end, keys) in TEXTS {
        for key in *keys {
            for value in ["@", "{ # = [@] }"] {
                let text = bad.filled(&format!("{begin}{key} = {value}\n{end}"));
                let head = if begin.starts_with("[server]") { "" } else { HEAD };
                let files = bad.files(&format!("{head}{text}"));
                bad.read(&format!("{begin:?} {key} = {value}"), &files, &[]).await;
            }
        }
    }
    bad.is_quiet(350);
}

#[tokio::test]
async fn no_error_quotes_what_stands_in_the_wrong_place() {
    let mut bad = Bad::new();
    for shape in SHAPED {
        let upstream = if shape.contains("UPSTREAM") { "" } else { UPSTREAM };
        let files = bad.files(&format!("{HEAD}{upstream}{}", bad.filled(shape)));
        bad.read(&format!("{shape:?}"), &files, &[]).await;
    }
    // The bare text at the very beginning, and the whole file a secret.
    for text in [bad.plain.clone(), bad.quoted.clone(), bad.key.clone(), format!("{}\0", bad.plain)] {
        let files = bad.files(&text);
        bad.read("a secret as the whole file", &files, &[]).await;
    }
    let files = bad.files(&format!("{HEAD}{UPSTREAM}{WORKSPACE}{CREDENTIAL}"));
    for name in [
        "SERVER__GRPC_LISTEN",
        "LOG__LEVEL",
        "LOG__FORMAT",
        "AUDIT__SINKS",
        "AUDIT__FILE",
        "ENGINE__MIN_GAP",
        "@",
        "LOG__@",
    ] {
        for secret in [0, 1] {
            let secret = bad.secrets[secret].text.clone();
            let name = name.replace('@', &secret.replace(['=', '\0'], "_"));
            let variables = [(format!("TOKEN_BROKER__{name}"), secret)];
            bad.read("a variable", &files, &variables).await;
        }
    }
    bad.is_quiet(200);
}

#[tokio::test]
async fn no_error_quotes_a_file_of_secrets() {
    let mut bad = Bad::new();
    for (name, content) in CONTENTS {
        let source = match *name {
            "app" => "{ file = \"app\" }".to_owned(),
            file => format!("{{ file = \"{file}\", key = \"a\" }}"),
        };
        let workspace = match *name {
            "pem" => format!("{OAUTH2}credential = {{ private_key = {{ file = \"pem\" }} }}\n"),
            _ => format!("{UPSTREAM}{WORKSPACE}credential = {{ application_token = {source} }}\n"),
        };
        let files = bad.files(&format!("{HEAD}{workspace}"));
        let content = content.replace('#', &bad.plain).replace("ONE-THAT-IS-CUT", bad.key.split_at(100).0);
        files.write(name, &content.replace("A-WHOLE-ONE", &bad.key.replace("MIG", "MIH")));
        bad.read(&format!("{name} of {content:?}"), &files, &[]).await;
        drop(fs::remove_file(files.0.path().join(name)));
    }
    bad.is_quiet(100);
}
