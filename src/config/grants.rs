//! `[[grants]]`: who may do what with which Workspaces, and what had better not stand there.

use super::problem::{Place, Warning};
use super::reader::{Section, Value};
use super::scalar::{choice, parsed};
use crate::policy::{self, Action, Actions, CallerPattern, Finding, InvalidPattern, Policy, Width, WorkspacePattern};
use crate::token::WorkspaceName;

/// The keys of a grant.
pub(super) const KEYS: &[&str] = &["caller", "workspaces", "actions"];

/// The most grants, and the most patterns of one.
const MOST_GRANTS: usize = 10_000;
const MOST_PATTERNS: usize = 1_000;
/// More warnings than this say no more.
const MOST_WARNINGS: usize = 100;

const CALLER: &str = "a pattern of callers such as \"spiffe://prod.example/ns/payments/sa/*\"";
const WORKSPACE: &str = "a pattern of Workspaces such as \"payments/**\"";
const WORKSPACES: &str = "an array of patterns of Workspaces such as [\"payments/**\"]";
const ACTIONS: &str = "an array of \"get\", \"watch\", \"report\" and \"health\"";

const WORDS: [(&str, Action); 4] = [
    (Action::Get.as_str(), Action::Get),
    (Action::Watch.as_str(), Action::Watch),
    (Action::Report.as_str(), Action::Report),
    (Action::Health.as_str(), Action::Health),
];

/// One grant.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What it allows.
    pub grant: policy::Grant,
    /// Where it stands.
    pub place: Place,
    caller: Place,
    workspaces: Vec<Place>,
}

pub(super) fn read(root: &mut Section<'_, '_>) -> Vec<Grant> {
    let items = root.items("grants", "tables, each under [[grants]]");
    if items.len() > MOST_GRANTS {
        root.problem_with("grants", format!("there are {} of them, and {MOST_GRANTS} are allowed", items.len()));
        return Vec::new();
    }
    let mut grants = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        if let Some(mut section) = root.reading.item(format!("grants[{position}]"), item, KEYS) {
            grants.extend(Grant::read(&mut section));
        }
    }
    grants
}

/// The policy that they make.
pub(super) fn policy(grants: &[Grant]) -> Policy {
    Policy::new(grants.iter().map(|grant| grant.grant.clone()).collect())
}

/// What had better be changed about them, seen with the Workspaces that there are.
pub(super) fn warnings<'w>(grants: &[Grant], workspaces: impl Iterator<Item = &'w WorkspaceName>) -> Vec<Warning> {
    let findings = policy::lint(&policy(grants), workspaces);
    let told = findings.iter().take(MOST_WARNINGS).filter_map(|finding| warning(finding, grants));
    let mut warnings: Vec<_> = told.collect();
    if let Some(more) = findings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        let text = format!("there are {more} more findings like these");
        warnings.push(Warning { key: "grants".to_owned(), place: Place::Unknown, text });
    }
    warnings
}

impl Grant {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let caller = section.require("caller", CALLER, parsed(CALLER, CallerPattern::parse));
        let patterns = each(section, "workspaces", WORKSPACES, MOST_PATTERNS, |value| {
            parsed::<_, InvalidPattern>(WORKSPACE, WorkspacePattern::parse)(value)
        });
        let actions = each(section, "actions", ACTIONS, Action::ALL.len(), |value| choice(&WORDS)(value));
        let (patterns, places): (Vec<_>, Vec<_>) = patterns?.into_iter().unzip();
        let actions: Actions = actions?.into_iter().map(|(action, _)| action).collect();
        Some(Self {
            grant: policy::Grant { caller: caller?, workspaces: patterns, actions },
            place: section.place(),
            caller: section.place_of("caller"),
            workspaces: places,
        })
    }
}

/// The items of an array that must have some, each with its place. `None` if any of them is wrong.
fn each<'t, T>(
    section: &mut Section<'_, 't>,
    key: &str,
    expected: &str,
    most: usize,
    parse: impl Fn(Value<'t>) -> Result<T, String>,
) -> Option<Vec<(T, Place)>> {
    let items = section.require(key, expected, |value| match value {
        Value::Array(items) if (1..=most).contains(&items.len()) => Ok(items),
        Value::Array(_) => Err(format!("expected {expected}, with 1 to {most} of them")),
        other => Err(other.instead_of(expected)),
    })?;
    let mut all_right = true;
    let mut read = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let place = section.reading.place(item);
        match parse(Value::of(item.get_ref())) {
            Ok(value) => read.push((value, place)),
            Err(text) => {
                section.problem(&format!("{key}[{position}]"), place, text);
                all_right = false;
            }
        }
    }
    all_right.then_some(read)
}

fn warning(finding: &Finding, grants: &[Grant]) -> Option<Warning> {
    let (key, place, text) = match *finding {
        Finding::NoGrants => {
            let text = "there is none, so nobody may have a token; the least is a table with caller = \"loopback\"";
            ("grants".to_owned(), Place::Unknown, text.to_owned())
        }
        Finding::FitsNoWorkspace { grant, pattern } => {
            let place = grants.get(grant)?.workspaces.get(pattern)?.clone();
            let text = "fits no Workspace of this configuration";
            (format!("grants[{grant}].workspaces[{pattern}]"), place, text.to_owned())
        }
        Finding::Shadowed { grant, by } => {
            let other = &grants.get(by)?.place;
            let text = format!("is of no use: grants[{by}]{other} allows all that it allows");
            (format!("grants[{grant}]"), grants.get(grant)?.place.clone(), text)
        }
        Finding::WideCaller { grant, width } => {
            let text = format!("is wide: it is for {}", whom(width));
            (format!("grants[{grant}].caller"), grants.get(grant)?.caller.clone(), text)
        }
        Finding::WideWorkspaces { grant, pattern } => {
            let place = grants.get(grant)?.workspaces.get(pattern)?.clone();
            let text = "is wide: it hands out the tokens of every Workspace, those to come among them";
            (format!("grants[{grant}].workspaces[{pattern}]"), place, text.to_owned())
        }
    };
    Some(Warning { key, place, text })
}

const fn whom(width: Width) -> &'static str {
    match width {
        Width::Everybody => "every caller of every listener",
        Width::TrustDomain => "every workload of the trust domain",
        Width::Issuer => "everybody for whom the issuer vouches",
        Width::Hosts => "every host with a certificate",
        Width::Users => "every user of this machine",
        Width::Some => "several callers",
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse(text, Path::new("."), &Environment::default());
        config.map_err(|problems| problems.to_string())
    }

    fn warned(grants: &str) -> Vec<String> {
        let workspace = "[[upstreams]]\nname = \"up\"\nkind = \"oauth2\"\nurl = \"https://a.example\"\n\
            [[workspaces]]\nname = \"fleet/europe\"\nupstream = \"up\"\nflow = \"client-credentials\"\n\
            parameters = { client_id = \"c\" }\ncredential = { client_secret = { env = \"S\" } }\n";
        let environment = [("S", "secret")].into_iter().collect();
        let config = Config::parse(&format!("{workspace}{grants}"), Path::new("."), &environment).unwrap();
        let warnings = config.warnings.iter().map(ToString::to_string);
        warnings.filter(|warning| warning.starts_with("grants")).collect()
    }

    #[test]
    fn a_grant_is_read_with_its_line() {
        let text =
            "\n[[grants]]\ncaller = \"unix:1\"\nworkspaces = [\"a/*\", \"b\"]\nactions = [\"get\", \"health\"]\n";
        let config = parse(text).unwrap();
        let shown: Vec<_> = config.grants.iter().map(|grant| format!("{:?} {:?}", grant.grant, grant.place)).collect();
        assert_eq!(
            shown,
            ["Grant { caller: \"unix:1\", workspaces: [\"a/*\", \"b\"], actions: {Get, Health} } Line(2)"]
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line() {
        let text = "[[grants]]\ncaller = \"hunter2\"\nworkspaces = \"a\"\nactions = []\n\
            [[grants]]\ncaller = \"unix:1\"\nworkspaces = [\"a\", \"B\",\n 3]\nactions = [\"get\", \"admin\"]\n\
            [[grants]]\ncallers = \"unix:1\"\n";
        let expected = "\
grants[0].caller (line 2): fits no caller: a caller's name must be loopback, or begin with unix:, \
spiffe://, dns: or jwt:
grants[0].workspaces (line 3): expected an array of patterns of Workspaces such as [\"payments/**\"], found a text
grants[0].actions (line 4): expected an array of \"get\", \"watch\", \"report\" and \"health\", with 1 to 4 of them
grants[1].workspaces[1] (line 7): fits no Workspace: its name may only hold a-z, 0-9, '.', '_', '-' and '/' between \
segments
grants[1].workspaces[2] (line 8): expected a pattern of Workspaces such as \"payments/**\", found an integer
grants[1].actions[1] (line 9): expected \"get\" or \"watch\" or \"report\" or \"health\"
grants[2].callers (line 11): unknown key; did you mean caller?
grants[2].caller (line 10): is missing; expected a pattern of callers such as \
\"spiffe://prod.example/ns/payments/sa/*\"
grants[2].workspaces (line 10): is missing; expected an array of patterns of Workspaces such as [\"payments/**\"]
grants[2].actions (line 10): is missing; expected an array of \"get\", \"watch\", \"report\" and \"health\"";
        assert_eq!(parse(text).unwrap_err(), expected);
    }

    #[test]
    fn what_is_unwise_is_told_with_its_line() {
        assert_eq!(
            warned(""),
            ["grants: there is none, so nobody may have a token; the least is a table with caller = \"loopback\""]
        );
        let grant = |caller: &str, workspaces: &str| {
            format!("[[grants]]\ncaller = \"{caller}\"\nworkspaces = [{workspaces}]\nactions = [\"get\"]\n")
        };
        assert_eq!(warned(&grant("loopback", "\"fleet/*\"")), [""; 0]);
        let text = grant("spiffe://d/**", "\"fleet/*\",\n\"fleet\"") + &grant("spiffe://d/a", "\"fleet/europe\"");
        assert_eq!(
            warned(&text),
            [
                "grants[0].caller (line 12): is wide: it is for every workload of the trust domain",
                "grants[0].workspaces[1] (line 14): fits no Workspace of this configuration",
                "grants[1] (line 16): is of no use: grants[0] (line 11) allows all that it allows",
            ]
        );
        assert_eq!(
            warned(&grant("loopback", "\"**\"")),
            ["grants[0].workspaces[0] (line 13): is wide: it hands out the tokens of every Workspace, those to come \
                 among them"]
        );
        assert_eq!(
            warned(&grant("unix:*", "\"**\"")).first().map(String::as_str),
            Some("grants[0].caller (line 12): is wide: it is for every user of this machine")
        );
    }

    #[test]
    fn a_thousand_warnings_are_cut_short() {
        let grant = |n| format!("[[grants]]\ncaller = \"unix:{n}\"\nworkspaces = [\"none\"]\nactions = [\"get\"]\n");
        let grants: Vec<_> = (0..1_000).map(grant).collect();
        let warned = warned(&grants.concat());
        assert_eq!(warned.len(), 101);
        assert_eq!(warned.last().map(String::as_str), Some("grants: there are 900 more findings like these"));
    }
}
