//! The kinds of upstreams: what each is by default, and the flows that its Workspaces choose from.
//!
//! All but `http` are presets: descriptions that ship with the broker, in the format that a configuration describes
//! flows of kind `http` in, and read by the same reader. Each is read once, when it is first asked for.

use super::endpoint;
use super::environment::Environment;
use super::problem::{Place, Problem, Problems};
use super::reader::{Reading, Section, Value};
use super::recipe::{self, Flow};
use super::scalar::{duration, parsed, seconds};
use super::upstream;
use crate::files::Files;
use crate::secret::MarkKey;
use crate::upstream::Budget;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use toml::de::DeTable;
use url::Url;

/// The kind whose flows are described in the configuration.
pub(super) const DESCRIBED: &str = "http";

/// The keys of a preset, beside the budget's.
const KEYS: &[&str] = &["url", "budget", "lives", "failures", "flows"];

/// A kind of upstream.
#[derive(Debug)]
pub struct Kind {
    /// Its name in the configuration and in what is printed.
    pub name: &'static str,
    /// Where the vendor has it, if that is one place for all.
    pub url: Option<Url>,
    /// How many logins it allows if nothing else is configured.
    pub budget: Budget,
    /// How long its tokens are known to live, as far as that is known.
    pub lives: Vec<Duration>,
    /// Its flows, by their names; none for `http`.
    pub flows: Vec<Arc<Flow>>,
}

struct Preset {
    name: &'static str,
    text: &'static str,
    kind: OnceLock<Result<Kind, Problems>>,
}

const fn preset(name: &'static str, text: &'static str) -> Preset {
    Preset { name, text, kind: OnceLock::new() }
}

static PRESETS: [Preset; 15] = [
    preset("emnify", include_str!("../provider/presets/emnify.toml")),
    preset("wyvern", include_str!("../provider/presets/wyvern.toml")),
    preset("sensos", include_str!("../provider/presets/sensos.toml")),
    preset("oauth2", include_str!("../provider/presets/oauth2.toml")),
    preset("1nce", include_str!("../provider/presets/1nce.toml")),
    preset("soracom", include_str!("../provider/presets/soracom.toml")),
    preset("thingsboard", include_str!("../provider/presets/thingsboard.toml")),
    preset("github-app", include_str!("../provider/presets/github-app.toml")),
    preset("auth0", include_str!("../provider/presets/auth0.toml")),
    preset("salesforce", include_str!("../provider/presets/salesforce.toml")),
    preset("kore", include_str!("../provider/presets/kore.toml")),
    preset("twilio", include_str!("../provider/presets/twilio.toml")),
    preset("notehub", include_str!("../provider/presets/notehub.toml")),
    preset("feishu", include_str!("../provider/presets/feishu.toml")),
    preset(DESCRIBED, include_str!("../provider/presets/http.toml")),
];

/// The names of all kinds.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    PRESETS.iter().map(|preset| preset.name)
}

/// The kind of this name.
pub(super) fn find(name: &str) -> Option<Result<&'static Kind, &'static Problems>> {
    let preset = PRESETS.iter().find(|preset| preset.name == name)?;
    Some(preset.kind.get_or_init(|| preset.read()).as_ref())
}

impl Preset {
    fn read(&self) -> Result<Kind, Problems> {
        let table = DeTable::parse(self.text).map_err(|error| Problem {
            key: self.name.to_owned(),
            place: Place::Unknown,
            text: error.message().to_owned(),
        })?;
        let (environment, mut files) = (Environment::default(), Files::new(MarkKey::random()));
        let mut reading = Reading::new(self.text, Path::new("."), &environment, &mut files);
        let kind = self.kind(&mut reading.root(table.get_ref(), KEYS));
        Problems::new(reading.problems).map_or(Ok(kind), Err)
    }

    fn kind(&self, root: &mut Section<'_, '_>) -> Kind {
        let url = root.read("url", parsed("an https URL", |text| endpoint::base_url(text, &[])));
        let lives = root.items("lives", "an array of durations");
        let lives = lives.iter().filter_map(|life| {
            let life = duration(seconds(1)..=upstream::LONGEST_LIFE)(Value::of(life.get_ref()));
            life.map_err(|text| root.problem_with("lives", text)).ok()
        });
        let lives = lives.collect();
        let (name, budget) = (self.name, upstream::budget(root, None));
        Kind { name, url, budget, lives, flows: recipe::flows(root, name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_free_of_problems() {
        for name in names() {
            let kind = find(name).unwrap();
            let kind = kind.unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
            assert_eq!(kind.flows.is_empty(), name == DESCRIBED, "{name}");
        }
        assert!(find("no-such-kind").is_none());
    }

    #[test]
    fn every_preset_says_what_it_describes_and_from_where() {
        for preset in &PRESETS {
            let comment: Vec<_> = preset.text.lines().take_while(|line| line.starts_with('#')).collect();
            let comment = comment.join("\n");
            assert!(comment.contains("Source:") && comment.contains("Not known:"), "{}", preset.name);
        }
    }

    #[test]
    fn a_preset_is_read_once() {
        let flow = || Arc::clone(&find("sensos").unwrap().unwrap().flows[0]);
        assert!(Arc::ptr_eq(&flow().recipe, &flow().recipe));
    }
}
