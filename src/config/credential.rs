//! The credential of a Workspace, and the flow that it chooses.
//!
//! A flow says which secrets it takes. Where a Workspace names no flow, the names of its secrets choose: the one flow
//! that they fit. What is missing or not known is told by the flow that is meant, as far as that can be seen.

use super::reader::{Entry, Section, Value, shown, unknown};
use super::recipe::Flow;
use super::scalar::text;
use super::secret_source::{Form, SecretFiles};
use super::upstream::Offer;
use crate::provider::recipe::{Field, Presence, Recipe};
use crate::secret::Sealed;
use std::collections::BTreeMap;
use std::sync::Arc;

const EXPECTED: &str = "a table with a source for each secret, such as { password = { file = … } }";

/// The flow of a Workspace. `None` where a problem says why there is none.
pub(super) fn flow(section: &mut Section<'_, '_>, offer: &Offer) -> Option<Arc<Flow>> {
    let flow = if section.has("flow") { named(section, offer) } else { chosen(section, offer) }?;
    if flow.recipe.needs_store {
        let text = format!(
            "the flow {} of {} needs a store: each use of its credential brings another one, which has to be kept; use \
             another flow, such as one whose server goes on accepting the same credential",
            flow.name, offer.kind
        );
        section.problem_with("flow", text);
        return None;
    }
    Some(flow)
}

fn named(section: &mut Section<'_, '_>, offer: &Offer) -> Option<Arc<Flow>> {
    section.read("flow", |value| {
        let name = text("the name of a flow")(value)?;
        let found = offer.flows.iter().find(|flow| flow.name == name).cloned();
        found.ok_or_else(|| unknown("flow", name, offer.usable().map(|flow| flow.name.as_str())))
    })
}

/// The one flow that there is, or that the names of the secrets fit.
fn chosen(section: &mut Section<'_, '_>, offer: &Offer) -> Option<Arc<Flow>> {
    if let [only] = offer.flows.as_slice() {
        return Some(Arc::clone(only));
    }
    let names: Vec<&str> = section.entries_of("credential").iter().map(|entry| entry.name).collect();
    if names.is_empty() || offer.flows.is_empty() {
        // Told of the credential, or of the upstream.
        return None;
    }
    let fitting: Vec<_> = offer.usable().filter(|flow| fits(&flow.recipe, &names)).collect();
    match fitting.as_slice() {
        [one] => Some(Arc::clone(one)),
        [] => meant(section, offer, &names),
        many => {
            let many: Vec<_> = many.iter().map(|flow| flow.name.as_str()).collect();
            let text =
                format!("is missing: the credential fits more than one flow of {}: {}", offer.kind, many.join(", "));
            section.problem_with("flow", text);
            None
        }
    }
}

fn fits(recipe: &Recipe, names: &[&str]) -> bool {
    let known = |name: &&str| recipe.secrets.iter().any(|field| field.name == *name);
    let mut required = recipe.secrets.iter().filter(|field| field.presence == Presence::Required);
    names.iter().all(known) && required.all(|field| names.contains(&field.name.as_str()))
}

/// The flow to tell the problems of a credential by that fits none: the one that shares most secrets with it.
fn meant(section: &mut Section<'_, '_>, offer: &Offer, names: &[&str]) -> Option<Arc<Flow>> {
    let shared = |flow: &Flow| flow.recipe.secrets.iter().filter(|field| names.contains(&field.name.as_str())).count();
    let most = offer.usable().map(|flow| shared(flow)).max().filter(|most| *most > 0);
    let mut closest = offer.usable().filter(|flow| Some(shared(flow)) == most);
    if let (Some(one), None) = (closest.next(), closest.next()) {
        return Some(Arc::clone(one));
    }
    let flows = offer.usable().map(|flow| format!("{} takes {}", flow.name, takes(&flow.recipe.secrets)));
    let flows: Vec<_> = flows.collect();
    section.problem_with("credential", format!("fits no flow of {}: {}", offer.kind, flows.join("; ")));
    None
}

/// The secrets of a credential, by the names of its flow, sealed as soon as they are read. Without a flow they are only
/// looked at. `None` where a problem left one out.
pub(super) fn read(
    section: &mut Section<'_, '_>,
    offer: Option<&Offer>,
    flow: Option<&Flow>,
    files: &mut SecretFiles,
) -> Option<BTreeMap<String, Sealed>> {
    let likely = flow.or_else(|| offer?.flows.first().map(|flow| &**flow));
    let form = form(likely);
    match section.find("credential").map(|found| (found.value, found.place)) {
        Some((Value::Table(table), place)) if flow.is_none() && table.is_empty() => {
            section.problem("credential", place, format!("is empty; expected {form}"));
            return None;
        }
        Some((Value::Table(_), _)) => {}
        Some((value, place)) => {
            let text = match value {
                Value::Text(_) => format!("expected {form}; a secret never stands in the configuration itself"),
                other => other.instead_of(&form),
            };
            section.problem("credential", place, text);
            return None;
        }
        None => {
            section.problem_with("credential", format!("is missing; expected {form}"));
            return None;
        }
    }
    let owner = section.written("name").unwrap_or_default().to_owned();
    let entries = section.entries_of("credential");
    let fields = flow.map(|flow| flow.recipe.secrets.as_slice());
    let mut table = section.free("credential", EXPECTED);
    let mut secrets = BTreeMap::new();
    let mut is_whole = true;
    for Entry { name, item } in entries {
        if let Some(fields) = fields
            && !fields.iter().any(|field| field.name == name)
        {
            let (place, text) = (table.reading.place(item), unknown_secret(name, fields));
            table.problem(&shown(name), place, text);
            is_whole = false;
            continue;
        }
        let form = flow.map_or(Form::Any, |flow| form_of(&flow.recipe, name));
        match files.secret(&mut table, name, form) {
            Some(secret) => drop(secrets.insert(name.to_owned(), Sealed::new(&secret, &owner, name))),
            None => is_whole = false,
        }
    }
    if let Some((offer, flow)) = offer.zip(flow) {
        for field in flow.recipe.secrets.iter().filter(|field| field.presence == Presence::Required) {
            if !table.has(&field.name) {
                let (place, needs) = (table.place(), needs(&flow.recipe.secrets));
                let text = format!("is missing: the flow {} of {} needs {needs}", flow.name, offer.kind);
                table.problem(&field.name, place, text);
                is_whole = false;
            }
        }
    }
    is_whole.then_some(secrets)
}

fn unknown_secret(name: &str, fields: &[Field]) -> String {
    unknown("secret", name, fields.iter().map(|field| field.name.as_str()))
}

/// What a credential looks like.
fn form(flow: Option<&Flow>) -> String {
    let Some(flow) = flow else {
        return EXPECTED.to_owned();
    };
    let secrets = flow.recipe.secrets.iter().filter(|field| field.presence == Presence::Required);
    let secrets: Vec<_> = secrets.map(|field| format!("{} = {{ file = … }}", field.name)).collect();
    format!("{{ {} }}", secrets.join(", "))
}

/// A key that signs is in PEM form, and nothing else is: a key must not go out as a password.
fn form_of(recipe: &Recipe, name: &str) -> Form {
    let mut assertions = recipe.steps().filter_map(|(_, step)| step.request.assertion.as_ref());
    if assertions.any(|assertion| assertion.key == name) { Form::PrivateKey } else { Form::Word }
}

/// `username and password`: the fields that must be given.
pub(super) fn needs(fields: &[Field]) -> String {
    let required = fields.iter().filter(|field| field.presence == Presence::Required);
    let names: Vec<&str> = required.map(|field| field.name.as_str()).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// As [`needs`], and what may be given.
fn takes(fields: &[Field]) -> String {
    let optional = fields.iter().filter(|field| field.presence != Presence::Required);
    let optional: Vec<&str> = optional.map(|field| field.name.as_str()).collect();
    if optional.is_empty() { needs(fields) } else { format!("{} ({} if wanted)", needs(fields), optional.join(", ")) }
}
