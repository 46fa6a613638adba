//! Loads documents ahead of the chunker, some at once and in order.
//!
//! What waits here is small or lies in a file: the text of a large document is read by the chunker alone,
//! so that one of them is in memory at a time.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    error::chain,
    fetch::{Content, DocumentReader, Entry, LoadError, LoadedDocument},
    worker::progress::{ProgressHandle, Stage},
};

/// A document before it is cut.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It was loaded.
    Document {
        /// What it holds.
        body: Body,
        /// What its records say beside what all records say.
        metadata: Map<String, Value>,
    },
    /// It cannot be processed, for this reason.
    Failed(String),
}

/// What a document holds.
#[derive(Debug)]
pub(super) enum Body {
    /// Bytes that are text, or the document is left out.
    Plain(Content),
}

/// The documents of a listing and how to get at them.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) entries: Arc<[Entry]>,
    pub(super) reader: Arc<dyn DocumentReader>,
}

/// The documents with these ordinals, in this order. Dropping the stream stops what is being loaded.
pub(super) fn documents(
    source: Source,
    pending: Vec<u32>,
    progress: ProgressHandle,
) -> impl Stream<Item = (u32, Result<Prepared, LoadError>)> + Send {
    let ahead = source.reader.reading().concurrency.max(1);
    stream::iter(pending)
        .map(move |ordinal| {
            let (source, progress) = (source.clone(), progress.clone());
            // A task of its own goes on while the chunker is busy, so that no connection starves.
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                let start = Instant::now();
                let prepared = prepare(&source, ordinal).await;
                progress.time(Stage::Fetch, start);
                prepared
            }));
            async move {
                let prepared = task.await.unwrap_or_else(|_| Ok(fault()));
                (ordinal, prepared)
            }
        })
        .buffered(ahead)
}

async fn prepare(source: &Source, ordinal: u32) -> Result<Prepared, LoadError> {
    let Some(entry) = source.entries.get(ordinal as usize) else {
        return Ok(fault());
    };
    let LoadedDocument {
        content,
        media_type: _,
        metadata,
    } = match source.reader.load(entry).await {
        Ok(document) => document,
        Err(error) if error.transient => return Err(error),
        Err(error) => {
            tracing::warn!(document.key = entry.document_key, error = %chain(&error), "a document cannot be loaded");
            return Ok(Prepared::Failed(error.failure.message));
        }
    };
    Ok(Prepared::Document {
        body: Body::Plain(content),
        metadata,
    })
}

fn fault() -> Prepared {
    Prepared::Failed("the service failed on this document; the cause is in its log".to_owned())
}
