//! `[[workspaces]]`: the tenants that tokens are for, each with its upstream, its flow and what the flow takes.

use super::credential::{self, needs};
use super::parameters;
use super::problem::Place;
use super::reader::{Section, Value};
use super::recipe::Flow;
use super::scalar::{choice, parsed, text};
use super::secret_source::SecretFiles;
use super::upstream::Offer;
use crate::provider::exchange::Fields;
use crate::provider::recipe::{Presence, Recipe};
use crate::token::WorkspaceName;
use crate::upstream::{KeepWarm, UpstreamName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The keys of a Workspace.
pub(super) const KEYS: &[&str] =
    &["name", "upstream", "flow", "organisation", "parameters", "extra_parameters", "keep_warm", "credential"];

const KEEP_WARM: [(&str, KeepWarm); 2] = [("always", KeepWarm::Always), ("while_used", KeepWarm::WhileUsed)];

/// The parameter that `organisation` is a shorthand for.
const ORGANISATION: &str = "organisation";

/// The upstreams by their names as written; `None` for one that is known but not valid.
pub(super) type KnownUpstreams<'t> = BTreeMap<&'t str, Option<Offer>>;

/// One Workspace.
#[derive(Debug)]
pub struct Workspace {
    /// What callers call it.
    pub name: WorkspaceName,
    /// Which upstream mints its tokens.
    pub upstream: UpstreamName,
    /// The way to its tokens.
    pub flow: Arc<Flow>,
    /// What it gives for them: its credential and its parameters, those of the upstream among them.
    pub fields: Fields,
    /// Whether it is renewed when nobody asks.
    pub keep_warm: KeepWarm,
    /// Where it stands.
    pub place: Place,
}

impl Workspace {
    /// `None` where a problem left nothing to put in place.
    pub(super) fn read(
        section: &mut Section<'_, '_>,
        upstreams: &KnownUpstreams<'_>,
        files: &mut SecretFiles,
    ) -> Option<Self> {
        let name_expected = "a name such as \"team/tenant\"";
        let name = section.require("name", name_expected, parsed(name_expected, WorkspaceName::parse));
        let offer = section.require("upstream", "the name of an upstream", |value| known_upstream(value, upstreams));
        let offer = offer.flatten();
        let organisation = section.read("organisation", organisation);
        let keep_warm = section.read("keep_warm", choice(&KEEP_WARM));
        let flow = offer.and_then(|offer| credential::flow(section, offer));
        let secrets = credential::read(section, offer, flow.as_deref(), files);
        let given = offer.zip(flow.as_deref()).map(|(offer, flow)| parameters(section, offer, flow, organisation));
        let extra = flow.as_deref().map(|flow| extra_parameters(section, flow));
        let fields = Fields { secrets: secrets?, parameters: given?, extra: extra? };
        let (upstream, place) = (offer?.name.clone(), section.place());
        Some(Self { name: name?, upstream, flow: flow?, fields, keep_warm: keep_warm.unwrap_or_default(), place })
    }
}

fn known_upstream<'k>(value: Value<'_>, upstreams: &'k KnownUpstreams<'_>) -> Result<Option<&'k Offer>, String> {
    const SHOWN: usize = 10;
    let name = text("the name of an upstream")(value)?;
    upstreams.get(name).map(Option::as_ref).ok_or_else(|| {
        let known = upstreams.values().flatten().take(SHOWN);
        let known: Vec<_> = known.map(|offer| offer.name.as_str()).collect();
        if known.is_empty() {
            "names no upstream: there is none in [[upstreams]]".to_owned()
        } else {
            format!("names no upstream of [[upstreams]]; expected one of {}", known.join(", "))
        }
    })
}

fn organisation(value: Value<'_>) -> Result<String, String> {
    let expected = "the number of an organisation (1 or more)";
    let Value::Integer(number) = value else {
        return Err(value.instead_of(expected));
    };
    let number = number.filter(|number| *number > 0);
    number.map(|number| number.to_string()).ok_or_else(|| format!("expected {expected}"))
}

/// Those that the Workspace gives, and those of its upstream that its flow takes.
fn parameters(
    section: &mut Section<'_, '_>,
    offer: &Offer,
    flow: &Flow,
    organisation: Option<String>,
) -> BTreeMap<String, String> {
    let fields = &flow.recipe.parameters;
    let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let written: Vec<&str> = section.entries_of("parameters").iter().map(|entry| entry.name).collect();
    let mut given = parameters::read(section, "parameters", Some(&known));
    if section.has(ORGANISATION) {
        let clash = if !known.contains(&ORGANISATION) {
            Some(format!("means nothing to the flow {} of {}, which has no such parameter", flow.name, offer.kind))
        } else if given.contains_key(ORGANISATION) {
            Some("stands in parameters too".to_owned())
        } else {
            None
        };
        if let Some(text) = clash {
            section.problem_with(ORGANISATION, text);
        }
    }
    given.extend(organisation.map(|organisation| (ORGANISATION.to_owned(), organisation)));
    for field in fields {
        if let (false, Some(default)) = (given.contains_key(&field.name), offer.defaults.get(&field.name)) {
            given.insert(field.name.clone(), default.clone());
        }
    }
    for field in fields.iter().filter(|field| field.presence == Presence::Required) {
        let name = field.name.as_str();
        // What is there and wrong is reported already.
        let is_wrong = written.contains(&name) || name == ORGANISATION && section.has(ORGANISATION);
        if !given.contains_key(name) && !is_wrong {
            let place = section.place_of("parameters");
            let text = format!("is missing: the flow {} of {} needs {}", flow.name, offer.kind, needs(fields));
            section.problem(&format!("parameters.{name}"), place, text);
        }
    }
    given
}

fn extra_parameters(section: &mut Section<'_, '_>, flow: &Flow) -> BTreeMap<String, String> {
    let extra = parameters::read(section, "extra_parameters", None);
    if section.has("extra_parameters") && !takes_extra(&flow.recipe) {
        let text = format!("means nothing to the flow {}, whose requests take none", flow.name);
        section.problem_with("extra_parameters", text);
    }
    extra
}

fn takes_extra(recipe: &Recipe) -> bool {
    recipe.steps().any(|(_, step)| step.request.extra)
}
