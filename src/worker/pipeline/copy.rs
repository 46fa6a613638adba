//! Copies the records of documents that an earlier invocation of the source put into another collection in the
//! same version.
//!
//! A repository that is synced into a new collection, at another branch or commit, shares most of its files with
//! the collection of the last time. Their records are the same there by design: ids come from the key, metadata
//! from key and version, and the vectors from the same model (`store::donors`). So they are read from there, a page
//! at a time, and written here; nothing of such a document is read, cut or embedded.
//!
//! The donor is somebody's collection, and may be changed or deleted at any moment. What is copied is therefore
//! checked document by document: all of its records must be there, and say that they are of this key and version.
//! Whatever is not so is left to the ordinary stages, as if there were no donor. Absent on purpose: documents that
//! the target holds records of already, which need the care of the index stage.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    index_stage::settle,
    ledger,
    target::{Donor, Target},
};
use crate::{
    domain::{
        document::{DocumentOutcome, record_id, sha256_hex},
        invocation::Statistics,
        source::SourceSettings,
    },
    error::chain,
    fetch::Entry,
    index::{DOCUMENT_KEY, Record, StoredRecord, VERSION_KEY},
    store::{Claim, DonorRequest, Settled},
    worker::{
        Environment,
        failure::AttemptError,
        lease_guard::Lease,
        progress::{ProgressHandle, Stage},
    },
};

/// Records of one page; Chroma Cloud gives no more at once.
const PAGE_RECORDS: u32 = 300;
/// Pages that are read ahead while one is written. A page of vectors of 1,024 numbers takes some 4 MB as JSON.
const PAGES_AHEAD: usize = 1;
/// A document of more records is cut and embedded anew: its records are written all or none, so all of them would
/// have to be in memory.
const MAX_RECORDS: u32 = 2_000;

/// A document that the donor is said to hold.
struct Held {
    ordinal: u32,
    /// Number of its records.
    chunks: u32,
}

/// What copies for one attempt.
pub(super) struct Copying<'a> {
    pub(super) environment: &'a Environment,
    pub(super) claim: &'a Claim,
    pub(super) lease: &'a Lease,
    pub(super) target: &'a Target,
    /// What the records of the attempt are made with.
    pub(super) fingerprint: &'a str,
    pub(super) progress: &'a ProgressHandle,
}

impl Copying<'_> {
    /// Copies what it can of the `pending` documents, and returns those that are left to be loaded.
    pub(super) async fn run(&self, entries: &[Entry], pending: Vec<u32>) -> Result<Vec<u32>, AttemptError> {
        if pending.is_empty() {
            return Ok(pending);
        }
        let Some((donor, held)) = self.find(entries, &pending).await? else {
            return Ok(pending);
        };
        let start = Instant::now();
        let (target, donor, id) = (self.target, &donor, self.lease.invocation);
        let mut pages = Box::pin(
            stream::iter(pages(held))
                .map(|page| async move {
                    let records = read(target, donor, entries, &page).await;
                    (page, records)
                })
                .buffered(1 + PAGES_AHEAD),
        );
        let mut copied = HashSet::new();
        while let Some((page, records)) = pages.next().await {
            let documents = match records {
                Ok(documents) => documents,
                Err(error) => {
                    // Gone, or away: the ordinary stages find out which, and need it no more.
                    tracing::info!(
                        invocation.id = %id, collection = %donor.name(), error = %chain(&error),
                        "records can no longer be copied; the rest is read and embedded"
                    );
                    break;
                }
            };
            copied.extend(self.write(page, documents).await?);
        }
        self.progress.time(Stage::Index, start);
        tracing::info!(
            invocation.id = %id, collection = %donor.name(), documents = copied.len(),
            "records of unchanged documents were copied"
        );
        let left = pending.into_iter().filter(|ordinal| !copied.contains(ordinal));
        Ok(left.collect())
    }

    /// A collection that has records to give, and which of the pending documents are to be had there.
    async fn find(
        &self,
        entries: &[Entry],
        pending: &[u32],
    ) -> Result<Option<(Donor, Vec<Held>)>, AttemptError> {
        let (store, claim) = (&self.environment.store, self.claim);
        let invocation = &claim.invocation;
        let (SourceSettings::Github(_), Some(source_id)) = (&claim.plan.settings, invocation.source_id)
        else {
            return Ok(None);
        };
        let request = DonorRequest {
            asking: invocation.id,
            source_id,
            database: &invocation.database,
            collection: &invocation.collection,
            fingerprint: self.fingerprint,
        };
        let wanted: HashMap<&str, (u32, &str)> = pending
            .iter()
            .filter_map(|ordinal| {
                let entry = entries.get(*ordinal as usize)?;
                Some((
                    entry.document_key.as_str(),
                    (*ordinal, entry.version_key.as_str()),
                ))
            })
            .collect();
        for collection in store.donor_collections(request).await? {
            let Some(donor) = self.target.donor(&collection).await? else {
                continue;
            };
            let mut owned = ledger::owned_in(store, claim, source_id, &collection);
            let mut held = Vec::new();
            while let Some(page) = owned.next_page().await? {
                held.extend(page.into_iter().filter_map(|document| {
                    let (ordinal, version) = wanted.get(document.document_key.as_str())?;
                    let same = *version == document.version_key;
                    (same && (1..=MAX_RECORDS).contains(&document.chunks)).then_some(Held {
                        ordinal: *ordinal,
                        chunks: document.chunks,
                    })
                }));
            }
            // In the order of the listing, as everything else is written.
            held.sort_unstable_by_key(|held| held.ordinal);
            return Ok((!held.is_empty()).then_some((donor, held)));
        }
        Ok(None)
    }

    /// Writes the records of a page and settles their documents; returns which.
    async fn write(
        &self,
        page: Vec<Held>,
        mut documents: HashMap<u32, Vec<Record>>,
    ) -> Result<Vec<u32>, AttemptError> {
        let mut counts = Statistics::default();
        let (mut settled, mut records) = (Vec::with_capacity(page.len()), Vec::new());
        for Held { ordinal, chunks } in page {
            let Some(of_document) = documents.remove(&ordinal) else {
                continue;
            };
            counts.documents_indexed += 1;
            counts.documents_copied += 1;
            counts.chunks_indexed += u64::from(chunks);
            counts.bytes_indexed += of_document
                .iter()
                .map(|record| record.document.len() as u64)
                .sum::<u64>();
            records.extend(of_document);
            settled.push(Settled {
                ordinal,
                outcome: DocumentOutcome::Indexed,
                chunks,
            });
        }
        self.target.upsert(self.lease, records).await?;
        settle(self.environment, self.lease, self.progress, &settled, &counts).await?;
        Ok(settled.into_iter().map(|settled| settled.ordinal).collect())
    }
}

/// Puts documents together to pages. One with more records than a page has one of its own.
fn pages(held: Vec<Held>) -> Vec<Vec<Held>> {
    let mut pages: Vec<Vec<Held>> = Vec::new();
    let mut records = 0;
    for document in held {
        match pages.last_mut() {
            Some(page) if records + document.chunks <= PAGE_RECORDS => {
                records += document.chunks;
                page.push(document);
            }
            Some(_) | None => {
                records = document.chunks;
                pages.push(vec![document]);
            }
        }
    }
    pages
}

/// The records of those documents of a page that are whole in the donor, and that the target has nothing of.
async fn read(
    target: &Target,
    donor: &Donor,
    entries: &[Entry],
    page: &[Held],
) -> Result<HashMap<u32, Vec<Record>>, AttemptError> {
    let documents: Vec<(&Held, &Entry, String)> = page
        .iter()
        .filter_map(|held| {
            let entry = entries.get(held.ordinal as usize)?;
            Some((held, entry, sha256_hex(&entry.document_key)))
        })
        .collect();
    let digests: Vec<String> = documents.iter().map(|(_, _, digest)| digest.clone()).collect();
    let there = target.records_of(&digests).await?;
    let ids: Vec<String> = documents
        .iter()
        .filter(|(_, _, digest)| !there.contains_key(digest))
        .flat_map(|(held, _, digest)| (0..held.chunks).map(move |n| record_id(digest, n)))
        .collect();
    let mut found: HashMap<String, StoredRecord> = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(PAGE_RECORDS as usize) {
        let records = target.read_donor(donor, ids).await?;
        found.extend(records.into_iter().map(|record| (record.id.clone(), record)));
    }
    let whole = documents.iter().filter_map(|(held, entry, digest)| {
        let records: Option<Vec<Record>> = (0..held.chunks)
            .map(|n| {
                let record = found.remove(&record_id(digest, n))?;
                copy_of(record, entry, target.dimensions())
            })
            .collect();
        Some((held.ordinal, records?))
    });
    Ok(whole.collect())
}

/// The record as it is to be written; none when it is not one of this version of the document.
fn copy_of(record: StoredRecord, entry: &Entry, dimensions: u32) -> Option<Record> {
    let StoredRecord {
        id,
        document,
        metadata,
        vector,
    } = record;
    let says = |key: &str, value: &str| metadata.get(key).and_then(Value::as_str) == Some(value);
    let vector = vector.filter(|vector| {
        vector.len() == dimensions as usize && vector.iter().all(|number| number.is_finite())
    })?;
    let document = document.map(Arc::<str>::from)?;
    let same = says(DOCUMENT_KEY, &entry.document_key) && says(VERSION_KEY, &entry.version_key);
    same.then_some(Record {
        id,
        vector,
        document,
        // Sparse vectors are in the metadata that was read.
        metadata,
        sparse: None,
    })
}
