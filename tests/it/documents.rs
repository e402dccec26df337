//! Pages that say which test shows what: each of those tests is there.
//!
//! Looked at are tables whose last column is headed "test" or "shown by", and in it what stands in backticks: a path of
//! this repository; a module under `tests/it/`; a test, alone, behind such a module or behind a path and `::`. A name
//! that ends in `…` stands for all that begin so.

use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 2] = ["SECURITY.md", "docs/limits.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The last cell of a line of a table.
fn last_cell(line: &str) -> Option<&str> {
    line.trim().strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next().map(str::trim)
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What a page names in the tables that this is about.
fn named(page: &str) -> Vec<&str> {
    let (mut found, mut counts) = (Vec::new(), None);
    for line in page.lines() {
        match (last_cell(line), counts) {
            (None, _) => counts = None,
            (Some(head), None) => counts = Some(head == "test" || head == "shown by"),
            (Some(cell), Some(true)) => found.extend(quoted(cell)),
            (Some(_), Some(false)) => {}
        }
    }
    found
}

/// All of our own source, tests among it.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = ["src", "tests/it", "crates"].map(|folder| root().join(folder)).to_vec();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

fn file_of(module: &str) -> PathBuf {
    let under_tests = || root().join(format!("tests/it/{}.rs", module.replace("::", "/")));
    if module.contains('/') { root().join(module) } else { under_tests() }
}

/// Whether this text has a test that is called so, or begins so.
fn has_test(text: &str, name: &str) -> bool {
    let wanted = name.strip_suffix('…').map_or_else(|| format!("fn {name}("), |start| format!("fn {start}"));
    text.contains("#[") && text.contains(&wanted)
}

fn is_there(name: &str, sources: &[(PathBuf, String)]) -> bool {
    if name.contains('/') && !name.contains("::") {
        return root().join(name).exists();
    }
    if file_of(name).exists() {
        return true;
    }
    let in_file = |file: &Path, test: &str| sources.iter().any(|(path, text)| path == file && has_test(text, test));
    match name.rsplit_once("::") {
        Some((module, test)) => in_file(&file_of(module), test),
        None => sources.iter().any(|(_, text)| has_test(text, name)),
    }
}

#[test]
fn what_a_page_names_is_there() {
    let sources = sources();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named = named(&text);
        assert!(named.len() > 30, "{page}: {named:?}");
        let missing: Vec<_> = named.into_iter().filter(|name| !is_there(name, &sources)).collect();
        assert!(missing.is_empty(), "{page} names what is not there: {missing:#?}");
    }
}

#[test]
fn what_is_not_there_is_found() {
    let sources = sources();
    let page = "| promise | shown by |\n|---|---|\n| a | `src/none.rs`, `none::at_all`, `documents::none_of_this` |\n\
                | b | `documents::what_a_page_names_is_there`, `documents::what_a…`, `documents`, `src/lib.rs` |\n\n\
                | other | column |\n|---|---|\n| c | `nothing_of_this_is_read` |\n";
    let missing: Vec<_> = named(page).into_iter().filter(|name| !is_there(name, &sources)).collect();
    assert_eq!(missing, ["src/none.rs", "none::at_all", "documents::none_of_this"]);
}
