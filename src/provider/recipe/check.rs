//! What is wrong with a recipe, all of it at once.
//!
//! A recipe that passes can fail at an exchange only for what a Workspace gives or for what an upstream answers.

mod answer;
mod request;
#[cfg(test)]
mod tests;

use super::template::{self, Template};
use super::{Field, Presence, Presented, Recipe, Request, Step, Tenant, TenantSource};
use std::collections::HashSet;

/// Something that is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a description names it: `login.json.username`.
    pub at: String,
    /// What, as the rest of a sentence about it.
    pub text: String,
}

/// What templates call things that are no field of the recipe.
pub(crate) const ENDPOINT: &str = "endpoint";
pub(crate) const ASSERTION: &str = "assertion";
pub(crate) const REFRESH_TOKEN: &str = "refresh_token";
pub(crate) const TOKEN: &str = "token";

/// Headers that belong to the connection, or that the client writes itself (RFC 9110 §7.6.1).
const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Which request of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The exchange of the credential.
    Login,
    /// The exchange of a refresh token.
    Refresh,
    /// The exchange of the token for another one.
    Switch,
}

/// What travels with a token: names, and where each is in an answer.
type Companions = Vec<(String, super::Path)>;

/// Collects.
struct Checking<'a> {
    recipe: &'a Recipe,
    used: HashSet<&'a str>,
    problems: Vec<Problem>,
}

impl Recipe {
    /// Everything that is wrong with it.
    pub fn check(&self) -> Vec<Problem> {
        let mut checking = Checking { recipe: self, used: HashSet::new(), problems: Vec::new() };
        checking.fields();
        for (stage, step) in self.steps() {
            checking.request(stage, &step.request);
            checking.answer(stage, step);
        }
        checking.grants();
        checking.presentation(&self.presentation);
        checking.tenant();
        checking.unused();
        checking.problems
    }

    /// Its requests, in the order in which they may follow each other.
    pub fn steps(&self) -> impl Iterator<Item = (Stage, &Step)> {
        let refresh = self.refresh.as_ref().map(|refresh| (Stage::Refresh, &refresh.step));
        let switch = self.switch.as_ref().map(|step| (Stage::Switch, step));
        [Some((Stage::Login, &self.login)), refresh, switch].into_iter().flatten()
    }

    /// The steps whose answers bring the token that is handed out.
    pub fn last_steps(&self) -> impl Iterator<Item = (Stage, &Step)> {
        let switches = self.switch.is_some();
        self.steps().filter(move |(stage, _)| (*stage == Stage::Switch) == switches)
    }

    /// Whether no answer says how long a token lives, so that the configuration must (`token_lifetime`).
    pub fn needs_lifetime(&self) -> bool {
        self.last_steps().any(|(_, step)| step.answer.expiry.is_empty())
    }

    /// Whether what it hands out travels as what the other does, with the same companions, and is known to be of the
    /// tenant in the same way: whether a token of the one may stand for one of the other.
    pub fn hands_out_as(&self, other: &Self) -> bool {
        fn companions(recipe: &Recipe) -> impl Iterator<Item = (&Companions, &Companions)> {
            recipe.last_steps().map(|(_, step)| (&step.answer.extra_headers, &step.answer.attributes))
        }
        (&self.presentation, &self.tenant) == (&other.presentation, &other.tenant)
            && companions(self).eq(companions(other))
    }

    /// The secret of this name.
    pub fn secret(&self, name: &str) -> Option<&Field> {
        self.secrets.iter().find(|field| field.name == name)
    }

    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&Field> {
        self.parameters.iter().find(|field| field.name == name)
    }
}

impl Stage {
    /// What descriptions and logs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Switch => "switch",
        }
    }
}

impl<'a> Checking<'a> {
    fn problem(&mut self, at: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem { at: at.into(), text: text.into() });
    }

    fn fields(&mut self) {
        let recipe = self.recipe;
        let mut seen = HashSet::new();
        let secrets = recipe.secrets.iter().map(|field| ("secrets", field));
        for (list, field) in secrets.chain(recipe.parameters.iter().map(|field| ("parameters", field))) {
            let name = field.name.as_str();
            let at = format!("{list}.{name}");
            if !template::is_name(name) {
                self.problem(list, "holds a name that is not of a-z, 0-9 and '_'");
                continue;
            }
            let reserved = [ENDPOINT, ASSERTION, TOKEN].contains(&name);
            if reserved || (name == REFRESH_TOKEN && list == "parameters") {
                self.problem(&at, "is a name that the broker fills in itself");
            }
            if !seen.insert(name) {
                self.problem(&at, "is there twice");
            }
            match &field.presence {
                Presence::Default(_) if list == "secrets" => {
                    self.problem(&at, "has a default, which no secret may have");
                }
                Presence::Default(template) => self.default_of(&at, template),
                Presence::Required | Presence::Optional => {}
            }
        }
    }

    fn default_of(&mut self, at: &str, template: &'a Template) {
        if template.fields().any(|(name, _)| name != ENDPOINT) {
            self.problem(at, "has a default that uses something other than {endpoint}");
        }
        if template.has(template::Filter::Path) || template.has(template::Filter::Number) {
            self.problem(at, "has a default with a filter");
        }
    }

    /// A refresh token that comes must be one that is used, and the other way round.
    fn grants(&mut self) {
        let recipe = self.recipe;
        if recipe.refresh.is_some() && recipe.login.answer.refresh_token.is_none() {
            self.problem("login.answer.refresh_token", "is missing: the refresh would have nothing to send");
        }
        let is_used = |stage| match stage {
            Stage::Login | Stage::Refresh => recipe.refresh.is_some() || recipe.secret(REFRESH_TOKEN).is_some(),
            Stage::Switch => false,
        };
        for (stage, _) in recipe.steps().filter(|(_, step)| step.answer.refresh_token.is_some()) {
            if !is_used(stage) {
                let at = format!("{}.answer.refresh_token", stage.as_str());
                self.problem(at, "would never be used: there is no refresh that sends it");
            }
        }
    }

    fn presentation(&mut self, presented: &Presented) {
        self.header_name("presentation.header", &presented.header);
        if !presented.scheme.bytes().all(is_token_byte) {
            self.problem("presentation.scheme", "must be one word, or empty for the bare token");
        }
    }

    fn tenant(&mut self) {
        let Some(Tenant { said, parameter }) = &self.recipe.tenant else {
            return;
        };
        if self.recipe.parameter(parameter).is_none() {
            self.problem("tenant.parameter", format!("names '{parameter}', which is no parameter"));
        }
        self.used.insert(parameter);
        match said {
            TenantSource::Claim(name) if name.is_empty() => self.problem("tenant.claim", "must not be empty"),
            TenantSource::Claim(_) => {}
            TenantSource::Answer(path) => self.path("tenant.path", path),
        }
    }

    fn unused(&mut self) {
        let recipe = self.recipe;
        let secrets = recipe.secrets.iter().map(|field| ("secrets", field));
        for (list, field) in secrets.chain(recipe.parameters.iter().map(|field| ("parameters", field))) {
            if !self.used.contains(field.name.as_str()) {
                self.problem(format!("{list}.{}", field.name), "is used nowhere");
            }
        }
    }

    fn header_name(&mut self, at: &str, name: &str) {
        let is_valid = !name.is_empty() && name.bytes().all(|b| is_token_byte(b) && !b.is_ascii_uppercase());
        if !is_valid {
            self.problem(at, "is no header name in lower case");
        } else if RESERVED_HEADERS.contains(&name) {
            self.problem(at, "is a header that belongs to the connection");
        }
    }

    fn path(&mut self, at: &str, path: &super::Path) {
        if path.0.is_empty() || path.0.iter().any(String::is_empty) {
            self.problem(at, "must be names with dots between");
        }
    }

    fn twice<'n>(&mut self, at: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.problem(format!("{at}.{name}"), "is there twice");
            }
        }
    }
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A request of a stage, for the functions in `check/request.rs`.
struct Asked<'a> {
    stage: Stage,
    request: &'a Request,
}
