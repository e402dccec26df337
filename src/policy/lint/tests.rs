use super::*;
use crate::policy::{CallerPattern, Finding::*};

fn grant(caller: &str, workspaces: &[&str], actions: &[Action]) -> Grant {
    Grant {
        caller: CallerPattern::parse(caller).unwrap(),
        workspaces: workspaces.iter().map(|text| WorkspacePattern::parse(text).unwrap()).collect(),
        actions: actions.iter().copied().collect(),
    }
}

fn found(grants: &[Grant]) -> Vec<Finding> {
    let names = ["fleet/asia", "fleet/europe", "payments/prod/eu"].map(|name| WorkspaceName::parse(name).unwrap());
    lint(&Policy::new(grants.to_vec()), &names)
}

const GET: &[Action] = &[Action::Get];
const BOTH: &[Action] = &[Action::Get, Action::Watch];

#[test]
fn a_policy_that_is_right_is_let_alone() {
    assert_eq!(
        found(&[
            grant("spiffe://d/ns/fleet/*", &["fleet/*"], BOTH),
            grant("spiffe://d/ns/payments/**", &["payments/**"], GET),
            grant("dns:monitor.example", &["**"], &[Action::Health]),
            grant("loopback", &["fleet/europe", "payments/prod/*"], &Action::ALL),
        ]),
        []
    );
}

#[test]
fn with_workspaces_and_no_grants_nobody_is_served() {
    assert_eq!(found(&[]), [NoGrants]);
    assert_eq!(lint(&Policy::default(), &[]), []);
}

#[test]
fn a_pattern_that_fits_nothing_is_found() {
    let grants = [
        grant("loopback", &["fleet/europe", "fleet/eu", "fleet/*/x"], GET),
        grant("unix:1", &["fleet", "payments/*", "**/asia", "fleet/europe/**"], GET),
    ];
    let expected = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 3)];
    assert_eq!(found(&grants), expected.map(|(grant, pattern)| FitsNoWorkspace { grant, pattern }));
}

#[test]
fn a_shadowed_grant_is_found_wherever_the_wider_one_stands() {
    let wide = grant("spiffe://d/ns/*/sa/*", &["fleet/*", "payments/**"], BOTH);
    let narrow = grant("spiffe://d/ns/a/sa/*", &["payments/prod/*", "fleet/europe"], GET);
    assert_eq!(found(&[wide.clone(), narrow.clone()]), [Shadowed { grant: 1, by: 0 }]);
    assert_eq!(found(&[narrow.clone(), wide.clone()]), [Shadowed { grant: 0, by: 1 }]);
    let same = [narrow.clone(), narrow.clone(), narrow];
    assert_eq!(found(&same), [Shadowed { grant: 1, by: 0 }, Shadowed { grant: 2, by: 0 }]);
    let others = [
        grant("spiffe://d/ns/a/sa/b/c", &["fleet/europe"], GET),
        grant("spiffe://d/ns/a/sa/b", &["fleet/europe"], &[Action::Report]),
        grant("spiffe://d/ns/a/sa/b", &["fleet/europe", "*/prod/eu"], GET),
        grant("spiffe://e/ns/a/sa/b", &["fleet/europe"], GET),
    ];
    for other in others {
        assert_eq!(found(&[wide.clone(), other.clone()]), [], "{other:?}");
    }
}

#[test]
fn what_is_too_wide_is_found() {
    let wide = |caller| found(&[grant(caller, &["fleet/*"], GET)]);
    let rows = [
        ("**", Width::Everybody),
        ("spiffe://d/**", Width::TrustDomain),
        ("jwt:c:**", Width::Issuer),
        ("dns:**", Width::Hosts),
        ("unix:*", Width::Users),
    ];
    for (caller, width) in rows {
        assert_eq!(wide(caller), [WideCaller { grant: 0, width }], "{caller}");
    }
    for caller in ["spiffe://d/*", "spiffe://d/a/**", "jwt:c:*", "dns:*", "dns:**.example", "unix:1"] {
        assert_eq!(wide(caller), [], "{caller}");
    }
    for action in Action::ALL {
        let expected = matches!(action, Action::Get | Action::Watch);
        let found = found(&[grant("loopback", &["fleet/*", "**"], &[action])]);
        assert_eq!(found == [WideWorkspaces { grant: 0, pattern: 1 }], expected, "{action:?}: {found:?}");
    }
}

#[test]
fn a_search_that_takes_too_long_claims_nothing() {
    let names: Vec<_> = ["a/x", "a/y"].iter().map(|name| WorkspaceName::parse(name).unwrap()).collect();
    let names: Vec<_> = names.iter().map(WorkspaceName::as_str).collect();
    let pattern = WorkspacePattern::parse("a/*z").unwrap();
    assert!(fits_none(&pattern, &names, &mut 2));
    assert!(!fits_none(&pattern, &names, &mut 1));
}
