//! What a fetcher loads.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::scratch::ScratchDirectory;

/// The content of a document, in memory where it is small.
#[derive(Debug)]
pub enum Content {
    /// Its bytes.
    Memory(Vec<u8>),
    /// A file that has them.
    File(ScratchFile),
}

/// A file of our own, removed when it is dropped.
#[derive(Debug)]
pub struct ScratchFile {
    path: PathBuf,
    size: u64,
    _directory: Arc<ScratchDirectory>,
}

impl ScratchFile {
    /// Takes over the file at `path`, which lies in `directory` and has `size` bytes.
    pub(super) fn new(path: PathBuf, size: u64, directory: Arc<ScratchDirectory>) -> Self {
        Self {
            path,
            size,
            _directory: directory,
        }
    }

    /// Says how much was written.
    pub(super) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file cannot be removed");
        }
    }
}

/// A document as it was loaded.
#[derive(Debug)]
pub struct LoadedDocument {
    /// Its content.
    pub content: Content,
    /// What the source says it is.
    pub media_type: Option<String>,
    /// Its version, where it is known only now.
    pub version_key: Option<String>,
    /// What the source says about it, for its records.
    pub metadata: Map<String, Value>,
}
