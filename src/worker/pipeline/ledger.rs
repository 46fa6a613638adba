//! The ledger at the start of an attempt: everything that was listed is written down first, so that
//! nothing vanishes silently and a later attempt knows what an earlier one may have written.

use std::collections::HashMap;

use super::index_stage::count;
use crate::{
    domain::{
        document::{Document, DocumentOutcome},
        ids::SourceId,
        invocation::Statistics,
        names::CollectionName,
    },
    fetch::{Entry, Listed},
    store::{Claim, DocumentPage, Held, OutcomeName, OwnedDocuments, Store},
    worker::{failure::AttemptError, lease_guard::Lease, progress::ProgressHandle},
};

/// Rows written or read in one go.
const ROWS: usize = 500;

/// Writes the listing down, or takes up that of an earlier attempt. Returns the ordinals that are left
/// to be loaded. Those of `unchanged` are in the collection with this many records.
pub(super) async fn prepare(
    store: &Store,
    lease: &Lease,
    entries: &[Entry],
    unchanged: &HashMap<u32, u32>,
    progress: &ProgressHandle,
) -> Result<Vec<u32>, AttemptError> {
    if lease.attempt > 1
        && let Some(pending) = resume(store, lease, entries).await?
    {
        return Ok(pending);
    }
    held(store.clear_documents(lease.invocation, lease.attempt).await?)?;
    let mut pending = Vec::with_capacity(entries.len());
    let mut counts = Statistics::default();
    let mut rows = Vec::with_capacity(ROWS);
    for (ordinal, entry) in (0_u32..).zip(entries) {
        counts.documents_discovered += 1;
        let held_chunks = unchanged.get(&ordinal).copied();
        let outcome = match (&entry.decision, held_chunks) {
            (Listed::Load | Listed::Unchanged, Some(_)) => DocumentOutcome::Unchanged,
            (Listed::Load | Listed::Unchanged, None) => {
                pending.push(ordinal);
                DocumentOutcome::Discovered
            }
            (Listed::Skip(rule), _) => DocumentOutcome::Skipped(*rule),
            (Listed::Failed(reason), _) => DocumentOutcome::Failed(reason.clone()),
        };
        count(&mut counts, &outcome);
        rows.push(Document {
            ordinal,
            document_key: entry.document_key.clone(),
            version_key: entry.version_key.clone(),
            size_bytes: entry.size_bytes,
            outcome,
            chunks: held_chunks.unwrap_or_default(),
            memo: entry.memo.clone(),
        });
        if rows.len() == ROWS {
            held(
                store
                    .record_discovered(lease.invocation, lease.attempt, std::mem::take(&mut rows))
                    .await?,
            )?;
        }
    }
    if !rows.is_empty() {
        held(
            store
                .record_discovered(lease.invocation, lease.attempt, rows)
                .await?,
        )?;
    }
    // A listing that is written anew starts the counts anew; the times and what was embedded go on.
    progress.count(|statistics| {
        *statistics = Statistics {
            embeddings_computed: statistics.embeddings_computed,
            embeddings_cached: statistics.embeddings_cached,
            fetch_ms: statistics.fetch_ms,
            chunk_ms: statistics.chunk_ms,
            embed_ms: statistics.embed_ms,
            index_ms: statistics.index_ms,
            ..counts
        };
    });
    held(
        store
            .record_outcomes(lease.invocation, lease.attempt, &[], &progress.snapshot())
            .await?,
    )?;
    Ok(pending)
}

/// What earlier invocations of the claim's source left in the collection; none when the source is gone.
pub(super) fn owned(store: &Store, claim: &Claim) -> Option<OwnedDocuments> {
    let invocation = &claim.invocation;
    Some(store.owned_documents(
        invocation.source_id?,
        &invocation.database,
        &invocation.collection,
        invocation.id,
    ))
}

/// What other invocations of a source left in another collection of the claim's database.
pub(super) fn owned_in(
    store: &Store,
    claim: &Claim,
    source_id: SourceId,
    collection: &CollectionName,
) -> OwnedDocuments {
    let invocation = &claim.invocation;
    store.owned_documents(source_id, &invocation.database, collection, invocation.id)
}

/// What an earlier attempt left to do, if its listing is whole and the same as this one.
async fn resume(store: &Store, lease: &Lease, entries: &[Entry]) -> Result<Option<Vec<u32>>, AttemptError> {
    let mut pending = Vec::new();
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = DocumentPage {
            after,
            limit: ROWS as u64,
        };
        let documents = store.list_documents(lease.invocation, None, page).await?;
        let Some(last) = documents.last() else { break };
        after = Some(last.ordinal);
        for document in &documents {
            if document.outcome == DocumentOutcome::Removed {
                continue;
            }
            let same = entries.get(document.ordinal as usize).is_some_and(|entry| {
                entry.document_key == document.document_key && entry.version_key == document.version_key
            });
            if !same {
                return Ok(None);
            }
            seen += 1;
            if is_left(&document.outcome) {
                pending.push(document.ordinal);
            }
        }
    }
    Ok((seen == entries.len() && seen > 0).then_some(pending))
}

/// That the one document of an invocation did not fail: the invocation fails with it.
pub(super) async fn require_indexed(store: &Store, lease: &Lease) -> Result<(), AttemptError> {
    let page = DocumentPage {
        after: None,
        limit: 1,
    };
    let failed = store
        .list_documents(lease.invocation, Some(OutcomeName::Failed), page)
        .await?;
    match failed.into_iter().next() {
        Some(Document {
            document_key,
            outcome: DocumentOutcome::Failed(problem),
            ..
        }) => Err(AttemptError::DocumentFailed {
            document_key,
            problem,
        }),
        Some(_) | None => Ok(()),
    }
}

fn is_left(outcome: &DocumentOutcome) -> bool {
    match outcome {
        DocumentOutcome::Discovered => true,
        DocumentOutcome::Indexed
        | DocumentOutcome::Unchanged
        | DocumentOutcome::Removed
        | DocumentOutcome::Skipped(_)
        | DocumentOutcome::Failed(_) => false,
    }
}

pub(super) fn held(held: Held) -> Result<(), AttemptError> {
    match held {
        Held::Held => Ok(()),
        Held::Lost => Err(AttemptError::LeaseLost),
    }
}
