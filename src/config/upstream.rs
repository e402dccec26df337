//! `[[upstreams]]`: the APIs that mint tokens, with their limits and how they are reached.

use super::endpoint;
use super::kind::{self, Kind};
use super::parameters;
use super::problem::Place;
use super::reader::{Section, Value, unknown};
use super::recipe::{self, Flow};
use super::scalar::{days, duration, fraction, integer, minutes, parsed, seconds, text};
use super::secret_source::{Pem, SecretFiles};
use super::settings::{LONGEST_TIMEOUT, as_count};
use crate::http;
use crate::lifetime::Bounds;
use crate::secret::{LongLivedSecret, Sealed};
use crate::upstream::{Budget, UpstreamName};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The keys of an upstream and of the tables in it.
pub(super) const KEYS: &[&str] = &[
    "name",
    "kind",
    "url",
    "token_lifetime",
    "defaults",
    "failures",
    "flows",
    "timeout",
    "connect_timeout",
    "max_concurrent",
    "budget",
    "renew_at",
    "shortest_lifetime",
    "longest_lifetime",
    "allow_private",
    "proxy",
    "ca_file",
    "client_certificate",
];
pub(super) const BUDGET_KEYS: &[&str] = &["logins", "per"];
pub(super) const CERTIFICATE_KEYS: &[&str] = &["cert_file", "key_file"];

/// The longest life that a token may be said to have.
pub(super) const LONGEST_LIFE: Duration = days(3_650);

/// One upstream.
#[derive(Debug)]
pub struct Upstream {
    /// What Workspaces call it.
    pub name: UpstreamName,
    /// Which API it speaks.
    pub kind: &'static Kind,
    /// The ways to its tokens: its kind's, or those that are described.
    pub flows: Vec<Arc<Flow>>,
    /// Where it is; the path ends with `/`.
    pub base_url: Url,
    /// How long its tokens live: one more source beside what its answers say.
    pub token_lifetime: Option<Duration>,
    /// How many exchanges may be under way at once.
    pub max_concurrent: NonZeroUsize,
    /// How many logins it allows.
    pub budget: Budget,
    /// The part of a token's life after which it is renewed, 0.1 to 0.95.
    pub renew_at: f64,
    /// Which lifetimes are plausible.
    pub bounds: Bounds,
    /// How it is reached.
    pub http: http::Options,
    /// Where it stands.
    pub place: Place,
}

/// What an upstream offers to its Workspaces.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) name: UpstreamName,
    pub(super) kind: &'static str,
    pub(super) flows: Vec<Arc<Flow>>,
    /// Parameters of all its Workspaces that give none of their own.
    pub(super) defaults: BTreeMap<String, String>,
}

impl Offer {
    /// The flows that can be gone without a store.
    pub(super) fn usable(&self) -> impl Iterator<Item = &Arc<Flow>> + Clone {
        self.flows.iter().filter(|flow| !flow.recipe.needs_store)
    }
}

impl Upstream {
    /// Where it is, as it is written: a path without a slash at its end, which none of the requests need have.
    pub fn url(&self) -> &str {
        self.base_url.as_str().trim_end_matches('/')
    }

    /// Each `None` where a problem left nothing to put in place.
    pub(super) fn read(section: &mut Section<'_, '_>, files: &mut SecretFiles) -> (Option<Self>, Option<Offer>) {
        let name_expected = "a name of a-z, 0-9, '.', '_' and '-'";
        let name = section.require("name", name_expected, parsed(name_expected, UpstreamName::parse));
        let kind = kind(section);
        let max_concurrent = section.read("max_concurrent", integer(1..=10_000)).unwrap_or(16);
        let renew_at = section.read("renew_at", fraction(0.1..=0.95)).unwrap_or(0.5);
        let budget = budget(section, kind);
        let bounds = bounds(section);
        let token_lifetime = section.read("token_lifetime", duration(seconds(1)..=LONGEST_LIFE));
        let http = http_options(section, files);
        let base_url = base_url(section, kind, &http);
        let offer = kind.and_then(|kind| offer(section, name.clone(), kind));
        let place = section.place();
        let upstream = || {
            Some(Self {
                name: name?,
                kind: kind?,
                flows: offer.as_ref()?.flows.clone(),
                base_url: base_url?,
                token_lifetime,
                max_concurrent: NonZeroUsize::new(as_count(max_concurrent))?,
                budget,
                renew_at,
                bounds,
                http,
                place,
            })
        };
        (upstream(), offer)
    }
}

fn kind(section: &mut Section<'_, '_>) -> Option<&'static Kind> {
    let expected = "the name of a kind, such as \"emnify\"";
    let known = section.require("kind", expected, |value| {
        let name = text(expected)(value)?;
        kind::find(name).ok_or_else(|| unknown("kind", name, kind::names()))
    })?;
    match known {
        Ok(kind) => Some(kind),
        Err(problems) => {
            section.problem_with("kind", format!("a bug: the preset is wrong: {problems}"));
            None
        }
    }
}

/// The flows of an upstream: its kind's, or those that are described here.
fn offer(section: &mut Section<'_, '_>, name: Option<UpstreamName>, kind: &'static Kind) -> Option<Offer> {
    let flows = if kind.name == kind::DESCRIBED {
        described_flows(section)
    } else {
        for key in ["failures", "flows"].into_iter().filter(|key| section.has(key)).collect::<Vec<_>>() {
            section.problem_with(key, format!("is for kind http: kind {} has {key} of its own", kind.name));
        }
        kind.flows.clone()
    };
    if !section.has("token_lifetime") {
        for flow in flows.iter().filter(|flow| flow.recipe.needs_lifetime()) {
            report_no_lifetime(section, flow);
        }
    }
    let mut names: Vec<&str> = flows.iter().flat_map(|flow| &flow.recipe.parameters).map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let defaults = parameters::read(section, "defaults", Some(&names));
    Some(Offer { name: name?, kind: kind.name, flows, defaults })
}

/// Where the flow is described here, its description may say it too.
fn report_no_lifetime(section: &mut Section<'_, '_>, flow: &Flow) {
    let Flow { kind, name, recipe } = flow;
    if *kind != kind::DESCRIBED {
        let text = format!("is missing: in the flow {name} of {kind} nothing says how long a token lives");
        section.problem_with("token_lifetime", text);
        return;
    }
    for (stage, _) in recipe.last_steps().filter(|(_, step)| step.answer.expiry.is_empty()) {
        let key = format!("flows.{name}.{}.answer.expiry", stage.as_str());
        let place = section.place_of(&key);
        let text =
            "is missing: nothing says how long a token lives; expected it here, or token_lifetime of the upstream";
        section.problem(&key, place, text);
    }
}

fn described_flows(section: &mut Section<'_, '_>) -> Vec<Arc<Flow>> {
    let flows = recipe::flows(section, kind::DESCRIBED);
    if !section.has("flows") {
        section.problem_with("flows", "is missing; expected a table for each flow, such as [upstreams.flows.login]");
    }
    flows
}

fn base_url(section: &mut Section<'_, '_>, kind: Option<&Kind>, http: &http::Options) -> Option<Url> {
    let allowed = &http.allow_private;
    let url = if section.has("url") {
        let parse = |text| endpoint::base_url(text, allowed);
        section.read("url", parsed("an https URL", parse))?
    } else {
        let kind = kind?;
        let Some(url) = &kind.url else {
            section.problem_with("url", format!("is missing: kind {} has none of its own", kind.name));
            return None;
        };
        url.clone()
    };
    if http.proxy.is_some() && url.scheme() != "https" {
        section.problem_with("proxy", "works only with an https url: a proxy would see the secrets of a plain one");
    }
    Some(url)
}

/// The budget of a section; what is left out is as the kind has it.
pub(super) fn budget(section: &mut Section<'_, '_>, kind: Option<&Kind>) -> Budget {
    let default = kind.map_or(Budget { logins: HUNDRED, per: minutes(5) }, |kind| kind.budget);
    let mut table = section.table("budget", BUDGET_KEYS);
    let logins = table.read("logins", integer(1..=1_000_000)).and_then(NonZeroU32::new);
    let per = table.read("per", duration(seconds(1)..=days(31)));
    Budget { logins: logins.unwrap_or(default.logins), per: per.unwrap_or(default.per) }
}

const HUNDRED: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

fn bounds(section: &mut Section<'_, '_>) -> Bounds {
    let range = seconds(1)..=LONGEST_LIFE;
    let shortest = section.read("shortest_lifetime", duration(range.clone()));
    let longest = section.read("longest_lifetime", duration(range));
    let bounds = Bounds { shortest: shortest.unwrap_or(seconds(30)), longest: longest.unwrap_or(days(730)) };
    if bounds.shortest > bounds.longest {
        section.problem_with("longest_lifetime", "must not be less than shortest_lifetime");
    }
    bounds
}

fn http_options(section: &mut Section<'_, '_>, files: &mut SecretFiles) -> http::Options {
    let (timeout, connect_timeout) = timeouts(section);
    let proxy = parsed("an http or https URL", endpoint::proxy_url);
    http::Options {
        timeout,
        connect_timeout,
        allow_private: allow_private(section),
        proxy: section.read("proxy", proxy),
        ca_pem: files.pem(section, "ca_file", Pem::Certificates).map(|pem| pem.as_bytes().to_vec()),
        client_identity_pem: client_identity(section, files),
    }
}

/// Connecting is part of the whole: its default gives way to a shorter timeout.
fn timeouts(section: &mut Section<'_, '_>) -> (Duration, Duration) {
    let range = Duration::from_millis(10)..=LONGEST_TIMEOUT;
    let timeout = section.read("timeout", duration(range.clone())).unwrap_or(seconds(10));
    let Some(connect) = section.read("connect_timeout", duration(range)) else {
        return (timeout, seconds(3).min(timeout));
    };
    if connect > timeout {
        section.problem_with("connect_timeout", "must not be longer than timeout");
    }
    (timeout, connect)
}

pub(super) fn allow_private(section: &mut Section<'_, '_>) -> Vec<String> {
    let items = section.items("allow_private", "an array of host names and IP addresses");
    let mut hosts = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let expected = "a host name or an IP address";
        match parsed(expected, endpoint::host)(Value::of(item.get_ref())) {
            Ok(host) => hosts.push(host),
            Err(text) => {
                let place = section.reading.place(item);
                section.problem(&format!("allow_private[{position}]"), place, text);
            }
        }
    }
    hosts
}

/// The certificate chain, then its key, in one text.
fn client_identity(section: &mut Section<'_, '_>, files: &mut SecretFiles) -> Option<Sealed> {
    if !section.has("client_certificate") {
        return None;
    }
    let mut table = section.table("client_certificate", CERTIFICATE_KEYS);
    for key in CERTIFICATE_KEYS {
        // Only that it is there: what is in it is read below.
        table.require(key, "the path of a PEM file", |_| Ok(()));
    }
    let chain = files.pem(&mut table, "cert_file", Pem::Certificates);
    let key = files.pem(&mut table, "key_file", Pem::PrivateKey);
    let (chain, key) = (chain?, key?);
    let mut both = String::with_capacity(chain.len() + key.len() + 1);
    both.push_str(&chain);
    both.push('\n');
    both.push_str(&key);
    Some(http::seal_identity(&LongLivedSecret::new(both)))
}
