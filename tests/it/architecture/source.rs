//! Reads Rust source as far as the rules need it: words and punctuation with their lines, without comments, literals
//! and test code, and the paths that they spell. No parser: where it guesses, it guesses so that a rule fires.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// One file of `src/` without its test code.
#[derive(Debug)]
pub(super) struct File {
    /// Below `src/`, with `/`.
    pub(super) path: String,
    /// As the crate names it: `engine/plan.rs` is `["engine", "plan"]`, `lib.rs` is `[]`.
    pub(super) module: Vec<String>,
    pub(super) tokens: Vec<Token>,
    /// Lines outside of test code, blank ones and comments included.
    pub(super) lines: usize,
    /// The lines that are wider than [`MAX_WIDTH`](super::MAX_WIDTH), test code included, from 1.
    pub(super) wide: Vec<usize>,
    /// Modules that stand in a file of their own and are compiled for tests only.
    test_modules: Vec<Vec<String>>,
}

/// A word (name, keyword or number), `::`, or one character of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// A path as it is spelt; groups in braces are spelt out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spelt {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// Every file of `src/` that is not test code only.
pub(super) fn read(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.push(File::new(name, &fs::read_to_string(&path)?));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(without_test_files(files))
}

/// Drops the files that another one declares as `#[cfg(test)] mod name;`.
pub(super) fn without_test_files(files: Vec<File>) -> Vec<File> {
    let tests: BTreeSet<Vec<String>> = files.iter().flat_map(|file| file.test_modules.clone()).collect();
    let is_test = |file: &File| tests.iter().any(|module| file.module.starts_with(module));
    files.into_iter().filter(|file| !is_test(file)).collect()
}

fn wide_lines(text: &str) -> Vec<usize> {
    let numbered = text.lines().zip(1..);
    numbered.filter(|(line, _)| line.chars().count() > super::MAX_WIDTH).map(|(_, number)| number).collect()
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let module = module_of(path);
        let (tokens, cut) = split_tests(&tokens(text));
        let test_modules = cut.modules.into_iter().map(|name| [module.clone(), vec![name]].concat()).collect();
        Self {
            path: path.to_owned(),
            module,
            tokens,
            lines: text.lines().count().saturating_sub(cut.lines),
            wide: wide_lines(text),
            test_modules,
        }
    }

    /// Every path that the file spells, single names included.
    pub(super) fn paths(&self) -> Vec<Spelt> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.text(at) == "pub" && self.text(at + 1) == "(" {
                // The scope of a `pub(super)` names no import.
                at = (at..self.tokens.len()).find(|&end| self.text(end) == ")").unwrap_or(self.tokens.len());
                continue;
            }
            at = if self.begins_path(at) { self.path(at, &[], &mut found) } else { at + 1 };
        }
        found
    }

    pub(super) fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn begins_path(&self, at: usize) -> bool {
        is_word(self.text(at)) && at.checked_sub(1).is_none_or(|before| self.text(before) != "::")
    }

    /// Reads a path, or one item of a group, from `at` on; returns where it ends.
    fn path(&self, mut at: usize, prefix: &[String], found: &mut Vec<Spelt>) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut segments = prefix.to_vec();
        loop {
            if self.text(at) == "{" {
                return self.group(at + 1, &segments, found);
            }
            if !is_word(self.text(at)) && self.text(at) != "*" {
                break;
            }
            segments.push(self.text(at).to_owned());
            at += 1;
            if self.text(at) != "::" {
                break;
            }
            at += 1;
        }
        found.push(Spelt { segments, line });
        at
    }

    fn group(&self, mut at: usize, prefix: &[String], found: &mut Vec<Spelt>) -> usize {
        while at < self.tokens.len() && self.text(at) != "}" {
            let item = is_word(self.text(at)) || self.text(at) == "*";
            at = if item { self.path(at, prefix, found) } else { at + 1 };
            if self.text(at) == "as" {
                at += 2;
            }
        }
        at + 1
    }
}

/// Where the module of a file stands in the crate.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    if stem == "lib" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(in_word)
}

fn in_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// What was taken out as test code.
#[derive(Debug, Default)]
struct Cut {
    lines: usize,
    modules: Vec<String>,
}

/// Takes out every item under `#[cfg(test)]`.
fn split_tests(tokens: &[Token]) -> (Vec<Token>, Cut) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut cut = Cut::default();
    let mut rest = tokens;
    while let [first, after @ ..] = rest {
        if rest.len() < MARK.len() || !rest.iter().zip(MARK).all(|(token, mark)| token.text == mark) {
            kept.push(first.clone());
            rest = after;
            continue;
        }
        let (item, after) = rest.split_at(MARK.len() + item_length(&rest[MARK.len()..]));
        cut.lines += item.last().map_or(0, |last| last.line + 1 - first.line);
        if let [.., keyword, name, end] = item
            && keyword.text == "mod"
            && end.text == ";"
        {
            cut.modules.push(name.text.clone());
        }
        rest = after;
    }
    (kept, cut)
}

/// How many tokens the item has that begins here: up to its `;` or the brace that closes it.
fn item_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return at,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The words and the punctuation of a text, without comments and literals. A `::` that opens a path is left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some((before, rest)) = text.split_at_checked(at)
        && let Some(first) = rest.chars().next()
    {
        let (length, is_token) = measure(rest, first);
        let (piece, _) = rest.split_at(length);
        let opens = piece == "::" && !before.ends_with(|c: char| in_word(c) || c == '>');
        if is_token && !opens {
            found.push(Token { text: piece.to_owned(), line });
        }
        line += piece.matches('\n').count();
        at += length;
    }
    found
}

/// The length in bytes of what stands first, and whether the rules see it.
fn measure(rest: &str, first: char) -> (usize, bool) {
    if first.is_whitespace() {
        (first.len_utf8(), false)
    } else if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if let Some(length) = literal(rest) {
        (length, false)
    } else if rest.starts_with("::") {
        (2, true)
    } else if is_word(rest) {
        (rest.find(|c| !in_word(c)).unwrap_or(rest.len()), true)
    } else {
        (first.len_utf8(), true)
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(after) = rest.get(at..).filter(|after| !after.is_empty()) {
        let opens = after.starts_with("/*");
        let closes = after.starts_with("*/");
        depth += i32::from(opens) - i32::from(closes);
        at += if opens || closes { 2 } else { after.chars().next().map_or(1, char::len_utf8) };
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string or character that stands first, if one does.
fn literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let prefix = rest.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let bare = raw.trim_start_matches('#');
        let hashes = raw.len() - bare.len();
        if let Some(inside) = bare.strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
            return Some(prefix + 1 + hashes + 1 + length);
        }
    }
    if let Some(inside) = body.strip_prefix('"') {
        return Some(prefix + 1 + quoted(inside, '"'));
    }
    let inside = body.strip_prefix('\'')?;
    let mut characters = inside.chars();
    let is_character = characters.next() == Some('\\') || characters.next() == Some('\'');
    // Else a lifetime: its name is a word like any other.
    is_character.then(|| prefix + 1 + quoted(inside, '\''))
}

/// The length up to and with the closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        if !escaped && character == quote {
            return at + 1;
        }
        escaped = !escaped && character == '\\';
    }
    inside.len()
}
