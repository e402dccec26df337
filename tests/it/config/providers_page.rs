//! `docs/providers.md`: every example of it is a configuration that the broker takes.

use super::directory;
use super::kinds::{KEY, PRESETS};
use rcgen::KeyPair;
use token_broker::app;
use token_broker::config::{Config, Environment, explain};

const PAGE: &str = include_str!("../../../docs/providers.md");

const PAIR: &str =
    "username = \"u\"\npassword = \"p w\"\nfingerprint = \"f\"\nid = \"i\"\nkey = \"k\"\nsecret = \"s\"\n";

/// The blocks of TOML on the page.
fn examples() -> Vec<String> {
    let blocks = PAGE.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// What stands under a heading.
fn section(heading: &str) -> &'static str {
    let sections = PAGE.split("\n## ");
    let mut named = sections.filter_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    named.next().unwrap()
}

#[test]
fn every_example_is_valid() {
    let files = directory(&[
        ("secrets/user.toml", PAIR),
        ("secrets/soracom.toml", PAIR),
        ("secrets/own.toml", PAIR),
        ("secrets/key.pem", &KEY),
        ("secrets/ec-key.pem", &KeyPair::generate().unwrap().serialize_pem()),
        ("secrets/key-id", "k1\n"),
        ("secrets/fleet-europe", "t\n"),
        ("secrets/sensos", "t\n"),
        ("secrets/reports", "t\n"),
        ("secrets/refresh-token", "t\n"),
        ("secrets/service-account", "t\n"),
        ("secrets/orders", "t\n"),
        ("secrets/kore", "t\n"),
        ("secrets/twilio", "t\n"),
        ("secrets/notehub", "t\n"),
        ("secrets/lark", "t\n"),
        ("secrets/odd", "t\n"),
    ]);
    let examples = examples();
    assert_eq!(examples.len(), 17, "one for each kind but http, and three for that");
    for example in examples {
        let config = Config::parse(&example, files.path(), &Environment::default());
        let config = config.unwrap_or_else(|problems| panic!("{example}\n{problems}"));
        assert!(!config.workspaces.is_empty());
        // Each shows a kind, and not who may have its tokens.
        assert_eq!(super::warned(&config), ["grants"], "{example}\n{:?}", config.warnings);
        assert!(explain(&config).len() >= 4);
        app::rehearse_whole(config).unwrap_or_else(|problems| panic!("{example}\n{problems}"));
    }
}

/// What a kind takes stands in the section of its name, and all of its flows in the table at the top.
#[test]
fn every_flow_and_every_field_is_named() {
    let budgets = directory(&[]);
    for kind in PRESETS {
        let text = format!(
            "[[upstreams]]\nname = \"a\"\nkind = \"{kind}\"\nurl = \"https://a.example\"\ntoken_lifetime = \"1h\"\n"
        );
        let config = Config::parse(&text, budgets.path(), &Environment::default()).unwrap();
        let upstream = &config.upstreams[0];
        let section = section(kind);
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| [`{kind}`]"))).unwrap();
        let per = upstream.budget.per.as_secs() / 60;
        assert!(row.contains(&format!("{} per {per} min", upstream.budget.logins)), "{row}");
        let url = upstream.kind.url.as_ref().map_or("required", |url| url.as_str().trim_end_matches('/'));
        assert!(row.contains(url), "{row}");
        for flow in &upstream.flows {
            assert!(row.contains(&format!("`{}`", flow.name)), "{row}");
            assert!(section.contains(&format!("| `{}`", flow.name)), "{kind} {}", flow.name);
            for field in flow.recipe.secrets.iter().chain(&flow.recipe.parameters) {
                assert!(section.contains(&format!("`{}", field.name)), "{kind} {} {}", flow.name, field.name);
            }
        }
    }
}
