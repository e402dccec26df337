//! What is wrong with a configuration, and what is merely unwise about it.
//!
//! A problem names a key and says what is expected there. It never quotes a value: a secret that was put in the wrong
//! place must not come out by its error message.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with a configuration, found in one go. One line each when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key, such as `upstreams[0].url`; a variable's name where no key is concerned. Never a file's
    /// path: keys and texts are shown to whoever reaches the probe listener.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// What is wrong and what is expected.
    pub text: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// A variable of the environment overlay.
    Variable(String),
    /// The file itself.
    File(PathBuf),
    /// Nowhere in particular.
    Unknown,
}

/// Something that works and had better be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The path of the key.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// What is unwise about it.
    pub text: String,
}

impl Problems {
    /// `None` when there is nothing wrong.
    pub fn new(list: Vec<Problem>) -> Option<Self> {
        if list.is_empty() { None } else { Some(Self(list)) }
    }

    /// Each of them, in the order of the sections.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'p> IntoIterator for &'p Problems {
    type Item = &'p Problem;
    type IntoIter = std::slice::Iter<'p, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, place, text } = self;
        write!(f, "{key}{place}: {text}")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, place, text } = self;
        write!(f, "{key}{place}: {text}")
    }
}

/// As it stands behind a key.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, " (line {line})"),
            Self::Variable(name) => write!(f, " ({name})"),
            Self::File(path) => write!(f, " ({})", path.display()),
            Self::Unknown => Ok(()),
        }
    }
}
