//! Cuts documents into chunks, on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::Instant,
};

use super::{
    DocumentWork, Loaded, LoadedChunk,
    prepare::{self, Body, Prepared},
};
use crate::{
    chunk::{ChunkedDocument, Chunker},
    domain::{
        chunking::Chunking,
        document::{DocumentOutcome, SkipRule, sha256_hex},
    },
    error::chain,
    fetch::{
        Content, Entry, Reading,
        rules::{self, Examined},
    },
    parse::Parser,
    worker::{
        failure::AttemptError,
        progress::{ProgressHandle, Stage},
    },
};

/// Why a document without text fails where one was asked for.
const NOT_TEXT: &str =
    "it is not UTF-8 text, and its name has none of the suffixes of documents that are parsed";

/// Where the stage hands on to is gone: the attempt is over.
struct Closed;

/// A document that is to be cut.
struct Text {
    text: String,
    /// Whether it is Markdown, whatever its name says.
    is_markdown: bool,
}

/// What is loaded, and how it is cut.
pub(super) struct Loader {
    pub(super) source: prepare::Source,
    pub(super) parser: Parser,
    pub(super) chunking: Chunking,
    /// What the records of the invocation are named after, and what they all say.
    pub(super) labels: Labels,
}

/// What the caller asked for of all records of an invocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    /// Names the records, instead of the digest of the document's key.
    pub(super) custom_id: Option<String>,
    /// The caller's own metadata.
    pub(super) metadata: Map<String, Value>,
}

/// Loads the `pending` entries (by ordinal) in order.
pub(super) async fn run(
    loader: Loader,
    pending: Vec<u32>,
    budget_bytes: usize,
    progress: ProgressHandle,
    out: mpsc::Sender<Loaded>,
) -> Result<(), AttemptError> {
    let handle = Handle::current();
    let entries = Arc::clone(&loader.source.entries);
    let reading = loader.source.reader.reading();
    let mut documents = Box::pin(prepare::documents(
        loader.source,
        loader.parser,
        pending,
        progress.clone(),
    ));
    // One document lies ready while the one before it is cut.
    let (prepared_in, mut prepared_out) = mpsc::channel::<(u32, Prepared)>(1);
    let preparing = async move {
        while let Some((ordinal, prepared)) = documents.next().await {
            if prepared_in.send((ordinal, prepared?)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let thread = tokio::task::spawn_blocking(move || {
        let budget = Arc::new(Semaphore::new(budget_bytes.min(Semaphore::MAX_PERMITS)));
        let mut stage = LoadStage {
            chunker: Chunker::new(),
            chunking: loader.chunking,
            labels: loader.labels,
            reading,
            budget,
            budget_bytes,
            handle,
            progress,
            out,
        };
        while let Some((ordinal, prepared)) = prepared_out.blocking_recv() {
            let Some(entry) = entries.get(ordinal as usize) else {
                continue;
            };
            if let Err(Closed) = stage.take(ordinal, entry, prepared) {
                return;
            }
        }
    });
    let cutting = async { thread.await.map_err(|_| AttemptError::StageEnded("load")) };
    tokio::try_join!(preparing, cutting).map(|((), ())| ())
}

struct LoadStage {
    chunker: Chunker,
    chunking: Chunking,
    labels: Labels,
    reading: Reading,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    handle: Handle,
    progress: ProgressHandle,
    out: mpsc::Sender<Loaded>,
}

impl LoadStage {
    fn take(&mut self, ordinal: u32, entry: &Entry, prepared: Prepared) -> Result<(), Closed> {
        let (body, metadata) = match prepared {
            Prepared::Document { body, metadata } => (body, metadata),
            Prepared::Skipped(rule) => return self.settle(ordinal, DocumentOutcome::Skipped(rule)),
            Prepared::Failed(reason) => return self.settle(ordinal, DocumentOutcome::Failed(reason)),
        };
        let start = Instant::now();
        let text = match body {
            Body::Plain(content) => self.examine(entry, content, false),
            Body::Markdown(content) => self.examine(entry, content, true),
            Body::Converted(text) => Ok(Text {
                text,
                is_markdown: true,
            }),
        };
        let text = match text {
            Ok(text) => text,
            Err(outcome) => return self.settle(ordinal, outcome),
        };
        let chunked = self.chunk(&entry.document_key, &text);
        self.progress.time(Stage::Chunk, start);
        match chunked {
            Some(chunked) => self.hand_on(ordinal, entry, &text.text, metadata, chunked),
            None => self.settle(
                ordinal,
                DocumentOutcome::Failed("the chunker failed on this document".to_owned()),
            ),
        }
    }

    /// The text of a document that is not parsed, or what becomes of the document without one.
    fn examine(&self, entry: &Entry, content: Content, is_markdown: bool) -> Result<Text, DocumentOutcome> {
        let bytes = content.into_bytes().map_err(|error| {
            tracing::error!(document.key = entry.document_key, error = %chain(&error), "a temporary file cannot be read");
            DocumentOutcome::Failed("the server could not read its temporary file of this document".to_owned())
        })?;
        match rules::examine(bytes) {
            Examined::Text(text) => Ok(Text { text, is_markdown }),
            Examined::Skipped(SkipRule::Binary | SkipRule::NotUtf8) if self.reading.fails_without_text => {
                Err(DocumentOutcome::Failed(NOT_TEXT.to_owned()))
            }
            Examined::Skipped(rule) => Err(DocumentOutcome::Skipped(rule)),
        }
    }

    /// A fault in a grammar must cost one document, not the invocation.
    fn chunk(&mut self, key: &str, text: &Text) -> Option<ChunkedDocument> {
        let (chunker, chunking) = (&mut self.chunker, &self.chunking);
        let chunked = catch_unwind(AssertUnwindSafe(|| match text.is_markdown {
            true => chunker.chunk_markdown(&text.text, chunking),
            false => chunker.chunk(key, &text.text, chunking),
        }));
        if chunked.is_err() {
            tracing::error!(document.key = key, "the chunker panicked");
            self.chunker = Chunker::new();
        }
        chunked.ok()
    }

    fn hand_on(
        &mut self,
        ordinal: u32,
        entry: &Entry,
        text: &str,
        mut metadata: Map<String, Value>,
        chunked: ChunkedDocument,
    ) -> Result<(), Closed> {
        let ChunkedDocument {
            strategy,
            language,
            chunks,
        } = chunked;
        if chunks.is_empty() {
            return self.settle(ordinal, DocumentOutcome::Skipped(SkipRule::Empty));
        }
        // What the caller says goes before what the source says of itself, such as a page's title.
        metadata.extend(self.labels.metadata.clone());
        let document = Arc::new(DocumentWork {
            ordinal,
            document_key: entry.document_key.clone(),
            document_key_sha256: sha256_hex(&entry.document_key),
            version_key: entry.version_key.clone(),
            version_key_sha256: sha256_hex(&entry.version_key),
            custom_id: self.labels.custom_id.clone(),
            metadata,
            strategy,
            language,
            chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
        });
        for (n, place) in (0..).zip(chunks) {
            let Some(text) = text.get(place.range.clone()).map(Arc::<str>::from) else {
                continue;
            };
            let permits = u32::try_from(text.len().clamp(1, self.budget_bytes)).unwrap_or(u32::MAX);
            let budget = self
                .handle
                .block_on(Arc::clone(&self.budget).acquire_many_owned(permits));
            let Ok(_budget) = budget else { return Err(Closed) };
            self.send(Loaded::Chunk(LoadedChunk {
                document: Arc::clone(&document),
                n,
                text,
                place,
                _budget,
            }))?;
        }
        Ok(())
    }

    fn settle(&self, ordinal: u32, outcome: DocumentOutcome) -> Result<(), Closed> {
        self.send(Loaded::Settled { ordinal, outcome })
    }

    fn send(&self, item: Loaded) -> Result<(), Closed> {
        self.out.blocking_send(item).map_err(|_| Closed)
    }
}
