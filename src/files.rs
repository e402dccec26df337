//! Files that something was read from, and whether they are still what was read: the configuration's, and those of TLS.
//!
//! A file is looked at through its symbolic links, so that Kubernetes' swap of `..data` is seen. What the system says
//! of a file (device, inode, size, times) decides whether its content has to be read again; that alone is not trusted
//! for a file that was changed moments before it was read, since a second change within the clock's grain leaves no
//! trace. Contents are remembered as marks, not as such: secrets are among them.

use crate::secret::{Mark, MarkKey};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// A file that was changed so shortly before it was read may change again without a trace. Network file systems count
/// in seconds.
const GRAIN: Duration = Duration::from_secs(2);
/// The largest file of any kind, in bytes: several times what 100,000 Workspaces take.
pub(crate) const LARGEST_FILE: usize = 128 * 1024 * 1024;

/// Room for a file whose size is not known ahead, in bytes: more than any one secret takes.
const LARGEST_UNTOLD: usize = 64 * 1024;

/// The files that were read, each as it was then.
#[derive(Debug)]
pub struct Files {
    key: MarkKey,
    seen: HashMap<PathBuf, Seen>,
    /// A file changed while it was read, or between two readings.
    torn: bool,
}

/// A file as it was read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    stamp: Option<Stamp>,
    /// `None`: it could not be read.
    mark: Option<Mark>,
    /// It may have changed since without a trace.
    fresh: bool,
    /// More bytes than this are of no use, and not read.
    limit: usize,
}

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Nothing read yet.
    pub fn new(key: MarkKey) -> Self {
        Self { key, seen: HashMap::new(), torn: false }
    }

    /// A regular file of at most `limit` bytes, as text.
    pub(crate) fn read(&mut self, path: &Path, limit: usize) -> Result<(Zeroizing<String>, Metadata), String> {
        let outcome = read(path, limit);
        let stamp = outcome.as_ref().map_or_else(|_| Stamp::at(path), |read| Some(Stamp::of(&read.metadata)));
        let mark = outcome.as_ref().ok().map(|read| self.key.mark_bytes(&read.content));
        // Taken for fresh until the next look, which asks for the time.
        self.note(path, Seen { stamp, mark, fresh: true, limit });
        let Read { content, metadata, steady } = outcome?;
        self.torn |= !steady;
        Ok((text(content)?, metadata))
    }

    /// A file may be read for several purposes, each with its limit. What was seen by the largest is what counts.
    fn note(&mut self, path: &Path, seen: Seen) {
        let before = self.seen.get(path);
        self.torn |= before.is_some_and(|before| before.differs_from(&seen));
        if before.is_none_or(|before| before.limit <= seen.limit) {
            self.seen.insert(path.to_owned(), seen);
        }
    }

    /// Whether all that was read is still there as it was: what was made of it is of one piece.
    pub fn are_of_one_piece(&self) -> bool {
        !self.torn && self.seen.iter().all(|(path, seen)| Stamp::at(path) == seen.stamp)
    }

    /// Whether anything changed since it was read, or since this was last asked. Takes time in proportion to the number
    /// of files; those whose stamp has not changed are not read.
    pub fn have_changed(&mut self, now: SystemTime) -> bool {
        let mut changed = std::mem::take(&mut self.torn);
        for (path, seen) in &mut self.seen {
            let stamp = Stamp::at(path);
            if stamp == seen.stamp && !seen.fresh {
                continue;
            }
            let mark = read(path, seen.limit).ok().map(|read| self.key.mark_bytes(&read.content));
            changed |= mark != seen.mark || (mark.is_none() && stamp != seen.stamp);
            // What can't be read is tried each time: why it can't may pass without a trace.
            let fresh = mark.is_none() || stamp.is_some_and(|stamp| stamp.is_fresh(now));
            *seen = Seen { stamp, mark, fresh, limit: seen.limit };
        }
        changed
    }

    /// Takes over what a later reading found. What it did not come to is watched on: the files of the configuration in
    /// force, while one that can't be used stands in its place. Both must be of one source.
    pub fn update(&mut self, later: Self) {
        self.seen.extend(later.seen);
    }
}

impl Seen {
    /// What was too large for one limit only can't be compared by its content.
    fn differs_from(&self, other: &Self) -> bool {
        match (self.mark, other.mark) {
            (Some(one), Some(another)) => one != another,
            _ if self.limit == other.limit => self.mark != other.mark,
            _ => self.stamp != other.stamp,
        }
    }
}

impl Stamp {
    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// By the time of the last change of any kind, which nobody can set.
    fn is_fresh(self, now: SystemTime) -> bool {
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now < changed + GRAIN
    }
}

/// What a reading brought.
struct Read {
    content: Zeroizing<Vec<u8>>,
    metadata: Metadata,
    /// The file was left alone meanwhile.
    steady: bool,
}

fn read(path: &Path, limit: usize) -> Result<Read, String> {
    let cannot = |error: std::io::Error| format!("the file can't be read: {error}");
    // Before it is opened: to open a pipe would wait for its other end.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let too_large = || format!("the file is larger than {limit} bytes");
    let length = usize::try_from(metadata.len()).ok().filter(|length| *length <= limit).ok_or_else(too_large)?;
    // Some file systems know no size ahead of reading, and say 0.
    let known = Some(length).filter(|length| *length > 0);
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(known.unwrap_or_else(|| limit.min(LARGEST_UNTOLD)) + 1));
    (&file).take(limit as u64 + 1).read_to_end(&mut content).map_err(cannot)?;
    if content.len() > limit {
        return Err(too_large());
    }
    let after = file.metadata().map_err(cannot)?;
    let steady = Stamp::of(&after) == Stamp::of(&metadata) && known.is_none_or(|length| content.len() == length);
    Ok(Read { content, metadata, steady })
}

/// The same bytes as text, without a copy.
fn text(mut content: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, String> {
    match String::from_utf8(std::mem::take(&mut content)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(not_text) => {
            drop(Zeroizing::new(not_text.into_bytes()));
            Err("the file is not UTF-8 text".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
