use super::*;
use proptest::prelude::*;

fn grant(caller: &str, workspaces: &[&str], actions: Actions) -> Grant {
    Grant {
        caller: CallerPattern::parse(caller).unwrap(),
        workspaces: workspaces.iter().map(|text| WorkspacePattern::parse(text).unwrap()).collect(),
        actions,
    }
}

fn actions(actions: &[Action]) -> Actions {
    actions.iter().copied().collect()
}

fn caller(text: &str) -> Caller {
    Caller::parse(text).unwrap()
}

fn workspace(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

#[test]
fn what_no_grant_allows_is_denied() {
    for action in Action::ALL {
        let decision = Policy::default().decide(&caller("loopback"), action, &workspace("a"));
        assert_eq!(decision, Decision::Deny, "{action:?}");
    }
}

#[test]
fn the_first_of_the_grants_that_allow_it_is_named() {
    let policy = Policy::new(vec![
        grant("spiffe://d/ns/a/**", &["fleet/*"], actions(&[Action::Watch])),
        grant("spiffe://d/ns/*/sa/*", &["payments/**", "fleet/europe"], actions(&[Action::Get, Action::Report])),
        grant("spiffe://d/ns/a/sa/api", &["fleet/**"], actions(&Action::ALL)),
    ]);
    let rows = [
        ("spiffe://d/ns/a/sa/api", Action::Get, "fleet/europe", Some(1)),
        ("spiffe://d/ns/a/sa/api", Action::Watch, "fleet/europe", Some(0)),
        ("spiffe://d/ns/a/sa/api", Action::Health, "fleet/europe", Some(2)),
        ("spiffe://d/ns/a/sa/api", Action::Get, "fleet/a/b", Some(2)),
        ("spiffe://d/ns/a/sa/other", Action::Get, "fleet/asia", None),
        ("spiffe://d/ns/a/sa/other", Action::Health, "fleet/europe", None),
        ("spiffe://d/ns/b/sa/x", Action::Report, "payments/a/b", Some(1)),
        ("spiffe://d/ns/b/sa/x", Action::Watch, "payments/a/b", None),
        ("loopback", Action::Get, "fleet/europe", None),
    ];
    for (name, action, of, expected) in rows {
        let expected = expected.map_or(Decision::Deny, |grant| Decision::Allow { grant });
        assert_eq!(policy.decide(&caller(name), action, &workspace(of)), expected, "{name} {action:?} {of}");
    }
}

#[test]
fn two_policies_at_once_allow_what_both_allow() {
    let one = Policy::new(vec![grant("loopback", &["a", "b"], actions(&Action::ALL))]);
    let other = Policy::new(vec![grant("loopback", &["b", "c"], actions(&[Action::Get]))]);
    let both = one.and(Arc::new(other));
    let allowed = |name, action| both.decide(&caller("loopback"), action, &workspace(name)) != Decision::Deny;
    assert_eq!(["a", "b", "c"].map(|name| allowed(name, Action::Get)), [false, true, false]);
    assert!(!allowed("b", Action::Watch));
}

#[test]
fn the_nearest_misses_are_told() {
    let policy = Policy::new(vec![
        grant("unix:1", &["a/*"], actions(&[Action::Get])),
        grant("unix:2", &["a/*"], actions(&[Action::Get])),
        grant("unix:1", &["b"], actions(&[Action::Health])),
    ]);
    let misses = |name, action, of| {
        let misses = policy.misses(&caller(name), action, &workspace(of));
        misses.iter().map(|miss| (miss.grant, miss.caller, miss.workspace, miss.action)).collect::<Vec<_>>()
    };
    assert_eq!(misses("unix:1", Action::Watch, "a/x"), [(0, true, true, false)]);
    assert_eq!(misses("unix:1", Action::Get, "c"), [(0, true, false, true)]);
    assert_eq!(misses("unix:3", Action::Get, "a/x"), [(0, false, true, true), (1, false, true, true)]);
    assert_eq!(misses("unix:1", Action::Report, "c"), [(0, true, false, false), (2, true, false, false)]);
    assert_eq!(misses("unix:3", Action::Report, "c"), []);
}

prop_compose! {
    fn any_grant()(
        caller in "loopback|\\*\\*|unix:(\\*|[12])|spiffe://[de](/([ab]|\\*|\\*\\*|a\\*)){1,3}",
        workspaces in prop::collection::vec("([ab]|\\*|\\*\\*|a\\*)(/([ab]|\\*|\\*\\*|b\\*)){0,2}", 1..4),
        bits in 1_u8..16,
    ) -> Grant {
        let texts: Vec<_> = workspaces.iter().map(String::as_str).collect();
        grant(&caller, &texts, Actions(bits))
    }
}

proptest! {
    /// The same as asking each grant in turn.
    #[test]
    fn it_decides_as_its_grants_say(
        grants in prop::collection::vec(any_grant(), 0..20),
        name in "loopback|unix:[123]|spiffe://[de](/[ab]{1,2}){1,4}",
        of in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let (name, of) = (caller(&name), workspace(&of));
        let policy = Policy::new(grants.clone());
        for action in Action::ALL {
            let first = grants.iter().position(|grant| {
                grant.caller.fits(&name)
                    && grant.workspaces.iter().any(|pattern| pattern.fits(&of))
                    && grant.actions.contain(action)
            });
            let expected = first.map_or(Decision::Deny, |grant| Decision::Allow { grant });
            prop_assert_eq!(policy.decide(&name, action, &of), expected);
        }
    }

    /// A grant that is found shadowed can go, and nothing changes.
    #[test]
    fn a_shadowed_grant_is_of_no_use(
        grants in prop::collection::vec(any_grant(), 1..6),
        name in "loopback|unix:[123]|spiffe://[de](/[ab]{1,2}){1,4}",
        of in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let (name, of) = (caller(&name), workspace(&of));
        let policy = Policy::new(grants.clone());
        let shadowed: Vec<_> = lint(&policy, []).into_iter().filter_map(|finding| match finding {
            Finding::Shadowed { grant, .. } => Some(grant),
            _ => None,
        }).collect();
        let kept = grants.into_iter().enumerate().filter(|(at, _)| !shadowed.contains(at)).map(|(_, grant)| grant);
        let fewer = Policy::new(kept.collect());
        for action in Action::ALL {
            let (all, kept) = (policy.decide(&name, action, &of), fewer.decide(&name, action, &of));
            prop_assert_eq!(all == Decision::Deny, kept == Decision::Deny);
        }
    }
}
