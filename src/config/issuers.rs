//! `[[issuers]]`: whose JWTs callers may show, and where the keys are that verify them.

use super::endpoint;
use super::problem::Place;
use super::reader::{Section, Value};
use super::scalar::{days, duration, hours, minutes, parsed, seconds, text};
use super::secret_source::{Pem, SecretFiles};
use super::upstream::allow_private;
use crate::bearer::{self, Algorithm, KeySet, LARGEST_FILE, Rule, Settings};
use crate::http;
use crate::identity::Caller;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The keys of an issuer.
pub(super) const KEYS: &[&str] = &[
    "name",
    "issuer",
    "audiences",
    "algorithms",
    "jwks_url",
    "jwks_file",
    "ca_file",
    "allow_private",
    "token_file",
    "timeout",
    "refresh_interval",
    "keys_outlive",
];

/// Where `OpenID` Connect Discovery 1.0 §4 puts an issuer's document, behind its URL.
const DOCUMENT: &str = ".well-known/openid-configuration";
const LONGEST_TEXT: usize = 1024;
const MOST_AUDIENCES: usize = 64;

/// One issuer.
#[derive(Debug)]
pub struct Issuer {
    /// All that it takes to judge its tokens.
    pub settings: Settings,
    /// Where it stands.
    pub place: Place,
}

impl Issuer {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.settings.rule.name
    }

    /// `None` where a problem left nothing to put in place.
    pub(super) fn read(section: &mut Section<'_, '_>, files: &mut SecretFiles) -> Option<Self> {
        let name = section.require("name", NAME, parsed(NAME, name));
        let issuer = section.require("issuer", ISSUER, parsed(ISSUER, |text| plain(text, ISSUER)));
        let audiences = audiences(section);
        let algorithms = algorithms(section);
        let timeout = duration(Duration::from_millis(10)..=minutes(1));
        let timeout = section.read("timeout", timeout).unwrap_or(seconds(10));
        let http = http::Options {
            timeout,
            connect_timeout: seconds(3).min(timeout),
            allow_private: allow_private(section),
            ca_pem: files.pem(section, "ca_file", Pem::Certificates).map(|pem| pem.as_bytes().to_vec()),
            ..http::Options::default()
        };
        let keys = keys(section, issuer.as_deref(), &http);
        let token_file = token_file(section, keys.as_ref());
        let interval = match keys {
            Some(bearer::Place::File(_)) => seconds(10),
            _ => minutes(5),
        };
        let refresh = section.read("refresh_interval", duration(seconds(1)..=days(1)));
        let outlive = section.read("keys_outlive", duration(minutes(1)..=days(30)));
        let (refresh_interval, keys_outlive) = (refresh.unwrap_or(interval), outlive.unwrap_or(hours(24)));
        if keys_outlive < refresh_interval * 2 {
            section.problem_with("keys_outlive", "must be at least twice refresh_interval");
        }
        let rule = Rule { name: Arc::from(name?), issuer: issuer?, audiences };
        let place = section.place();
        let settings = Settings { rule, algorithms, place: keys?, http, token_file, refresh_interval, keys_outlive };
        Some(Self { settings, place })
    }
}

const NAME: &str = "a name of a-z, 0-9 and '-', at most 64 of them";
const ISSUER: &str = "what `iss` of its tokens is, byte for byte: visible ASCII characters, at most 1024";
const AUDIENCES: &str = "an array of texts, one of which must be in `aud` of a token";

fn name(text: &str) -> Result<String, String> {
    // As it will stand in the names of callers.
    Caller::bearer(text, "x").map(|_| text.to_owned()).map_err(|invalid| format!("{invalid}; expected {NAME}"))
}

fn plain(text: &str, expected: &str) -> Result<String, String> {
    let fits = (1..=LONGEST_TEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(format!("expected {expected}")) }
}

/// The texts of an array, each of them judged; a wrong one is reported by its position.
fn list<T>(
    section: &mut Section<'_, '_>,
    key: &str,
    expected: &str,
    judge: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let items = section.items(key, expected);
    let mut all = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        match parsed("a text", &judge)(Value::of(item.get_ref())) {
            Ok(value) => all.push(value),
            Err(text) => {
                let place = section.reading.place(item);
                section.problem(&format!("{key}[{position}]"), place, text);
            }
        }
    }
    all
}

fn audiences(section: &mut Section<'_, '_>) -> Vec<String> {
    if !section.has("audiences") {
        let text = format!("is missing; expected {AUDIENCES}");
        section.problem("audiences", section.place(), text);
        return Vec::new();
    }
    let items = section.items("audiences", AUDIENCES).len();
    if items == 0 || items > MOST_AUDIENCES {
        section.problem_with("audiences", "must hold 1 to 64 texts: a token for anybody is for nobody");
    }
    list(section, "audiences", AUDIENCES, |text| plain(text, "visible ASCII characters, at most 1024"))
}

fn algorithms(section: &mut Section<'_, '_>) -> Vec<Algorithm> {
    if !section.has("algorithms") {
        return vec![Algorithm::Rs256, Algorithm::Es256];
    }
    let names: Vec<_> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
    let expected = format!("expected some of {}", names.join(", "));
    if section.items("algorithms", "an array of names of algorithms").is_empty() {
        section.problem_with("algorithms", format!("must not be empty; {expected}"));
    }
    list(section, "algorithms", "an array of names of algorithms", |name| match Algorithm::parse(name) {
        Some(algorithm) => Ok(algorithm),
        None if name.starts_with("HS") => {
            Err("takes a secret that the issuer and the broker share, with which either could make tokens".to_owned())
        }
        None => Err(expected.clone()),
    })
}

/// Where the keys are. A file is read here too, so that what is wrong with it is told at once.
fn keys(section: &mut Section<'_, '_>, issuer: Option<&str>, http: &http::Options) -> Option<bearer::Place> {
    let allowed = &http.allow_private;
    match (section.has("jwks_url"), section.has("jwks_file")) {
        (true, true) => {
            section.problem_with("jwks_file", "only one of jwks_url and jwks_file may stand here");
            None
        }
        (true, false) => {
            let url = section.read("jwks_url", parsed("an https URL", |text| endpoint::document_url(text, allowed)));
            url.map(bearer::Place::Url)
        }
        (false, true) => file(section).map(bearer::Place::File),
        (false, false) => match discovery(issuer?, allowed) {
            Ok(url) => Some(bearer::Place::Discovery(url)),
            Err(text) => {
                let text = format!("{text}; where it is no such URL, set jwks_url or jwks_file");
                section.problem_with("issuer", text);
                None
            }
        },
    }
}

fn discovery(issuer: &str, allowed: &[String]) -> Result<Url, String> {
    let document = format!("{}/{DOCUMENT}", issuer.strip_suffix('/').unwrap_or(issuer));
    endpoint::document_url(issuer, allowed)?;
    endpoint::document_url(&document, allowed)
}

fn file(section: &mut Section<'_, '_>) -> Option<PathBuf> {
    let name = section.read("jwks_file", text("the path of a file with a set of keys (RFC 7517)"))?;
    let file = section.reading.base_dir.join(name);
    let read = section.reading.files.read(&file, LARGEST_FILE);
    let wrong = match read {
        Ok((content, _)) => KeySet::parse(content.as_bytes()).err().map(|unusable| unusable.to_string()),
        Err(text) => Some(text),
    };
    match wrong {
        None => Some(file),
        Some(text) => {
            section.problem_with("jwks_file", text);
            None
        }
    }
}

/// The broker's own token goes to nobody but those whom the configured certificates vouch for.
fn token_file(section: &mut Section<'_, '_>, keys: Option<&bearer::Place>) -> Option<PathBuf> {
    let name = section.read("token_file", text("the path of a file with a bearer token"))?;
    let file = section.reading.base_dir.join(name);
    match keys {
        Some(bearer::Place::File(_)) => {
            section.problem_with("token_file", "means nothing with jwks_file: nobody is asked");
        }
        Some(bearer::Place::Url(url) | bearer::Place::Discovery(url)) if url.scheme() != "https" => {
            section.problem_with("token_file", "works only with https: others could read the token");
        }
        Some(_) if !section.has("ca_file") => {
            section.problem_with("token_file", "needs ca_file, so that the token is shown to nobody else");
        }
        Some(_) | None => {}
    }
    Some(file)
}
