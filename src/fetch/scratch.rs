//! Temporary directories that are removed whatever happens to the process.
//!
//! A directory `fetch-ID` belongs to the lock file `fetch-ID.lock` beside it, which its owner holds
//! locked for as long as it lives. The kernel drops the lock with the process, so a lock that can be
//! taken marks a directory that nobody owns. Process ids would not do: in containers that share a
//! volume they repeat at once.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::error::FetchError;

const PREFIX: &str = "fetch-";
const LOCK_EXTENSION: &str = "lock";

/// A directory that only its owner may read and that is removed, with all in it, on drop.
#[derive(Debug)]
pub struct ScratchDirectory {
    path: PathBuf,
    lock_path: PathBuf,
    /// Held locked, never read.
    _lock: File,
}

impl ScratchDirectory {
    /// Makes a directory below `root`, which is made, too, where it is absent.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        loop {
            let path = root.join(format!("{PREFIX}{}", Uuid::now_v7().simple()));
            let lock_path = path.with_extension(LOCK_EXTENSION);
            let lock = OpenOptions::new().write(true).create_new(true).open(&lock_path)?;
            lock.lock()?;
            // Between the two lines above another process may have taken the file for a stale one.
            if is_at(&lock, &lock_path)? {
                fs::DirBuilder::new().mode(0o700).create(&path)?;
                return Ok(Self {
                    path,
                    lock_path,
                    _lock: lock,
                });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        remove(&self.path, &self.lock_path);
    }
}

/// Removes the directories below `root` whose owners died, and says how many. A `root` that does not
/// exist has none.
///
/// # Errors
/// [`FetchError::Storage`] when `root` cannot be listed. What cannot be removed is logged and left for
/// the next call.
pub fn remove_stale(root: &Path) -> Result<usize, FetchError> {
    remove_unowned(root).map_err(|source| FetchError::Storage {
        action: "read from",
        source: source.into(),
    })
}

fn remove_unowned(root: &Path) -> io::Result<usize> {
    let listing = match fs::read_dir(root) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in listing {
        let lock_path = entry?.path();
        let name = lock_path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if !name.starts_with(PREFIX)
            || lock_path
                .extension()
                .is_none_or(|extension| extension != LOCK_EXTENSION)
        {
            continue;
        }
        let Ok(lock) = File::open(&lock_path) else {
            continue;
        };
        if lock.try_lock().is_ok() && is_at(&lock, &lock_path)? {
            remove(&lock_path.with_extension(""), &lock_path);
            removed += 1;
        }
    }
    Ok(removed)
}

/// The lock file goes last, so that what a crash leaves behind still has one.
fn remove(path: &Path, lock_path: &Path) {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let removed = fs::remove_dir_all(path).or_else(|error| if absent(&error) { Ok(()) } else { Err(error) });
    if let Err(error) = removed.and_then(|()| fs::remove_file(lock_path)) {
        tracing::warn!(path = %path.display(), %error, "a temporary directory cannot be removed");
    }
}

/// Whether `path` still leads to the open `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_is_private_and_goes_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let directory = ScratchDirectory::create(&root.path().join("made/too")).unwrap();
        let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::create_dir(directory.path().join("deep")).unwrap();
        fs::write(directory.path().join("deep/file"), "content").unwrap();

        drop(directory);

        assert_eq!(names(&root.path().join("made/too")), Vec::<String>::new());
    }

    #[test]
    fn what_dead_owners_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let living = ScratchDirectory::create(root.path()).unwrap();
        fs::create_dir_all(root.path().join("fetch-dead/objects")).unwrap();
        fs::write(root.path().join("fetch-dead.lock"), "").unwrap();
        fs::write(root.path().join("fetch-died-early.lock"), "").unwrap();
        fs::create_dir(root.path().join("another's")).unwrap();
        fs::write(root.path().join("another's.lock"), "").unwrap();

        assert_eq!(remove_stale(root.path()).unwrap(), 2);

        let own = living.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            names(root.path()),
            ["another's", "another's.lock", &own, &format!("{own}.lock")]
        );
    }

    #[test]
    fn a_root_that_does_not_exist_has_nothing_stale() {
        assert_eq!(remove_stale(Path::new("/does/not/exist")).unwrap(), 0);
    }
}
