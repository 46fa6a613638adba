//! Reads blobs and cuts them into chunks, on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::Instant,
};

use super::{DocumentWork, Loaded, LoadedChunk};
use crate::{
    chunk::{ChunkedDocument, Chunker},
    domain::{
        chunking::Chunking,
        document::{DocumentOutcome, SkipRule, sha256_hex},
    },
    fetch::{Entry, Loaded as LoadedBlob, Reader},
    worker::{
        failure::AttemptError,
        progress::{ProgressHandle, Stage},
    },
};

/// Where the stage hands on to is gone: the attempt is over.
struct Closed;

/// What is loaded, and how it is cut.
pub(super) struct Loader {
    pub(super) entries: Arc<[Entry]>,
    pub(super) reader: Reader,
    pub(super) chunking: Chunking,
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
    let thread = tokio::task::spawn_blocking(move || {
        let budget = Arc::new(Semaphore::new(budget_bytes.min(Semaphore::MAX_PERMITS)));
        let mut stage = LoadStage {
            reader: loader.reader,
            chunker: Chunker::new(),
            chunking: loader.chunking,
            budget,
            budget_bytes,
            handle,
            progress,
            out,
        };
        for ordinal in pending {
            let Some(entry) = loader.entries.get(ordinal as usize) else {
                continue;
            };
            if let Err(Closed) = stage.load(ordinal, entry) {
                return;
            }
        }
    });
    thread.await.map_err(|_| AttemptError::StageEnded("load"))
}

struct LoadStage {
    reader: Reader,
    chunker: Chunker,
    chunking: Chunking,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    handle: Handle,
    progress: ProgressHandle,
    out: mpsc::Sender<Loaded>,
}

impl LoadStage {
    fn load(&mut self, ordinal: u32, entry: &Entry) -> Result<(), Closed> {
        let start = Instant::now();
        let blob = self.reader.load(entry);
        self.progress.time(Stage::Fetch, start);
        let text = match blob {
            Ok(LoadedBlob::Text(text)) => text,
            Ok(LoadedBlob::Skipped(rule)) => return self.settle(ordinal, DocumentOutcome::Skipped(rule)),
            Err(error) => {
                return self.settle(ordinal, DocumentOutcome::Failed(error.failure().message));
            }
        };
        let start = Instant::now();
        let chunked = self.chunk(&entry.document_key, &text);
        self.progress.time(Stage::Chunk, start);
        match chunked {
            Some(chunked) => self.hand_on(ordinal, entry, &text, chunked),
            None => self.settle(
                ordinal,
                DocumentOutcome::Failed("the chunker failed on this document".to_owned()),
            ),
        }
    }

    /// A fault in a grammar must cost one document, not the invocation.
    fn chunk(&mut self, key: &str, text: &str) -> Option<ChunkedDocument> {
        let (chunker, chunking) = (&mut self.chunker, &self.chunking);
        let chunked = catch_unwind(AssertUnwindSafe(|| chunker.chunk(key, text, chunking))).ok();
        if chunked.is_none() {
            tracing::error!(document.key = key, "the chunker panicked");
            self.chunker = Chunker::new();
        }
        chunked
    }

    fn hand_on(
        &mut self,
        ordinal: u32,
        entry: &Entry,
        text: &str,
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
        let document = Arc::new(DocumentWork {
            ordinal,
            document_key: entry.document_key.clone(),
            document_key_sha256: sha256_hex(&entry.document_key),
            version_key: entry.version_key.clone(),
            version_key_sha256: sha256_hex(&entry.version_key),
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
