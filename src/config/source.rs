//! Where a configuration comes from: a file, read again as often as it changes, and the environment, read once.

use super::{Config, Environment, Files, Place, Problem, Problems};
use crate::files::LARGEST_FILE;
use crate::secret::MarkKey;
use std::path::{Path, PathBuf};

/// A configuration file and the environment over it.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    environment: Environment,
    key: MarkKey,
}

/// What one reading brought.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, or all that is wrong with it.
    pub config: Result<Config, Problems>,
    /// The files that were read, whatever came of it.
    pub files: Files,
}

impl Source {
    /// This file. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>, environment: Environment) -> Self {
        Self { path: path.into(), environment, key: MarkKey::random() }
    }

    /// Reads the file and the secrets that it points to. Blocks.
    pub fn load(&self) -> Loaded {
        // All readings by one key, so that what they found can be compared.
        let mut files = Files::new(self.key.clone());
        let config = self.read(&mut files);
        Loaded { config, files }
    }

    fn read(&self, files: &mut Files) -> Result<Config, Problems> {
        let (text, _) = files.read(&self.path, LARGEST_FILE).map_err(|text| Problem {
            key: "configuration".to_owned(),
            place: Place::File(self.path.clone()),
            text: format!("the configuration file can't be used: {text}"),
        })?;
        let base_dir = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Config::parse_noting(&text, base_dir.unwrap_or_else(|| Path::new(".")), &self.environment, files)
    }
}
