//! Answers: what is read of them.

use super::super::{Answer, Condition, Expiry, Holds, Rule, Source, Step, TenantSource};
use super::{Checking, Stage};

/// The longest text that a rule may have said.
const LONGEST_SAYING: usize = 200;

impl<'a> Checking<'a> {
    pub(super) fn answer(&mut self, stage: Stage, step: &'a Step) {
        let at = format!("{}.answer", stage.as_str());
        let answer = &step.answer;
        if answer.success.is_empty() || answer.success.iter().any(|status| !(200..=299).contains(status)) {
            self.problem(format!("{at}.success"), "must be statuses of 200 to 299");
        }
        self.conditions(&format!("{at}.when"), &answer.when);
        for (position, rule) in answer.failures.iter().enumerate() {
            self.rule(&format!("{at}.failures[{position}]"), rule);
        }
        for (position, expiry) in answer.expiry.iter().enumerate() {
            self.expiry(&format!("{at}.expiry[{position}]"), expiry);
        }
        if let Source::Path(path) = &answer.token {
            self.path(&format!("{at}.token"), path);
        }
        if answer.scheme.is_some() && self.recipe.presentation.scheme.is_empty() {
            self.problem(format!("{at}.token_type"), "is compared with the scheme of the presentation, which is empty");
        }
        self.companions(&at, answer);
        self.beside_a_body(stage, &at, answer);
    }

    fn companions(&mut self, at: &str, answer: &Answer) {
        for (name, path) in answer.scheme.iter().map(|path| ("token_type", path)) {
            self.path(&format!("{at}.{name}"), path);
        }
        for (name, path) in answer.refresh_token.iter().map(|path| ("refresh_token", path)) {
            self.path(&format!("{at}.{name}"), path);
        }
        let headers = format!("{at}.extra_headers");
        let presented = &self.recipe.presentation.header;
        let names = answer.extra_headers.iter().map(|(name, _)| name.as_str());
        self.twice(&headers, names.chain([presented.as_str()]));
        for (name, path) in &answer.extra_headers {
            let at = format!("{headers}.{name}");
            self.header_name(&at, name);
            self.path(&at, path);
        }
        let attributes = format!("{at}.attributes");
        self.twice(&attributes, answer.attributes.iter().map(|(name, _)| name.as_str()));
        for (name, path) in &answer.attributes {
            self.path(&format!("{attributes}.{name}"), path);
        }
    }

    /// Where the whole body is the token, there are no members to read.
    fn beside_a_body(&mut self, stage: Stage, at: &str, answer: &Answer) {
        if answer.token != Source::Body {
            return;
        }
        let is_last = self.recipe.last_steps().any(|(last, _)| last == stage);
        let tenant = self.recipe.tenant.as_ref().is_some_and(|t| matches!(t.said, TenantSource::Answer(_)));
        let reads_members = !answer.when.is_empty()
            || answer.scheme.is_some()
            || answer.refresh_token.is_some()
            || !answer.extra_headers.is_empty()
            || !answer.attributes.is_empty()
            || answer.expiry.iter().any(|e| matches!(e, Expiry::Relative(..) | Expiry::Absolute(..)))
            || (is_last && tenant);
        if reads_members {
            self.problem(format!("{at}.token"), "is the whole body, so that no member of it can be read");
        }
    }

    fn rule(&mut self, at: &str, rule: &Rule) {
        if rule.statuses.iter().any(|status| !(100..=599).contains(status)) {
            self.problem(format!("{at}.status"), "must be statuses of 100 to 599");
        }
        if rule.statuses.is_empty() && rule.when.is_empty() {
            self.problem(at, "fits everything: it needs a status or a condition");
        }
        self.conditions(&format!("{at}.when"), &rule.when);
        if let Some(says) = &rule.says
            && (says.is_empty() || says.len() > LONGEST_SAYING || says.chars().any(char::is_control))
        {
            self.problem(format!("{at}.says"), "must be one line of at most 200 bytes");
        }
    }

    fn conditions(&mut self, at: &str, conditions: &[Condition]) {
        for (position, Condition { path, holds }) in conditions.iter().enumerate() {
            self.path(&format!("{at}[{position}].path"), path);
            if matches!(holds, Holds::OneOf(constants) if constants.is_empty()) {
                self.problem(format!("{at}[{position}].equals"), "names nothing to be equal to");
            }
        }
    }

    fn expiry(&mut self, at: &str, expiry: &'a Expiry) {
        match expiry {
            Expiry::Relative(path, _) => self.path(&format!("{at}.relative"), path),
            Expiry::Absolute(path, _) => self.path(&format!("{at}.absolute"), path),
            Expiry::Asked(name, _) => {
                self.used.insert(name);
                if self.recipe.parameter(name).is_none() {
                    self.problem(format!("{at}.asked"), format!("names '{name}', which is no parameter"));
                }
            }
            Expiry::Fixed(life) if life.is_zero() => self.problem(format!("{at}.fixed"), "must not be zero"),
            Expiry::Jwt { .. } | Expiry::Fixed(_) => {}
        }
    }
}
