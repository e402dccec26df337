//! What an exchange did, step by step, for a person who tries an upstream out. Secrets are named, never shown.
//!
//! What is told of a request is written by the same code as the request itself, with `‹name›` where a secret would be.
//! Of an answer, the names of its members are told and what kind of value each has. A value itself is told only of a
//! member that says how the request went (a code that the description compares, or that is called so), and only if it
//! is a boolean or a whole number of few digits. Nothing of this is made unless somebody listens.

use super::json::Node;
use super::write::Draft;
use crate::provider::recipe::{Answer, Holds, Method, Stage};
use std::collections::HashSet;

/// How many members of an answer are named.
const MAX_MEMBERS: usize = 50;
/// How deep they are looked for.
const MAX_DEPTH: usize = 4;
/// What members are called, in lower case, that say how a request went.
const CODES: &[&str] = &["code", "errcode", "errno", "error_code", "errorcode", "status", "status_code", "statuscode"];

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request is being sent.
    Sent(Sent),
    /// What came of it.
    Answered(Answered),
}

/// A request as it is sent, with its secrets masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Which request of the recipe.
    pub stage: Stage,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The URL with its query. Never holds a secret.
    pub url: String,
    /// The names of its headers, but for those of every request.
    pub headers: Vec<String>,
    /// The body; of a form, the pairs before they are encoded.
    pub body: Option<String>,
}

/// An answer, or that none came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// To which request of the recipe.
    pub stage: Stage,
    /// The status, if one came.
    pub status: Option<u16>,
    /// The size of the body, if all of it came.
    pub body_bytes: Option<usize>,
    /// The members of a JSON body, with dots between levels: `result.code: number 0`.
    pub members: Vec<String>,
    /// Whether it brought a token.
    pub is_good: bool,
    /// What was made of it, in the broker's own words.
    pub outcome: String,
}

/// Who listens.
pub type Listener<'a> = &'a (dyn Fn(Event) + Send + Sync);

pub(super) fn sent(stage: Stage, draft: &Draft<'_>) -> Event {
    let mut url = draft.url.clone();
    url.set_query(draft.query.as_deref());
    Event::Sent(Sent {
        stage,
        method: match draft.method {
            Method::Get => "GET",
            Method::Post => "POST",
        },
        url: url.into(),
        headers: draft.header_names().map(str::to_owned).collect(),
        body: draft.body_text().map(std::borrow::Cow::into_owned),
    })
}

/// The members of an answer, each with its kind.
pub(super) fn members(json: &Node<'_>, answer: &Answer) -> Vec<String> {
    let rules = answer.failures.iter().flat_map(|rule| &rule.when);
    let compared = answer.when.iter().chain(rules).filter(|condition| matches!(condition.holds, Holds::OneOf(_)));
    let mut members =
        Members { compared: compared.map(|condition| condition.path.to_string()).collect(), told: vec![] };
    members.gather(json, "", MAX_DEPTH);
    members.told
}

/// Collects.
struct Members {
    /// The paths that the description compares with constants.
    compared: HashSet<String>,
    told: Vec<String>,
}

impl Members {
    fn gather(&mut self, node: &Node<'_>, before: &str, depth: usize) {
        match node {
            Node::Object(members) => {
                for (name, value) in members {
                    self.member(name, value, before, depth);
                }
            }
            // One item shows what all look like.
            Node::Array(items) => {
                if let Some(first) = items.first() {
                    self.member("0", first, before, depth);
                }
            }
            Node::Null | Node::Boolean(_) | Node::Number(_) | Node::Text(_) => {}
        }
    }

    fn member(&mut self, name: &str, value: &Node<'_>, before: &str, depth: usize) {
        if self.told.len() >= MAX_MEMBERS || depth == 0 {
            return;
        }
        // A name that may be anything but a name is not repeated.
        let is_plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let path = format!("{before}{}", if is_plain { name } else { "…" });
        let is_code = self.compared.contains(&path) || CODES.contains(&name.to_ascii_lowercase().as_str());
        let kind = if is_code { value.kind_of_code() } else { value.kind().into() };
        self.told.push(format!("{path}: {kind}"));
        self.gather(value, &format!("{path}."), depth - 1);
    }
}
