//! The parameters of a token request (RFC 6749 §3.2). Pure.

use super::refusal::{Error, Refusal};
use std::collections::BTreeSet;
use url::form_urlencoded;

/// `grant_type` of RFC 8693.
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Parameters with a value; those without count as left out. No `Debug`: some are secrets.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let form = Self(form_urlencoded::parse(body).into_owned().filter(|(_, value)| !value.is_empty()).collect());
        let is_exchange = form.get("grant_type") == Some(TOKEN_EXCHANGE);
        let mut seen = BTreeSet::new();
        for (name, _) in &form.0 {
            // RFC 8707 §2, RFC 8693 §2.1.
            let may_repeat = name == "resource" || (name == "audience" && is_exchange);
            if !seen.insert(name) && !may_repeat {
                return Err(Refusal::new(Error::InvalidRequest, "a parameter is repeated"));
            }
        }
        Ok(form)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &str, missing: &'static str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::new(Error::InvalidRequest, missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Option<Error> {
        Form::parse(body.as_bytes()).err().map(|refusal| refusal.error)
    }

    #[test]
    fn a_parameter_without_a_value_is_left_out() {
        let form = Form::parse(b"a=&b=%2B+c&a=1").ok().unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), Some("+ c"));
        assert_eq!(form.get("c"), None);
    }

    #[test]
    fn a_repeated_parameter_is_refused_unless_an_rfc_lets_it_repeat() {
        assert_eq!(refusal("scope=a&scope=a"), Some(Error::InvalidRequest));
        assert_eq!(refusal("x=1&x=2"), Some(Error::InvalidRequest));
        assert_eq!(refusal("audience=a&audience=b"), Some(Error::InvalidRequest));
        assert_eq!(refusal("resource=a&resource=b"), None);
        assert_eq!(refusal(&format!("grant_type={TOKEN_EXCHANGE}&audience=a&audience=b")), None);
    }
}
