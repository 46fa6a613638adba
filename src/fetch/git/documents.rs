//! The files of a snapshot as the documents of a pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, future::BoxFuture};
use serde_json::Map;

use super::snapshot::{Reader, Snapshot};
use crate::fetch::{
    content::{Content, DocumentReader, LoadError, LoadedDocument, Reading},
    error::FetchError,
    listing::Entry,
};

/// Files that wait to be chunked. They are read from one pack on one disk, one after the other.
const FILES_AHEAD: usize = 4;

/// Reads the files of a [`Snapshot`], which may be gone by then.
#[derive(Debug)]
pub struct RepositoryDocuments(Arc<Mutex<Reader>>);

impl RepositoryDocuments {
    /// The files of this commit.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self(Arc::new(Mutex::new(snapshot.reader())))
    }
}

impl DocumentReader for RepositoryDocuments {
    fn reading(&self) -> Reading {
        Reading {
            concurrency: FILES_AHEAD,
            parses: false,
            fails_without_text: false,
        }
    }

    fn load<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>> {
        let (reader, entry) = (Arc::clone(&self.0), entry.clone());
        async move {
            let read = move || {
                let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                reader.read(&entry)
            };
            let bytes = match tokio::task::spawn_blocking(read).await {
                Ok(read) => read.map_err(load_error)?,
                Err(panic) => {
                    return Err(load_error(FetchError::Internal { source: panic.into() }));
                }
            };
            Ok(LoadedDocument {
                content: Content::Memory(bytes),
                media_type: None,
                metadata: Map::new(),
            })
        }
        .boxed()
    }
}

/// What was received does not get better by receiving it again.
fn load_error(error: FetchError) -> LoadError {
    LoadError {
        failure: error.failure(),
        transient: false,
        retry_after: None,
        source: Some(error.into()),
    }
}
