//! The issuers of a configuration, and how a new one becomes those in force.

use crate::bearer::{Issuers, Prepared};
use crate::config::{Changes, Config, Issuer, IssuerChange, Problem, Problems};
use crate::http;

/// Those that change, made and not yet in force.
#[derive(Debug)]
pub(super) struct Steps {
    put: Vec<Prepared>,
    gone: Vec<String>,
}

/// Whether the certificates and addresses of the issuers are of use.
pub(super) fn rehearse(config: &Config) -> Result<(), Problems> {
    let problems = config.issuers.iter().enumerate().filter_map(|(position, issuer)| {
        let error = issuer.settings.check().err()?;
        Some(problem(position, issuer, &error))
    });
    Problems::new(problems.collect()).map_or(Ok(()), Err)
}

/// Makes all that can fail. Of no use where that found problems.
pub(super) fn prepare(issuers: Vec<Issuer>, changes: &Changes, problems: &mut Vec<Problem>) -> Steps {
    let gone = changes.issuers.iter().filter(|(_, change)| **change == IssuerChange::Removed);
    let gone = gone.map(|(name, _)| name.clone()).collect();
    let mut put = Vec::new();
    for (position, issuer) in issuers.into_iter().enumerate() {
        if !changes.issuers.contains_key(issuer.name()) {
            continue;
        }
        match issuer.settings.check() {
            Err(error) => problems.push(problem(position, &issuer, &error)),
            Ok(client) => put.push(issuer.settings.prepared(client)),
        }
    }
    Steps { put, gone }
}

impl Steps {
    pub(super) fn take(self, issuers: &Issuers) {
        issuers.install(self.put, &self.gone);
    }
}

fn problem(position: usize, issuer: &Issuer, error: &http::Error) -> Problem {
    let key = match error {
        http::Error::AllowPrivate => ".allow_private",
        http::Error::Url(_) => ".jwks_url",
        http::Error::Ca | http::Error::Build => ".ca_file",
        http::Error::Proxy(_) | http::Error::Identity => "",
    };
    Problem { key: format!("issuers[{position}]{key}"), place: issuer.place.clone(), text: error.to_string() }
}
