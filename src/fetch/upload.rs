//! The one document of an upload: the file as it was uploaded.

use std::{io, path::PathBuf};

use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use serde_json::Map;

use super::{
    content::{Content, DocumentReader, LoadError, LoadedDocument, Reading},
    listing::{Entry, Listed},
    sink::{LazyScratch, Sink},
};
use crate::{
    domain::invocation::UploadedFile,
    uploads::{UploadError, UploadStore},
};

/// Reads an uploaded file.
#[derive(Debug)]
pub struct UploadedDocument {
    uploads: UploadStore,
    file: UploadedFile,
    scratch: LazyScratch,
}

impl UploadedDocument {
    /// The file in `uploads`; a large one lies below `scratch_root` while it is worked on.
    pub fn new(uploads: UploadStore, file: UploadedFile, scratch_root: PathBuf) -> Self {
        Self {
            uploads,
            file,
            scratch: LazyScratch::new(scratch_root),
        }
    }

    /// The listing: the file alone.
    ///
    /// # Errors
    /// [`UploadError::Missing`] when it is no longer stored, [`UploadError::Storage`].
    pub async fn list(&self) -> Result<Vec<Entry>, UploadError> {
        let UploadedFile {
            upload_id,
            file_name,
            content_sha256,
            size_bytes,
            ..
        } = &self.file;
        if !self.uploads.holds(*upload_id).await? {
            return Err(UploadError::Missing { id: *upload_id });
        }
        Ok(vec![Entry {
            document_key: file_name.as_str().to_owned(),
            version_key: content_sha256.clone(),
            size_bytes: Some(*size_bytes),
            decision: Listed::Load,
            memo: None,
        }])
    }

    async fn receive(&self) -> Result<Content, UploadError> {
        let UploadedFile {
            upload_id,
            size_bytes,
            ..
        } = &self.file;
        let mut sink = Sink::open(&self.scratch, Some(*size_bytes))
            .await
            .map_err(storage)?;
        let mut bytes = std::pin::pin!(self.uploads.read(*upload_id, *size_bytes));
        while let Some(bytes) = bytes.try_next().await? {
            sink.write(&bytes).await.map_err(storage)?;
        }
        sink.finish().await.map_err(storage)
    }
}

impl DocumentReader for UploadedDocument {
    fn reading(&self) -> Reading {
        Reading {
            concurrency: 1,
            parses: true,
            fails_without_text: true,
        }
    }

    fn load<'a>(&'a self, _entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>> {
        async move {
            Ok(LoadedDocument {
                content: self.receive().await.map_err(load_error)?,
                media_type: self.file.content_type.clone(),
                metadata: Map::new(),
            })
        }
        .boxed()
    }
}

fn storage(source: io::Error) -> UploadError {
    UploadError::Storage {
        action: "written to a temporary file",
        source: source.into(),
    }
}

fn load_error(error: UploadError) -> LoadError {
    LoadError {
        failure: error.failure(),
        transient: error.is_transient(),
        retry_after: None,
        source: Some(error.into()),
    }
}
