//! A text with wildcards, and which texts it fits: all of them or nothing, never a part.
//!
//! Matching takes at most as many steps as the text and the pattern have bytes, multiplied: of each kind of wildcard
//! only the last one that was met is ever lengthened. That is enough: a `*` can't leave its segment, and whatever an
//! earlier `**` could take a later one can.

use std::fmt;

/// Stands for one or more bytes, none of them a separator. No name holds this byte or the next.
const SOME: u8 = 1;
/// Stands for one or more bytes. It stands alone between two separators, and so for whole segments.
const ANY: u8 = 2;

/// A text in which `*` and `**` stand for others.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Glob {
    text: Box<str>,
    separators: &'static [u8],
    /// What everything begins with that it fits.
    prefix: Box<[u8]>,
    /// The rest, with [`SOME`] and [`ANY`] for the wildcards.
    tail: Box<[u8]>,
}

impl Glob {
    /// `None` if a `**` is only a part of its segment. Nothing else is checked.
    pub(super) fn parse(text: &str, separators: &'static [u8]) -> Option<Self> {
        let mut segments = text.split(|c: char| u8::try_from(c).is_ok_and(|byte| separators.contains(&byte)));
        if !segments.all(|segment| segment == "**" || !segment.contains("**")) {
            return None;
        }
        let compiled = text.replace("**", "\u{2}").replace('*', "\u{1}");
        let literal = compiled.bytes().take_while(|byte| !matches!(*byte, SOME | ANY)).count();
        let (prefix, tail) = compiled.as_bytes().split_at_checked(literal)?;
        Some(Self { text: text.into(), separators, prefix: prefix.into(), tail: tail.into() })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What everything begins with that it fits.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Whether it fits this text.
    pub(super) fn fits(&self, text: &str) -> bool {
        text.as_bytes().strip_prefix(&*self.prefix).is_some_and(|rest| self.fits_after_prefix(rest))
    }

    /// Whether it fits its prefix and this behind it.
    pub(super) fn fits_after_prefix(&self, rest: &[u8]) -> bool {
        if self.tail.is_empty() { rest.is_empty() } else { Attempt::new(self, rest).ends_well() }
    }

    /// Its own text as another pattern would have to take it: see [`Self::covers`].
    pub(super) fn compiled(&self) -> Vec<u8> {
        [&*self.prefix, &*self.tail].concat()
    }

    /// Whether it fits everything that the other fits. Never says so wrongly; it may fail to say so where several
    /// wildcards in a row come in another order. It is its fitting of the other's text, in which a `*` is one more
    /// letter that only wildcards take, and a `**` one that only `**` takes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.compiled().strip_prefix(&*self.prefix).is_some_and(|rest| self.fits_after_prefix(rest))
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A match under way: what is left of both, and where to go on from when they differ.
struct Attempt<'a> {
    separators: &'static [u8],
    left: Left<'a>,
    /// Behind the last `*`, if it may still take more.
    some: Option<Left<'a>>,
    /// Behind the last `**`.
    any: Option<Left<'a>>,
}

/// What is left of a pattern and of a text.
#[derive(Clone, Copy)]
struct Left<'a> {
    pattern: &'a [u8],
    text: &'a [u8],
}

/// What a step led to.
enum Step {
    On,
    Fits,
    FitsNot,
}

impl<'a> Attempt<'a> {
    fn new(glob: &'a Glob, text: &'a [u8]) -> Self {
        Self { separators: glob.separators, left: Left { pattern: &glob.tail, text }, some: None, any: None }
    }

    fn ends_well(mut self) -> bool {
        loop {
            match self.step() {
                Step::On => {}
                Step::Fits => return true,
                Step::FitsNot => return false,
            }
        }
    }

    fn step(&mut self) -> Step {
        let Left { pattern, text } = self.left;
        let next = match (pattern.split_first(), text.split_first()) {
            (None, None) => return Step::Fits,
            (Some((token, pattern)), Some((byte, text))) => Some((*token, *byte, Left { pattern, text })),
            (None, Some(_)) | (Some(_), None) => None,
        };
        match next {
            Some((ANY, _, behind)) => {
                self.any = Some(behind);
                self.some = None;
                self.left = behind;
            }
            Some((SOME, byte, behind)) if !self.separates(byte) => {
                self.some = Some(behind);
                self.left = behind;
            }
            Some((token, byte, behind)) if token != SOME && token == byte => self.left = behind,
            Some(_) | None => return self.lengthen(),
        }
        Step::On
    }

    /// Lets the last wildcard that may take one byte more.
    fn lengthen(&mut self) -> Step {
        let more = |left: Left<'a>| left.text.split_first().map(|(byte, text)| (*byte, Left { text, ..left }));
        if let Some((byte, behind)) = self.some.take().and_then(more)
            && !self.separates(byte)
        {
            self.some = Some(behind);
            self.left = behind;
            return Step::On;
        }
        let Some((_, behind)) = self.any.and_then(more) else {
            return Step::FitsNot;
        };
        self.any = Some(behind);
        self.left = behind;
        Step::On
    }

    fn separates(&self, byte: u8) -> bool {
        byte == ANY || self.separators.contains(&byte)
    }
}

#[cfg(test)]
mod tests;
