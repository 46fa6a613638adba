//! Deletes the records of documents that an earlier invocation of the same source put into the
//! collection and that are gone from the source.
//!
//! Only what the ledger knows as this source's own is deleted: a collection may hold records of others.
//! The listing of a commit is whole or the fetch failed, so an absent document is really gone.

use std::collections::{HashMap, HashSet};

use super::{
    ledger::{self, held},
    target::Target,
};
use crate::{
    domain::document::{Document, DocumentOutcome, sha256_hex},
    fetch::Entry,
    store::{Claim, DocumentPage, OutcomeName, OwnedDocument},
    worker::{Environment, failure::AttemptError, lease_guard::Lease, progress::ProgressHandle},
};

/// Documents removed in one go.
const DOCUMENTS: usize = 100;

pub(super) async fn run(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    target: &Target,
    entries: &[Entry],
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let Some(mut owned) = ledger::owned(&environment.store, claim) else {
        return Ok(());
    };
    let listed: HashSet<&str> = entries.iter().map(|entry| entry.document_key.as_str()).collect();
    // An attempt that was broken off here may have used the ordinals after the listing already.
    let mut ordinal = environment.store.next_ordinal(lease.invocation).await?;
    let mut page = owned.next_page().await?;
    if page.is_none() {
        return Ok(());
    }
    let skipped = skipped_keys(environment, lease).await?;
    while let Some(documents) = page {
        let (mut left_out, gone): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .partition(|document| listed.contains(document.document_key.as_str()));
        left_out.retain(|document| skipped.contains(&document.document_key));
        for left_out in left_out.chunks(DOCUMENTS) {
            delete_records(lease, target, left_out).await?;
        }
        for gone in gone.chunks(DOCUMENTS) {
            remove(environment, lease, target, gone, ordinal, progress).await?;
            ordinal = ordinal.saturating_add(u32::try_from(gone.len()).unwrap_or(u32::MAX));
        }
        page = owned.next_page().await?;
    }
    Ok(())
}

/// Removes the documents that are listed, for a listing of what is gone.
pub(super) async fn remove_listed(
    environment: &Environment,
    lease: &Lease,
    target: &Target,
    entries: &[Entry],
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    // The ledger begins anew: what is gone is in no listing.
    ledger::prepare(&environment.store, lease, &[], &HashMap::new(), progress).await?;
    let gone: Vec<OwnedDocument> = entries
        .iter()
        .map(|entry| OwnedDocument {
            document_key: entry.document_key.clone(),
            version_key: entry.version_key.clone(),
            chunks: 0,
            memo: None,
        })
        .collect();
    remove(environment, lease, target, &gone, 0, progress).await
}

/// Keys that a rule leaves out now. Records that such a document had before must go as well, though it
/// counts as skipped and not as removed.
async fn skipped_keys(environment: &Environment, lease: &Lease) -> Result<HashSet<String>, AttemptError> {
    let mut keys = HashSet::new();
    let mut after = None;
    loop {
        let page = DocumentPage { after, limit: 500 };
        let documents = environment
            .store
            .list_documents(lease.invocation, Some(OutcomeName::Skipped), page)
            .await?;
        let Some(last) = documents.last() else {
            return Ok(keys);
        };
        after = Some(last.ordinal);
        keys.extend(documents.into_iter().map(|document| document.document_key));
    }
}

async fn delete_records(
    lease: &Lease,
    target: &Target,
    documents: &[OwnedDocument],
) -> Result<(), AttemptError> {
    let digests: Vec<String> = documents
        .iter()
        .map(|document| sha256_hex(&document.document_key))
        .collect();
    target.delete_documents(lease, &digests).await
}

async fn remove(
    environment: &Environment,
    lease: &Lease,
    target: &Target,
    gone: &[OwnedDocument],
    first_ordinal: u32,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    delete_records(lease, target, gone).await?;
    let rows = (first_ordinal..)
        .zip(gone)
        .map(|(ordinal, document)| Document {
            ordinal,
            document_key: document.document_key.clone(),
            version_key: String::new(),
            size_bytes: None,
            outcome: DocumentOutcome::Removed,
            chunks: 0,
            memo: None,
        })
        .collect();
    let removed = gone.len() as u64;
    progress.count(|statistics| {
        statistics.documents_discovered += removed;
        statistics.documents_removed += removed;
    });
    let (store, id, attempt) = (&environment.store, lease.invocation, lease.attempt);
    held(store.record_discovered(id, attempt, rows).await?)?;
    held(
        store
            .record_outcomes(id, attempt, &[], &progress.snapshot())
            .await?,
    )
}
