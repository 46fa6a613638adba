//! Uploads as files: `{directory}/{upload}/{piece}`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{UploadError, name, piece_name};
use crate::domain::ids::UploadId;

/// A directory that only its owner may read.
#[derive(Debug, Clone)]
pub(super) struct PieceDirectory(PathBuf);

impl PieceDirectory {
    /// Makes the directory and finds out whether it can be written.
    pub(super) fn open(path: &Path) -> Result<Self, UploadError> {
        let opened = || {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let path = path.canonicalize()?;
            let probe = path.join(format!("probe-{}", uuid::Uuid::now_v7().simple()));
            File::create_new(&probe)?;
            fs::remove_file(&probe)?;
            Ok(path)
        };
        opened().map(Self).map_err(|source| UploadError::Directory {
            path: path.to_owned(),
            source,
        })
    }

    pub(super) async fn holds(&self, id: UploadId) -> Result<bool, UploadError> {
        let path = self.upload(id).join(piece_name(0));
        tokio::fs::try_exists(path)
            .await
            .map_err(|error| UploadError::storage("read", error))
    }

    /// Writes a piece to the disk before it answers.
    pub(super) async fn put(&self, id: UploadId, number: u64, piece: Bytes) -> Result<(), UploadError> {
        let directory = self.upload(id);
        blocking(move || write(&directory, number, &piece))
            .await
            .map_err(|error| UploadError::storage("written", error))
    }

    pub(super) async fn get(&self, id: UploadId, number: u64) -> Result<Bytes, UploadError> {
        let path = self.upload(id).join(piece_name(number));
        match tokio::fs::read(path).await {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(UploadError::Missing { id }),
            Err(error) => Err(UploadError::storage("read", error)),
        }
    }

    pub(super) async fn remove(&self, id: UploadId) -> Result<(), UploadError> {
        match tokio::fs::remove_dir_all(self.upload(id)).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(UploadError::storage("removed", error)),
        }
    }

    fn upload(&self, id: UploadId) -> PathBuf {
        self.0.join(name(id))
    }
}

fn write(directory: &Path, number: u64, piece: &[u8]) -> io::Result<()> {
    if number == 0 {
        DirBuilder::new().mode(0o700).create(directory)?;
    }
    let path = directory.join(piece_name(number));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(piece)?;
    file.sync_all()?;
    // The names are on the disk only when their directories are.
    File::open(directory)?.sync_all()?;
    if number == 0
        && let Some(parent) = directory.parent()
    {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
