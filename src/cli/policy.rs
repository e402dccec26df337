//! `policy test`: what the policy of a configuration says to one request, and why.

use super::check_config::{load, source};
use super::{Failure, print};
use crate::config::{Config, Grant, nearest};
use crate::identity::Caller;
use crate::policy::{Action, Decision, Miss, Policy};
use crate::token::WorkspaceName;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say whether a caller may do something with a Workspace, and by which grant; the exit code is 0 if so, else 1.
    ///
    /// Nothing is asked of a broker: the configuration file decides, as it would once it is in force.
    Test(Options),
}

/// By its text, since an address in a comment would be taken for a link.
const WHO: &str = "Who asks: loopback, unix:UID, spiffe://DOMAIN/PATH, dns:NAME or jwt:ISSUER:SUBJECT";

/// A request.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_CONFIG")]
    config: PathBuf,
    #[arg(long, value_name = "NAME", value_parser = Caller::parse, help = WHO)]
    caller: Caller,
    /// For which Workspace.
    #[arg(long, value_name = "NAME", value_parser = WorkspaceName::parse)]
    workspace: WorkspaceName,
    /// For what: get, watch, report or health.
    #[arg(long, value_name = "ACTION", value_parser = action)]
    action: Action,
}

/// How many grants that almost fit are told.
const MOST_MISSES: usize = 10;

pub(super) fn policy(command: &Command) -> Result<(), Failure> {
    let Command::Test(options) = command;
    let (config, _) = load(&source(&options.config))?;
    let policy = config.policy();
    let Options { config: _, caller, workspace, action } = options;
    let decision = policy.decide(caller, *action, workspace);
    match decision {
        Decision::Allow { grant } => print(format_args!("allowed by {}", shown(&config.grants, grant)))?,
        Decision::Deny => explain(&config, &policy, options)?,
    }
    print(existence(&config, workspace))?;
    match decision {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny => Err(Failure::No),
    }
}

fn explain(config: &Config, policy: &Policy, options: &Options) -> Result<(), Failure> {
    let Options { config: _, caller, workspace, action } = options;
    let misses = policy.misses(caller, *action, workspace);
    print(match (config.grants.is_empty(), misses.is_empty()) {
        (true, _) => "denied: there are no grants",
        (false, true) => "denied: no grant is for this caller, nor for this action with this Workspace",
        (false, false) => "denied: no grant allows it; the nearest are",
    })?;
    for miss in misses.iter().take(MOST_MISSES) {
        print(format_args!("  {}: {}", shown(&config.grants, miss.grant), why(*miss, *action)))?;
    }
    match misses.len().checked_sub(MOST_MISSES) {
        None | Some(0) => Ok(()),
        Some(more) => print(format_args!("  and {more} more")),
    }
}

/// What does not fit.
fn why(miss: Miss, action: Action) -> String {
    let parts = [(miss.caller, "this caller"), (miss.workspace, "this Workspace"), (miss.action, action.as_str())];
    let missing: Vec<_> = parts.iter().filter(|(fits, _)| !fits).map(|(_, what)| *what).collect();
    format!("not for {}", missing.join(", nor for "))
}

fn shown(grants: &[Grant], position: usize) -> String {
    let Some(Grant { grant, place, .. }) = grants.get(position) else {
        return format!("grants[{position}]");
    };
    let workspaces: Vec<_> = grant.workspaces.iter().map(|pattern| format!("\"{}\"", pattern.as_str())).collect();
    let actions = Action::ALL.into_iter().filter(|action| grant.actions.contain(*action));
    let actions: Vec<_> = actions.map(|action| format!("\"{}\"", action.as_str())).collect();
    format!(
        "grants[{position}]{place}: caller = \"{}\", workspaces = [{}], actions = [{}]",
        grant.caller.as_str(),
        workspaces.join(", "),
        actions.join(", ")
    )
}

fn existence(config: &Config, workspace: &WorkspaceName) -> String {
    let mut names = config.workspaces.iter().map(|one| one.name.as_str());
    if names.clone().any(|name| name == workspace.as_str()) {
        return "the configuration has a Workspace of this name".to_owned();
    }
    let hint = nearest(workspace.as_str(), names.by_ref()).map(|near| format!("; did you mean {near}?"));
    format!("the configuration has no Workspace of this name{}", hint.unwrap_or_default())
}

fn action(text: &str) -> Result<Action, String> {
    let found = Action::ALL.into_iter().find(|action| action.as_str() == text);
    found.ok_or_else(|| "expected get, watch, report or health".to_owned())
}
