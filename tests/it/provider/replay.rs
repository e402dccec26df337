//! Every case, replayed: what is sent, what is made of the answers, and that no secret comes out.

use super::case::{Case, Expected};
use super::keys;
use super::observed::observe;
use super::sent::shown;
use super::server::Server;
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use token_broker::clock::Clock;

/// Texts shorter than this say nothing, and stand anywhere.
const TELLING: usize = 8;

/// What became of a case.
struct Seen {
    outcomes: Vec<Expected>,
    sent: Vec<String>,
}

#[tokio::test]
async fn every_case_is_sent_read_and_kept_quiet_as_written() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut wrong = Vec::new();
    let cases = Case::all();
    assert!(cases.len() >= 400, "cases are missing: {}", cases.len());
    for case in cases {
        let seen = replay(&case).await;
        if update {
            case.write_expected(&seen.outcomes);
            case.write_sent(&seen.sent);
        } else {
            wrong.extend(differences(&case, &seen));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

async fn replay(case: &Case) -> Seen {
    let server = Server::start(case.answers.clone()).await;
    let provider = match case.provider(&server.url) {
        Ok(provider) => provider,
        Err(problems) => {
            let configuration = problems.iter().map(ToString::to_string).collect();
            return Seen { outcomes: vec![Expected { configuration, ..Expected::default() }], sent: Vec::new() };
        }
    };
    let known = known(case);
    let (mut outcomes, mut all, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..case.exchanges() {
        let (at, before) = (Clock::system().now().wall, server.sent().len());
        let observed = observe(&*provider).await;
        let requests = server.sent().split_off(before);
        outcomes.push(observed.summary(requests.len()));
        all.extend(requests.iter().map(|request| shown(request, &server.url, at, &known)));
        seen.push((observed, requests));
    }
    for (observed, requests) in &seen {
        let secrets = secrets(case, requests, &outcomes);
        assert!(!secrets.is_empty());
        let leaked = observed.leaked(secrets.iter().map(String::as_str));
        assert!(leaked.is_none(), "{}: {}", case.name(), leaked.unwrap());
    }
    Seen { outcomes, sent: all }
}

fn differences(case: &Case, seen: &Seen) -> Vec<String> {
    let name = case.name();
    let mut wrong = Vec::new();
    match case.expected() {
        Some(expected) if expected == seen.outcomes => {}
        Some(expected) => wrong.push(format!("{name}: expected {expected:#?}\nbut it came to {:#?}", seen.outcomes)),
        None => wrong.push(format!("{name}: expected.json is missing; it came to {:#?}", seen.outcomes)),
    }
    let expected = case.sent();
    if expected.len() != seen.sent.len() {
        wrong.push(format!("{name}: {} requests were expected and {} sent", expected.len(), seen.sent.len()));
    }
    for (position, (expected, sent)) in expected.iter().zip(&seen.sent).enumerate() {
        let number = position + 1;
        match expected {
            Some(expected) if expected == sent => {}
            Some(expected) => wrong.push(format!("{name}: request {number} should be\n{expected}\nand was\n{sent}")),
            None => wrong.push(format!("{name}: the file for request {number} is missing; it was\n{sent}")),
        }
    }
    wrong
}

/// All that stands in the case: a JWT that is sent and is not in here was signed by the broker.
fn known(case: &Case) -> String {
    let answers = case.answers.iter().map(|answer| String::from_utf8_lossy(answer).into_owned());
    case.secrets().chain(answers).collect::<Vec<_>>().join("\n")
}

/// What may not be seen: the credential, all texts of the answers and the parts of their JWTs, and what was made of the
/// secrets to be sent. Not what stands in the configuration in the clear or is handed out as an attribute, nor a
/// word that our own words happen to have in common with an answer.
fn secrets(case: &Case, requests: &[Vec<u8>], outcomes: &[Expected]) -> BTreeSet<String> {
    let mut secrets: BTreeSet<String> = case.secrets().flat_map(|secret| [secret.trim().to_owned()]).collect();
    secrets.extend(case.secrets().flat_map(|secret| lines_of_keys(&secret)));
    let mut texts = Vec::new();
    for answer in &case.answers {
        let body = body_of(answer);
        texts.extend(String::from_utf8(body.to_vec()).ok());
        if let Ok(json) = serde_json::from_slice(body) {
            collect_texts(&json, &mut texts);
        }
    }
    for request in requests {
        texts.extend(authorization(request));
        texts.extend(assertions(body_of(request)));
    }
    let parts: Vec<_> =
        texts.iter().filter(|text| keys::decoded(text).is_some()).flat_map(|jwt| jwt.split('.')).collect();
    let parts: Vec<_> = parts.into_iter().skip(1).map(str::to_owned).collect();
    texts.extend(parts);
    let plain = case.plain();
    let attributes: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.attributes.values()).collect();
    let said = |text: &str| outcomes.iter().filter_map(|outcome| outcome.says.as_ref()).any(|says| says.contains(text));
    let is_open = |text: &String| {
        text.len() < TELLING
            || plain.contains(text.as_str())
            || attributes.contains(&text)
            || (is_word(text) && said(text))
    };
    secrets.extend(texts.into_iter().filter(|text| !is_open(text)));
    secrets
}

/// Such as `invalid_client`: no secret looks like it.
fn is_word(text: &str) -> bool {
    text.len() < 32 && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// The lines of a key in PEM, which would give it away one by one.
fn lines_of_keys(secret: &str) -> Vec<String> {
    let lines = secret.lines().filter(|line| line.len() >= 32 && !line.starts_with("-----"));
    lines.map(str::to_owned).collect()
}

fn body_of(message: &[u8]) -> &[u8] {
    super::server::head_length(message).map_or(&[], |head| &message[head..])
}

fn collect_texts(json: &Value, into: &mut Vec<String>) {
    match json {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, into)),
        Value::Object(members) => members.values().for_each(|member| collect_texts(member, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What stands behind the scheme.
fn authorization(request: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(request);
    let value = head.lines().find_map(|line| line.strip_prefix("authorization: "))?;
    value.split_once(' ').map(|(_, credentials)| credentials.to_owned())
}

fn assertions(body: &[u8]) -> Vec<String> {
    let body = String::from_utf8_lossy(body);
    let words = body.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
    words.filter(|word| keys::decoded(word).is_some()).map(str::to_owned).collect()
}

/// A case that nothing is expected of would pass whatever came of it.
#[test]
fn every_case_has_its_files() {
    for case in Case::all() {
        let name = case.name();
        assert!(case.expected().is_some(), "{name}: expected.json is missing");
        assert!(case.sent().iter().all(Option::is_some), "{name}: a file for a request is missing");
        let files: Vec<_> = fs::read_dir(&case.path).unwrap().map(|file| file.unwrap().file_name()).collect();
        for file in files {
            let file = file.into_string().unwrap();
            assert!(is_known(&file, case.answers.len()), "{name}: nothing reads {file}");
        }
    }
}

fn is_known(file: &str, answers: usize) -> bool {
    let numbers: Vec<_> =
        if answers > 1 { (1..=answers).map(|n| format!("-{n}")).collect() } else { vec![String::new()] };
    let of_number = |n: &String| {
        let names = [
            format!("head{n}.json"),
            format!("body{n}"),
            format!("body{n}.made.json"),
            format!("raw{n}"),
            format!("raw{n}.made.json"),
            format!("sent{n}.http"),
        ];
        names.iter().any(|name| name == file)
    };
    file == "case.toml" || file == "expected.json" || numbers.iter().any(of_number)
}

/// What is looked for in the logs of a case, for some that show each sort of it.
#[tokio::test]
async fn what_must_not_be_seen_is_looked_for() {
    let of = async |kind: &str, name: &str| {
        let case = Case::of(kind).into_iter().find(|case| case.path.ends_with(name)).unwrap();
        let server = Server::start(case.answers.clone()).await;
        drop(case.provider(&server.url).unwrap().exchange().await);
        secrets(&case, &server.sent(), &case.expected().unwrap())
    };
    let looked_for = of("oauth2", "refresh-token-refused").await;
    for text in ["fixture-refresh-token-0001", "fixture-client-secret", "what went wrong with the fixture"] {
        assert!(looked_for.contains(text), "{text}");
    }
    assert!(looked_for.contains(&STANDARD.encode("fixture-client:fixture-client-secret")), "what Basic carries");
    assert!(!looked_for.contains("invalid_grant"), "our own word");
    let looked_for = of("emnify", "switch-granted").await;
    let claims = |text: &&String| URL_SAFE_NO_PAD.decode(text).is_ok_and(|text| text.starts_with(b"{\"aud\""));
    assert_eq!(looked_for.iter().filter(claims).count(), 2, "the claims of both tokens");
    let looked_for = of("github-app", "granted-201").await;
    assert!(looked_for.iter().any(|text| keys::decoded(text).is_some_and(|(_, claims)| claims["iss"] == "815")));
    assert!(looked_for.iter().filter(|text| text.len() == 64).count() > 10, "the lines of the key");
}
