//! The documents of a crawl on disk, one after the other in one file.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use crate::fetch::scratch::ScratchDirectory;

/// Where a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    offset: u64,
    length: usize,
}

impl Place {
    /// Bytes of the document.
    pub(super) fn length(self) -> u64 {
        self.length as u64
    }
}

/// The file. It goes with its directory when the last handle does.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    _directory: ScratchDirectory,
}

impl Spool {
    /// Makes an empty one below `root`. Blocks on the disk.
    pub(super) fn create(root: &Path) -> io::Result<Arc<Self>> {
        let directory = ScratchDirectory::create(root)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("pages"))?;
        Ok(Arc::new(Self {
            file,
            _directory: directory,
        }))
    }

    /// Writes a document behind the `offset` bytes that there are.
    pub(super) async fn write(self: &Arc<Self>, offset: u64, content: Vec<u8>) -> io::Result<Place> {
        let spool = Arc::clone(self);
        blocking(move || {
            spool.file.write_all_at(&content, offset)?;
            Ok(Place {
                offset,
                length: content.len(),
            })
        })
        .await
    }

    /// Reads a document.
    pub(super) async fn read(self: &Arc<Self>, place: Place) -> io::Result<Vec<u8>> {
        let spool = Arc::clone(self);
        blocking(move || {
            let mut content = vec![0; place.length];
            spool.file.read_exact_at(&mut content, place.offset)?;
            Ok(content)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
