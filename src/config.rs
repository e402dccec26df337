//! The configuration: a TOML file with the environment over it, read into types that hold only valid values.
//!
//! Promises: everything that is wrong is reported in one go, each with the path of its key; nothing that is reported
//! quotes a value, so no secret comes out by an error; reading takes time in proportion to the file, up to 100,000
//! Workspaces. Every key is described in `docs/configuration.md`, which a test compares with the readers.
//!
//! It walks the TOML tree by hand, because deserialisers stop at the first error. It blocks on files; it must not know
//! what its values are used for, and opens no connection.

mod audit;
mod changes;
mod credential;
mod endpoint;
mod environment;
mod explain;
mod grants;
mod health;
mod history;
mod issuers;
mod kind;
mod limits;
mod listeners;
mod parameters;
mod problem;
mod reader;
mod recipe;
mod scalar;
mod secret_source;
mod settings;
mod source;
mod upstream;
mod workspace;

pub use crate::files::Files;
pub use changes::{Changes, IssuerChange, Standing, UpstreamChange, WorkspaceChange};
pub use environment::Environment;
pub use explain::explain;
pub use grants::Grant;
pub use history::{History, Record};
pub use issuers::Issuer;
pub use kind::Kind;
pub use listeners::{Callers, ListenAddress, Listener, TlsFiles};
pub use problem::{Place, Problem, Problems, Warning};
pub use reader::nearest;
pub use recipe::Flow;
pub use settings::{Directives, Engine, Log, LogFormat, Server};
pub use source::{Loaded, Source};
pub use upstream::Upstream;
pub use workspace::Workspace;

use crate::health::Rule;
use crate::policy::Policy;
use crate::secret::MarkKey;
use listeners::Addresses;
use reader::{OVERLAY_PREFIX, Reading, Section, shown, unknown, variable};
use secret_source::SecretFiles;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use toml::de::DeTable;
use workspace::KnownUpstreams;

const ROOT_KEYS: &[&str] = &[
    "server",
    "listeners",
    "issuers",
    "log",
    "engine",
    "health",
    "limits",
    "audit",
    "upstreams",
    "workspaces",
    "grants",
];

/// The sections whose scalars the environment may override.
const OVERLAID: [(&str, &[&str]); 6] = [
    ("server", settings::SERVER_KEYS),
    ("log", settings::LOG_KEYS),
    ("engine", settings::ENGINE_KEYS),
    ("health", health::KEYS),
    ("limits", limits::KEYS),
    ("audit", audit::KEYS),
];

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    /// Where the broker listens and how it stops.
    pub server: Server,
    /// Where callers come in beside that; no name and no address stands twice.
    pub listeners: Vec<Listener>,
    /// Whose JWTs callers may show; no name and no `iss` stands twice.
    pub issuers: Vec<Issuer>,
    /// What is logged and how.
    pub log: Log,
    /// The limits of the engine.
    pub engine: Engine,
    /// When all Workspaces together count as unwell.
    pub health: Rule,
    /// What callers may take of the broker.
    pub limits: crate::limits::Settings,
    /// Where it is written down who got which token.
    pub audit: crate::audit::Settings,
    /// The APIs that mint tokens; no name stands twice.
    pub upstreams: Vec<Upstream>,
    /// The tenants that tokens are for; no name stands twice, each names an upstream from above.
    pub workspaces: Vec<Workspace>,
    /// Who may do what with them.
    pub grants: Vec<Grant>,
    /// What works and had better be changed.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads a file and the secrets that it points to. Blocks.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Problems> {
        Source::new(path, environment.clone()).load().config
    }

    /// Reads a text; relative paths in it are taken from `base_dir`. Blocks on the files that it names.
    pub fn parse(text: &str, base_dir: &Path, environment: &Environment) -> Result<Self, Problems> {
        Self::parse_noting(text, base_dir, environment, &mut Files::new(MarkKey::random()))
    }

    /// As [`Self::parse`], and notes which files it read.
    fn parse_noting(
        text: &str,
        base_dir: &Path,
        environment: &Environment,
        files: &mut Files,
    ) -> Result<Self, Problems> {
        let mut reading = Reading::new(text, base_dir, environment, files);
        let document = DeTable::parse(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let (line, column) = reading.line_and_column(start);
            Problem {
                key: "configuration".to_owned(),
                place: Place::Line(line),
                text: format!("not valid TOML at column {column}: {}{}", error.message(), key_of(&error, text)),
            }
        })?;
        report_unknown_variables(&mut reading);
        let mut root = reading.root(document.get_ref(), ROOT_KEYS);
        let config = Self::read(&mut root);
        match Problems::new(reading.problems) {
            None => Ok(Self { warnings: reading.warnings, ..config }),
            Some(problems) => Err(problems),
        }
    }

    fn read(root: &mut Section<'_, '_>) -> Self {
        let others = root.has("listeners");
        let server = Server::read(&mut root.overlaid("server", settings::SERVER_KEYS), others);
        let listeners = read_listeners(root, &server);
        let log = Log::read(&mut root.overlaid("log", settings::LOG_KEYS));
        let engine = Engine::read(&mut root.overlaid("engine", settings::ENGINE_KEYS));
        let health = health::read(&mut root.overlaid("health", health::KEYS));
        let limits = limits::read(&mut root.overlaid("limits", limits::KEYS));
        let audit = audit::read(&mut root.overlaid("audit", audit::KEYS));
        let mut files = SecretFiles::default();
        let issuers = read_issuers(root, &listeners, &mut files);
        let (upstreams, known) = read_upstreams(root, &mut files);
        let workspaces = read_workspaces(root, &known, &engine, &mut files);
        let grants = grants::read(root);
        let unwise = grants::warnings(&grants, workspaces.iter().map(|workspace| &workspace.name));
        root.reading.warnings.extend(unwise);
        Self {
            server,
            listeners,
            issuers,
            log,
            engine,
            health,
            limits,
            audit,
            upstreams,
            workspaces,
            grants,
            warnings: Vec::new(),
        }
    }

    /// The policy that its grants make.
    pub fn policy(&self) -> Policy {
        grants::policy(&self.grants)
    }
}

/// The key that stands twice, where that is what is wrong.
fn key_of(error: &toml::de::Error, text: &str) -> String {
    let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message().contains("duplicate key"));
    key.map(|key| format!(" {}", shown(key))).unwrap_or_default()
}

fn read_listeners(root: &mut Section<'_, '_>, server: &Server) -> Vec<Listener> {
    let items = root.items("listeners", "tables, each under [[listeners]]");
    if items.is_empty() && root.has("listeners") {
        root.problem_with("listeners", "must not be empty; leave it out for server.grpc_listen alone");
    }
    let mut listeners = Vec::with_capacity(items.len());
    let (mut names, mut addresses) = (Names::default(), Addresses::of(server));
    for (position, item) in items.iter().enumerate() {
        let path = format!("listeners[{position}]");
        let Some(mut section) = root.reading.item(path, item, listeners::KEYS) else {
            continue;
        };
        let written = section.written("name");
        names.report_duplicate(&mut section, written, position);
        let Some(listener) = Listener::read(&mut section) else { continue };
        addresses.report_duplicate(&mut section, &listener.address);
        listeners.push(listener);
    }
    listeners
}

fn read_issuers(root: &mut Section<'_, '_>, listeners: &[Listener], files: &mut SecretFiles) -> Vec<Issuer> {
    let items = root.items("issuers", "tables, each under [[issuers]]");
    let mut issuers: Vec<Issuer> = Vec::with_capacity(items.len());
    let (mut names, mut claimed) = (Names::default(), HashSet::new());
    let mut written = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let path = format!("issuers[{position}]");
        let Some(mut section) = root.reading.item(path, item, issuers::KEYS) else {
            continue;
        };
        let name = section.written("name");
        written.extend(name);
        names.report_duplicate(&mut section, name, position);
        if section.written("issuer").is_some_and(|issuer| !claimed.insert(issuer)) {
            section.problem_with("issuer", "is also another's issuer: whose callers would its tokens make?");
        }
        issuers.extend(Issuer::read(&mut section, files));
    }
    for listener in listeners {
        let Callers::Bearer { issuers: taken } = &listener.callers else { continue };
        let key = format!("listeners.{}.issuers", listener.name);
        if taken.iter().any(|name| !written.contains(&name.as_str())) {
            root.reading.problem(key, listener.place.clone(), "names an issuer that is not among [[issuers]]");
        } else if written.is_empty() {
            root.reading.warn(key, "there is none, so no token is taken there");
        }
    }
    issuers
}

fn read_upstreams<'t>(root: &mut Section<'_, 't>, files: &mut SecretFiles) -> (Vec<Upstream>, KnownUpstreams<'t>) {
    let items = root.items("upstreams", "tables, each under [[upstreams]]");
    let mut upstreams = Vec::with_capacity(items.len());
    let mut known = KnownUpstreams::new();
    let mut names = Names::default();
    for (position, item) in items.iter().enumerate() {
        let path = format!("upstreams[{position}]");
        let Some(mut section) = root.reading.item(path, item, upstream::KEYS) else {
            continue;
        };
        let written = section.written("name");
        names.report_duplicate(&mut section, written, position);
        let (upstream, offer) = Upstream::read(&mut section, files);
        if let Some(written) = written {
            known.insert(written, offer);
        }
        upstreams.extend(upstream);
    }
    (upstreams, known)
}

fn read_workspaces(
    root: &mut Section<'_, '_>,
    known: &KnownUpstreams<'_>,
    engine: &Engine,
    files: &mut SecretFiles,
) -> Vec<Workspace> {
    let items = root.items("workspaces", "tables, each under [[workspaces]]");
    if items.len() > engine.max_workspaces {
        let text =
            format!("there are {} of them, and engine.max_workspaces allows {}", items.len(), engine.max_workspaces);
        root.problem_with("workspaces", text);
        return Vec::new();
    }
    if items.is_empty() {
        root.reading.warn("workspaces", "there is none, so the broker has nothing to hand out");
    }
    let mut workspaces = Vec::with_capacity(items.len());
    let mut names = Names::default();
    for (position, item) in items.iter().enumerate() {
        let path = format!("workspaces[{position}]");
        let Some(mut section) = root.reading.item(path, item, workspace::KEYS) else {
            continue;
        };
        let written = section.written("name");
        names.report_duplicate(&mut section, written, position);
        workspaces.extend(Workspace::read(&mut section, known, files));
    }
    workspaces
}

/// The names of an array's items, and which item had each first.
#[derive(Debug, Default)]
struct Names<'t>(HashMap<&'t str, usize>);

impl<'t> Names<'t> {
    fn report_duplicate(&mut self, section: &mut Section<'_, 't>, name: Option<&'t str>, position: usize) {
        let Some(name) = name else { return };
        let first = *self.0.entry(name).or_insert(position);
        if first != position {
            let array = section.path().split('[').next().unwrap_or_default().to_owned();
            section.problem_with("name", format!("is also the name of {array}[{first}]; each name may stand once"));
        }
    }
}

fn report_unknown_variables(reading: &mut Reading<'_>) {
    let known: Vec<String> =
        OVERLAID.iter().flat_map(|(section, keys)| keys.iter().map(|key| variable(section, key))).collect();
    for name in reading.environment.names_with(OVERLAY_PREFIX) {
        if !known.contains(&name) {
            let text = unknown("variable", &name, known.iter().map(String::as_str));
            // Judged behind the prefix: of nothing else is it known what it is.
            let rest = name.strip_prefix(OVERLAY_PREFIX).filter(|rest| !rest.is_empty()).map(shown);
            reading.problem(format!("{OVERLAY_PREFIX}{}", rest.unwrap_or_default()), Place::Unknown, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let document = include_str!("../docs/configuration.md");
        let sections = [
            ROOT_KEYS,
            settings::SERVER_KEYS,
            listeners::KEYS,
            listeners::TLS_KEYS,
            issuers::KEYS,
            settings::LOG_KEYS,
            settings::ENGINE_KEYS,
            health::KEYS,
            limits::KEYS,
            audit::KEYS,
            upstream::KEYS,
            upstream::BUDGET_KEYS,
            upstream::CERTIFICATE_KEYS,
            workspace::KEYS,
            grants::KEYS,
            secret_source::KEYS,
        ];
        for key in sections.concat() {
            let forms = [format!("| `{key}` |"), format!("## `[{key}]`"), format!("## `[[{key}]]`")];
            assert!(forms.iter().any(|form| document.contains(form)), "{key}");
        }
        let document = include_str!("../docs/providers.md");
        for key in recipe::keys() {
            assert!(document.contains(&format!("| `{key}` |")), "{key} of a description");
        }
    }
}
