//! `try-upstream`, which tells of every step, at upstreams that answer and at those that send back what they are sent.

use super::super::{Done, finish, token_broker};
use super::echo::MODES;
use super::scanner::{Scanner, Secret, Seen};
use super::stage::{ENVIRONMENT, PUBLIC, ROWS, Stage, echoed};
use futures_util::stream::{self, StreamExt as _};
use std::fs;

/// Those whose requests hold what the others' hold too.
const AT_ECHO: [&str; 4] = ["user", "basic", "signed", "kept"];
/// How many processes there are at a time.
const AT_A_TIME: usize = 6;

/// What it says, and whether it brought a token.
async fn tried(stage: &Stage, workspace: String, refresh: bool) -> (String, Done) {
    let config = stage.files.config();
    let arguments = ["try-upstream", &config, &workspace, "--refresh"];
    let mut command = token_broker(if refresh { &arguments } else { arguments.split_last().unwrap().1 });
    command.env(ENVIRONMENT, stage.secret("environment")).env("RUST_LOG", "trace");
    let done = finish(command).await;
    (workspace, done)
}

/// All of these, and how many brought a token.
async fn all_tried(stage: &Stage, seen: &mut Seen, trials: Vec<(String, bool)>) -> usize {
    let trials = stream::iter(trials).map(|(workspace, refresh)| tried(stage, workspace, refresh));
    let done: Vec<_> = trials.buffer_unordered(AT_A_TIME).collect().await;
    let good = done.iter().filter(|(_, done)| done.code == Some(0)).count();
    for (workspace, done) in done {
        seen.add(format!("stdout of {workspace}"), done.stdout);
        seen.add(format!("stderr of {workspace}"), done.stderr);
    }
    good
}

#[tokio::test]
async fn nothing_that_a_trial_tells_holds_a_secret() {
    let stage = Stage::new().await;
    let given = fs::read_dir(stage.files.0.path()).unwrap().count();
    let mut seen = Seen::default();
    let names = ROWS.iter().map(|row| row.name.to_owned());
    let own: Vec<_> = names.flat_map(|name| [(name.clone(), false), (name, true)]).collect();
    let (all, good) = (own.len(), all_tried(&stage, &mut seen, own).await);
    assert!(good >= 10 && all - good >= 3, "{good} of {all} brought a token");
    let at_echo = ROWS.iter().filter(|row| AT_ECHO.contains(&row.name));
    let at_echo = at_echo.flat_map(|row| (0..MODES).map(move |mode| (echoed(row, mode), true))).collect();
    all_tried(&stage, &mut seen, at_echo).await;
    assert!(stage.echo.asked().iter().all(|times| *times >= AT_ECHO.len()), "{:?}", stage.echo.asked());
    assert_eq!(fs::read_dir(stage.files.0.path()).unwrap().count(), given, "it writes no file");
    let secrets: Vec<Secret> = stage.secrets.iter().cloned().chain(stage.tap.secrets()).collect();
    let hits = seen.hits(&Scanner::new(&secrets));
    assert!(hits.is_empty(), "{} hits: {:#?}", hits.len(), &hits[..hits.len().min(60)]);
    assert!(seen.shows("stdout", "1. login: POST") && seen.shows("stderr", "token-broker: "));
    assert!(seen.shows("stdout", PUBLIC), "what is no secret is found");
}
