//! Where secrets come from: a file of their own, one key of a file that holds many, or (unwisely) the environment.
//!
//! No sentence made here quotes a path, a key or a variable's name: any of them may be a secret in the wrong place.

use super::reader::{Reading, Section, Value, shown};
use super::scalar::text;
use crate::files::LARGEST_FILE;
use crate::provider::exchange::MAX_SECRET;
use crate::secret::LongLivedSecret;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The keys of a secret source.
pub(super) const KEYS: &[&str] = &["file", "key", "env"];

/// For what is cut off around it.
const SLACK: usize = 64;

const EXPECTED: &str = "{ file = … }, { file = …, key = … } or { env = … }";
const INLINE: &str = "secrets come from { file = … } or { env = … }, never from the configuration itself";

/// The files with many secrets that were read so far, each once.
#[derive(Debug, Default)]
pub(super) struct SecretFiles {
    keyed: HashMap<PathBuf, Option<Keyed>>,
    warned: HashSet<PathBuf>,
}

/// A file with many secrets; `None` stands for a value that is no text.
struct Keyed(HashMap<String, Option<Zeroizing<String>>>);

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyed({} secrets)", self.0.len())
    }
}

/// What a section says of a secret.
enum Source<'t> {
    File(&'t str),
    Key(&'t str, &'t str),
    Variable(&'t str),
}

impl SecretFiles {
    /// The secret that `key` of a section points to.
    pub(super) fn secret(&mut self, section: &mut Section<'_, '_>, key: &str, form: Form) -> Option<LongLivedSecret> {
        match section.find(key) {
            Some(found) if !matches!(found.value, Value::Table(_)) => {
                let text = match found.value {
                    Value::Text(_) => INLINE.to_owned(),
                    other => other.instead_of(EXPECTED),
                };
                section.problem(&shown(key), found.place, text);
                return None;
            }
            Some(_) => {}
            None => {
                let text = format!("is missing; expected {EXPECTED}");
                section.problem(key, section.place(), text);
                return None;
            }
        }
        let mut table = section.table(key, KEYS);
        let source = Source::read(&mut table)?;
        let (path, place) = (table.path().to_owned(), table.place());
        match self.resolve(table.reading, &path, &source, form) {
            Ok(secret) => secret,
            Err(text) => {
                table.reading.problem(path, place, text);
                None
            }
        }
    }

    /// `Ok(None)` where the cause is reported already.
    fn resolve(
        &mut self,
        reading: &mut Reading<'_>,
        path: &str,
        source: &Source<'_>,
        form: Form,
    ) -> Result<Option<LongLivedSecret>, String> {
        match source {
            Source::File(file) => {
                let file = reading.base_dir.join(file);
                let content = self.content(reading, path, &file, MAX_SECRET + SLACK)?;
                form.checked(&content).map(Some)
            }
            Source::Key(file, key) => {
                let file = reading.base_dir.join(file);
                if !self.keyed.contains_key(&file) {
                    let content = self.content(reading, path, &file, LARGEST_FILE);
                    let keyed = content.and_then(|content| Keyed::parse(&file, &content));
                    let (keyed, wrong) = keyed.map_or_else(|text| (None, Some(text)), |k| (Some(k), None));
                    self.keyed.insert(file, keyed);
                    return match wrong {
                        Some(text) => Err(text),
                        None => self.resolve(reading, path, source, form),
                    };
                }
                match self.keyed.get(&file) {
                    Some(Some(keyed)) => form.checked(keyed.get(key)?).map(Some),
                    Some(None) | None => Ok(None),
                }
            }
            Source::Variable(name) => {
                reading.warn(
                    path,
                    "a secret in the environment can be read by every child process and in /proc; use { file = … }",
                );
                let value = reading.environment.get(name);
                let value = value.ok_or("the environment variable that it names is not set")?;
                let value = value.to_str().ok_or("the environment variable that it names is not valid text")?;
                form.checked(value).map(Some)
            }
        }
    }

    /// A file's text; warns once if everyone may read it.
    fn content(
        &mut self,
        reading: &mut Reading<'_>,
        path: &str,
        file: &Path,
        limit: usize,
    ) -> Result<Zeroizing<String>, String> {
        let (content, metadata) = reading.files.read(file, limit).map_err(|text| {
            format!("{text} (relative paths are taken from the directory of the configuration file)")
        })?;
        if is_world_readable(&metadata) && self.warned.insert(file.to_owned()) {
            reading.warn(path, "the file can be read by everyone on this machine; take that right away (chmod o-r)");
        }
        Ok(content)
    }

    /// The PEM file that `key` of a section names, as text.
    pub(super) fn pem(&mut self, section: &mut Section<'_, '_>, key: &str, kind: Pem) -> Option<Zeroizing<String>> {
        let name = section.read(key, text("the path of a PEM file"))?;
        let (path, file) = (section.path_of(key), section.reading.base_dir.join(name));
        let content = match kind {
            Pem::Certificates => section.reading.files.read(&file, LARGEST_PEM).map(|(content, _)| content),
            Pem::PrivateKey => self.content(section.reading, &path, &file, LARGEST_PEM),
        };
        match content.and_then(|content| kind.check(&content).map(|()| content)) {
            Ok(content) => Some(content),
            Err(text) => {
                section.problem_with(key, text);
                None
            }
        }
    }
}

/// The largest PEM file, in bytes: a system's whole bundle of roots is a quarter of it.
const LARGEST_PEM: usize = 1024 * 1024;

/// What a PEM file must hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pem {
    Certificates,
    PrivateKey,
}

impl Pem {
    fn check(self, content: &str) -> Result<(), String> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        use zeroize::Zeroize as _;
        let bytes = content.as_bytes();
        match self {
            Self::Certificates => {
                let mut found = CertificateDer::pem_slice_iter(bytes).peekable();
                let is_good = found.peek().is_some() && found.all(|certificate| certificate.is_ok());
                is_good.then_some(()).ok_or_else(|| "the file must hold certificates in PEM form".to_owned())
            }
            Self::PrivateKey => match PrivateKeyDer::from_pem_slice(bytes) {
                Ok(mut key) => {
                    key.zeroize();
                    Ok(())
                }
                Err(_) => Err(format!("the file must hold a private key in PEM form{}", instead(content))),
            },
        }
    }
}

impl<'t> Source<'t> {
    fn read(table: &mut Section<'_, 't>) -> Option<Self> {
        let file = table.read("file", text("the path of a file"));
        let key = table.read("key", text("a key of the file"));
        let variable = table.read("env", text("the name of an environment variable"));
        match [table.has("file"), table.has("key"), table.has("env")] {
            [true, false, false] => file.map(Self::File),
            [true, true, false] => file.zip(key).map(|(file, key)| Self::Key(file, key)),
            [false, false, true] => variable.map(Self::Variable),
            [file, key, env] => {
                let (path, place) = (table.path().to_owned(), table.place());
                let other = if file { "file" } else { "key" };
                let both = if env && (file || key) { format!("holds both {other} and env; ") } else { String::new() };
                table.reading.problem(path, place, format!("{both}expected {EXPECTED}"));
                None
            }
        }
    }
}

impl Keyed {
    fn parse(file: &Path, content: &str) -> Result<Self, String> {
        if file.extension().is_some_and(|extension| extension == "json") {
            return serde_json::from_str(content).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                format!("the file is not one JSON object with each key once (line {line}, column {column})")
            });
        }
        let table = toml::de::DeTable::parse(content).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = content.as_bytes().iter().take(start);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("the file is not valid TOML (line {line}): {}", error.message())
        })?;
        let entries = table.into_inner().into_iter().map(|(key, value)| {
            let secret = match value.into_inner() {
                toml::de::DeValue::String(text) => Some(Zeroizing::new(text.into_owned())),
                _ => None,
            };
            (key.into_inner().into_owned(), secret)
        });
        Ok(Self(entries.collect()))
    }

    fn get(&self, key: &str) -> Result<&str, String> {
        match self.0.get(key) {
            Some(Some(secret)) => Ok(secret),
            Some(None) => Err("the file holds no text under that key".to_owned()),
            None => Err("the file has no such key".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Keyed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeyedVisitor)
    }
}

struct KeyedVisitor;

impl<'de> Visitor<'de> for KeyedVisitor {
    type Value = Keyed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keyed, A::Error> {
        let mut secrets = HashMap::new();
        while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
            let secret = match value {
                serde_json::Value::String(text) => Some(Zeroizing::new(text)),
                _ => None,
            };
            if secrets.insert(key, secret).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Keyed(secrets))
    }
}

/// What a secret must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line: a token, a password, the secret of a client.
    Word,
    /// A private key in PEM form.
    PrivateKey,
    /// One of them: nobody knows yet what it is for.
    Any,
}

impl Form {
    /// A secret as it may be used: without the newlines that editors leave around it.
    fn checked(self, text: &str) -> Result<LongLivedSecret, String> {
        let secret = text.trim_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        if secret.len() > MAX_SECRET {
            return Err("the secret is longer than 16 KiB".to_owned());
        }
        let is_pem = secret.starts_with("-----BEGIN ");
        match self {
            Self::PrivateKey => check_key(secret)?,
            Self::Any if is_pem => check_key(secret)?,
            Self::Word if is_pem => return Err("the secret must be one line, and this is in PEM form".to_owned()),
            Self::Word | Self::Any => check_word(secret)?,
        }
        Ok(LongLivedSecret::new(secret))
    }
}

fn check_key(secret: &str) -> Result<(), String> {
    let is_plain = secret.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\r' | b'\n'));
    let is_key = is_plain && Pem::PrivateKey.check(secret).is_ok();
    is_key.then_some(()).ok_or_else(|| format!("the secret must be a private key in PEM form{}", instead(secret)))
}

/// What stands in the place of a private key, and what to do about it.
fn instead(pem: &str) -> &'static str {
    let begins = |label: &str| pem.contains(&format!("-----BEGIN {label}"));
    if begins("ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        ", and this one is encrypted; openssl pkcs8 -topk8 -nocrypt makes a plain one of it"
    } else if begins("OPENSSH PRIVATE KEY") {
        ", and this one is in OpenSSH's own form; ssh-keygen -p -m PKCS8 changes it"
    } else if begins("PUBLIC KEY") || begins("RSA PUBLIC KEY") {
        ", and this is a public key; the broker signs with the private one"
    } else if begins("CERTIFICATE") {
        ", and this is a certificate; the broker signs with its private key"
    } else {
        ""
    }
}

fn check_word(secret: &str) -> Result<(), String> {
    if !secret.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        let hint =
            if secret.contains('\n') { "; of a file with many secrets, name one with key = \"…\"" } else { "" };
        return Err(format!("the secret must be one line of printable ASCII{hint}"));
    }
    if secret.starts_with(' ') || secret.ends_with(' ') {
        return Err("the secret must not begin or end with a space".to_owned());
    }
    if secret.starts_with(['{', '[']) {
        // All of them would go out as one.
        return Err("this looks like a file of many secrets; name one of them with key = \"…\"".to_owned());
    }
    Ok(())
}

#[cfg(unix)]
fn is_world_readable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_world_readable(_: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_printable_line() {
        for good in ["abc", "abc\n", "abc\r\n", "\nabc\n\n", "a b", "a  b c", &"x".repeat(MAX_SECRET)] {
            assert!(Form::Word.checked(good).is_ok(), "{good:?}");
            assert!(Form::Any.checked(good).is_ok(), "{good:?}");
            assert!(Form::PrivateKey.checked(good).is_err(), "{good:?}");
        }
        for bad in [
            "",
            "\n",
            " ",
            " abc",
            "abc \n",
            "a\nb",
            "a\tb",
            "ä",
            "\u{feff}abc",
            "a\0",
            "{\"a\": \"b\"}",
            &"x".repeat(MAX_SECRET + 1),
        ] {
            assert!(Form::Word.checked(bad).is_err(), "{bad:?}");
            assert!(Form::Any.checked(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Form::Word.checked("\npass word\n").unwrap().expose(), "pass word");
    }

    #[test]
    fn a_key_is_taken_where_one_is_wanted_and_nowhere_else() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        assert_eq!(Form::PrivateKey.checked(&format!("{key}\n")).unwrap().expose(), key);
        assert!(Form::Any.checked(key).is_ok());
        assert!(Form::Word.checked(key).unwrap_err().contains("one line"));
        let certificate = key.replace("PRIVATE KEY", "CERTIFICATE");
        let broken = key.replace("-----END", "-----ENDE");
        for bad in [certificate, broken, format!("{key}\u{e4}"), key.replace('A', "\t")] {
            assert!(Form::PrivateKey.checked(&bad).is_err(), "{bad}");
            assert!(Form::Any.checked(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_stands_in_the_place_of_a_key_is_named() {
        let rows = [
            ("ENCRYPTED PRIVATE KEY", "this one is encrypted; openssl pkcs8"),
            ("OPENSSH PRIVATE KEY", "this one is in OpenSSH's own form; ssh-keygen"),
            ("PUBLIC KEY", "this is a public key; "),
            ("RSA PUBLIC KEY", "this is a public key; "),
            ("CERTIFICATE", "this is a certificate; "),
        ];
        for (label, expected) in rows {
            let pem = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----");
            for said in [Form::PrivateKey.checked(&pem).unwrap_err(), Pem::PrivateKey.check(&pem).unwrap_err()] {
                assert!(said.contains(&format!("a private key in PEM form, and {expected}")), "{said}");
            }
        }
        let many = Form::Word.checked("user = \"a\"\npassword = \"b\"").unwrap_err();
        assert!(many.ends_with("name one with key = \"…\""), "{many}");
    }

    #[test]
    fn keyed_files_are_toml_or_json() {
        let toml = Keyed::parse(Path::new("s.toml"), "\"team/a\" = \"one\"\nb = 2\n").unwrap();
        let json = Keyed::parse(Path::new("s.json"), r#"{"team/a": "one", "b": 2}"#).unwrap();
        for keyed in [toml, json] {
            assert_eq!(keyed.get("team/a"), Ok("one"));
            assert!(keyed.get("b").is_err());
            assert!(keyed.get("c").is_err());
        }
    }

    #[test]
    fn a_broken_keyed_file_is_told_by_its_line_and_not_quoted() {
        let rows = [
            ("s.json", "{\"a\": \"s3cret\",\n\"a\": \"s3cret\"}"),
            ("s.json", "{\"a\":\n\"s3cret\" \"s3cret\"}"),
            ("s.toml", "a = \"s3cret\"\nb = s3cret"),
            ("s.toml", "a = \"s3cret\"\na = \"s3cret\""),
        ];
        for (file, content) in rows {
            let error = Keyed::parse(Path::new(file), content).unwrap_err();
            assert!(error.contains("line 2"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error = Keyed::parse(Path::new("s.json"), "\"s3cret\"").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
