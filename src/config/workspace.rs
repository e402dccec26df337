//! `[[workspaces]]`: the tenants that tokens are for, each with its upstream and its credential.

use super::reader::{Section, Value};
use super::scalar::{choice, parsed, text};
use super::secret_source::SecretFiles;
use crate::secret::LongLivedSecret;
use crate::token::WorkspaceName;
use crate::upstream::{KeepWarm, UpstreamName};
use std::collections::BTreeMap;

/// The keys of a Workspace and of its credential.
pub(super) const KEYS: &[&str] = &["name", "upstream", "organisation", "keep_warm", "credential"];
pub(super) const CREDENTIAL_KEYS: &[&str] = &["application_token"];

const KEEP_WARM: [(&str, KeepWarm); 2] = [("always", KeepWarm::Always), ("while_used", KeepWarm::WhileUsed)];

/// The upstreams by their names as written; `None` for one that is known but not valid.
pub(super) type KnownUpstreams<'t> = BTreeMap<&'t str, Option<UpstreamName>>;

/// One Workspace.
#[derive(Debug)]
pub struct Workspace {
    /// What callers call it.
    pub name: WorkspaceName,
    /// Which upstream mints its tokens.
    pub upstream: UpstreamName,
    /// The organisation that its JWTs must name (`esc.org` at emnify).
    pub organisation: Option<u64>,
    /// Whether it is renewed when nobody asks.
    pub keep_warm: KeepWarm,
    /// What is exchanged for its tokens.
    pub credential: Credential,
}

/// The long-lived secret of a Workspace.
#[derive(Debug)]
pub enum Credential {
    /// An application token of emnify.
    ApplicationToken(LongLivedSecret),
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
        let upstream = section.require("upstream", "the name of an upstream", |value| known_upstream(value, upstreams));
        let organisation = section.read("organisation", organisation);
        let keep_warm = section.read("keep_warm", choice(&KEEP_WARM));
        let credential = credential(section, files);
        Some(Self {
            name: name?,
            upstream: upstream??,
            organisation,
            keep_warm: keep_warm.unwrap_or_default(),
            credential: credential?,
        })
    }
}

fn known_upstream(value: Value<'_>, upstreams: &KnownUpstreams<'_>) -> Result<Option<UpstreamName>, String> {
    const SHOWN: usize = 10;
    let name = text("the name of an upstream")(value)?;
    upstreams.get(name).cloned().ok_or_else(|| {
        let known = upstreams.values().flatten().take(SHOWN);
        let known: Vec<_> = known.map(UpstreamName::as_str).collect();
        if known.is_empty() {
            "names no upstream: there is none in [[upstreams]]".to_owned()
        } else {
            format!("names no upstream of [[upstreams]]; expected one of {}", known.join(", "))
        }
    })
}

fn organisation(value: Value<'_>) -> Result<u64, String> {
    let expected = "the number of an organisation (1 or more)";
    let Value::Integer(number) = value else {
        return Err(value.instead_of(expected));
    };
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| format!("expected {expected}"))
}

fn credential(section: &mut Section<'_, '_>, files: &mut SecretFiles) -> Option<Credential> {
    match section.find("credential").map(|found| (found.value, found.place)) {
        Some((Value::Table(_), _)) => {}
        Some((Value::Text(_), place)) => {
            section.problem(
                "credential",
                place,
                "expected { application_token = { file = … } }; a secret never stands in the configuration itself",
            );
            return None;
        }
        Some((other, place)) => {
            let text = other.instead_of("{ application_token = … }");
            section.problem("credential", place, text);
            return None;
        }
        None => {
            let text = "is missing; expected { application_token = { file = … } }";
            section.problem_with("credential", text);
            return None;
        }
    }
    let mut table = section.table("credential", CREDENTIAL_KEYS);
    files.secret(&mut table, "application_token").map(Credential::ApplicationToken)
}
