//! Reads `src/` and fails where it breaks a rule of the house that the compiler and clippy don't know.
//!
//! The tables below are the rules' data: a new module goes into [`LAYERS`], with the reason for its place in mind.

mod cases;
mod rules;
mod source;

use rules::{Layer, Wall, offences};
use source::File;
use std::path::Path;

/// Where each module stands; the longest name that fits counts. Nothing imports from a layer above its own.
const LAYERS: &[(&str, Layer)] = &[
    ("address", Layer::Pure),
    ("bearer::claims", Layer::Pure),
    ("bearer::keys", Layer::Pure),
    ("bearer::pace", Layer::Pure),
    ("bearer::token", Layer::Pure),
    ("clock", Layer::Pure),
    ("engine::bucket", Layer::Pure),
    ("engine::plan", Layer::Pure),
    ("engine::queue", Layer::Pure),
    ("engine::schedule", Layer::Pure),
    ("error", Layer::Pure),
    ("failure", Layer::Pure),
    ("health", Layer::Pure),
    ("identity", Layer::Pure),
    ("jwt", Layer::Pure),
    ("lifetime", Layer::Pure),
    ("limits::rate", Layer::Pure),
    ("policy", Layer::Pure),
    ("provider::recipe", Layer::Pure),
    ("secret", Layer::Pure),
    ("token", Layer::Pure),
    ("upstream", Layer::Pure),
    ("audit::denials", Layer::Pure),
    ("audit::record", Layer::Pure),
    ("audit", Layer::Driven),
    ("bearer", Layer::Driven),
    ("config", Layer::Driven),
    ("files", Layer::Driven),
    ("engine", Layer::Driven),
    ("http", Layer::Driven),
    ("limits", Layer::Driven),
    ("provider", Layer::Driven),
    ("readiness", Layer::Driven),
    ("revision", Layer::Driven),
    ("tls", Layer::Driven),
    ("supervisor", Layer::Driven),
    ("telemetry", Layer::Driven),
    ("tls", Layer::Driven),
    ("admin", Layer::Edge),
    ("broker", Layer::Edge),
    ("client", Layer::Edge),
    ("envoy", Layer::Edge),
    ("grpc", Layer::Edge),
    ("listener", Layer::Edge),
    ("sandbox", Layer::Edge),
    ("app", Layer::App),
    ("cli", Layer::Cli),
    ("main", Layer::Cli),
];

/// What only some files may name. A name ending in `*` stands for all that begin so, a file ending in `/` for a folder.
const WALLS: &[Wall] = &[
    Wall {
        names: &["tonic", "tonic_*", "prost", "prost_*"],
        files: &["grpc.rs", "grpc/", "envoy.rs", "envoy/", "client.rs", "client/"],
        reason: "the wire stops at the door",
    },
    Wall {
        names: &["reqwest"],
        files: &["http.rs", "http/"],
        reason: "upstream requests go through the one client and its limits",
    },
    Wall { names: &["sqlx"], files: &["store/"], reason: "SQL stays in the store" },
];

/// Who may see the text of a secret.
const MAY_EXPOSE: &[&str] = &[
    "secret.rs",
    "secret/sealed.rs",
    "token.rs",
    "provider/",
    "http.rs",
    "http/",
    "grpc/convert.rs",
    "config/secret_source.rs",
    "config/secret_source/",
    "sandbox/",
    // The commands whose purpose is to print a token, or what it says.
    "cli/ask.rs",
    "cli/inspect.rs",
    "cli/watch/sink.rs",
];

/// Who may start a task.
const MAY_SPAWN: &[&str] = &["supervisor.rs", "supervisor/"];

/// Siblings that must not know each other.
const STRANGERS: (&str, &str) = ("grpc", "envoy");

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "types", "prelude"];

/// The most lines of a file, test code left out.
const MAX_LINES: usize = 450;

/// The widest line, in characters; rustfmt leaves comments and literals as they are.
const MAX_WIDTH: usize = 120;

#[test]
fn the_source_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = source::read(&root).unwrap();
    assert!(files.iter().any(|file| file.path == "lib.rs"), "src/ was not found in {}", root.display());
    let found = offences(&files);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// One lock per environment, not one per script: two installations at once into one of them would spoil it.
#[test]
fn who_installs_into_the_virtual_environment_holds_its_lock() {
    for script in ["test.sh", "tests/clients/python/run.sh", "tests/peers/oidc-provider/run.sh"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).unwrap();
        let (before, _) = text.split_once("pip\" install").unwrap_or_else(|| panic!("{script} installs nothing"));
        assert!(before.contains(">\"$VENV.lock\"") && before.contains("flock 9"), "{script}");
    }
}

/// Two pages: who opens the map for the first time reads it whole.
#[test]
fn the_map_stays_short() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let size = (text.lines().count(), text.split_whitespace().count());
    assert!(size.0 <= 120 && size.1 <= 1_300, "{size:?} lines and words: move what is no map into docs/");
}

/// What the rules say of one file.
fn said_of(path: &str, text: &str) -> Vec<String> {
    offences(&[File::new(path, text)])
}

#[test]
fn each_rule_fires() {
    for (path, text, expected) in cases::REFUSED {
        let found = said_of(path, text);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{path}: {text}: expected one offence with {expected:?}, found {found:?}"
        );
    }
}

#[test]
fn what_is_allowed_passes() {
    for (path, text) in cases::ALLOWED {
        let found = said_of(path, text);
        assert!(found.is_empty(), "{path}: {text}: {found:?}");
    }
}

#[test]
fn only_lines_outside_of_tests_count() {
    let lines = "//\n".repeat(MAX_LINES);
    let longest = format!("{lines}#[cfg(test)]\nmod tests {{\n{lines}}}\n");
    assert!(said_of("engine.rs", &longest).is_empty());
    let longer = format!("fn f() {{}}\n{longest}");
    let found = said_of("engine.rs", &longer);
    assert!(found.len() == 1 && found[0].contains("451 lines"), "{found:?}");
}

#[test]
fn a_wide_line_is_found_by_its_characters() {
    let line = |width: usize| format!("\n//{}\n", "→".repeat(width - 2));
    assert!(said_of("engine.rs", &line(MAX_WIDTH)).is_empty());
    let found = said_of("engine.rs", &line(MAX_WIDTH + 1));
    assert_eq!(found, ["src/engine.rs:2: wider than 120 columns; wrap it"]);
}

#[test]
fn a_file_of_tests_is_left_out() {
    let parent = File::new("http.rs", "#[cfg(test)]\nmod tests;");
    let tests = File::new("http/tests.rs", "fn f() { tokio::spawn(g()); }");
    let other = File::new("http/head.rs", "fn f() { tokio::spawn(g()); }");
    let kept = source::without_test_files(vec![parent, tests, other]);
    let paths: Vec<_> = kept.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["http.rs", "http/head.rs"]);
}

#[test]
fn an_offence_says_where_it_is() {
    let found = said_of("app.rs", "const A: &str = \"\n\n\";\n/* \n */ use tonic::Status;");
    assert_eq!(found, ["src/app.rs:5: names tonic: the wire stops at the door"]);
}
