//! Where the bytes of uploaded files lie until they are synced: a directory, or a bucket for many nodes.
//!
//! An upload lies in pieces of 4 MiB, each written whole under `{upload}/{number}`. So nothing is ever half
//! written that a listing would not show: what an aborted upload or a process that died left is found by the
//! upload's id and removed, on every store alike. Two pieces of an upload are in memory at most, one that is
//! filled while the one before it is written.
//!
//! Absent on purpose: knowledge of who uploads and how long anything is kept; that is in the store's table of
//! uploads.

mod bucket;
mod directory;
mod error;
mod writer;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};

pub use self::{
    bucket::BucketOptions,
    error::UploadError,
    writer::{StoredUpload, UploadWriter},
};
use self::{bucket::PieceBucket, directory::PieceDirectory};
use crate::domain::ids::UploadId;

/// Size of all pieces of an upload but the last, in bytes.
pub const PIECE_BYTES: usize = 4 << 20;

/// Stores and hands out uploads. Clones share its connections.
#[derive(Debug, Clone)]
pub struct UploadStore(Arc<Pieces>);

#[derive(Debug)]
enum Pieces {
    Directory(PieceDirectory),
    Bucket(PieceBucket),
}

impl UploadStore {
    /// In a directory of this machine, which is made where it is absent. Blocks.
    ///
    /// # Errors
    /// [`UploadError::Directory`] when it cannot be made or written.
    pub fn in_directory(path: &Path) -> Result<Self, UploadError> {
        let directory = PieceDirectory::open(path)?;
        Ok(Self(Arc::new(Pieces::Directory(directory))))
    }

    /// In a bucket of S3 or of another service with its API. Asks nothing of it yet.
    ///
    /// # Errors
    /// [`UploadError::Bucket`] when the options do not fit together.
    pub fn in_bucket(options: BucketOptions) -> Result<Self, UploadError> {
        let bucket = PieceBucket::open(options)?;
        Ok(Self(Arc::new(Pieces::Bucket(bucket))))
    }

    /// Begins to write an upload.
    pub fn writer(&self, id: UploadId) -> UploadWriter {
        UploadWriter::new(self.clone(), id)
    }

    /// Whether any of the upload is there.
    ///
    /// # Errors
    /// [`UploadError::Storage`].
    pub async fn holds(&self, id: UploadId) -> Result<bool, UploadError> {
        match &*self.0 {
            Pieces::Directory(directory) => directory.holds(id).await,
            Pieces::Bucket(bucket) => bucket.holds(id).await,
        }
    }

    /// The bytes of an upload of `size_bytes` bytes, a part of a piece or a piece at a time.
    pub fn read(
        &self,
        id: UploadId,
        size_bytes: u64,
    ) -> impl Stream<Item = Result<Bytes, UploadError>> + Send + use<> {
        let pieces = size_bytes.div_ceil(PIECE_BYTES as u64);
        let store = self.clone();
        stream::iter(0..pieces)
            .then(move |number| {
                let store = store.clone();
                async move { store.piece(id, number).await }
            })
            .try_flatten()
    }

    /// Removes whatever there is of the upload; nothing is no error.
    ///
    /// # Errors
    /// [`UploadError::Storage`].
    pub async fn remove(&self, id: UploadId) -> Result<(), UploadError> {
        match &*self.0 {
            Pieces::Directory(directory) => directory.remove(id).await,
            Pieces::Bucket(bucket) => bucket.remove(id).await,
        }
    }

    async fn put(&self, id: UploadId, number: u64, piece: Bytes) -> Result<(), UploadError> {
        match &*self.0 {
            Pieces::Directory(directory) => directory.put(id, number, piece).await,
            Pieces::Bucket(bucket) => bucket.put(id, number, piece).await,
        }
    }

    async fn piece(
        &self,
        id: UploadId,
        number: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, UploadError>>, UploadError> {
        match &*self.0 {
            Pieces::Directory(directory) => {
                let piece = directory.get(id, number).await?;
                Ok(stream::iter([Ok(piece)]).boxed())
            }
            Pieces::Bucket(bucket) => bucket.get(id, number).await,
        }
    }
}

/// Name of an upload within its store.
fn name(id: UploadId) -> String {
    id.0.simple().to_string()
}

/// Name of a piece within its upload; in the order of the numbers.
fn piece_name(number: u64) -> String {
    format!("{number:06}")
}
