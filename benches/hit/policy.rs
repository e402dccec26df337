//! What it takes to decide, with few grants and with many, as they are mostly written and as it takes longest.

use criterion::Criterion;
use std::error::Error;
use std::hint::black_box;
use token_broker::identity::Caller;
use token_broker::policy::{Action, CallerPattern, Decision, Grant, Policy, WorkspacePattern};
use token_broker::token::WorkspaceName;

/// How grants are written, and a request that the last of them allows.
struct Shape {
    name: &'static str,
    caller: fn(usize) -> String,
    workspace: fn(usize) -> String,
    asks: fn(usize) -> (String, String),
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "callers by name",
        caller: |n| format!("spiffe://prod.example/ns/team-{n}/sa/api"),
        workspace: |n| format!("team-{n}/*"),
        asks: |n| (format!("spiffe://prod.example/ns/team-{n}/sa/api"), format!("team-{n}/prod")),
    },
    Shape {
        name: "callers by namespace",
        caller: |n| format!("spiffe://prod.example/ns/team-{n}/sa/*"),
        workspace: |n| format!("team-{n}/**"),
        asks: |n| (format!("spiffe://prod.example/ns/team-{n}/sa/api"), format!("team-{n}/prod/eu")),
    },
    Shape {
        name: "one caller",
        caller: |_| "loopback".to_owned(),
        workspace: |n| format!("team-{n}/prod"),
        asks: |n| ("loopback".to_owned(), format!("team-{n}/prod")),
    },
    // Nothing to tell them apart by from the left.
    Shape {
        name: "callers by their ends",
        caller: |n| format!("spiffe://prod.example/**/sa/team-{n}"),
        workspace: |n| format!("**/team-{n}"),
        asks: |n| (format!("spiffe://prod.example/ns/default/sa/team-{n}"), format!("prod/team-{n}")),
    },
];

pub(crate) fn measure(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    for Shape { name, caller, workspace, asks } in SHAPES {
        for count in [1, 100, 1_000] {
            let grants: Result<Vec<_>, _> = (0..count).map(|n| grant(&caller(n), &workspace(n))).collect();
            let policy = Policy::new(grants?);
            let (caller, workspace) = asks(count - 1);
            let (caller, workspace) = (Caller::parse(&caller)?, WorkspaceName::parse(&workspace)?);
            let expected = Decision::Allow { grant: count - 1 };
            if policy.decide(&caller, Action::Get, &workspace) != expected {
                return Err("the last grant was not found".into());
            }
            criterion.bench_function(&format!("policy, {name}/{count}"), |bencher| {
                bencher.iter(|| policy.decide(black_box(&caller), Action::Get, black_box(&workspace)));
            });
        }
    }
    Ok(())
}

fn grant(caller: &str, workspace: &str) -> Result<Grant, Box<dyn Error>> {
    Ok(Grant {
        caller: CallerPattern::parse(caller)?,
        workspaces: vec![WorkspacePattern::parse(workspace)?],
        actions: Action::ALL.into_iter().collect(),
    })
}
