//! `try-upstream`, which tells of every step, at upstreams that answer and at those that send back what they are sent.

use super::super::{finish, token_broker};
use super::echo::MODES;
use super::scanner::{Scanner, Secret, Seen};
use super::stage::{ENVIRONMENT, PUBLIC, ROWS, Stage, echoed};
use std::fs;

/// Those whose requests hold what the others' hold too.
const AT_ECHO: [&str; 7] = [PUBLIC, "user", "basic", "body", "signed", "kept", "tenant"];

async fn tried(stage: &Stage, seen: &mut Seen, arguments: &[&str]) -> Option<i32> {
    let config = stage.files.config();
    let mut command = token_broker(&[&["try-upstream", &config], arguments].concat());
    command.env(ENVIRONMENT, stage.secret("environment")).env("RUST_LOG", "trace");
    let done = finish(command).await;
    seen.add(format!("stdout of {arguments:?}"), done.stdout);
    seen.add(format!("stderr of {arguments:?}"), done.stderr);
    done.code
}

#[tokio::test]
async fn nothing_that_a_trial_tells_holds_a_secret() {
    let stage = Stage::new().await;
    let given = fs::read_dir(stage.files.0.path()).unwrap().count();
    let (mut seen, mut good, mut bad) = (Seen::default(), 0, 0);
    for row in &ROWS {
        for arguments in [&[row.name][..], &[row.name, "--refresh"]] {
            match tried(&stage, &mut seen, arguments).await {
                Some(0) => good += 1,
                _ => bad += 1,
            }
        }
    }
    assert!(good >= 10 && bad >= 3, "{good} brought a token, {bad} did not");
    for row in ROWS.iter().filter(|row| AT_ECHO.contains(&row.name)) {
        for mode in 0..MODES {
            tried(&stage, &mut seen, &[&echoed(row, mode), "--refresh"]).await;
        }
    }
    assert!(stage.echo.asked().iter().all(|times| *times >= AT_ECHO.len()), "{:?}", stage.echo.asked());
    assert_eq!(fs::read_dir(stage.files.0.path()).unwrap().count(), given, "it writes no file");
    let secrets: Vec<Secret> = stage.secrets.iter().cloned().chain(stage.tap.secrets()).collect();
    let hits = seen.hits(&Scanner::new(&secrets));
    assert!(hits.is_empty(), "{} hits: {:#?}", hits.len(), &hits[..hits.len().min(60)]);
    assert!(seen.shows("stdout", "1. login: POST") && seen.shows("stderr", "token-broker: "));
    assert!(seen.shows("stdout", PUBLIC), "what is no secret is found");
    let spellings: usize = secrets.iter().map(Secret::spellings).sum();
    println!("{} secrets, {spellings} spellings, {} outputs of {} bytes", secrets.len(), seen.len(), seen.bytes());
}
