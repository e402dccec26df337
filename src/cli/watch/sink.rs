//! A file that holds the current token and nothing else, for programs that can only read files.
//!
//! Promises: whoever reads it finds a whole token or no file; it is never readable by anybody but its owner, not for a
//! moment; a token that was withdrawn, or is over, is not left there while this runs. Symbolic links are replaced, not
//! followed.

use crate::cli::Failure;
use crate::client::Token;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::time::{Instant, sleep_until};

/// The file.
#[derive(Debug)]
pub(super) struct Sink {
    path: PathBuf,
    held: Option<Held>,
}

/// The token that stands in the file.
#[derive(Debug)]
struct Held {
    fingerprint: String,
    end: Instant,
}

impl Sink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what one that was killed between the writing and the renaming left beside the file, a token in it.
    pub(super) fn remove_leftovers(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.directory()) {
            // The first token will find that out.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if self.is_beside(&entry.file_name()) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts a token in the place of what is there.
    pub(super) fn write(&mut self, token: &Token) -> Result<(), Failure> {
        let end = Instant::now() + token.valid_for;
        let known = self.held.as_ref().is_some_and(|held| held.fingerprint == token.fingerprint);
        if !known {
            self.replace(token.value.expose()).map_err(|error| self.failed("write", &error))?;
        }
        self.held = Some(Held { fingerprint: token.fingerprint.clone(), end });
        Ok(())
    }

    /// Removes it. That there is none is as good.
    pub(super) fn remove(&mut self) -> Result<(), Failure> {
        self.held = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync_directory()).map_err(|error| self.failed("remove", &error)),
        }
    }

    /// Whether the token in it is from this process and not over.
    pub(super) fn holds_valid(&self, now: Instant) -> bool {
        self.held.as_ref().is_some_and(|held| held.end > now)
    }

    /// Waits until the token in it is over.
    pub(super) async fn token_ends(&self) {
        match &self.held {
            Some(held) => sleep_until(held.end).await,
            None => std::future::pending().await,
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let beside = self.beside()?;
        let written = write_private(&beside, text).and_then(|()| fs::rename(&beside, &self.path));
        if let Err(error) = written {
            // Perhaps it was never made.
            drop(fs::remove_file(&beside));
            return Err(error);
        }
        self.sync_directory()
    }

    /// In the same directory, so that it can be renamed; hidden, and of a name that nobody else takes.
    fn beside(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{:016x}", std::process::id(), fastrand::u64(..)));
        Ok(self.path.with_file_name(hidden))
    }

    /// Whether [`Self::beside`] gives such names.
    fn is_beside(&self, name: &OsStr) -> bool {
        let Some(own) = self.path.file_name() else { return false };
        let rest = name.as_encoded_bytes().strip_prefix(b".");
        let rest = rest.and_then(|rest| rest.strip_prefix(own.as_encoded_bytes())?.strip_prefix(b"."));
        let rest = rest.and_then(|rest| std::str::from_utf8(rest).ok()?.split_once('-'));
        let is_hex = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        rest.is_some_and(|(process, random)| {
            process.parse::<u32>().is_ok_and(|id| id.to_string() == process)
                && random.len() == 16
                && random.bytes().all(is_hex)
        })
    }

    fn directory(&self) -> &Path {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        directory.unwrap_or_else(|| Path::new("."))
    }

    fn sync_directory(&self) -> io::Result<()> {
        unless_unsupported(File::open(self.directory())?.sync_all())
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::Failed(format!("can't {what} {}: {error}", self.path.display()).into())
    }
}

/// Some file systems can't sync a directory. The file is in its place all the same.
fn unless_unsupported(synced: io::Result<()>) -> io::Result<()> {
    match synced.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        Ok(()) | Err(_) => synced,
    }
}

/// Made here and by nobody else: whatever stands at the path, a link too, is an error.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_its_own_making_are_taken_for_leftovers() {
        let sink = Sink::new(PathBuf::from("/run/token"));
        let made = sink.beside().unwrap();
        assert!(sink.is_beside(made.file_name().unwrap()));
        assert!(sink.is_beside(OsStr::new(".token.1-0123456789abcdef")));
        for other in [
            "token",
            ".token",
            ".token.1",
            ".token.1-0123456789abcde",
            ".token.1-0123456789abcdef0",
            ".token.1-0123456789ABCDEF",
            ".token.-0123456789abcdef",
            ".token.+1-0123456789abcdef",
            ".token.x-0123456789abcdef",
            ".tokens.1-0123456789abcdef",
            "token.1-0123456789abcdef",
        ] {
            assert!(!sink.is_beside(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_failure_and_a_broken_one_is() {
        for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported] {
            assert!(unless_unsupported(Err(kind.into())).is_ok(), "{kind}");
        }
        assert!(unless_unsupported(Err(io::ErrorKind::StorageFull.into())).is_err());
        assert!(unless_unsupported(Ok(())).is_ok());
    }
}
