//! The objects of a bucket as documents.

use futures::future::BoxFuture;

use super::{S3Bucket, S3Error};
use crate::fetch::{
    content::{DocumentReader, LoadError, LoadedDocument, Reading},
    listing::Entry,
};

/// Objects that are loaded at once; an answer takes some tens of milliseconds, whatever its size.
const CONCURRENCY: usize = 8;

impl DocumentReader for S3Bucket {
    /// As documented: known suffixes are parsed, and all else is UTF-8 text or fails.
    fn reading(&self) -> Reading {
        Reading {
            concurrency: CONCURRENCY,
            parses: true,
            fails_without_text: true,
        }
    }

    fn load<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>> {
        Box::pin(async {
            let loaded = self.load_object(&entry.document_key, &entry.version_key).await;
            loaded.map_err(LoadError::from)
        })
    }
}

impl From<S3Error> for LoadError {
    fn from(error: S3Error) -> Self {
        Self {
            failure: error.failure(),
            transient: error.is_transient(),
            retry_after: error.retry_after(),
            source: Some(error.into()),
        }
    }
}
