//! Where lines go: a file, or stdout. Everything here may block.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, metadata};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What a sink writes to.
pub trait Output: fmt::Debug + Send {
    /// One `write(2)`: how many of the bytes it took.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes what was written outlast a loss of power.
    fn sync(&mut self) -> io::Result<()>;

    /// Looks whether the lines still go where they should, and sees to it that they do; `anew`: whatever is found.
    fn follow(&mut self, anew: bool) -> io::Result<Followed>;
}

/// Whether lines go where they went before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// They do.
    Same,
    /// They go to another file from here on.
    Another,
}

/// A file that lines are added to. Created with mode 0600.
#[derive(Debug)]
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    identity: Identity,
    /// Somebody who was killed while it wrote left a part of a line at the end: what comes begins a new one.
    is_cut_off: bool,
    /// Its name may be gone after a loss of power although its lines are not.
    is_name_unsafe: bool,
}

/// What tells files apart, whatever their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Appended {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let metadata = file.metadata()?;
        let (identity, is_cut_off) = (Identity::of(&metadata), is_cut_off(&path, &metadata));
        Ok(Self { path, file, identity, is_cut_off, is_name_unsafe: true })
    }

    fn sync_name(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// Whether there is a last line that does not end. What can't be read is taken for whole.
fn is_cut_off(path: &Path, metadata: &Metadata) -> bool {
    let Some(last) = metadata.len().checked_sub(1).filter(|_| metadata.is_file()) else { return false };
    let mut byte = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut byte, last));
    read.is_ok() && byte != *b"\n"
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Output for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cut_off {
            self.file.write_all(b"\n")?;
            self.is_cut_off = false;
        }
        self.file.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.is_name_unsafe {
            self.sync_name()?;
            self.is_name_unsafe = false;
        }
        Ok(())
    }

    fn follow(&mut self, anew: bool) -> io::Result<Followed> {
        let there = match metadata(&self.path) {
            Ok(metadata) => Some(Identity::of(&metadata)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let before = self.identity;
        if anew || there != Some(before) {
            let opened = Self::open(self.path.clone())?;
            // What this very process cut off, it completes itself.
            let is_cut_off = if opened.identity == before { self.is_cut_off } else { opened.is_cut_off };
            *self = Self { is_cut_off, ..opened };
        }
        Ok(if self.identity == before { Followed::Same } else { Followed::Another })
    }
}

/// The process's stdout, which is nobody else's once records go there.
#[derive(Debug)]
pub(super) struct Stdout(File);

impl Stdout {
    /// Past the buffer of the standard library, which would keep what it could not write.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// A process that is started without stdout finds this in its place.
    fn leads_nowhere(&self) -> io::Result<bool> {
        let null = metadata("/dev/null").map(|null| null.rdev()).ok();
        let own = self.0.metadata()?.rdev();
        Ok(own != 0 && Some(own) == null)
    }
}

impl Output for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// Who reads a pipe answers for what it read.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn follow(&mut self, anew: bool) -> io::Result<Followed> {
        if anew && self.leads_nowhere()? {
            return Err(io::Error::other("stdout is closed, or leads to /dev/null"));
        }
        Ok(Followed::Same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_line_that_a_killed_process_left_unfinished_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(&path, "one\ntw").unwrap();
        let mut file = Appended::open(path.clone()).unwrap();
        assert_eq!(file.follow(true).unwrap(), Followed::Same);
        file.write(b"thr").unwrap();
        assert_eq!(file.follow(true).unwrap(), Followed::Same);
        file.write(b"ee\n").unwrap();
        file.sync().unwrap();
        drop(file);
        Appended::open(path.clone()).unwrap().write(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\nfour\n");
    }

    #[test]
    fn a_file_is_private_and_followed_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = Appended::open(path.clone()).unwrap();
        assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file.write(b"one\n").unwrap();
        assert_eq!(file.follow(false).unwrap(), Followed::Same);
        assert_eq!(file.follow(true).unwrap(), Followed::Same);
        let renamed = directory.path().join("audit.jsonl.1");
        fs::rename(&path, &renamed).unwrap();
        assert_eq!(file.follow(false).unwrap(), Followed::Another);
        file.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&renamed).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.follow(false).unwrap(), Followed::Another);
        fs::remove_dir_all(directory.path()).unwrap();
        assert!(file.follow(false).is_err(), "its directory is gone");
    }
}
