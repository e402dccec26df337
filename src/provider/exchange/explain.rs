//! What an exchange did, step by step, for a person who tries an upstream out. Secrets are named, never shown.
//!
//! What is told of a request is written by the same code as the request itself, with `‹name›` where a secret would be.
//! Nothing of this is made unless somebody listens.

use super::json::Node;
use super::write::Draft;
use crate::provider::recipe::{Method, Stage};

/// How many members of an answer are named.
const MAX_MEMBERS: usize = 50;
/// How deep they are looked for.
const MAX_DEPTH: usize = 4;

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
    /// The names of the members of a JSON body, with dots between levels.
    pub members: Vec<String>,
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

pub(super) fn members(json: &Node<'_>) -> Vec<String> {
    let mut names = Vec::new();
    gather(json, "", MAX_DEPTH, &mut names);
    names
}

fn gather(node: &Node<'_>, before: &str, depth: usize, names: &mut Vec<String>) {
    let Node::Object(members) = node else { return };
    for (name, value) in members {
        if names.len() >= MAX_MEMBERS || depth == 0 {
            return;
        }
        // A name that may be anything but a name is not repeated.
        let is_plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let path = format!("{before}{}", if is_plain { name } else { "…" });
        let inner = format!("{path}.");
        names.push(path);
        gather(value, &inner, depth - 1, names);
    }
}
