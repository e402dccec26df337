//! A case as its directory says it: the configuration, the answers, what is expected.

use super::keys;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use token_broker::config::{Config, Environment, Problems};
use token_broker::http;
use token_broker::provider::Provider;
use token_broker::provider::exchange::{Exchange, Upstream};

/// Where the cases are.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers")
}

/// One case.
pub(super) struct Case {
    pub(super) path: PathBuf,
    setup: Setup,
    /// What comes, byte by byte, one for each request.
    pub(super) answers: Vec<Vec<u8>>,
}

/// `case.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    /// How often the Workspace's credential is exchanged.
    #[serde(default = "once")]
    exchanges: usize,
    upstream: toml::Table,
    workspace: toml::Table,
    credential: BTreeMap<String, String>,
}

fn once() -> usize {
    1
}

/// `expected.json` for one exchange.
#[derive(Deserialize, Serialize, Debug, PartialEq, Eq, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expected {
    /// The life of the token, in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lifetime_seconds: Option<u64>,
    /// The class of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    /// For how long it is throttled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_seconds: Option<u64>,
    /// What the operator is told of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) says: Option<String>,
    /// `header: scheme`, where it is not `authorization: Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) presentation: Option<String>,
    /// The further headers that travel with the token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) extra_headers: Vec<String>,
    /// What else travels with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, String>,
    /// How many requests it took, where it was not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<usize>,
    /// What is wrong with the configuration: no exchange is made at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) configuration: Vec<String>,
}

#[derive(Deserialize)]
struct Head {
    status: u16,
    headers: BTreeMap<String, String>,
}

/// A piece of bytes that are made rather than kept.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Repeated { repeat: String, times: usize },
    Jwt { header: Value, jwt: Value },
}

impl Case {
    /// The cases of all kinds, or of one.
    pub(super) fn all() -> Vec<Self> {
        kinds().iter().flat_map(|kind| Self::of(kind)).collect()
    }

    pub(super) fn of(kind: &str) -> Vec<Self> {
        directories(&root().join(kind)).into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> Self {
        let setup = fs::read_to_string(here_or_above(&path, "case.toml")).unwrap();
        let setup = toml::from_str(&setup).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let numbers = std::iter::once(String::new()).chain((1..).map(|n| format!("-{n}")));
        let mut answers: Vec<_> = numbers.clone().take(1).filter_map(|number| answer(&path, &number)).collect();
        answers.extend(numbers.skip(1).map_while(|number| answer(&path, &number)));
        Self { path, setup, answers }
    }

    /// `<kind>/<case>`.
    pub(super) fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }

    pub(super) fn flow(&self) -> Option<&str> {
        self.setup.workspace.get("flow")?.as_str()
    }

    pub(super) fn exchanges(&self) -> usize {
        self.setup.exchanges
    }

    /// The texts of the credential, as they stand in the files that the configuration points to.
    pub(super) fn secrets(&self) -> impl Iterator<Item = String> {
        self.setup.credential.values().map(|text| keys::secret(text))
    }

    /// All that stands in the configuration in the clear.
    pub(super) fn plain(&self) -> String {
        let text = |table| toml::to_string(table).unwrap();
        text(&self.setup.upstream) + &text(&self.setup.workspace)
    }

    /// What was expected; `None` where nothing is written down.
    pub(super) fn expected(&self) -> Option<Vec<Expected>> {
        let text = fs::read(self.path.join("expected.json")).ok()?;
        let value: Value = serde_json::from_slice(&text).unwrap();
        let all = if value.is_array() { value } else { Value::Array(vec![value]) };
        Some(serde_json::from_value(all).unwrap_or_else(|error| panic!("{}: {error}", self.name())))
    }

    pub(super) fn write_expected(&self, seen: &[Expected]) {
        let text = match seen {
            [one] => serde_json::to_string_pretty(one),
            many => serde_json::to_string_pretty(many),
        };
        fs::write(self.path.join("expected.json"), text.unwrap() + "\n").unwrap();
    }

    /// The requests that were expected.
    pub(super) fn sent(&self) -> Vec<Option<String>> {
        let read = |file: String| fs::read_to_string(here_or_above(&self.path, &file)).ok();
        match self.answers.len() {
            0 => Vec::new(),
            1 => vec![read("sent.http".to_owned())],
            many => (1..=many).map(|n| read(format!("sent-{n}.http"))).collect(),
        }
    }

    pub(super) fn write_sent(&self, sent: &[String]) {
        for (position, text) in sent.iter().enumerate() {
            let name =
                if self.answers.len() > 1 { format!("sent-{}.http", position + 1) } else { "sent.http".to_owned() };
            if fs::read_to_string(here_or_above(&self.path, &name)).ok().as_ref() != Some(text) {
                fs::write(self.path.join(name), text).unwrap();
            }
        }
    }

    /// The configuration, its upstream at this address and its secrets in files of this directory.
    pub(super) fn configuration(&self, server: &str, secrets: &Path) -> String {
        let mut upstream = self.setup.upstream.clone();
        for (_, value) in &mut upstream {
            if let toml::Value::String(text) = value {
                *text = text.replace("{server}", server);
            }
        }
        upstream.insert("name".to_owned(), "fixture".into());
        let mut workspace = self.setup.workspace.clone();
        workspace.insert("name".to_owned(), "fixture".into());
        workspace.insert("upstream".to_owned(), "fixture".into());
        let mut credential = toml::Table::new();
        for (name, text) in &self.setup.credential {
            let file = secrets.join(name);
            fs::write(&file, keys::secret(text)).unwrap();
            let source = toml::Table::from_iter([("file".to_owned(), file.to_str().unwrap().into())]);
            credential.insert(name.clone(), source.into());
        }
        workspace.insert("credential".to_owned(), credential.into());
        let array = |table: toml::Table| toml::Value::Array(vec![table.into()]);
        let whole = [("upstreams".to_owned(), array(upstream)), ("workspaces".to_owned(), array(workspace))];
        toml::to_string(&toml::Table::from_iter(whole)).unwrap()
    }

    /// The Workspace's way to its tokens, from the text of a configuration on, as the broker makes it.
    pub(super) fn provider(&self, server: &str) -> Result<Arc<dyn Provider>, Problems> {
        let secrets = tempfile::tempdir().unwrap();
        let text = self.configuration(server, secrets.path());
        let config = Config::parse(&text, secrets.path(), &Environment::default())?;
        Ok(provider(config))
    }
}

/// The provider of the one Workspace of a configuration.
pub(super) fn provider(mut config: Config) -> Arc<dyn Provider> {
    let upstream = &config.upstreams[0];
    let client = http::Client::new(&upstream.http).unwrap();
    client.check_url(&upstream.base_url).unwrap();
    let reached = Upstream {
        client: Arc::new(client),
        base: upstream.base_url.clone(),
        bounds: upstream.bounds,
        token_lifetime: upstream.token_lifetime,
    };
    let workspace = config.workspaces.remove(0);
    Arc::new(
        Exchange::new(Arc::new(reached), Arc::clone(&workspace.flow.recipe), workspace.name, workspace.fields).unwrap(),
    )
}

/// The presets, and the APIs that are described.
pub(super) fn kinds() -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    directories(&root()).into_iter().map(name).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// A file of the case, or else of its kind.
fn here_or_above(case: &Path, file: &str) -> PathBuf {
    let here = case.join(file);
    if here.exists() { here } else { case.parent().unwrap().join(file) }
}

/// One answer as it is on the wire.
fn answer(case: &Path, number: &str) -> Option<Vec<u8>> {
    if let Some(raw) = kept_or_made(case, &format!("raw{number}")) {
        return Some(raw);
    }
    let head: Head = serde_json::from_slice(&fs::read(case.join(format!("head{number}.json"))).ok()?).unwrap();
    let body = kept_or_made(case, &format!("body{number}")).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {} \r\n", head.status);
    for (name, value) in &head.headers {
        write!(answer, "{name}: {value}\r\n").unwrap();
    }
    if head.status != 204 {
        write!(answer, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    answer += "Connection: close\r\n\r\n";
    Some([answer.into_bytes(), body].concat())
}

fn kept_or_made(case: &Path, name: &str) -> Option<Vec<u8>> {
    if let Ok(kept) = fs::read(case.join(name)) {
        return Some(kept);
    }
    let pieces = fs::read(case.join(format!("{name}.made.json"))).ok()?;
    let pieces: Vec<Piece> = serde_json::from_slice(&pieces).unwrap();
    let make = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Repeated { repeat, times } => repeat.repeat(times),
        Piece::Jwt { header, jwt } => keys::unsigned(&header, &jwt),
    };
    Some(pieces.into_iter().map(make).collect::<String>().into_bytes())
}
