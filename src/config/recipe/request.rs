//! The request of a step: what is sent.

use super::super::reader::{Entry, Section, Value, shown};
use super::super::scalar::{boolean, choice, days, duration, hours, seconds};
use super::{field_name, template, templates, warn_of_literal};
use crate::provider::recipe::template::Template;
use crate::provider::recipe::{Assertion, Basic, Body, Json, Method, Request};
use std::time::Duration;

/// The keys of the tables in a request.
const BASIC_KEYS: &[&str] = &["user", "password", "form_encoded"];
const ASSERTION_KEYS: &[&str] = &["key", "algorithm", "lifetime", "backdate", "issued_at", "id", "header", "claims"];

/// All of them.
#[cfg(test)]
pub(super) const KEYS: [&[&str]; 2] = [BASIC_KEYS, ASSERTION_KEYS];

const METHODS: [(&str, Method); 2] = [("GET", Method::Get), ("POST", Method::Post)];
/// Deeper than any request needs, and shallow enough for whoever walks it.
const DEEPEST_JSON: usize = 16;

/// `None` where a problem left nothing to put in place.
pub(super) fn request(section: &mut Section<'_, '_>) -> Option<Request> {
    let method = section.read("method", choice(&METHODS)).unwrap_or(Method::Post);
    let path = path(section);
    let query = templates(section, "query");
    let headers = templates(section, "headers");
    let basic = section.has("basic").then(|| basic(&mut section.table("basic", BASIC_KEYS))).flatten();
    let body = body(section);
    let assertion = section.has("assertion").then(|| assertion(&mut section.table("assertion", ASSERTION_KEYS)));
    let assertion = assertion.flatten();
    let extra = section.read("extra_parameters", boolean()).unwrap_or_default();
    Some(Request { method, path: path?, query, headers, basic, body: body?, assertion, extra })
}

fn path(section: &mut Section<'_, '_>) -> Option<Template> {
    let expected = "a path such as \"/v1/token\", or \"\" for the url of the upstream itself";
    section.require("path", expected, template)
}

fn basic(table: &mut Section<'_, '_>) -> Option<Basic> {
    let user = table.require("user", "a text", template);
    let password = table.require("password", "a text", template);
    let form_encoded = table.read("form_encoded", boolean()).unwrap_or_default();
    Some(Basic { user: user?, password: password?, form_encoded })
}

fn body(section: &mut Section<'_, '_>) -> Option<Body> {
    match (section.has("json"), section.has("form")) {
        (false, false) => Some(Body::Empty),
        (true, false) => Some(Body::Json(object(section, "json"))),
        (false, true) => Some(Body::Form(templates(section, "form"))),
        (true, true) => {
            section.problem_with("form", "there is json already; a body is one of them");
            None
        }
    }
}

fn object(section: &mut Section<'_, '_>, key: &str) -> Vec<(String, Json)> {
    let mut members = Vec::new();
    for Entry { name, item } in section.entries(key, "a table") {
        match json(Value::of(item.get_ref()), DEEPEST_JSON) {
            Ok(value) => {
                if let Json::Text(template) = &value {
                    warn_of_literal(section, &format!("{key}.{}", shown(name)), name, template);
                }
                members.push((name.to_owned(), value));
            }
            Err(text) => {
                let place = section.reading.place(item);
                section.problem(&format!("{key}.{}", shown(name)), place, text);
            }
        }
    }
    members
}

/// The value of one member, whatever is in it. What is wrong deep inside is told at the member.
fn json(value: Value<'_>, depth: usize) -> Result<Json, String> {
    let expected = "texts, whole numbers, booleans, arrays and tables";
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("is nested more than {DEEPEST_JSON} deep"));
    };
    Ok(match value {
        Value::Text(_) => Json::Text(template(value)?),
        Value::Integer(Some(number)) => Json::Number(number),
        Value::Boolean(boolean) => Json::Boolean(boolean),
        Value::Array(items) => {
            let items = items.iter().map(|item| json(Value::of(item.get_ref()), depth));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Table(table) => {
            let members = table
                .iter()
                .map(|(name, item)| Ok((name.get_ref().clone().into_owned(), json(Value::of(item.get_ref()), depth)?)));
            Json::Object(members.collect::<Result<_, String>>()?)
        }
        other => return Err(other.instead_of(expected)),
    })
}

fn assertion(table: &mut Section<'_, '_>) -> Option<Assertion> {
    let key = table.require("key", "the name of the secret that is the key", field_name("the name of a secret"));
    let algorithm = table.require("algorithm", "an algorithm such as \"RS256\"", template);
    let lifetime = table.read("lifetime", duration(seconds(1)..=days(1))).unwrap_or(DEFAULT_LIFETIME);
    let backdate = table.read("backdate", duration(Duration::ZERO..=hours(1))).unwrap_or_default();
    let issued_at = table.read("issued_at", boolean()).unwrap_or(true);
    let id = table.read("id", boolean()).unwrap_or(true);
    let header = templates(table, "header");
    let claims = object(table, "claims");
    Some(Assertion { key: key?, algorithm: algorithm?, header, claims, lifetime, backdate, issued_at, id })
}

const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
