//! The rules, over the tables of the module above. Each offence is one line: where, what, why.

use super::source::{File, Spelt};
use super::{EMPTY_NAMES, LAYERS, MAX_LINES, MAX_WIDTH, MAY_EXPOSE, MAY_SPAWN, STRANGERS, WALLS};
use std::iter;

/// From the bottom up: arrows point down only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Decides; no I/O, nothing asynchronous, time is an argument.
    Pure,
    /// Acts on decisions.
    Driven,
    /// Where the outside comes in.
    Edge,
    /// Wires everything.
    App,
    /// What a person types.
    Cli,
}

/// Names of other crates that belong to some files only.
#[derive(Debug)]
pub(super) struct Wall {
    pub(super) names: &'static [&'static str],
    pub(super) files: &'static [&'static str],
    pub(super) reason: &'static str,
}

/// All that is wrong with these files.
pub(super) fn offences(files: &[File]) -> Vec<String> {
    files.iter().flat_map(offences_of).collect()
}

fn offences_of(file: &File) -> Vec<String> {
    let paths = file.paths();
    let imports: Vec<Spelt> = paths.iter().filter_map(|path| within_crate(file, path)).collect();
    let found: Vec<(usize, String)> = iter::empty()
        .chain(shape(file))
        .chain(names(file))
        .chain(walls(file, &paths))
        .chain(exposure(file))
        .chain(tasks(file, &paths))
        .chain(purity(file, &imports))
        .chain(layers(file, &imports))
        .chain(strangers(file, &imports))
        .collect();
    found.into_iter().map(|(line, what)| format!("src/{}:{line}: {what}", file.path)).collect()
}

fn shape(file: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if file.lines > MAX_LINES {
        found.push((file.lines, format!("{} lines without its tests; split it below {MAX_LINES}", file.lines)));
    }
    if file.module.last().is_some_and(|name| name == "mod") {
        found.push((1, "mod.rs: a module's file is named after it and stands beside its folder".to_owned()));
    }
    found.extend(file.wide.iter().map(|line| (*line, format!("wider than {MAX_WIDTH} columns; wrap it"))));
    let known = |module: &String| LAYERS.iter().any(|(name, _)| name == module);
    if file.module.first().is_some_and(|module| !known(module)) {
        found.push((1, "not in LAYERS in tests/it/architecture.rs; say where it stands".to_owned()));
    }
    found
}

fn names(file: &File) -> Vec<(usize, String)> {
    let of_files = file.module.iter().map(|name| (1, name.as_str()));
    let inline = (1..file.tokens.len()).filter(|&at| file.text(at - 1) == "mod" && file.text(at + 1) == "{");
    of_files
        .chain(inline.map(|at| (file.tokens[at].line, file.text(at))))
        .filter(|(_, name)| EMPTY_NAMES.contains(name))
        .map(|(line, name)| (line, format!("named {name}, which says nothing; name it after what is inside")))
        .collect()
}

fn walls(file: &File, paths: &[Spelt]) -> Vec<(usize, String)> {
    let walls = WALLS.iter().filter(|wall| !listed(wall.files, file));
    walls.flat_map(|wall| behind(wall, paths)).collect()
}

fn behind(wall: &Wall, paths: &[Spelt]) -> Vec<(usize, String)> {
    let fits = |crate_name: &str| {
        wall.names.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => crate_name.starts_with(beginning),
            None => crate_name == *name,
        })
    };
    let first = |path: &Spelt| path.segments.first().filter(|name| fits(name)).map(|name| (path.line, name.clone()));
    paths.iter().filter_map(first).map(|(line, name)| (line, format!("names {name}: {}", wall.reason))).collect()
}

fn exposure(file: &File) -> Vec<(usize, String)> {
    if listed(MAY_EXPOSE, file) {
        return Vec::new();
    }
    let exposes = |at: &usize| match file.text(*at) {
        "expose" => *at > 0 && matches!(file.text(at - 1), "." | "::"),
        word => matches!(word, "ExposeSecret" | "expose_secret"),
    };
    let what = "exposes a secret; only the files in MAY_EXPOSE in tests/it/architecture.rs may";
    (0..file.tokens.len()).filter(exposes).map(|at| (file.tokens[at].line, what.to_owned())).collect()
}

fn tasks(file: &File, paths: &[Spelt]) -> Vec<(usize, String)> {
    if listed(MAY_SPAWN, file) {
        return Vec::new();
    }
    let starts = |path: &&Spelt| match path.segments.as_slice() {
        [owner @ .., last] => {
            matches!(last.as_str(), "spawn" | "spawn_local")
                && owner.iter().any(|name| matches!(name.as_str(), "tokio" | "task" | "thread"))
        }
        [] => false,
    };
    let what = "starts a task that nobody owns: Supervisor::spawn";
    paths.iter().filter(starts).map(|path| (path.line, what.to_owned())).collect()
}

fn purity(file: &File, imports: &[Spelt]) -> Vec<(usize, String)> {
    if layer_of(&file.module) != Some(Layer::Pure) {
        return Vec::new();
    }
    let waits = file.tokens.iter().filter(|token| matches!(token.text.as_str(), "async" | "await"));
    let waits = waits.map(|token| (token.line, format!("says `{}` in the pure group", token.text)));
    let reads_time = imports.iter().filter(|path| {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        file.module != ["clock"] && segments.first() == Some(&"clock") && !segments.starts_with(&["clock", "Now"])
    });
    let what = "takes from clock in the pure group, which may have only Now: time is an argument";
    waits.chain(reads_time.map(|path| (path.line, what.to_owned()))).collect()
}

fn layers(file: &File, imports: &[Spelt]) -> Vec<(usize, String)> {
    let Some(own) = layer_of(&file.module) else {
        return Vec::new();
    };
    let above = imports.iter().filter(|path| layer_of(&path.segments).is_some_and(|layer| layer > own));
    above
        .map(|path| (path.line, format!("imports {} from above; arrows point down", path.segments.join("::"))))
        .collect()
}

fn strangers(file: &File, imports: &[Spelt]) -> Vec<(usize, String)> {
    let (one, other) = STRANGERS;
    let meets = |path: &&Spelt| {
        let ends = (file.module.first().map(String::as_str), path.segments.first().map(String::as_str));
        ends == (Some(one), Some(other)) || ends == (Some(other), Some(one))
    };
    let what = format!("{other} and {one} are siblings and must not import each other");
    imports.iter().filter(meets).map(|path| (path.line, what.clone())).collect()
}

/// Whether the file is one of these; a name ending in `/` is a folder.
fn listed(files: &[&str], file: &File) -> bool {
    files.iter().any(|name| if name.ends_with('/') { file.path.starts_with(name) } else { file.path == *name })
}

/// The layer of the longest module name in the table that the path begins with.
fn layer_of(path: &[String]) -> Option<Layer> {
    let fits = |name: &str| {
        let segments: Vec<&str> = name.split("::").collect();
        let begins = path.len() >= segments.len() && path.iter().zip(&segments).all(|(a, b)| a == b);
        begins.then_some(segments.len())
    };
    let fitting = LAYERS.iter().filter_map(|(name, layer)| Some((fits(name)?, *layer)));
    fitting.max_by_key(|(length, _)| *length).map(|(_, layer)| layer)
}

/// The path from the root of this crate, if it leads into it.
fn within_crate(file: &File, path: &Spelt) -> Option<Spelt> {
    let (first, mut rest) = path.segments.split_first()?;
    let mut from = match first.as_str() {
        "crate" | "token_broker" => Vec::new(),
        "self" => file.module.clone(),
        "super" => parent(&file.module),
        _ => return None,
    };
    while let Some((next, after)) = rest.split_first()
        && next == "super"
    {
        from = parent(&from);
        rest = after;
    }
    let segments = [from.as_slice(), rest].concat();
    Some(Spelt { segments, line: path.line })
}

fn parent(module: &[String]) -> Vec<String> {
    module.split_last().map_or_else(Vec::new, |(_, above)| above.to_vec())
}
