//! `docs/providers.md`: every example of it is a configuration that the broker takes.

use super::{CERTIFICATE, directory};
use token_broker::config::{Config, Environment, explain};

const PAGE: &str = include_str!("../../../docs/providers.md");

const PAIR: &str =
    "username = \"u\"\npassword = \"p w\"\nfingerprint = \"f\"\nid = \"i\"\nkey = \"k\"\nsecret = \"s\"\n";

/// The blocks of TOML on the page.
fn examples() -> Vec<String> {
    let blocks = PAGE.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

fn section(heading: &str) -> &'static str {
    let start = PAGE.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let rest = &PAGE[start + 4..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn every_example_is_valid() {
    let key = super::KEY;
    assert!(!CERTIFICATE.contains("PRIVATE"));
    let files = directory(&[
        ("secrets/user.toml", PAIR),
        ("secrets/soracom.toml", PAIR),
        ("secrets/own.toml", PAIR),
        ("secrets/key.pem", key),
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
    assert_eq!(examples.len(), 16, "one for each kind but http, and two for that");
    for example in examples {
        let config = Config::parse(&example, files.path(), &Environment::default());
        let config = config.unwrap_or_else(|problems| panic!("{example}\n{problems}"));
        assert!(!config.workspaces.is_empty() && config.warnings.is_empty(), "{example}\n{:?}", config.warnings);
        assert!(explain(&config).len() >= 4);
    }
}

/// What a kind takes stands in the section of its name, and all of its flows in the table at the top.
#[test]
fn every_flow_and_every_field_is_named() {
    let budgets = directory(&[]);
    for kind in super::kinds::PRESETS {
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
