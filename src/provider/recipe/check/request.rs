//! Requests: which fields stand where.

use super::super::template::{Filter, Part, Template};
use super::super::{Algorithm, Assertion, Body, Json, Method, NO_ALGORITHM, Presence, Request};
use super::{ASSERTION, Asked, Checking, ENDPOINT, REFRESH_TOKEN, Stage, TOKEN};
use std::time::Duration;

/// An assertion is for one request, not for a day.
const LONGEST_ASSERTION: Duration = Duration::from_secs(24 * 3600);

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Path,
    Query,
    Text,
    Json,
    Algorithm,
    Assertion,
    Claim,
}

impl<'a> Checking<'a> {
    pub(super) fn request(&mut self, stage: Stage, request: &'a Request) {
        let asked = Asked { stage, request };
        let at = stage.as_str();
        self.template(&asked, Use::Path, &format!("{at}.path"), &request.path);
        self.path_text(&format!("{at}.path"), &request.path);
        for (name, template) in &request.query {
            self.template(&asked, Use::Query, &format!("{at}.query.{name}"), template);
        }
        self.headers(&asked);
        if let Some(basic) = &request.basic {
            self.template(&asked, Use::Text, &format!("{at}.basic.user"), &basic.user);
            self.template(&asked, Use::Text, &format!("{at}.basic.password"), &basic.password);
        }
        self.body(&asked);
        if let Some(assertion) = &request.assertion {
            self.assertion(&asked, assertion);
        }
    }

    fn headers(&mut self, asked: &Asked<'a>) {
        let at = format!("{}.headers", asked.stage.as_str());
        let request = asked.request;
        self.twice(&at, request.headers.iter().map(|(name, _)| name.as_str()));
        for (name, template) in &request.headers {
            let at = format!("{at}.{name}");
            self.header_name(&at, name);
            self.template(asked, Use::Text, &at, template);
            if name == "content-type" && request.body != Body::Empty {
                self.problem(&at, "is there beside a body, whose type the broker writes itself");
            }
            if name == "authorization" && request.basic.is_some() {
                self.problem(&at, "is there beside basic, which is the same header");
            }
        }
    }

    fn body(&mut self, asked: &Asked<'a>) {
        let at = asked.stage.as_str();
        let request = asked.request;
        match &request.body {
            Body::Empty if request.extra => {
                self.problem(format!("{at}.extra_parameters"), "needs a body that they can be added to");
            }
            Body::Empty => {}
            Body::Json(_) | Body::Form(_) if request.method == Method::Get => {
                self.problem(format!("{at}.method"), "is GET, which has no body");
            }
            Body::Json(members) => self.members(asked, Use::Json, &format!("{at}.json"), members),
            Body::Form(pairs) => {
                let at = format!("{at}.form");
                self.twice(&at, pairs.iter().map(|(name, _)| name.as_str()));
                for (name, template) in pairs {
                    self.template(asked, Use::Text, &format!("{at}.{name}"), template);
                }
            }
        }
    }

    fn members(&mut self, asked: &Asked<'a>, of: Use, at: &str, members: &'a [(String, Json)]) {
        self.twice(at, members.iter().map(|(name, _)| name.as_str()));
        for (name, value) in members {
            self.json(asked, of, &format!("{at}.{name}"), value);
        }
    }

    fn json(&mut self, asked: &Asked<'a>, of: Use, at: &str, value: &'a Json) {
        match value {
            Json::Text(template) => self.template(asked, of, at, template),
            Json::Number(_) | Json::Boolean(_) => {}
            Json::Object(members) => self.members(asked, of, at, members),
            Json::Array(items) => {
                for (position, item) in items.iter().enumerate() {
                    self.json(asked, of, &format!("{at}[{position}]"), item);
                }
            }
        }
    }

    fn assertion(&mut self, asked: &Asked<'a>, assertion: &'a Assertion) {
        let at = format!("{}.assertion", asked.stage.as_str());
        match self.recipe.secret(&assertion.key).map(|key| &key.presence) {
            Some(Presence::Required) => drop(self.used.insert(&assertion.key)),
            Some(Presence::Optional | Presence::Default(_)) => {
                self.problem(format!("{at}.key"), "is a secret that may be left out");
            }
            None => self.problem(format!("{at}.key"), format!("names '{}', which is no secret", assertion.key)),
        }
        self.template(asked, Use::Algorithm, &format!("{at}.algorithm"), &assertion.algorithm);
        if let [Part::Text(name)] = assertion.algorithm.parts()
            && Algorithm::named(name).is_none()
        {
            self.problem(format!("{at}.algorithm"), NO_ALGORITHM);
        }
        if assertion.lifetime < Duration::from_secs(1) || assertion.lifetime > LONGEST_ASSERTION {
            self.problem(format!("{at}.lifetime"), "must be between a second and a day");
        }
        let own = [("exp", true), ("iat", assertion.issued_at), ("jti", assertion.id)];
        for (name, _) in &assertion.claims {
            if own.contains(&(name.as_str(), true)) {
                self.problem(format!("{at}.claims.{name}"), "is a claim that the broker writes itself");
            }
        }
        self.members(asked, Use::Claim, &format!("{at}.claims"), &assertion.claims);
        self.twice(&format!("{at}.header"), assertion.header.iter().map(|(name, _)| name.as_str()));
        for (name, template) in &assertion.header {
            let at = format!("{at}.header.{name}");
            if matches!(name.as_str(), "alg" | "crit" | "b64") {
                self.problem(&at, "is a member that the broker writes itself");
            }
            self.template(asked, Use::Assertion, &at, template);
        }
    }

    fn template(&mut self, asked: &Asked<'a>, of: Use, at: &str, template: &'a Template) {
        if of != Use::Path && template.has(Filter::Path) {
            self.problem(at, "uses the filter path, which is for the path of a request");
        }
        if !matches!(of, Use::Json | Use::Claim) && template.has(Filter::Number) {
            self.problem(at, "uses the filter number, which is for JSON");
        }
        for (name, optional) in template.fields() {
            self.used.insert(name);
            if let Some(text) = self.fault_of_field(asked, of, name, optional) {
                self.problem(at, text);
            }
        }
    }

    fn fault_of_field(&self, asked: &Asked<'_>, of: Use, name: &str, optional: bool) -> Option<String> {
        let in_url = matches!(of, Use::Path | Use::Query);
        let needed = matches!(of, Use::Path | Use::Algorithm);
        if optional && needed {
            return Some(format!("can't be left out, so '{name}' must not be optional in it"));
        }
        if let Some(secret) = self.recipe.secret(name) {
            let is_key = |key: &str| key == name;
            return match &secret.presence {
                _ if in_url => Some(in_a_url(name)),
                _ if self.keys().any(is_key) => Some(format!("would send '{name}', which is a private key")),
                Presence::Optional if !optional => Some(format!("needs '{name}', which may be left out: {{{name}?}}")),
                Presence::Required | Presence::Optional | Presence::Default(_) => None,
            };
        }
        if let Some(parameter) = self.recipe.parameter(name) {
            return match &parameter.presence {
                Presence::Optional if !optional => Some(format!("needs '{name}', which may be left out: {{{name}?}}")),
                Presence::Default(default) if of == Use::Path && default.fields().next().is_some() => {
                    Some(format!("uses '{name}', whose default needs this very URL"))
                }
                Presence::Required | Presence::Optional | Presence::Default(_) => None,
            };
        }
        fault_of_built_in(asked, of, name)
    }

    /// The secrets that are private keys.
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.recipe.steps().filter_map(|(_, step)| step.request.assertion.as_ref()).map(|a| a.key.as_str())
    }

    /// What stands in the path beside the fields.
    fn path_text(&mut self, at: &str, path: &Template) {
        let begins_well = match path.parts().first() {
            None => true,
            Some(Part::Text(text)) => text.starts_with('/'),
            Some(Part::Field { filter, .. }) => *filter == Some(Filter::Path),
        };
        let is_plain = |part: &Part| match part {
            Part::Text(text) => {
                !text.contains(|c: char| c.is_control() || " ?#\\\"<>`{}|^".contains(c) || !c.is_ascii())
            }
            Part::Field { .. } => true,
        };
        if !begins_well {
            self.problem(at, "must be empty or begin with '/'");
        }
        let has_query = path.parts().iter().any(|part| matches!(part, Part::Text(text) if text.contains('?')));
        if has_query {
            self.problem(at, "holds a '?': the query has a key of its own, query");
        } else if !path.parts().iter().all(is_plain) {
            self.problem(at, "holds a character that must be percent-encoded");
        }
        let shown = path.to_string();
        if shown.split('/').any(|segment| matches!(segment, "." | "..")) {
            self.problem(at, "must not hold the segments '.' and '..'");
        }
    }
}

fn in_a_url(name: &str) -> String {
    format!("would put the secret '{name}' into a URL; headers, json and form may hold it")
}

/// What the broker fills in itself.
fn fault_of_built_in(asked: &Asked<'_>, of: Use, name: &str) -> Option<String> {
    let in_assertion = matches!(of, Use::Algorithm | Use::Assertion | Use::Claim);
    let known = match name {
        ENDPOINT => of != Use::Path,
        ASSERTION => asked.request.assertion.is_some() && !in_assertion,
        REFRESH_TOKEN => asked.stage == Stage::Refresh,
        TOKEN => asked.stage == Stage::Switch,
        _ => false,
    };
    let secret = name != ENDPOINT;
    if !known {
        Some(format!("names '{name}', which is neither a secret nor a parameter"))
    } else if secret && matches!(of, Use::Path | Use::Query) {
        Some(in_a_url(name))
    } else {
        None
    }
}
