//! Reads the memory of a process and looks for a text in it.

use super::super::spellings::occurrences;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

const PAGE: u64 = 4096;
/// Of an entry of `/proc/PID/pagemap`: the page is in memory, or swapped out.
const THERE: u64 = 0b11 << 62;

/// The memory of a process: what was mapped when it was looked at.
pub(super) struct Memory {
    mem: File,
    pages: File,
    mappings: Vec<Mapping>,
}

struct Mapping {
    begin: u64,
    end: u64,
    readable: bool,
    name: String,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Self {
        let path = |what: &str| format!("/proc/{pid}/{what}");
        let maps = fs::read_to_string(path("maps")).unwrap();
        let mappings = maps.lines().map(Mapping::parse).collect();
        Self { mem: File::open(path("mem")).unwrap(), pages: File::open(path("pagemap")).unwrap(), mappings }
    }

    /// How often any of these is there.
    pub(super) fn count(&self, needles: &[Vec<u8>]) -> usize {
        let mut found = 0;
        // The program and its libraries are what they were on disk, unless they can be written to.
        let kept = self.mappings.iter().filter(|mapping| mapping.readable && mapping.name != "[vvar]");
        for mapping in kept.filter(|mapping| !mapping.name.contains("secretmem")) {
            for (begin, end) in self.runs(mapping) {
                let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
                // What was given back meanwhile holds nothing.
                if self.mem.read_exact_at(&mut bytes, begin).is_ok() {
                    found += needles.iter().map(|needle| occurrences(&bytes, needle)).sum::<usize>();
                }
            }
        }
        found
    }

    /// Whether pages of `memfd_secret` can be read; nothing where there are none.
    pub(super) fn secret_pages(&self) -> Option<bool> {
        let secret = self.mappings.iter().find(|mapping| mapping.name.contains("secretmem"))?;
        Some(self.mem.read_exact_at(&mut [0; 32], secret.begin).is_ok())
    }

    /// The pages of a mapping that are there, those beside each other in one.
    fn runs(&self, mapping: &Mapping) -> Vec<(u64, u64)> {
        let count = (mapping.end - mapping.begin) / PAGE;
        let mut entries = vec![0; usize::try_from(count * 8).unwrap()];
        if self.pages.read_exact_at(&mut entries, mapping.begin / PAGE * 8).is_err() {
            return Vec::new();
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (number, entry) in (0..).zip(entries.chunks_exact(8)) {
            if u64::from_le_bytes(entry.try_into().unwrap()) & THERE != 0 {
                let begin = mapping.begin + number * PAGE;
                match runs.last_mut() {
                    Some((_, end)) if *end == begin => *end += PAGE,
                    _ => runs.push((begin, begin + PAGE)),
                }
            }
        }
        runs
    }
}

impl Mapping {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (begin, end) = words[0].split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let name = words.get(5..).unwrap_or_default().join(" ");
        let is_file = name.starts_with('/') && !words[1].contains('w');
        Self { begin: number(begin), end: number(end), readable: words[1].starts_with('r') && !is_file, name }
    }
}

/// This process is what is looked into: its pages, its heap, and across the end of a page.
#[test]
fn what_a_process_holds_is_found() {
    let secret = format!("cAnArY/{}", std::process::id());
    let mut heap = vec![0; 3 * usize::try_from(PAGE).unwrap()];
    let at = usize::try_from(2 * PAGE - heap.as_ptr().addr() as u64 % PAGE).unwrap() - 4;
    heap[at..at + secret.len()].copy_from_slice(secret.as_bytes());
    let memory = Memory::of(std::process::id());
    assert!(memory.count(&[secret.into_bytes()]) > 0);
    drop(heap);
}
