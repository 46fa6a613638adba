//! The collection an attempt writes to, fenced by its lease.
//!
//! Chroma knows no leases, so the fence is time: a write is sent only while the lease holds for a while
//! yet, and is given up when the lease is lost.

use std::{collections::HashMap, future::Future, time::Duration};

use serde_json::{Map, Value, json};

use super::embed_stage::Models;
use crate::{
    domain::names::CollectionName,
    index::{
        ChromaClient, Collection, CollectionSettings, DocumentRecords, EmbeddingFunction, FINISHED_INGEST,
        IndexError, PageFields, Record, SparseIndex, StoredRecord,
    },
    store::Claim,
    worker::{Environment, failure::AttemptError, lease_guard::Lease},
};

/// How often a write that has to wait for the renewal of the lease looks for it.
const RENEWAL_CHECK: Duration = Duration::from_millis(20);

/// A collection, opened.
#[derive(Debug)]
pub(super) struct Target {
    chroma: ChromaClient,
    collection: Collection,
    settings: CollectionSettings,
    /// Whether it held records before this attempt, so that documents are replaced and not just added.
    held_records: bool,
}

/// A collection that records are copied from; it is only read.
#[derive(Debug)]
pub(super) struct Donor(Collection);

impl Donor {
    pub(super) fn name(&self) -> &CollectionName {
        &self.0.name
    }
}

impl Target {
    /// Gets or creates the collection. Where it is to show the source as a whole, its metadata says that a
    /// sync is under way.
    pub(super) async fn open(
        environment: &Environment,
        claim: &Claim,
        lease: &Lease,
        models: &Models,
        shows_source: bool,
    ) -> Result<Self, AttemptError> {
        let chroma = client(environment, claim)?;
        let invocation = &claim.invocation;
        let model = models.dense.model();
        let sparse = claim.plan.embedding.sparse.as_ref();
        let settings = CollectionSettings {
            embedding_function: EmbeddingFunction::for_model(&model.name, models.task.as_ref()),
            dimensions: model.dimensions,
            sparse: sparse.and_then(SparseIndex::for_settings),
            metadata: match shows_source {
                true => finished_ingest(false),
                false => Map::new(),
            },
        };
        let opening = async {
            let (tenant, database, name) = (&invocation.tenant, &invocation.database, &invocation.collection);
            let collection = chroma
                .get_or_create_collection(tenant, database, name, &settings)
                .await?;
            if shows_source {
                chroma
                    .merge_collection_metadata(&collection, finished_ingest(false))
                    .await?;
            }
            let held_records = chroma.count(&collection).await? > 0;
            Ok((collection, held_records))
        };
        let (collection, held_records) = fenced(lease, opening).await?;
        Ok(Self {
            chroma,
            collection,
            settings,
            held_records,
        })
    }

    /// Length of its vectors.
    pub(super) fn dimensions(&self) -> u32 {
        self.settings.dimensions
    }

    /// Another collection of the same database, if it is whole and for the same model.
    pub(super) async fn donor(&self, name: &CollectionName) -> Result<Option<Donor>, AttemptError> {
        let Collection { tenant, database, .. } = &self.collection;
        let found = self.chroma.find_collection(tenant, database, name).await?;
        Ok(found
            .filter(|collection| collection.is_finished() && collection.is_compatible_with(&self.settings))
            .map(Donor))
    }

    /// The records with these ids that the donor has, whole.
    pub(super) async fn read_donor(
        &self,
        donor: &Donor,
        ids: &[String],
    ) -> Result<Vec<StoredRecord>, AttemptError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let fields = PageFields {
            document: true,
            metadata: true,
            vector: true,
        };
        Ok(self.chroma.get_records(&donor.0, ids, fields).await?)
    }

    /// Writes records; existing ids are overwritten.
    pub(super) async fn upsert(&self, lease: &Lease, records: Vec<Record>) -> Result<(), AttemptError> {
        if records.is_empty() {
            return Ok(());
        }
        fenced(lease, self.chroma.upsert(&self.collection, &records)).await
    }

    /// Deletes records by id.
    pub(super) async fn delete(&self, lease: &Lease, ids: Vec<String>) -> Result<(), AttemptError> {
        if ids.is_empty() {
            return Ok(());
        }
        fenced(lease, self.chroma.delete_records(&self.collection, &ids)).await
    }

    /// Deletes all records of the documents with these key digests.
    pub(super) async fn delete_documents(
        &self,
        lease: &Lease,
        key_digests: &[String],
    ) -> Result<(), AttemptError> {
        if !self.held_records || key_digests.is_empty() {
            return Ok(());
        }
        fenced(lease, self.chroma.delete_documents(&self.collection, key_digests)).await?;
        Ok(())
    }

    /// Deletes all records of documents that this invocation wrote, whether or not the collection held any before.
    pub(super) async fn delete_written(
        &self,
        lease: &Lease,
        key_digests: &[String],
    ) -> Result<(), AttemptError> {
        fenced(lease, self.chroma.delete_documents(&self.collection, key_digests)).await?;
        Ok(())
    }

    /// What the collection holds of the documents with these key digests.
    pub(super) async fn records_of(
        &self,
        key_digests: &[String],
    ) -> Result<HashMap<String, DocumentRecords>, AttemptError> {
        if !self.held_records || key_digests.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(self
            .chroma
            .records_of_documents(&self.collection, key_digests)
            .await?)
    }

    /// Whether the collection held no records before this attempt.
    pub(super) fn was_empty(&self) -> bool {
        !self.held_records
    }

    /// Says in the metadata that the collection is whole.
    pub(super) async fn mark_finished(&self, lease: &Lease) -> Result<(), AttemptError> {
        fenced(
            lease,
            self.chroma
                .merge_collection_metadata(&self.collection, finished_ingest(true)),
        )
        .await?;
        Ok(())
    }
}

fn finished_ingest(finished: bool) -> Map<String, Value> {
    Map::from_iter([(FINISHED_INGEST.to_owned(), json!(finished))])
}

/// The Chroma server with the token of the invocation's creator, where it has one.
fn client(environment: &Environment, claim: &Claim) -> Result<ChromaClient, AttemptError> {
    let Some(sealed) = &claim.chroma_token else {
        return Ok(environment.chroma.clone());
    };
    let tenant = claim.invocation.tenant.as_str();
    let token = environment.sealing_key.open(tenant, sealed)?;
    Ok(environment.chroma.with_token(&token)?)
}

/// Runs a write only while the lease holds.
async fn fenced<T>(
    lease: &Lease,
    write: impl Future<Output = Result<T, IndexError>>,
) -> Result<T, AttemptError> {
    while lease.is_about_to_end() {
        if lease.lost().is_cancelled() {
            return Err(AttemptError::LeaseLost);
        }
        tokio::time::sleep(RENEWAL_CHECK).await;
    }
    tokio::select! {
        biased;
        () = lease.lost().cancelled() => Err(AttemptError::LeaseLost),
        result = write => Ok(result?),
    }
}
