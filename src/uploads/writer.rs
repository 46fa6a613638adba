//! Writes an upload piece by piece.

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{PIECE_BYTES, UploadError, UploadStore};
use crate::domain::ids::UploadId;

/// An upload that is being written. Nothing of it is removed when this is dropped; see [`Self::discard`].
#[derive(Debug)]
pub struct UploadWriter {
    store: UploadStore,
    id: UploadId,
    piece: BytesMut,
    pieces: u64,
    size_bytes: u64,
    hash: Sha256,
    /// The piece that is being written. A task of its own ends even when whoever waits for it goes away, so
    /// that a removal can wait for it.
    writing: Option<JoinHandle<Result<(), UploadError>>>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUpload {
    /// SHA-256 of the content, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Size of the content.
    pub size_bytes: u64,
}

impl UploadWriter {
    pub(super) fn new(store: UploadStore, id: UploadId) -> Self {
        Self {
            store,
            id,
            piece: BytesMut::new(),
            pieces: 0,
            size_bytes: 0,
            hash: Sha256::new(),
            writing: None,
        }
    }

    /// How many bytes were written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Adds bytes; waits while two pieces are under way.
    ///
    /// # Errors
    /// [`UploadError::Storage`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), UploadError> {
        while !bytes.is_empty() {
            if self.piece.capacity() == 0 {
                // At once: growing leaves copies of half the size behind.
                self.piece.reserve(PIECE_BYTES);
            }
            let room = PIECE_BYTES - self.piece.len();
            let (fitting, rest) = bytes.split_at(room.min(bytes.len()));
            self.hash.update(fitting);
            self.piece.extend_from_slice(fitting);
            self.size_bytes += fitting.len() as u64;
            bytes = rest;
            if self.piece.len() == PIECE_BYTES {
                self.begin_piece().await?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and waits until everything is stored.
    ///
    /// # Errors
    /// [`UploadError::Storage`].
    pub async fn finish(&mut self) -> Result<StoredUpload, UploadError> {
        if !self.piece.is_empty() {
            self.begin_piece().await?;
        }
        self.piece_written().await?;
        Ok(StoredUpload {
            sha256: hex::encode(self.hash.clone().finalize()),
            size_bytes: self.size_bytes,
        })
    }

    /// Removes everything that was written.
    ///
    /// # Errors
    /// [`UploadError::Storage`].
    pub async fn discard(mut self) -> Result<(), UploadError> {
        // How the last piece ended does not matter, but that it did.
        self.piece_written().await.ok();
        self.store.remove(self.id).await
    }

    async fn begin_piece(&mut self) -> Result<(), UploadError> {
        self.piece_written().await?;
        let piece = self.piece.split().freeze();
        let (store, id, number) = (self.store.clone(), self.id, self.pieces);
        self.pieces += 1;
        self.writing = Some(tokio::spawn(async move { store.put(id, number, piece).await }));
        Ok(())
    }

    async fn piece_written(&mut self) -> Result<(), UploadError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        // Taken only at its end: whoever is dropped here leaves it to a removal to wait for.
        let written = writing.await;
        self.writing = None;
        written.map_err(|error| UploadError::storage("written", error))?
    }
}
