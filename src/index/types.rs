//! Collections and records as Chroma keeps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    error::IndexError,
    function::{EmbeddingFunction, SparseIndex},
};
use crate::domain::{
    embedding::SparseVector,
    names::{CollectionName, DatabaseName, TenantName},
};

/// Metadata of a collection or a record: keys to scalars, or to arrays of scalars of one kind.
pub type Metadata = Map<String, Value>;

/// Collection metadata key of Chroma Sync: false while a sync writes, true once it is whole.
pub const FINISHED_INGEST: &str = "finished_ingest";

/// What a Chroma server says of itself before any work (`GET /api/v2/pre-flight-checks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Capabilities {
    /// The most records one upsert may have; 5,461 on a single-node 1.5 server.
    pub max_batch_size: usize,
    /// Whether vectors may be sent as base64 of little-endian `f32`s, a third of the size of JSON.
    #[serde(default, rename = "supports_base64_encoding")]
    pub base64_vectors: bool,
}

/// Whose token was sent (`GET /api/v2/auth/identity`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant that the token opens.
    pub tenant: TenantName,
    /// The only databases that it opens; none opens all of the tenant's.
    pub databases: Option<Vec<DatabaseName>>,
}

/// How a collection measures the distance of two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Space {
    /// One minus the cosine similarity. Every collection this service creates has it.
    #[serde(rename = "cosine")]
    Cosine,
    /// Squared Euclidean distance, Chroma's default.
    #[serde(rename = "l2")]
    L2,
    /// One minus the inner product.
    #[serde(rename = "ip")]
    InnerProduct,
}

/// How a collection is made where it does not exist yet, and what it must be like where it does.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionSettings {
    /// Stored with the collection; none for a model that stock clients do not have.
    pub embedding_function: Option<EmbeddingFunction>,
    /// Length of the vectors that will be written.
    pub dimensions: u32,
    /// Where records have sparse vectors; none where they have none.
    pub sparse: Option<SparseIndex>,
    /// Metadata of a new collection; that of an existing one is left alone.
    pub metadata: Metadata,
}

/// A collection of the server, as it was when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    /// Chroma's own id: another collection of the same name has another one.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantName,
    /// Where it lies.
    pub database: DatabaseName,
    /// Its name.
    pub name: CollectionName,
    /// Length of its vectors; none before the first record.
    pub dimension: Option<u32>,
    /// How it measures distances.
    pub space: Space,
    /// The embedding function stored with it; none when clients use their default.
    pub embedding_function: Option<EmbeddingFunction>,
    /// Its sparse indexes by their keys, with what makes their vectors; none when the server does not tell.
    pub sparse_indexes: Option<BTreeMap<String, Option<EmbeddingFunction>>>,
    /// Its metadata.
    pub metadata: Metadata,
}

impl Collection {
    /// Whether a finished sync wrote it: `finished_ingest` is the boolean true.
    pub fn is_finished(&self) -> bool {
        self.metadata.get(FINISHED_INGEST) == Some(&Value::Bool(true))
    }

    /// Refuses vectors of another length than the stored ones, before anything is sent.
    pub(super) fn check_dimensions(&self, actual: u32) -> Result<(), IndexError> {
        match self.dimension {
            Some(expected) if expected != actual => Err(IndexError::DimensionMismatch {
                collection: self.name.clone(),
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }
}

/// A chunk with its vector, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// See [`crate::domain::document::record_id`].
    pub id: String,
    /// Finite numbers, as many as the collection has dimensions.
    pub vector: Vec<f32>,
    /// The text of the chunk.
    pub document: Arc<str>,
    /// A null removes the key from a stored record: Chroma merges the metadata of an upsert into it.
    pub metadata: Metadata,
    /// What is stored under a key of its own in the metadata, whatever `metadata` has there.
    pub sparse: Option<SparseEntry>,
}

/// A sparse vector and the metadata key that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseEntry {
    /// The key.
    pub key: Arc<str>,
    /// The vector; an empty one is stored as such.
    pub vector: SparseVector,
}

/// What a collection holds of one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentRecords {
    /// Ids of its records, in no order.
    pub ids: Vec<String>,
    /// Every key that the metadata of any of them has.
    pub metadata_keys: BTreeSet<String>,
    /// The versions of the document that they say they are of: one, unless a write broke off in the middle.
    pub versions: BTreeSet<String>,
}

/// Which parts of a record besides its id are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageFields {
    /// Its text.
    pub document: bool,
    /// Its metadata.
    pub metadata: bool,
    /// Its vector.
    pub vector: bool,
}

/// A record as it is stored; what was not asked for is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// Its id.
    pub id: String,
    /// The text of the chunk.
    pub document: Option<String>,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its vector.
    pub vector: Option<Vec<f32>>,
}

/// A record that answers a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// Its distance to the query in the collection's [`Space`]; smaller is nearer.
    pub distance: f32,
    /// The text of the chunk.
    pub document: Option<String>,
    /// Its metadata.
    pub metadata: Metadata,
}
