//! What a token is to be good for: `scope`, `audience` and `resource`. Pure.

use super::client::Client;
use super::form::Form;
use super::refusal::{Error, Refusal};
use url::Url;

/// The scopes of a token: what was asked for, or else all that are allowed.
pub(super) fn scopes(asked: Option<&str>, allowed: &[String]) -> Result<Vec<String>, Refusal> {
    let Some(asked) = asked else {
        return Ok(allowed.to_vec());
    };
    let scopes: Vec<String> = asked.split(' ').map(str::to_owned).collect();
    if scopes.iter().all(|scope| allowed.contains(scope)) {
        Ok(scopes)
    } else {
        Err(Refusal::new(Error::InvalidScope, "a scope is not known or not allowed"))
    }
}

/// What the token is for: `aud`. A resource is an absolute URI without a fragment (RFC 8707 §2).
pub(super) fn targets(form: &Form, client: &Client) -> Result<Vec<String>, Refusal> {
    let absolute = |text: &str| Url::parse(text).is_ok_and(|url| url.fragment().is_none());
    let allowed = |text: &str| match &client.targets {
        Some(targets) => targets.iter().any(|target| target == text),
        None => true,
    };
    let (mut resources, all) = (form.all("resource"), form.all("audience").chain(form.all("resource")));
    let targets: Vec<String> = all.map(str::to_owned).collect();
    if resources.all(absolute) && targets.iter().all(|target| allowed(target)) {
        Ok(targets)
    } else {
        Err(Refusal::new(Error::InvalidTarget, "an audience or a resource is not known or not allowed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<String> {
        vec!["read".to_owned(), "write".to_owned()]
    }

    #[test]
    fn scopes_are_those_asked_for_or_all() {
        assert_eq!(scopes(None, &allowed()), Ok(allowed()));
        assert_eq!(scopes(Some("write"), &allowed()), Ok(vec!["write".to_owned()]));
        for asked in ["admin", "read admin", "read  write", " read", "READ"] {
            let refusal = scopes(Some(asked), &allowed()).unwrap_err();
            assert_eq!(refusal.error, Error::InvalidScope, "{asked}");
        }
    }

    #[test]
    fn targets_are_audiences_and_absolute_resources() {
        let client = Client::new("c").targets(&["api", "https://a.example/x"]);
        let targets = |form: &str| targets(&Form::parse(form.as_bytes()).ok().unwrap(), &client);
        assert_eq!(targets(""), Ok(Vec::new()));
        let both = vec!["api".to_owned(), "https://a.example/x".to_owned()];
        assert_eq!(targets("audience=api&resource=https://a.example/x"), Ok(both));
        for form in ["audience=other", "resource=api", "resource=https://a.example/x%23f", "resource=https://b.example"]
        {
            assert_eq!(targets(form).unwrap_err().error, Error::InvalidTarget, "{form}");
        }
    }
}
