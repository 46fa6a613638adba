//! Writes records, replaces documents, and settles them in the ledger, in that order.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use super::{DocumentWork, EmbeddedChunk, EmbeddedWindow, Loaded, LoadedChunk, target::Target};
use crate::{
    domain::{
        document::{DocumentOutcome, record_id},
        invocation::Statistics,
    },
    embed::EmbeddedText,
    index::{DocumentRecords, Record, RecordMetadata},
    store::{Held, Settled},
    worker::{
        Environment,
        failure::AttemptError,
        lease_guard::Lease,
        progress::{ProgressHandle, Stage},
    },
};

/// Indexes until the embed stage is done.
pub(super) async fn run(
    environment: &Environment,
    lease: &Lease,
    target: &Target,
    mut input: mpsc::Receiver<EmbeddedWindow>,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let mut stage = IndexStage {
        environment,
        lease,
        target,
        progress,
        old_records: HashMap::new(),
        open: Totals::default(),
    };
    while let Some(window) = input.recv().await {
        let start = Instant::now();
        stage.index(window).await?;
        progress.time(Stage::Index, start);
    }
    Ok(())
}

/// Counts of the document whose chunks are coming in.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    bytes: u64,
    tokens: u64,
    truncated: u64,
}

struct IndexStage<'a> {
    environment: &'a Environment,
    lease: &'a Lease,
    target: &'a Target,
    progress: &'a ProgressHandle,
    /// What the collection held of the documents under way before they were written anew.
    old_records: HashMap<String, DocumentRecords>,
    open: Totals,
}

impl IndexStage<'_> {
    async fn index(&mut self, window: EmbeddedWindow) -> Result<(), AttemptError> {
        self.find_old_records(&window).await?;
        let mut records = Vec::with_capacity(window.items.len());
        let mut settled = Vec::new();
        let mut stale = Vec::new();
        let mut counts = Statistics::default();
        let mut budgets = Vec::with_capacity(window.items.len());
        for (item, embedded) in window.items {
            match item {
                Loaded::Settled { ordinal, outcome } => {
                    // A document may fail after some of its chunks were added.
                    self.open = Totals::default();
                    count(&mut counts, &outcome);
                    settled.push(Settled {
                        ordinal,
                        outcome,
                        chunks: 0,
                    });
                }
                Loaded::Chunk(chunk) => {
                    let Some(embedded) = embedded else {
                        return Err(AttemptError::StageEnded("embed"));
                    };
                    self.add(&chunk, &embedded.dense);
                    let document = Arc::clone(&chunk.document);
                    let last = chunk.n + 1 == document.chunks;
                    let old = self.old_records.get(&document.document_key_sha256);
                    records.push(record(&chunk, embedded, old));
                    budgets.push(chunk);
                    if last {
                        stale.extend(self.stale_records(&document));
                        self.close(&document, &mut counts);
                        let (ordinal, chunks) = (document.ordinal, document.chunks);
                        settled.push(Settled {
                            ordinal,
                            outcome: DocumentOutcome::Indexed,
                            chunks,
                        });
                    }
                }
            }
        }
        self.target.upsert(self.lease, records).await?;
        // The texts are out of the pipeline now; the load stage may go on.
        drop(budgets);
        self.target.delete(self.lease, stale).await?;
        self.settle(&settled, &counts).await
    }

    /// Asks once a window which records the collection has of the documents that begin in it.
    async fn find_old_records(&mut self, window: &EmbeddedWindow) -> Result<(), AttemptError> {
        let beginning: Vec<String> = window
            .items
            .iter()
            .filter_map(|(item, _)| match item {
                Loaded::Chunk(chunk) if chunk.n == 0 => Some(chunk.document.document_key_sha256.clone()),
                Loaded::Chunk(_) | Loaded::Settled { .. } => None,
            })
            .collect();
        self.old_records.extend(self.target.records_of(&beginning).await?);
        Ok(())
    }

    /// Ids of records beyond the document's new end.
    fn stale_records(&mut self, document: &DocumentWork) -> Vec<String> {
        let Some(DocumentRecords { ids: mut old, .. }) =
            self.old_records.remove(&document.document_key_sha256)
        else {
            return Vec::new();
        };
        let written: HashSet<String> = (0..document.chunks)
            .map(|n| record_id(document.record_base(), n))
            .collect();
        old.retain(|id| !written.contains(id));
        old
    }

    fn add(&mut self, chunk: &LoadedChunk, embedded: &EmbeddedText) {
        self.open.bytes += chunk.text.len() as u64;
        self.open.tokens += u64::from(embedded.tokens);
        self.open.truncated += u64::from(embedded.truncated);
    }

    fn close(&mut self, document: &DocumentWork, counts: &mut Statistics) {
        let Totals {
            bytes,
            tokens,
            truncated,
        } = std::mem::take(&mut self.open);
        counts.documents_indexed += 1;
        counts.chunks_indexed += u64::from(document.chunks);
        counts.bytes_indexed += bytes;
        counts.tokens_embedded += tokens;
        counts.chunks_truncated += truncated;
    }

    /// Outcomes and counters go into one transaction, so that they always agree.
    async fn settle(&self, settled: &[Settled], counts: &Statistics) -> Result<(), AttemptError> {
        if settled.is_empty() {
            return Ok(());
        }
        let (id, attempt) = (self.lease.invocation, self.lease.attempt);
        self.progress.count(|statistics| add(statistics, counts));
        let progress = self.progress.snapshot();
        match self
            .environment
            .store
            .record_outcomes(id, attempt, settled, &progress)
            .await?
        {
            Held::Held => {
                self.environment.changes.changed(id);
                Ok(())
            }
            Held::Lost => Err(AttemptError::LeaseLost),
        }
    }
}

fn record(chunk: &LoadedChunk, embedded: EmbeddedChunk, old: Option<&DocumentRecords>) -> Record {
    let EmbeddedChunk { dense, sparse } = embedded;
    let document = &chunk.document;
    let metadata = RecordMetadata {
        document_key: &document.document_key,
        document_key_sha256: &document.document_key_sha256,
        version_key: &document.version_key,
        version_key_sha256: &document.version_key_sha256,
        chunk_strategy: document.strategy.as_str(),
        language: document.language,
        start_line: chunk.place.start_line,
        end_line: chunk.place.end_line,
        start_col: chunk.place.start_col,
        end_col: chunk.place.end_col,
        custom_id: document.custom_id.as_deref(),
    };
    let mut metadata = metadata.into_map();
    metadata.extend(document.metadata.clone());
    // Chroma merges what is written into the stored record, so a key that is no longer said is taken out.
    for key in old.iter().flat_map(|old| &old.metadata_keys) {
        if !metadata.contains_key(key) {
            metadata.insert(key.clone(), Value::Null);
        }
    }
    Record {
        id: record_id(document.record_base(), chunk.n),
        vector: dense.vector,
        document: Arc::clone(&chunk.text),
        metadata,
        sparse,
    }
}

/// Counts a document that ended without records.
pub(super) fn count(counts: &mut Statistics, outcome: &DocumentOutcome) {
    match outcome {
        DocumentOutcome::Discovered => {}
        DocumentOutcome::Indexed => counts.documents_indexed += 1,
        DocumentOutcome::Unchanged => counts.documents_unchanged += 1,
        DocumentOutcome::Removed => counts.documents_removed += 1,
        DocumentOutcome::Skipped(_) => counts.documents_skipped += 1,
        DocumentOutcome::Failed(_) => counts.documents_failed += 1,
    }
}

fn add(total: &mut Statistics, counts: &Statistics) {
    total.documents_indexed += counts.documents_indexed;
    total.documents_unchanged += counts.documents_unchanged;
    total.documents_removed += counts.documents_removed;
    total.documents_skipped += counts.documents_skipped;
    total.documents_failed += counts.documents_failed;
    total.chunks_indexed += counts.chunks_indexed;
    total.bytes_indexed += counts.bytes_indexed;
    total.tokens_embedded += counts.tokens_embedded;
    total.chunks_truncated += counts.chunks_truncated;
}
