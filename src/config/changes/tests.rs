use super::*;
use crate::config::Environment;
use std::path::Path;

const SECRET: &str = "application-token-of-a";

/// A configuration with these lines for its upstream and its Workspace, after these sections.
fn config(sections: &str, upstream: &str, workspace: &str, secret: &str) -> Config {
    let text = format!(
        "{sections}\n[[upstreams]]\nname = \"one\"\nkind = \"emnify\"\n{upstream}\n\
         [[upstreams]]\nname = \"two\"\nkind = \"emnify\"\n\
         [[workspaces]]\nname = \"a\"\ncredential = {{ application_token = {{ env = \"A\" }} }}\n{workspace}\n"
    );
    let environment: Environment = [("A", secret)].into_iter().collect();
    Config::parse(&text, Path::new("."), &environment).unwrap()
}

/// What becomes of one upstream and one Workspace.
fn changes(before: &Config, after: &Config) -> Changes {
    let key = MarkKey::random();
    Standing::of(before, &key).changes_to(&Standing::of(after, &key))
}

fn of_upstream(lines: &str) -> Option<UpstreamChange> {
    let changes =
        changes(&config("", "", "upstream = \"one\"", SECRET), &config("", lines, "upstream = \"one\"", SECRET));
    assert!(changes.workspaces.is_empty() && changes.upstreams.len() <= 1, "{changes:?}");
    changes.upstreams.get("one").copied()
}

fn of_workspace(lines: &str, secret: &str) -> Option<WorkspaceChange> {
    let before = config("", "", "upstream = \"one\"\norganisation = 1", SECRET);
    let changes = changes(&before, &config("", "", lines, secret));
    assert!(changes.upstreams.is_empty() && changes.workspaces.len() <= 1, "{changes:?}");
    changes.workspaces.get("a").copied()
}

#[test]
fn the_same_changes_nothing() {
    let one = || config("[log]\nlevel = \"warn\"", "timeout = \"5s\"", "upstream = \"one\"", SECRET);
    let changes = changes(&one(), &one());
    let Changes { issuers, upstreams, workspaces, engine, limits, audit, level, grants, restart } = &changes;
    assert!(issuers.is_empty() && upstreams.is_empty() && workspaces.is_empty() && restart.is_empty(), "{changes:?}");
    assert!(!engine && !limits && !level && !grants && audit.is_none(), "{changes:?}");
}

#[test]
fn grants_change_in_what_they_allow_and_not_in_where_they_stand() {
    let grant = "[[grants]]\ncaller = \"unix:1\"\nworkspaces = [\"a\"]\nactions = [\"get\", \"watch\"]\n";
    let with = |sections: &str| config(sections, "", "upstream = \"one\"", SECRET);
    let before = with(grant);
    let rows = [
        (grant.to_owned(), false),
        (format!("\n\n{grant}"), false),
        (grant.replace("\"get\", \"watch\"", "\"watch\", \"get\""), false),
        (grant.replace("\"get\", ", ""), true),
        (grant.replace("unix:1", "unix:2"), true),
        (grant.replace("[\"a\"]", "[\"*\"]"), true),
        (grant.repeat(2), true),
        (String::new(), true),
    ];
    for (sections, changed) in rows {
        let changes = changes(&before, &with(&sections));
        assert_eq!(changes.grants, changed, "{sections}");
        assert!(changes.restart.is_empty() && changes.workspaces.is_empty(), "{changes:?}");
    }
}

#[test]
fn an_upstream_changes_in_its_limits_or_in_its_reach() {
    let limits = Some(UpstreamChange::Changed { limits: true, reach: false });
    let reach = Some(UpstreamChange::Changed { limits: false, reach: true });
    let rows = [
        ("", None),
        ("max_concurrent = 16", None),
        ("max_concurrent = 17", limits),
        ("budget = { logins = 101 }", limits),
        ("budget = { per = \"6m\" }", limits),
        ("renew_at = 0.6", limits),
        ("url = \"https://cdn.emnify.net\"", None),
        ("url = \"https://cdn.emnify.net/x\"", reach),
        ("connect_timeout = \"1s\"", reach),
        ("shortest_lifetime = \"31s\"", reach),
        ("longest_lifetime = \"31s\"", reach),
        ("allow_private = [\"a.example\"]", reach),
        ("proxy = \"http://proxy:1\"", reach),
        ("token_lifetime = \"1h\"", reach),
        ("timeout = \"9s\"", Some(UpstreamChange::Changed { limits: true, reach: true })),
    ];
    for (lines, expected) in rows {
        assert_eq!(of_upstream(lines), expected, "{lines}");
    }
}

#[test]
fn a_workspace_is_rebound_or_keeps_its_token() {
    let changed = |credential, keep_warm| Some(WorkspaceChange::Changed { credential, recipe: false, keep_warm });
    let rows = [
        ("upstream = \"one\"\norganisation = 1", SECRET, None),
        ("upstream = \"one\"\norganisation = 1", "another", changed(true, None)),
        (
            "upstream = \"one\"\norganisation = 1\nkeep_warm = \"always\"",
            SECRET,
            changed(false, Some(KeepWarm::Always)),
        ),
        (
            "upstream = \"one\"\norganisation = 1\nkeep_warm = \"always\"",
            "another",
            changed(true, Some(KeepWarm::Always)),
        ),
        ("upstream = \"one\"\norganisation = 2", SECRET, Some(WorkspaceChange::Rebound)),
        ("upstream = \"one\"", SECRET, Some(WorkspaceChange::Rebound)),
        ("upstream = \"two\"\norganisation = 1", "another", Some(WorkspaceChange::Rebound)),
        ("upstream = \"one\"\nflow = \"application-token\"\nparameters = { organisation = \"1\" }", SECRET, None),
    ];
    for (lines, secret, expected) in rows {
        assert_eq!(of_workspace(lines, secret), expected, "{lines}");
    }
}

/// A configuration of an upstream whose two flows are described, and of a Workspace that takes the first.
fn described(flow: &str, upstream: &str, workspace: &str) -> Config {
    let text = format!(
        "[[upstreams]]\nname = \"own\"\nkind = \"http\"\nurl = \"https://api.example\"\n{upstream}\n\
         [upstreams.flows.one]\nsecrets = [\"key\"]\nparameters = [\"tenant?\", \"region?\"]\n\
         login.path = \"/token\"\nlogin.json = {{ key = \"{{key}}\", tenant = \"{{tenant?}}\", region = \"{{region?}}\" }}\n\
         login.extra_parameters = true\nlogin.answer = {{ token = \"token\", expiry = [{flow}] }}\n\
         [upstreams.flows.two]\nsecrets = [\"key\"]\n\
         login = {{ path = \"/v2\", json = {{ key = \"{{key}}\" }}, answer = {{ token = \"token\", expiry = [{{ jwt = \"required\" }}] }} }}\n\
         [[workspaces]]\nname = \"a\"\nupstream = \"own\"\ncredential = {{ key = {{ env = \"A\" }} }}\n{workspace}\n"
    );
    let environment: Environment = [("A", SECRET)].into_iter().collect();
    Config::parse(&text, Path::new("."), &environment).unwrap()
}

#[test]
fn a_description_a_flow_and_parameters_count_where_they_are_used() {
    const HOUR: &str = "{ fixed = \"1h\" }";
    const WORKSPACE: &str = "flow = \"one\"\nparameters = { tenant = \"t\" }\nextra_parameters = { mode = \"m\" }";
    let before = described(HOUR, "", WORKSPACE);
    let recipe = Some(WorkspaceChange::Changed { credential: false, recipe: true, keep_warm: None });
    let rebound = Some(WorkspaceChange::Rebound);
    let rows = [
        (HOUR, "", WORKSPACE, None),
        ("{ fixed = \"60m\" }", "", WORKSPACE, None),
        ("{ fixed = \"2h\" }", "", WORKSPACE, recipe),
        (HOUR, "", "flow = \"two\"", rebound),
        (HOUR, "", "flow = \"one\"\nparameters = { tenant = \"u\" }\nextra_parameters = { mode = \"m\" }", rebound),
        (HOUR, "", "flow = \"one\"\nparameters = { region = \"t\" }\nextra_parameters = { mode = \"m\" }", rebound),
        (HOUR, "", "flow = \"one\"\nparameters = { tenant = \"t\" }\nextra_parameters = { mode = \"n\" }", rebound),
        (
            HOUR,
            "",
            "flow = \"one\"\nparameters = { tenant = \"t\", region = \"r\" }\nextra_parameters = { mode = \"m\" }",
            rebound,
        ),
        (HOUR, "defaults = { region = \"r\" }", WORKSPACE, rebound),
        (HOUR, "defaults = { tenant = \"u\" }", WORKSPACE, None),
        (HOUR, "defaults = { tenant = \"t\" }", "flow = \"one\"\nextra_parameters = { mode = \"m\" }", None),
    ];
    for (flow, upstream, workspace, expected) in rows {
        let changes = changes(&before, &described(flow, upstream, workspace));
        assert!(changes.upstreams.is_empty(), "{changes:?}");
        assert_eq!(changes.workspaces.get("a").copied(), expected, "{flow} {upstream} {workspace}");
    }
}

/// Two kinds whose flows have one name, and take the same.
#[test]
fn another_kind_of_upstream_drops_the_token_though_its_flow_has_the_same_name() {
    let of_kind = |kind: &str| {
        let text = format!(
            "[[upstreams]]\nname = \"own\"\nkind = \"{kind}\"\nurl = \"https://api.example\"\n\
             [[workspaces]]\nname = \"a\"\nupstream = \"own\"\n\
             credential = {{ username = {{ env = \"A\" }}, password = {{ env = \"A\" }} }}\n"
        );
        Config::parse(&text, Path::new("."), &[("A", SECRET)].into_iter().collect()).unwrap()
    };
    let becomes = |after: &str| changes(&of_kind("1nce"), &of_kind(after)).workspaces.get("a").copied();
    assert_eq!(of_kind("1nce").workspaces[0].flow.name, of_kind("wyvern").workspaces[0].flow.name);
    assert_eq!(becomes("wyvern"), Some(WorkspaceChange::Rebound));
    assert_eq!(becomes("1nce"), None);
}

#[test]
fn a_token_that_travels_or_is_told_apart_in_another_way_is_dropped() {
    let of = |flow: &str, answer: &str| {
        let text = format!(
            "[[upstreams]]\nname = \"own\"\nkind = \"http\"\nurl = \"https://api.example\"\n\
             [upstreams.flows.one]\nsecrets = [\"key\"]\nparameters = [\"tenant\"]\n{flow}\n\
             login.path = \"/token\"\nlogin.json = {{ key = \"{{key}}\", tenant = \"{{tenant}}\" }}\n\
             login.answer = {{ token = \"token\", expiry = [{{ fixed = \"1h\" }}]{answer} }}\n\
             [[workspaces]]\nname = \"a\"\nupstream = \"own\"\nparameters = {{ tenant = \"t\" }}\n\
             credential = {{ key = {{ env = \"A\" }} }}\n"
        );
        Config::parse(&text, Path::new("."), &[("A", SECRET)].into_iter().collect()).unwrap()
    };
    let rebound = Some(WorkspaceChange::Rebound);
    let recipe = Some(WorkspaceChange::Changed { credential: false, recipe: true, keep_warm: None });
    let rows = [
        ("", "", None),
        ("presentation = { header = \"authorization\" }", "", None),
        ("presentation = { header = \"x-token\" }", "", rebound),
        ("presentation = { scheme = \"Token\" }", "", rebound),
        ("tenant = { claim = \"tenant\", parameter = \"tenant\" }", "", rebound),
        ("", ", extra_headers = { x-key = \"key\" }", rebound),
        ("", ", attributes = { host = \"host\" }", rebound),
        ("", ", token_type = \"token_type\"", recipe),
        ("", ", success = [200, 201]", recipe),
    ];
    for (flow, answer, expected) in rows {
        let changes = changes(&of("", ""), &of(flow, answer));
        assert_eq!(changes.workspaces.get("a").copied(), expected, "{flow} {answer}");
    }
}

#[test]
fn a_description_that_nobody_here_follows_changes_nothing() {
    let before = described("{ fixed = \"1h\" }", "", "flow = \"two\"");
    let after = described("{ fixed = \"2h\" }", "", "flow = \"two\"");
    assert!(changes(&before, &after).workspaces.is_empty());
}

#[test]
fn what_comes_and_goes_is_told() {
    let empty = Config::parse("", Path::new("."), &Environment::default()).unwrap();
    let full = config("", "", "upstream = \"one\"", SECRET);
    let added = changes(&empty, &full);
    assert_eq!(added.upstreams.get("one"), Some(&UpstreamChange::Added));
    assert_eq!(added.workspaces.get("a"), Some(&WorkspaceChange::Added));
    assert_eq!(added.removed(), 0);
    let removed = changes(&full, &empty);
    assert_eq!(removed.upstreams.get("two"), Some(&UpstreamChange::Removed));
    assert_eq!(removed.workspaces.get("a"), Some(&WorkspaceChange::Removed));
    assert_eq!(removed.removed(), 1);
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_runs() {
    let key = MarkKey::random();
    let standing = |sections| Standing::of(&config(sections, "", "upstream = \"one\"", SECRET), &key);
    let running = standing("");
    let next = standing(
        "[server]\ngrpc_listen = \"127.0.0.1:1\"\nprobe_listen = \"127.0.0.1:2\"\ndrain_timeout = \"1s\"\nmax_connections = 9\nmax_connections_per_peer = 8\nreload_interval = \"5s\"\n\
         [log]\nformat = \"human\"\nlevel = \"debug\"\n[engine]\nmin_gap = \"11s\"\nmax_watches = 1\n[health]\nmax_unhealthy = 0.5\n[audit]\nsinks = [\"file\"]\nfile = \"a\"\nfsync = true",
    );
    let changes = running.changes_to(&next);
    let keys = [
        "server.grpc_listen",
        "server.probe_listen",
        "server.max_connections",
        "server.max_connections_per_peer",
        "server.drain_timeout",
        "log.format",
        "health.max_unhealthy",
        "audit.sinks",
        "engine.max_watches",
    ];
    assert_eq!((changes.restart.as_slice(), changes.level, changes.engine), (keys.as_slice(), true, true));
    assert!(changes.audit.is_some_and(|terms| terms.fsync), "{changes:?}");
    let in_force = next.bound_as(&running);
    assert_eq!(in_force.server().reload_interval, Duration::from_secs(5));
    assert_eq!(in_force.changes_to(&running).restart, [] as [&str; 0]);
}

#[test]
fn limits_of_callers_count_at_once() {
    let before = config("", "", "upstream = \"one\"", SECRET);
    for key in super::super::limits::KEYS {
        let after = config(&format!("[limits]\n{key} = 1"), "", "upstream = \"one\"", SECRET);
        let changes = changes(&before, &after);
        assert!(changes.limits && changes.restart.is_empty() && !changes.engine, "{key}: {changes:?}");
    }
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let standing = Standing::of(&config("", "", "upstream = \"one\"", SECRET), &MarkKey::random());
    assert!(!format!("{standing:?}").contains(SECRET));
}
