//! The directory of one model in the Hugging Face cache, laid out as the `huggingface_hub` package lays it out, so that
//! both share it:
//!
//! ```text
//! models--{owner}--{name}/blobs/{checksum}             the bytes
//! models--{owner}--{name}/snapshots/{commit}/{path}    links to them
//! models--{owner}--{name}/refs/{revision}              the commit, without a line end
//! .locks/models--{owner}--{name}/{checksum}.lock       held while a blob is fetched
//! ```
//!
//! Invariant: what has its own name is whole; everything is written under another name first.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::HubError;

/// Where one model lies.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    directory: PathBuf,
    locks: PathBuf,
}

fn written<T>(path: &Path, outcome: io::Result<T>) -> Result<T, HubError> {
    outcome.map_err(|source| HubError::Write {
        path: path.to_owned(),
        source,
    })
}

impl ModelCache {
    /// Of the model `owner/name`, whose parts are safe in paths.
    pub(super) fn new(cache: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Self {
            directory: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
        }
    }

    /// Where a blob lies once it is whole.
    pub(super) fn blob(&self, checksum: &str) -> PathBuf {
        self.directory.join("blobs").join(checksum)
    }

    /// Where it lies until then.
    pub(super) fn incomplete(&self, checksum: &str) -> PathBuf {
        self.directory
            .join("blobs")
            .join(format!("{checksum}.incomplete"))
    }

    /// Where the files of a commit are.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.directory.join("snapshots").join(commit)
    }

    /// The lock of a blob; none while another process has it, unless `wait` says to wait for it.
    pub(super) fn lock(&self, checksum: &str, wait: bool) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{checksum}.lock"));
        written(&self.locks, fs::create_dir_all(&self.locks))?;
        let blobs = self.directory.join("blobs");
        written(&blobs, fs::create_dir_all(&blobs))?;
        let open = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let file = written(&path, open)?;
        if wait {
            written(&path, file.lock())?;
            return Ok(Some(file));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(HubError::Write { path, source }),
        }
    }

    /// Makes `path` of a commit a link to a blob.
    pub(super) fn link(&self, commit: &str, path: &str, checksum: &str) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(path);
        let up = "../".repeat(2 + path.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{checksum}"));
        if fs::read_link(&pointer).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let directory = pointer.parent().unwrap_or(&pointer);
        written(directory, fs::create_dir_all(directory))?;
        let fresh = with_suffix(&pointer);
        // Left by a process that was killed.
        fs::remove_file(&fresh).ok();
        written(&fresh, symlink(&target, &fresh))?;
        written(&pointer, fs::rename(&fresh, &pointer))
    }

    /// Writes down which commit a branch or tag names. A commit needs no such file.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.directory.join("refs").join(revision);
        let directory = path.parent().unwrap_or(&path);
        written(directory, fs::create_dir_all(directory))?;
        let fresh = with_suffix(&path);
        written(&fresh, fs::write(&fresh, commit))?;
        written(&path, fs::rename(&fresh, &path))
    }
}

/// A name beside `path` that no other process uses.
fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    PathBuf::from(name)
}
