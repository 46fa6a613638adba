//! Finds the documents that the collection already holds in their present version.
//!
//! The ledger says what this source left in the collection, and the collection is asked whether it is still
//! there: somebody may have deleted records, or the collection, and made it anew. A source never changes
//! its settings, so equal versions have equal records.

use std::collections::HashMap;

use super::{
    fetch::{Coverage, Fetched},
    ledger,
    target::Target,
};
use crate::{
    domain::document::{record_id, sha256_hex},
    fetch::{Entry, Listed},
    index::DocumentRecords,
    store::{Claim, OwnedDocument},
    worker::{Environment, failure::AttemptError},
};

/// The ordinals of the entries that are held, with the number of their records.
pub(super) async fn find(
    environment: &Environment,
    claim: &Claim,
    target: &Target,
    fetched: &Fetched,
) -> Result<HashMap<u32, u32>, AttemptError> {
    let entries = &fetched.source.entries;
    let mut unchanged = HashMap::new();
    match fetched.coverage {
        Coverage::Source { .. } | Coverage::Prefix => {}
        // A single document is written anew whenever it is asked for.
        Coverage::Document | Coverage::Removed => return Ok(unchanged),
    }
    if target.was_empty() {
        return Ok(unchanged);
    }
    let Some(mut owned) = ledger::owned(&environment.store, claim) else {
        return Ok(unchanged);
    };
    let mut listed = None;
    while let Some(page) = owned.next_page().await? {
        let listed = listed.get_or_insert_with(|| by_key(entries));
        let same: Vec<(u32, OwnedDocument)> = page
            .into_iter()
            .filter_map(|document| {
                let (ordinal, version) = listed.get(document.document_key.as_str())?;
                (*version == document.version_key).then_some((*ordinal, document))
            })
            .collect();
        unchanged.extend(still_held(target, &same).await?);
    }
    Ok(unchanged)
}

/// Ordinal and version of each entry that is to be loaded.
fn by_key(entries: &[Entry]) -> HashMap<&str, (u32, &str)> {
    (0..)
        .zip(entries)
        .filter(|(_, entry)| matches!(entry.decision, Listed::Load | Listed::Unchanged))
        .map(|(ordinal, entry)| (entry.document_key.as_str(), (ordinal, entry.version_key.as_str())))
        .collect()
}

/// Those of which the collection has the very records that they had: others with the same ids may have come from an
/// attempt at another version that broke off.
async fn still_held(
    target: &Target,
    documents: &[(u32, OwnedDocument)],
) -> Result<Vec<(u32, u32)>, AttemptError> {
    let digests: Vec<String> = documents
        .iter()
        .map(|(_, document)| sha256_hex(&document.document_key))
        .collect();
    let held = target.records_of(&digests).await?;
    Ok(documents
        .iter()
        .zip(&digests)
        .filter_map(|((ordinal, document), digest)| {
            let DocumentRecords { ids, versions, .. } = held.get(digest)?;
            let mut ids = ids.clone();
            let mut expected: Vec<String> = (0..document.chunks).map(|n| record_id(digest, n)).collect();
            ids.sort_unstable();
            expected.sort_unstable();
            let is_whole = ids == expected && versions.iter().eq([&document.version_key]);
            is_whole.then_some((*ordinal, document.chunks))
        })
        .collect())
}
