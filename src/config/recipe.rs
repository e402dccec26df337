//! One flow's description, read into a [`Recipe`]: the same format in the configuration and in the presets.
//!
//! What a key may hold is decided here; what the whole must hold is decided by [`Recipe::check`], whose problems are
//! given the path and the place of their key. Every key is described in `docs/providers.md`, which a test compares.

mod answer;
mod request;

use super::parameters::is_named_like_a_secret;
use super::reader::{Entry, Section, Value, shown};
use super::scalar::{boolean, parsed, text};
use crate::provider::recipe::template::Template;
use crate::provider::recipe::{Field, Path, Presence, Presented, Recipe, Refresh, Rule, Step, Tenant, TenantSource};
use std::sync::Arc;

/// The keys of a flow and of the tables in it.
const FLOW_KEYS: &[&str] =
    &["secrets", "parameters", "needs_store", "presentation", "tenant", "login", "refresh", "switch"];
const FIELD_KEYS: &[&str] = &["name", "default"];
const PRESENTATION_KEYS: &[&str] = &["header", "scheme"];
const TENANT_KEYS: &[&str] = &["claim", "path", "parameter"];
const STEP_KEYS: &[&str] =
    &["method", "path", "query", "headers", "basic", "json", "form", "extra_parameters", "assertion", "answer"];
const REFRESH_KEYS: &[&str] = &[
    "method",
    "path",
    "query",
    "headers",
    "basic",
    "json",
    "form",
    "extra_parameters",
    "assertion",
    "answer",
    "single_use",
];

const EXPECTED_FLOWS: &str = "tables, one for each flow by its name";

/// A way to get tokens, with its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Flow {
    /// The kind of upstream that it belongs to: flows of two kinds may have one name.
    pub kind: &'static str,
    /// What Workspaces call it.
    pub name: String,
    /// The way itself, shared by all that go it.
    pub recipe: Arc<Recipe>,
}

/// The flows of a kind that a section describes, in the order of their names. Those with problems are left out. The
/// section's `failures` are those of all of them.
pub(super) fn flows(section: &mut Section<'_, '_>, kind: &'static str) -> Vec<Arc<Flow>> {
    let failures = answer::rules(section);
    let entries = section.entries("flows", EXPECTED_FLOWS);
    let flows = entries.into_iter().filter_map(|Entry { name, item }| {
        let path = section.path_of(&format!("flows.{}", shown(name)));
        if !is_flow_name(name) {
            let place = section.reading.place(item);
            section.reading.problem(path, place, "a flow's name is of a-z, 0-9, '_' and '-', at most 64 of them");
            return None;
        }
        let mut section = section.reading.item(path, item, FLOW_KEYS)?;
        let recipe = recipe(&mut section, &failures)?;
        Some(Arc::new(Flow { kind, name: name.to_owned(), recipe: Arc::new(recipe) }))
    });
    flows.collect()
}

fn is_flow_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// `None` where a problem left nothing to put in place.
fn recipe(section: &mut Section<'_, '_>, failures: &[Rule]) -> Option<Recipe> {
    let found = section.reading.problems.len();
    let secrets = fields(section, "secrets");
    let parameters = fields(section, "parameters");
    let needs_store = section.read("needs_store", boolean()).unwrap_or_default();
    let presentation = presentation(section);
    let tenant = tenant(section);
    let login = if section.has("login") {
        step(&mut section.table("login", STEP_KEYS), failures)
    } else {
        section.problem_with("login", "is missing; expected a table that describes the request and its answer");
        None
    };
    let refresh = refresh(section, failures);
    let switch = section.has("switch").then(|| step(&mut section.table("switch", STEP_KEYS), failures)).flatten();
    let login = login?;
    if section.reading.problems.len() > found {
        // What is left out because it is wrong would only be reported again as missing.
        return None;
    }
    let recipe = Recipe { secrets, parameters, login, refresh, switch, presentation, tenant, needs_store };
    let problems = recipe.check();
    let is_good = problems.is_empty();
    for problem in problems {
        let place = section.place_of(&problem.at);
        // Names of members and headers are free.
        let at = problem.at.escape_debug().to_string();
        section.problem(&at, place, problem.text);
    }
    is_good.then_some(recipe)
}

fn step(section: &mut Section<'_, '_>, failures: &[Rule]) -> Option<Step> {
    let request = request::request(section);
    let answer = answer::answer(section, failures);
    Some(Step { request: request?, answer: answer? })
}

fn refresh(section: &mut Section<'_, '_>, failures: &[Rule]) -> Option<Refresh> {
    if !section.has("refresh") {
        return None;
    }
    let mut table = section.table("refresh", REFRESH_KEYS);
    let single_use = table.read("single_use", boolean()).unwrap_or_default();
    step(&mut table, failures).map(|step| Refresh { step, single_use })
}

fn fields(section: &mut Section<'_, '_>, key: &str) -> Vec<Field> {
    let items = section.items(key, "an array of names, such as [\"username\", \"fingerprint?\"]");
    let mut fields = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let (path, place) = (format!("{}[{position}]", section.path_of(key)), section.reading.place(item));
        match Value::of(item.get_ref()) {
            Value::Text(name) => {
                let (name, presence) = match name.strip_suffix('?') {
                    Some(name) => (name, Presence::Optional),
                    None => (name, Presence::Required),
                };
                if is_field_name(name) {
                    fields.push(Field { name: name.to_owned(), presence });
                } else {
                    section.reading.problem(path, place, EXPECTED_NAME);
                }
            }
            Value::Table(_) if key == "parameters" => {
                let table = section.reading.item(path, item, FIELD_KEYS);
                fields.extend(table.and_then(|mut table| field_with_default(&mut table)));
            }
            other => section.reading.problem(path, place, other.instead_of("a name, such as \"username\"")),
        }
    }
    fields
}

const EXPECTED_NAME: &str = "a name is of a-z, 0-9 and '_', at most 64 of them, with a '?' behind it if it is optional";

fn field_with_default(table: &mut Section<'_, '_>) -> Option<Field> {
    let expected = "a name of a-z, 0-9 and '_'";
    let name = table.require("name", expected, field_name(expected));
    let default = table.require("default", "a text", parsed("a text", Template::parse));
    Some(Field { name: name?, presence: Presence::Default(default?) })
}

/// What else stands here may be a secret in the wrong place, and names are shown.
fn field_name<'t>(expected: &'static str) -> impl FnOnce(Value<'t>) -> Result<String, String> {
    move |value| {
        let name = text(expected)(value)?;
        is_field_name(name).then(|| name.to_owned()).ok_or_else(|| format!("expected {expected}"))
    }
}

fn is_field_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn presentation(section: &mut Section<'_, '_>) -> Presented {
    let mut table = section.table("presentation", PRESENTATION_KEYS);
    let header = table.read("header", name("the name of a header"));
    let scheme = table.read("scheme", text("a word such as \"Bearer\", or \"\" for the bare token"));
    Presented {
        header: header.unwrap_or_else(|| "authorization".to_owned()),
        scheme: scheme.unwrap_or("Bearer").to_owned(),
    }
}

fn tenant(section: &mut Section<'_, '_>) -> Option<Tenant> {
    if !section.has("tenant") {
        return None;
    }
    let mut table = section.table("tenant", TENANT_KEYS);
    let claim = table.read("claim", name("the name of a claim of the token"));
    let path = table.read("path", path);
    let parameter = table.require("parameter", "the name of a parameter", field_name("the name of a parameter"));
    let said = match [table.has("claim"), table.has("path")] {
        [true, false] => claim.map(TenantSource::Claim),
        [false, true] => path.map(TenantSource::Answer),
        [true, true] | [false, false] => {
            let (path, place) = (table.path().to_owned(), table.place());
            table.reading.problem(path, place, "expected one of claim and path, and parameter");
            None
        }
    };
    Some(Tenant { said: said?, parameter: parameter? })
}

/// A text with something in it.
fn name<'t>(expected: &'static str) -> impl FnOnce(Value<'t>) -> Result<String, String> {
    move |value| {
        let text = text(expected)(value)?;
        (!text.is_empty()).then(|| text.to_owned()).ok_or_else(|| format!("expected {expected}"))
    }
}

/// The way to a member of a JSON body.
fn path(value: Value<'_>) -> Result<Path, String> {
    let expected = "a path such as \"result.token\", or an array of names where one of them holds a dot";
    let names: Option<Vec<String>> = match value {
        Value::Text(text) if text.starts_with('$') || text.contains(['/', '[', ']']) => {
            return Err(
                "expected names with dots between and nothing else, such as \"items.0.token\" (no '$', '[0]' or \
                        '/'; a name that holds one of them stands in an array of names)"
                    .to_owned(),
            );
        }
        Value::Text(text) => Some(text.split('.').map(ToOwned::to_owned).collect()),
        Value::Array(items) => items
            .iter()
            .map(|item| match Value::of(item.get_ref()) {
                Value::Text(name) => Some(name.to_owned()),
                _ => None,
            })
            .collect(),
        other => return Err(other.instead_of(expected)),
    };
    let names = names.filter(|names| !names.is_empty() && names.iter().all(|name| !name.is_empty()));
    names.map(Path).ok_or_else(|| format!("expected {expected}"))
}

/// Reads each entry of a table whose names are free, in the order of the names.
fn each<'t, T>(
    section: &mut Section<'_, 't>,
    key: &str,
    expected: &str,
    mut read: impl FnMut(Entry<'t>) -> Result<T, String>,
) -> Vec<(String, T)> {
    let mut pairs = Vec::new();
    for entry in section.entries(key, expected) {
        match read(entry) {
            Ok(value) => pairs.push((entry.name.to_owned(), value)),
            Err(text) => {
                let place = section.reading.place(entry.item);
                section.problem(&format!("{key}.{}", shown(entry.name)), place, text);
            }
        }
    }
    pairs
}

/// A table of texts with places for fields.
fn templates(section: &mut Section<'_, '_>, key: &str) -> Vec<(String, Template)> {
    let templates = each(section, key, "a table of texts", |entry| template(Value::of(entry.item.get_ref())));
    for (name, template) in &templates {
        warn_of_literal(section, &format!("{key}.{}", shown(name)), name, template);
    }
    templates
}

/// A secret has its place in a credential: what stands here is known to everybody who may read the configuration.
fn warn_of_literal(section: &mut Section<'_, '_>, key: &str, name: &str, template: &Template) {
    let is_literal = template.fields().next().is_none() && !template.parts().is_empty();
    if is_literal && is_named_like_a_secret(name) {
        let path = section.path_of(key);
        section
            .reading
            .warn(path, "is named like a secret and stands here in full; put it into secrets, and {name} here");
    }
}

fn template(value: Value<'_>) -> Result<Template, String> {
    parsed("a text", Template::parse)(value)
}

/// All keys of a description.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let own = [FLOW_KEYS, FIELD_KEYS, PRESENTATION_KEYS, TENANT_KEYS, REFRESH_KEYS];
    [own.concat(), request::KEYS.concat(), answer::KEYS.concat()].concat()
}
