//! Loading the documents of a listing: the seam between fetchers and the pipeline.
//!
//! A fetcher hands out bytes and says nothing of what they mean; the pipeline finds out what has to be
//! parsed and what is text. Invariant: a [`DocumentReader`] holds a bounded part of a document in memory,
//! or its file, and both are gone when the document is dropped.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::{listing::Entry, scratch::ScratchDirectory};
use crate::domain::invocation::Failure;

/// The bytes of a document.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file that is removed on drop.
    File(ScratchFile),
}

impl Content {
    /// All of it, in memory. Reads the file where it is one, which blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::File(file) => std::fs::read(file.path()),
        }
    }
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

/// A document as its source has it.
#[derive(Debug)]
pub struct LoadedDocument {
    /// Its bytes.
    pub content: Content,
    /// What its source says that it is, such as `application/pdf`; none where the source does not know.
    pub media_type: Option<String>,
    /// What every record of it says beside what all records say: no reserved keys.
    pub metadata: Map<String, Value>,
}

/// Why a document could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}", .failure.message)]
pub struct LoadError {
    /// What its owner is told.
    pub failure: Failure,
    /// Whether the attempt may be tried again for it. Otherwise the document fails and the others go on.
    pub transient: bool,
    /// How long the source asks to wait.
    pub retry_after: Option<Duration>,
    /// The cause, for the log.
    pub source: Option<super::error::Cause>,
}

/// How the documents of a source are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Documents that are loaded at once, at least 1.
    pub concurrency: usize,
    /// Whether PDF, Office and other files are parsed; otherwise only text is a document.
    pub parses: bool,
    /// Whether what is no text fails, with that reason, instead of being left out by a rule.
    pub fails_without_text: bool,
}

/// Loads the documents of a listing.
pub trait DocumentReader: Send + Sync {
    /// How its documents are read.
    fn reading(&self) -> Reading;

    /// Loads the document of an entry that is to be loaded.
    fn load<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>>;
}
