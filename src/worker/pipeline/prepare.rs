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
    domain::{document::SkipRule, invocation::Failure},
    error::chain,
    fetch::{Content, DocumentReader, Entry, LoadError, LoadedDocument},
    parse::{Format, Input, Parsed, Parser},
    worker::progress::{ProgressHandle, Stage},
};

/// What the metadata of a document's records calls its title.
const TITLE: &str = "title";

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
    /// A rule leaves it out.
    Skipped(SkipRule),
    /// It cannot be processed, for this reason.
    Failed(String),
}

/// What a document holds.
#[derive(Debug)]
pub(super) enum Body {
    /// Bytes that are text, or the document is left out.
    Plain(Content),
    /// The same, but Markdown, whatever its name says.
    Markdown(Content),
    /// What a document of another format was converted to.
    Converted(String),
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
    parser: Parser,
    pending: Vec<u32>,
    progress: ProgressHandle,
) -> impl Stream<Item = (u32, Result<Prepared, LoadError>)> + Send {
    let ahead = source.reader.reading().concurrency.max(1);
    stream::iter(pending)
        .map(move |ordinal| {
            let (source, parser, progress) = (source.clone(), parser.clone(), progress.clone());
            // A task of its own goes on while the chunker is busy, so that no connection starves.
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                let start = Instant::now();
                let prepared = prepare(&source, &parser, ordinal).await;
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

async fn prepare(source: &Source, parser: &Parser, ordinal: u32) -> Result<Prepared, LoadError> {
    let Some(entry) = source.entries.get(ordinal as usize) else {
        return Ok(fault());
    };
    let LoadedDocument {
        content,
        media_type,
        metadata,
    } = match source.reader.load(entry).await {
        Ok(document) => document,
        Err(error) if error.transient => return Err(error),
        Err(error) => {
            tracing::warn!(document.key = entry.document_key, error = %chain(&error), "a document cannot be loaded");
            return Ok(Prepared::Failed(error.failure.message));
        }
    };
    let media_type = media_type.as_deref();
    let format = match source.reader.reading().parses {
        true => Format::of(&entry.document_key, media_type),
        false => None,
    };
    match format {
        Some(format) => convert(parser, entry, format, content, metadata).await,
        None => Ok(Prepared::Document {
            body: match media_type.is_some_and(is_markdown) {
                true => Body::Markdown(content),
                false => Body::Plain(content),
            },
            metadata,
        }),
    }
}

/// Markdown of a document of another format. What it calls itself goes into its metadata.
async fn convert(
    parser: &Parser,
    entry: &Entry,
    format: Format,
    content: Content,
    mut metadata: Map<String, Value>,
) -> Result<Prepared, LoadError> {
    let input = match &content {
        Content::Memory(bytes) => Input::Bytes(bytes),
        Content::File(file) => Input::File(file.path()),
    };
    match parser.parse(format, input).await {
        Ok(Parsed {
            markdown,
            pages: _,
            title,
            unread_pages: _,
        }) => {
            if let Some(title) = title.filter(|_| !metadata.contains_key(TITLE)) {
                metadata.insert(TITLE.to_owned(), Value::String(title));
            }
            Ok(Prepared::Document {
                body: Body::Converted(markdown),
                metadata,
            })
        }
        Err(error) => {
            if let Some(rule) = error.skip_rule() {
                return Ok(Prepared::Skipped(rule));
            }
            let cause = chain(&error);
            tracing::warn!(document.key = entry.document_key, error = %cause, "a document cannot be converted");
            if !error.is_transient() {
                return Ok(Prepared::Failed(error.to_string()));
            }
            Err(LoadError {
                failure: Failure {
                    reason: "CONVERSION_FAILED".to_owned(),
                    message: format!("'{}' could not be converted: {error}", entry.document_key),
                },
                transient: true,
                retry_after: error.retry_after(),
                source: Some(error.into()),
            })
        }
    }
}

fn is_markdown(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/markdown")
}

fn fault() -> Prepared {
    Prepared::Failed("the service failed on this document; the cause is in its log".to_owned())
}
