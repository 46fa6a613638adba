//! The calls about the records of a collection.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    batch::{self, BatchLimits, to_json},
    client::ChromaClient,
    error::IndexError,
    metadata::{DOCUMENT_KEY_SHA256, VERSION_KEY},
    transport::Call,
    types::{Collection, DocumentRecords, Hit, PageFields, Record, StoredRecord},
    wire::{DeletedBody, GetBody, QueryBody},
};

/// Keys in one `$in`: a server turns each into one of SQLite's 32,766 variables.
const MAX_KEYS_PER_FILTER: usize = 500;
/// Ids in one delete, and records in one page of a listing.
const MAX_IDS_PER_CALL: usize = 1_000;

impl ChromaClient {
    /// Stores `records`, in place of those with the same ids. Metadata is merged: see [`Record::metadata`].
    ///
    /// Takes any number and sends as many requests as the limits ask for (500 records, 8 MiB, and the
    /// server's own), one after the other: a single-node server writes with one thread.
    ///
    /// # Errors
    /// [`IndexError::DimensionMismatch`], [`IndexError::InvalidRecord`], [`IndexError::CollectionNotFound`].
    /// The requests before the failed one are stored then.
    pub async fn upsert(&self, collection: &Collection, records: &[Record]) -> Result<(), IndexError> {
        if records.is_empty() {
            return Ok(());
        }
        let capabilities = self.capabilities().await?;
        let limits = BatchLimits::DEFAULT.with_max_records(capabilities.max_batch_size);
        // A batch that proves too large for the server, or for a proxy before it, is cut in two.
        let mut batches: Vec<&[Record]> = batch::split(records, limits).collect();
        batches.reverse();
        while let Some(batch) = batches.pop() {
            match self
                .upsert_batch(collection, batch, capabilities.base64_vectors)
                .await
            {
                Ok(()) => {}
                Err(IndexError::Rejected { status: 413, .. }) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn upsert_batch(
        &self,
        collection: &Collection,
        batch: &[Record],
        base64_vectors: bool,
    ) -> Result<(), IndexError> {
        for record in batch {
            collection.check_dimensions(u32::try_from(record.vector.len()).unwrap_or(u32::MAX))?;
        }
        let body = batch::encode(batch, base64_vectors)?;
        let call = Call::post("upsert", self.collection_url(collection, &["upsert"]), body);
        self.transport
            .call_unit(call)
            .await
            .map_err(|error| error.about(collection))
    }

    /// Deletes the records with these ids. An id that no record has is passed over.
    pub async fn delete_records(&self, collection: &Collection, ids: &[String]) -> Result<(), IndexError> {
        for ids in ids.chunks(MAX_IDS_PER_CALL) {
            self.delete(collection, &json!({"ids": ids})).await?;
        }
        Ok(())
    }

    /// Deletes all records of the documents with these `document_key_sha256`, and says how many.
    pub async fn delete_documents(
        &self,
        collection: &Collection,
        key_hashes: &[String],
    ) -> Result<u64, IndexError> {
        let mut deleted = 0;
        for hashes in key_hashes.chunks(MAX_KEYS_PER_FILTER) {
            deleted += self
                .delete(collection, &json!({"where": any_document(hashes)}))
                .await?
                .deleted;
        }
        Ok(deleted)
    }

    async fn delete(&self, collection: &Collection, body: &Value) -> Result<DeletedBody, IndexError> {
        let call = Call::post(
            "delete",
            self.collection_url(collection, &["delete"]),
            to_json(body)?,
        );
        self.transport
            .call(call)
            .await
            .map_err(|error| error.about(collection))
    }

    /// The records that the documents with these `document_key_sha256` have. A document without records
    /// is absent from the map.
    pub async fn records_of_documents(
        &self,
        collection: &Collection,
        key_hashes: &[String],
    ) -> Result<HashMap<String, DocumentRecords>, IndexError> {
        let fields = PageFields {
            metadata: true,
            ..PageFields::default()
        };
        let mut documents: HashMap<String, DocumentRecords> = HashMap::new();
        for hashes in key_hashes.chunks(MAX_KEYS_PER_FILTER) {
            let filter = any_document(hashes);
            let mut offset = 0;
            loop {
                let page = self
                    .get_page(collection, Some(&filter), fields, MAX_IDS_PER_CALL, offset)
                    .await?;
                let count = page.len();
                for record in page {
                    if let Some(Value::String(hash)) = record.metadata.get(DOCUMENT_KEY_SHA256) {
                        let document = documents.entry(hash.clone()).or_default();
                        document.ids.push(record.id);
                        if let Some(Value::String(version)) = record.metadata.get(VERSION_KEY) {
                            document.versions.insert(version.clone());
                        }
                        for key in record.metadata.into_iter().map(|(key, _)| key) {
                            document.metadata_keys.insert(key);
                        }
                    }
                }
                if count < MAX_IDS_PER_CALL {
                    break;
                }
                offset += count;
            }
        }
        Ok(documents)
    }

    /// The records with these ids, in no order; an id that no record has is passed over. Chroma Cloud gives at
    /// most 300 at once.
    pub async fn get_records(
        &self,
        collection: &Collection,
        ids: &[String],
        fields: PageFields,
    ) -> Result<Vec<StoredRecord>, IndexError> {
        self.get(collection, &json!({"ids": ids, "include": include(fields)}))
            .await
    }

    /// How many records the collection has.
    pub async fn count(&self, collection: &Collection) -> Result<u64, IndexError> {
        let call = Call::get("count", self.collection_url(collection, &["count"]));
        self.transport
            .call(call)
            .await
            .map_err(|error| error.about(collection))
    }

    /// The records nearest to `vector`, nearest first, at most `n_results`; `filter` is a Chroma `where`.
    ///
    /// # Errors
    /// [`IndexError::DimensionMismatch`]; [`IndexError::Rejected`] for a filter that Chroma does not read.
    pub async fn query(
        &self,
        collection: &Collection,
        vector: Vec<f32>,
        n_results: u32,
        filter: Option<&Value>,
    ) -> Result<Vec<Hit>, IndexError> {
        self.query_filtered(collection, vector, n_results, filter, None)
            .await
    }

    /// [`query`](Self::query) with a filter on texts as well: a Chroma `where_document`.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn query_filtered(
        &self,
        collection: &Collection,
        vector: Vec<f32>,
        n_results: u32,
        filter: Option<&Value>,
        document_filter: Option<&Value>,
    ) -> Result<Vec<Hit>, IndexError> {
        batch::check_vector(&vector).map_err(|problem| IndexError::InvalidRecord {
            what: "the query".to_owned(),
            problem,
        })?;
        let body = to_json(&json!({
            "query_embeddings": [vector],
            "n_results": n_results,
            "where": filter,
            "where_document": document_filter,
            "include": ["distances", "documents", "metadatas"],
        }))?;
        let call = Call::post("query", self.collection_url(collection, &["query"]), body);
        let answer: QueryBody = self
            .transport
            .call(call)
            .await
            .map_err(|error| error.about(collection))?;
        answer.into_hits()
    }

    /// Records in the order in which they were first stored, `limit` of them after `offset`, of those
    /// that `filter` (a Chroma `where`) lets through. Chroma Cloud gives at most 300 at once.
    pub async fn get_page(
        &self,
        collection: &Collection,
        filter: Option<&Value>,
        fields: PageFields,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<StoredRecord>, IndexError> {
        let include = include(fields);
        self.get(
            collection,
            &json!({"where": filter, "limit": limit, "offset": offset, "include": include}),
        )
        .await
    }

    async fn get(&self, collection: &Collection, body: &Value) -> Result<Vec<StoredRecord>, IndexError> {
        let call = Call::post("get", self.collection_url(collection, &["get"]), to_json(body)?);
        let answer: GetBody = self
            .transport
            .call(call)
            .await
            .map_err(|error| error.about(collection))?;
        answer.into_records()
    }
}

/// What Chroma calls the fields.
fn include(fields: PageFields) -> Vec<&'static str> {
    [
        (fields.document, "documents"),
        (fields.metadata, "metadatas"),
        (fields.vector, "embeddings"),
    ]
    .into_iter()
    .filter_map(|(wanted, name)| wanted.then_some(name))
    .collect()
}

fn any_document(key_hashes: &[String]) -> Value {
    json!({DOCUMENT_KEY_SHA256: {"$in": key_hashes}})
}
