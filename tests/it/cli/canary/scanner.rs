//! Looks for known secrets in whatever came out, in every spelling.

use super::super::spellings::{all_encodings, hex};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a needle is found by.
const START: usize = 8;
/// A part of a secret that is as long as this is one too.
const PIECE: usize = 12;
const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];

/// Something that nobody may see, in all its spellings.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) text: String,
    needles: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    /// A text that is like no other, with signs that JSON, URLs and the shell write in another way.
    pub(super) fn planted(name: &str) -> Self {
        let digest = STANDARD.encode(Sha256::digest(name));
        let (one, other) = digest.trim_end_matches('=').split_at(22);
        Self::of(name, &format!("{one}\"\\&={other}"))
    }

    /// One that may stand in a header, a JWT or a path.
    pub(super) fn plain(name: &str) -> Self {
        Self::of(name, hex(&Sha256::digest(name)).split_at(40).0)
    }

    pub(super) fn of(name: &str, text: &str) -> Self {
        assert!(text.len() >= PIECE, "too short to be like no other: {name}");
        let mut needles = all_encodings(text.as_bytes());
        // JWTs begin alike; what is behind their last dot is like no other.
        let own = text.rsplit('.').next().filter(|_| text.starts_with("eyJ")).unwrap_or(text);
        needles.extend(own.as_bytes().chunks_exact(PIECE).map(|piece| ("a piece", piece.to_vec())));
        Self { name: name.to_owned(), text: text.to_owned(), needles }
    }

    /// A private key: the lines of its PEM, and what they encode.
    pub(super) fn key(name: &str, pem: &str) -> Self {
        let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(lines.concat()).unwrap();
        let mut needles = all_encodings(&der);
        // PKCS#8 of P-256: what is before this all keys have, and what is behind it is public.
        needles.extend(all_encodings(&der[36..68]));
        needles.extend(lines.iter().flat_map(|line| all_encodings(line.as_bytes())));
        needles.push(("the base64 of its DER", lines.concat().into_bytes()));
        Self { name: name.to_owned(), text: pem.to_owned(), needles }
    }

    /// How many byte strings stand for it.
    pub(super) fn spellings(&self) -> usize {
        self.needles.len()
    }
}

pub(super) struct Scanner {
    needles: Vec<(String, &'static str, Vec<u8>)>,
    by_start: HashMap<[u8; START], Vec<usize>>,
    /// Which two bytes any of them begins with.
    begins: Vec<bool>,
}

impl Scanner {
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut scanner = Self { needles: Vec::new(), by_start: HashMap::new(), begins: vec![false; 1 << 16] };
        for secret in secrets {
            for (spelling, bytes) in &secret.needles {
                let start = bytes[..START].try_into().unwrap();
                scanner.by_start.entry(start).or_default().push(scanner.needles.len());
                scanner.begins[pair(&start)] = true;
                scanner.needles.push((secret.name.clone(), spelling, bytes.clone()));
            }
        }
        scanner
    }

    /// Which secrets are in it, and how they are spelled.
    pub(super) fn hits(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut hits = self.plain_hits(bytes);
        for at in 0..bytes.len().saturating_sub(GZIP.len()) {
            if bytes[at..].starts_with(GZIP) {
                let inside = self.plain_hits(&inflated(&bytes[at..]));
                hits.extend(inside.into_iter().map(|hit| format!("gzip: {hit}")));
            }
        }
        hits
    }

    fn plain_hits(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut hits = BTreeSet::new();
        for (at, start) in bytes.windows(START).enumerate() {
            if !self.begins[pair(start)] {
                continue;
            }
            for number in self.by_start.get(start).into_iter().flatten() {
                let (name, spelling, needle) = &self.needles[*number];
                if bytes[at..].starts_with(needle) {
                    hits.insert(format!("{name} ({spelling})"));
                }
            }
        }
        hits
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// As much of it as is gzip.
fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("gzip");
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut gzip = command.spawn().unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    // It stops reading at the end of what is gzip, or as soon as it is none.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = gzip.wait_with_output().unwrap();
    feeding.join().unwrap();
    output.stdout
}

/// What came out, by what it is.
#[derive(Default)]
pub(super) struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    pub(super) fn add(&mut self, what: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((what.into(), bytes.into()));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(what, bytes)| (what.as_str(), bytes.as_slice()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Whether one whose name begins so holds this.
    pub(super) fn shows(&self, what: &str, text: &str) -> bool {
        self.all()
            .filter(|(name, _)| name.starts_with(what))
            .any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    pub(super) fn hits(&self, scanner: &Scanner) -> Vec<String> {
        let each = |(what, bytes): (&str, &[u8])| {
            let what = what.to_owned();
            scanner.hits(bytes).into_iter().map(move |hit| format!("{what}: {hit}"))
        };
        self.all().flat_map(each).collect()
    }
}

pub(super) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Command::new("gzip").arg("-c").arg(file.path()).output().unwrap().stdout
}
