//! A page that holds one key and nothing else, as far out of sight as the system allows.

use rustix::fs::ftruncate;
use rustix::io;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::mm::{madvise, mlock, mmap, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;
use std::ffi::c_void;
use std::fmt;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};

/// How long the key is, in bytes.
pub const KEY_LENGTH: usize = 32;

/// A key, written once, when it is made, and lent only. Its page can't be written afterwards; a forked process does not
/// have it. Overwritten and unmapped when dropped.
pub struct Vault {
    page: Page,
    kept: Kept,
}

/// How far out of sight a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In a page that the kernel itself has no address for (`memfd_secret`): not even root reads it by `/proc/PID/mem`
    /// or a debugger. Never swapped, dumped, or part of a hibernated image.
    Secret,
    /// In a locked page: never swapped or dumped, but root can read it.
    Locked,
    /// In ordinary memory, left out of core files.
    Plain,
}

/// One mapped page, unmapped when dropped.
struct Page {
    at: NonNull<c_void>,
    length: usize,
}

// SAFETY: the page is this value's own and bound to no thread.
unsafe impl Send for Page {}
// SAFETY: what is shared of it is only read: it is written before it is shared, and by the drop.
unsafe impl Sync for Page {}

// === impl Vault ===

impl Vault {
    /// Makes the key in its place, so that no copy of it is left elsewhere: `fill` is called once, with zeros. Fails
    /// where the system has no page to give.
    pub fn new(fill: impl FnOnce(&mut [u8; KEY_LENGTH])) -> io::Result<Self> {
        let (mut page, kept) = match Page::secret() {
            Ok(page) => (page, Kept::Secret),
            Err(_unavailable) => Page::ordinary()?,
        };
        fill(page.key_mut());
        page.close();
        Ok(Self { page, kept })
    }

    /// How far out of sight it is.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Lends the key.
    pub fn with_key<R>(&self, act: impl FnOnce(&[u8; KEY_LENGTH]) -> R) -> R {
        act(self.page.key())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("kept", &self.kept).finish_non_exhaustive()
    }
}

// === impl Kept ===

impl Kept {
    /// What there is to warn of.
    pub fn shortfall(self) -> Option<&'static str> {
        match self {
            Self::Secret => None,
            Self::Locked => Some("root can read the key that secrets are sealed with: the system has no memfd_secret"),
            Self::Plain => Some("the key that secrets are sealed with can be swapped out: the system locks no memory"),
        }
    }
}

// === impl Page ===

impl Page {
    /// One of `memfd_secret`.
    fn secret() -> io::Result<Self> {
        let length = page_size();
        // SAFETY: the call takes a number and touches no memory.
        let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        let file = i32::try_from(file).ok().filter(|file| *file >= 0).ok_or(io::Errno::NOSYS)?;
        // SAFETY: the kernel has just opened it, for nobody else.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        ftruncate(&file, length as u64)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at a place that the kernel chooses; it outlives the descriptor.
        let at = unsafe { mmap(ptr::null_mut(), length, prot, flags, &file, 0) }?;
        Self::of(at, length)
    }

    /// One of ordinary memory, locked if that is allowed.
    fn ordinary() -> io::Result<(Self, Kept)> {
        let length = page_size();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let at = unsafe { mmap_anonymous(ptr::null_mut(), length, prot, flags) }?;
        let page = Self::of(at, length)?;
        // SAFETY: it is this page, which stays mapped.
        let locked = unsafe { mlock(at, length) };
        Ok((page, if locked.is_ok() { Kept::Locked } else { Kept::Plain }))
    }

    /// Takes the page over. Neither core files nor forked processes have it.
    fn of(at: *mut c_void, length: usize) -> io::Result<Self> {
        let at = NonNull::new(at).ok_or(io::Errno::NOMEM)?;
        let page = Self { at, length };
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: it is this page, and neither advice changes what this process finds in it.
            unsafe { madvise(at.as_ptr(), length, advice) }?;
        }
        Ok(page)
    }

    fn key(&self) -> &[u8; KEY_LENGTH] {
        // SAFETY: mapped until the drop, aligned to a page, longer than a key, full of zeros at first; nobody writes to
        // it while it is borrowed.
        unsafe { self.at.cast().as_ref() }
    }

    fn key_mut(&mut self) -> &mut [u8; KEY_LENGTH] {
        // SAFETY: as in `key`, and nobody else reads it while it is borrowed so. Not called after `close`.
        unsafe { self.at.cast().as_mut() }
    }

    /// Nothing writes to it any more. Where that is refused, it is only less well guarded from our own mistakes.
    fn close(&mut self) {
        // SAFETY: it is this page, which is only read from here on; the drop asks for the right to write again.
        let _guarded = unsafe { mprotect(self.at.as_ptr(), self.length, MprotectFlags::READ) };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it is this page, which nobody borrows any more.
        let opened = unsafe { mprotect(self.at.as_ptr(), self.length, MprotectFlags::READ | MprotectFlags::WRITE) };
        if opened.is_ok() {
            // SAFETY: mapped and writable; a volatile write is not left out although nobody reads it.
            unsafe { ptr::write_volatile(self.at.cast().as_ptr(), [0_u8; KEY_LENGTH]) };
        }
        // SAFETY: it is this page, and nobody uses it afterwards. A failure leaves it mapped, and overwritten.
        let _unmapped = unsafe { munmap(self.at.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;
    use std::thread;

    const KEY: [u8; KEY_LENGTH] = *b"a key of thirty-two bytes, known";

    fn vault_of((page, kept): (Page, Kept)) -> Vault {
        let mut vault = Vault { page, kept };
        vault.page.key_mut().copy_from_slice(&KEY);
        vault.page.close();
        vault
    }

    /// What the kernel gives of it to who reads the memory of a process, root included.
    fn read_from_outside(vault: &Vault) -> Option<[u8; KEY_LENGTH]> {
        let mut found = [0; KEY_LENGTH];
        let memory = File::open("/proc/thread-self/mem").unwrap();
        memory.read_exact_at(&mut found, vault.page.at.addr().get() as u64).is_ok().then_some(found)
    }

    /// The line of smaps that lists the flags of its mapping.
    fn flags(vault: &Vault) -> String {
        let maps = std::fs::read_to_string("/proc/thread-self/smaps").unwrap();
        let begin = format!("{:x}-", vault.page.at.addr());
        let mapping = maps.lines().skip_while(|line| !line.starts_with(&begin));
        mapping.skip(1).find(|line| line.starts_with("VmFlags:")).unwrap().to_owned()
    }

    #[test]
    fn a_key_is_lent_as_it_was_made_in_any_thread() {
        let vault = Vault::new(|key| *key = KEY).unwrap();
        vault.with_key(|key| assert_eq!(key, &KEY));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| vault.with_key(|key| assert_eq!(key, &KEY)));
            }
        });
        assert!(!format!("{vault:?}").contains("key"), "{vault:?}");
    }

    /// Where the kernel has no such memory, what the vault says of itself is all there is to test.
    #[test]
    fn secret_memory_can_not_be_read_from_outside() {
        let vault = Vault::new(|key| *key = KEY).unwrap();
        match vault.kept() {
            Kept::Secret => {
                assert_eq!(read_from_outside(&vault), None);
                assert_eq!(vault.kept().shortfall(), None);
            }
            Kept::Locked | Kept::Plain => {
                assert!(Page::secret().is_err());
                assert!(vault.kept().shortfall().is_some());
            }
        }
    }

    #[test]
    fn ordinary_memory_is_locked_and_the_reader_of_these_tests_can_read() {
        let vault = vault_of(Page::ordinary().unwrap());
        assert_eq!(read_from_outside(&vault), Some(KEY));
        vault.with_key(|key| assert_eq!(key, &KEY));
        let flags = flags(&vault);
        assert_eq!(flags.contains(" lo"), vault.kept() == Kept::Locked, "{flags}");
    }

    #[test]
    fn neither_core_files_nor_children_have_it_and_nobody_writes_to_it() {
        for vault in [Vault::new(|key| *key = KEY).unwrap(), vault_of(Page::ordinary().unwrap())] {
            let flags = flags(&vault);
            assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
            assert!(!flags.contains(" wr"), "{flags}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_dropped_one() {
        let vault = vault_of(Page::ordinary().unwrap());
        let memory = File::open("/proc/thread-self/mem").unwrap();
        let at = vault.page.at.addr().get() as u64;
        drop(vault);
        let mut found = [0; KEY_LENGTH];
        // Unmapped; or another thread of the tests has the place by now.
        assert!(memory.read_exact_at(&mut found, at).is_err() || found != KEY);
    }
}
