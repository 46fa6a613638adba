//! Writes records, replaces documents, and settles them in the ledger, in that order.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use super::{
    DocumentWork, Embedded, EmbeddedChunk, EmbeddedWindow, LoadedChunk, open_document::OpenDocument,
    target::Target,
};
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
        open: None,
        refused: None,
    };
    while let Some(window) = input.recv().await {
        let start = Instant::now();
        stage.index(window).await?;
        progress.time(Stage::Index, start);
    }
    Ok(())
}

struct IndexStage<'a> {
    environment: &'a Environment,
    lease: &'a Lease,
    target: &'a Target,
    progress: &'a ProgressHandle,
    /// What the collection held of the documents under way before they were written anew.
    old_records: HashMap<String, DocumentRecords>,
    open: Option<OpenDocument>,
    /// The document that failed last because of a chunk: only its chunks can still come, since those of a document
    /// come together.
    refused: Option<u32>,
}

/// What one window comes to.
#[derive(Default)]
struct Outcomes {
    records: Vec<Record>,
    /// Ids of records that documents no longer have.
    stale: Vec<String>,
    /// Key digests of documents that failed after some of their records were written.
    partly_written: Vec<String>,
    /// Documents that failed, of which an earlier attempt may have written records.
    doubtful: Vec<Arc<DocumentWork>>,
    settled: Vec<Settled>,
    counts: Statistics,
}

impl IndexStage<'_> {
    async fn index(&mut self, window: EmbeddedWindow) -> Result<(), AttemptError> {
        self.find_old_records(&window).await?;
        let mut outcomes = Outcomes::default();
        let mut budgets = Vec::with_capacity(window.items.len());
        for item in window.items {
            match item {
                Embedded::Settled { ordinal, outcome } => outcomes.settle(ordinal, outcome, 0),
                Embedded::Chunk(chunk, embedded) => {
                    self.take(&chunk, embedded, &mut outcomes);
                    budgets.push(chunk);
                }
                Embedded::Refused(chunk, problem) => self.refuse(&chunk, &problem, &mut outcomes),
            }
        }
        if let Some(open) = &mut self.open {
            outcomes.records.extend(open.take_excess());
        }
        let Outcomes {
            records,
            stale,
            partly_written,
            doubtful,
            settled,
            counts,
        } = outcomes;
        self.target.upsert(self.lease, records).await?;
        // The texts are written, or wait as part of a bounded number; the load stage may go on.
        drop(budgets);
        self.target.delete(self.lease, stale).await?;
        self.discard(partly_written, doubtful).await?;
        settle(self.environment, self.lease, self.progress, &settled, &counts).await
    }

    /// Adds a chunk to its document; the last one ends it.
    fn take(&mut self, chunk: &LoadedChunk, embedded: EmbeddedChunk, outcomes: &mut Outcomes) {
        let document = &chunk.document;
        if self.refused == Some(document.ordinal) {
            return;
        }
        let open = self.open.take().filter(|open| open.ordinal() == document.ordinal);
        let mut open = open.unwrap_or_else(|| OpenDocument::new(document.ordinal));
        let EmbeddedText {
            tokens, truncated, ..
        } = embedded.dense;
        let old = self.old_records.get(&document.document_key_sha256);
        open.add(record(chunk, embedded, old), tokens, truncated);
        if chunk.n + 1 < document.chunks {
            self.open = Some(open);
            return;
        }
        let (records, totals) = open.finish();
        outcomes.records.extend(records);
        outcomes.stale.extend(self.stale_records(document));
        outcomes.counts.chunks_indexed += u64::from(document.chunks);
        outcomes.counts.bytes_indexed += totals.bytes;
        outcomes.counts.tokens_embedded += totals.tokens;
        outcomes.counts.chunks_truncated += totals.truncated;
        outcomes.settle(document.ordinal, DocumentOutcome::Indexed, document.chunks);
    }

    /// Fails the document of a chunk that a model refuses, once.
    fn refuse(&mut self, chunk: &LoadedChunk, problem: &str, outcomes: &mut Outcomes) {
        let (document, n) = (&chunk.document, chunk.n);
        if self.refused.replace(document.ordinal) == Some(document.ordinal) {
            return;
        }
        let open = self.open.take().filter(|open| open.ordinal() == document.ordinal);
        if open.is_some_and(|open| open.is_partly_written()) {
            outcomes.partly_written.push(document.document_key_sha256.clone());
        } else if self.lease.attempt > 1 {
            outcomes.doubtful.push(Arc::clone(document));
        }
        self.old_records.remove(&document.document_key_sha256);
        let reason = format!("chunk {n} cannot be embedded: {problem}");
        outcomes.settle(document.ordinal, DocumentOutcome::Failed(reason), 0);
    }

    /// Deletes the records of documents that failed after this invocation wrote some of them, and with them what is
    /// left of their former version. It comes before the outcome, so an attempt that is broken off here repeats it.
    async fn discard(
        &self,
        mut partly_written: Vec<String>,
        doubtful: Vec<Arc<DocumentWork>>,
    ) -> Result<(), AttemptError> {
        let digests: Vec<String> = doubtful
            .iter()
            .map(|document| document.document_key_sha256.clone())
            .collect();
        let found = self.target.records_of(&digests).await?;
        for (document, digest) in doubtful.iter().zip(digests) {
            let records = found.get(&digest);
            if records.is_some_and(|records| records.versions.contains(&document.version_key)) {
                partly_written.push(digest);
            }
        }
        if partly_written.is_empty() {
            return Ok(());
        }
        self.target.delete_written(self.lease, &partly_written).await
    }

    /// Asks once a window which records the collection has of the documents that begin in it.
    async fn find_old_records(&mut self, window: &EmbeddedWindow) -> Result<(), AttemptError> {
        let beginning: Vec<String> = window
            .items
            .iter()
            .filter_map(|item| match item {
                Embedded::Chunk(chunk, _) if chunk.n == 0 => Some(chunk.document.document_key_sha256.clone()),
                Embedded::Chunk(..) | Embedded::Refused(..) | Embedded::Settled { .. } => None,
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
}

impl Outcomes {
    /// Counts a document that ends with so many records.
    fn settle(&mut self, ordinal: u32, outcome: DocumentOutcome, chunks: u32) {
        count(&mut self.counts, &outcome);
        self.settled.push(Settled {
            ordinal,
            outcome,
            chunks,
        });
    }
}

/// Settles documents in the ledger. Outcomes and counters go into one transaction, so that they always agree.
pub(super) async fn settle(
    environment: &Environment,
    lease: &Lease,
    progress: &ProgressHandle,
    settled: &[Settled],
    counts: &Statistics,
) -> Result<(), AttemptError> {
    if settled.is_empty() {
        return Ok(());
    }
    let (id, attempt) = (lease.invocation, lease.attempt);
    progress.count(|statistics| add(statistics, counts));
    let progress = progress.snapshot();
    match environment
        .store
        .record_outcomes(id, attempt, settled, &progress)
        .await?
    {
        Held::Held => {
            environment.changes.changed(id);
            Ok(())
        }
        Held::Lost => Err(AttemptError::LeaseLost),
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

/// Counts a document that ended.
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
    total.documents_copied += counts.documents_copied;
    total.documents_unchanged += counts.documents_unchanged;
    total.documents_removed += counts.documents_removed;
    total.documents_skipped += counts.documents_skipped;
    total.documents_failed += counts.documents_failed;
    total.chunks_indexed += counts.chunks_indexed;
    total.bytes_indexed += counts.bytes_indexed;
    total.tokens_embedded += counts.tokens_embedded;
    total.chunks_truncated += counts.chunks_truncated;
}
