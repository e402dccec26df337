//! What a Workspace gives, kept small: values by their position in the recipe, which all Workspaces share.

use super::{Error, Fields};
use crate::provider::recipe::template::{Found, Lookup};
use crate::provider::recipe::{ASSERTION, ENDPOINT, Field, Presence, REFRESH_TOKEN, Recipe, TOKEN};
use crate::secret::{Broken, LongLivedSecret, Sealed};
use crate::token::WorkspaceName;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest secret that is sent, in bytes.
pub const MAX_SECRET: usize = 16 * 1024;
/// The longest parameter, in bytes.
pub const MAX_PARAMETER: usize = 4 * 1024;

/// The values of one Workspace.
pub(super) struct Given {
    /// Whose they are: its secrets open for no other.
    pub(super) owner: WorkspaceName,
    secrets: Box<[Option<Sealed>]>,
    parameters: Box<[Option<Box<str>>]>,
    pub(super) extra: Box<[(Box<str>, Box<str>)]>,
}

/// The secrets of one Workspace while a request is written.
#[derive(Default)]
pub(super) struct Opened {
    secrets: Box<[Option<LongLivedSecret>]>,
    pub(super) refresh_token: Option<LongLivedSecret>,
}

/// The fields of one request: those of the Workspace, and those that the broker fills in.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) given: &'a Given,
    pub(super) opened: &'a Opened,
    pub(super) endpoint: &'a str,
    pub(super) assertion: Option<&'a str>,
    pub(super) refresh_token: Option<&'a str>,
    pub(super) token: Option<&'a str>,
    pub(super) shown: Shown,
}

/// Whether secrets are written or only named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Whole,
    Masked,
}

impl Given {
    /// Checks that these are the fields of the recipe, and takes them over. The private keys are taken out.
    pub(super) fn new(
        recipe: &Recipe,
        owner: WorkspaceName,
        fields: Fields,
        keys: &[&str],
    ) -> Result<(Self, Keys), Error> {
        let Fields { secrets: mut given_secrets, parameters: mut given_parameters, extra } = fields;
        let mut taken = BTreeMap::new();
        let mut secrets = Vec::with_capacity(recipe.secrets.len());
        for field in &recipe.secrets {
            let value = present(&field.name, &field.presence, given_secrets.remove(&field.name))?;
            if keys.contains(&field.name.as_str()) {
                taken.extend(value.map(|value| (field.name.clone(), Arc::new(value))));
                secrets.push(None);
            } else {
                check(&field.name, value.as_ref().and_then(|value| sealed_fault(value, &owner, &field.name)))?;
                secrets.push(value);
            }
        }
        let mut parameters = Vec::with_capacity(recipe.parameters.len());
        for field in &recipe.parameters {
            let value = present(&field.name, &field.presence, given_parameters.remove(&field.name))?;
            check(&field.name, value.as_deref().and_then(parameter_fault))?;
            parameters.push(value.map(String::into_boxed_str));
        }
        let unknown = given_secrets.into_keys().chain(given_parameters.into_keys()).next();
        if let Some(name) = unknown {
            return Err(Error::Unknown(name));
        }
        for (name, value) in &extra {
            check(name, parameter_fault(value))?;
        }
        let extra = extra.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok((Self { owner, secrets: secrets.into(), parameters: parameters.into(), extra }, taken))
    }

    /// The secrets, to write one request with, and this refresh token.
    pub(super) fn open(&self, recipe: &Recipe, refresh_token: Option<&Sealed>) -> Result<Opened, Broken> {
        let open = |(sealed, field): (&Option<Sealed>, &Field)| {
            sealed.as_ref().map(|sealed| sealed.open(self.owner.as_str(), &field.name)).transpose()
        };
        let secrets: Result<_, Broken> = self.secrets.iter().zip(&recipe.secrets).map(open).collect();
        let refresh_token = refresh_token.map(|sealed| sealed.open(self.owner.as_str(), REFRESH_TOKEN));
        Ok(Opened { secrets: secrets?, refresh_token: refresh_token.transpose()? })
    }

    /// A refresh token that is to be kept.
    pub(super) fn seal(&self, refresh_token: &LongLivedSecret) -> Sealed {
        Sealed::new(refresh_token, self.owner.as_str(), REFRESH_TOKEN)
    }

    fn parameter(&self, recipe: &Recipe, name: &str) -> Option<&str> {
        let position = recipe.parameters.iter().position(|field| field.name == name)?;
        self.parameters.get(position)?.as_deref()
    }
}

/// The private keys of a Workspace, by their names.
pub(super) type Keys = BTreeMap<String, Arc<Sealed>>;

impl Opened {
    /// The secret of the credential that has this name.
    pub(super) fn secret(&self, recipe: &Recipe, name: &str) -> Option<&str> {
        let position = recipe.secrets.iter().position(|field| field.name == name)?;
        self.secrets.get(position)?.as_ref().map(LongLivedSecret::expose)
    }
}

impl<'a> Env<'a> {
    /// The fields of a Workspace, and the refresh token that was opened with them.
    pub(super) fn new(recipe: &'a Recipe, given: &'a Given, opened: &'a Opened) -> Self {
        let refresh_token = opened.refresh_token.as_ref().map(LongLivedSecret::expose);
        Self { recipe, given, opened, endpoint: "", assertion: None, refresh_token, token: None, shown: Shown::Whole }
    }

    /// A parameter, or what stands in for it.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.given.parameter(self.recipe, name) {
            return Some(Cow::Borrowed(value));
        }
        match &self.recipe.parameter(name)?.presence {
            // Its only field is the endpoint, which is no secret.
            Presence::Default(template) => template.expand(self).ok()?.map(|text| Cow::Owned(text.to_string())),
            Presence::Required | Presence::Optional => None,
        }
    }

    fn secret(&self, name: &str) -> Option<&str> {
        let newer = if name == REFRESH_TOKEN { self.refresh_token } else { None };
        let built_in = match name {
            ASSERTION => self.assertion,
            TOKEN => self.token,
            _ => newer,
        };
        built_in.or_else(|| self.opened.secret(self.recipe, name))
    }
}

impl Lookup for Env<'_> {
    fn find(&self, name: &str) -> Option<Found<'_>> {
        if name == ENDPOINT {
            return Some(Found::Value(Cow::Borrowed(self.endpoint)));
        }
        match (self.secret(name), self.shown) {
            (Some(secret), Shown::Whole) => Some(Found::Value(Cow::Borrowed(secret))),
            (Some(_), Shown::Masked) => Some(Found::Mask(format!("‹{name}›"))),
            (None, _) => self.parameter(name).map(Found::Value),
        }
    }
}

fn present<T>(name: &str, presence: &Presence, value: Option<T>) -> Result<Option<T>, Error> {
    match (value, presence) {
        (None, Presence::Required) => Err(Error::Missing(name.to_owned())),
        (value, _) => Ok(value),
    }
}

fn sealed_fault(sealed: &Sealed, owner: &WorkspaceName, name: &str) -> Option<&'static str> {
    let opened = sealed.open(owner.as_str(), name);
    opened.map_or(Some("could not be opened"), |secret| secret_fault(secret.expose()))
}

fn check(name: &str, fault: Option<&'static str>) -> Result<(), Error> {
    fault.map_or(Ok(()), |why| Err(Error::Value { name: name.to_owned(), why }))
}

fn secret_fault(secret: &str) -> Option<&'static str> {
    if secret.is_empty() {
        Some("is empty")
    } else if secret.len() > MAX_SECRET {
        Some("is longer than 16 KiB")
    } else if secret.chars().any(char::is_control) {
        Some("holds a line break or another control character")
    } else if secret.trim().len() != secret.len() {
        Some("begins or ends with white space")
    } else {
        None
    }
}

fn parameter_fault(value: &str) -> Option<&'static str> {
    if value.len() > MAX_PARAMETER {
        Some("is longer than 4 KiB")
    } else if value.chars().any(char::is_control) {
        Some("holds a line break or another control character")
    } else {
        None
    }
}
