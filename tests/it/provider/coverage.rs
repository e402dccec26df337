//! That the cases are enough: of every preset, of every flow, of every row of the table in `docs/providers.md`.

use super::case::{Case, Expected, root};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The kind whose flows are described where it is used.
const DESCRIBED: &str = "http";

/// A preset by its name, and its flows with whether they can be used without a store.
fn presets() -> Vec<(String, Vec<(String, bool)>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/presets");
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let presets = files.map(|path| {
        let preset: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let flows = preset.get("flows").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let needs_store = |flow: &toml::Value| flow.get("needs_store").and_then(toml::Value::as_bool) == Some(true);
        let flows = flows.iter().map(|(name, flow)| (name.clone(), !needs_store(flow))).collect();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), flows)
    });
    presets.filter(|(name, _)| name != DESCRIBED).collect()
}

fn any(cases: &[Case], holds: impl Fn(&Expected) -> bool) -> bool {
    cases.iter().filter_map(Case::expected).flatten().any(|expected| holds(&expected))
}

#[test]
fn every_preset_is_granted_and_refused_in_some_case() {
    let presets = presets();
    assert!(presets.len() >= 14, "{presets:?}");
    for (name, _) in presets {
        let cases = Case::of(&name);
        assert!(any(&cases, |expected| expected.lifetime_seconds.is_some()), "{name}: nothing is granted");
        assert!(any(&cases, |expected| expected.failure.as_deref() == Some("rejected")), "{name}: nothing is refused");
    }
}

#[test]
fn every_flow_of_every_preset_brings_a_token_in_some_case() {
    for (name, flows) in presets() {
        let cases = Case::of(&name);
        for (flow, is_usable) in &flows {
            let of_flow = |case: &&Case| match case.flow() {
                Some(named) => named == flow,
                None => flows.len() == 1,
            };
            let expected = cases.iter().filter(of_flow).filter_map(Case::expected).flatten();
            let covered = |expected: Expected| match is_usable {
                true => expected.lifetime_seconds.is_some(),
                false => !expected.configuration.is_empty(),
            };
            assert!(expected.into_iter().any(covered), "{name}: no case of the flow {flow}");
        }
    }
}

/// Each row ends with the directories that back it, in backticks, or says that there is none.
#[test]
fn every_row_of_the_table_of_apis_is_backed_by_cases() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Which APIs work\n").expect("the section is missing");
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 25, "rows are missing: {}", rows.len());
    let mut backed = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_api, works, how, cases] = cells.as_slice() else { panic!("not four columns: {row}") };
        assert!(!how.is_empty(), "{row}");
        let named: Vec<_> = cases.split('`').skip(1).step_by(2).collect();
        match *works {
            "by preset" | "by configuration" => assert!(!named.is_empty(), "no case backs {row}"),
            "not" => assert!(named.is_empty(), "a case backs what does not work: {row}"),
            _ => panic!("works by what? {row}"),
        }
        for name in named {
            assert!(root().join(name).is_dir(), "no such case: {name}");
            let kind = name.split('/').next().unwrap();
            let is_preset = presets().iter().any(|(preset, _)| preset == kind);
            assert_eq!(is_preset, *works == "by preset", "{row}");
            backed.insert(kind.to_owned());
        }
    }
    let presets = presets();
    let missing: Vec<_> = presets.iter().map(|(name, _)| name).filter(|name| !backed.contains(*name)).collect();
    assert!(missing.is_empty(), "no row of {missing:?}");
}
