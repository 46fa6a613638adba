//! Writes records to a Chroma server, and reads them back.
//!
//! This is our own thin client for the dozen endpoints of Chroma's v2 API that the service needs. The
//! official crate sets no timeout and does not repeat a write whose connection broke; here every call
//! has both. Every call in here is idempotent (an upsert or a delete done twice leaves the same
//! collection), which is what makes repeating it safe, and each ends within
//! [`ChromaOptions::deadline`].
//!
//! What a collection looks like is decided here too: cosine space, and an embedding function that a
//! stock `chromadb` client can rebuild ([`EmbeddingFunction`]); record metadata under the documented
//! keys ([`RecordMetadata`]); sparse vectors in the metadata, with an index for them where the server takes
//! any ([`SparseIndex`], [`ChromaClient::takes_sparse_vectors`]).
//!
//! Absent on purpose: embedding, search with more than vectors and a filter, and forking, which a
//! single-node server does not have.

mod batch;
mod client;
mod error;
mod function;
mod hybrid;
mod metadata;
mod persisted_model;
mod records;
mod schema;
mod sparse;
mod transport;
mod types;
mod wire;

pub use client::ChromaClient;
pub use error::IndexError;
pub use function::{EmbeddingFunction, SparseIndex};
pub use hybrid::HybridQuery;
pub use metadata::{
    CHUNK_STRATEGY, CUSTOM_ID, DOCUMENT_KEY, DOCUMENT_KEY_SHA256, END_COL, END_LINE, LANGUAGE,
    RecordMetadata, START_COL, START_LINE, VERSION_KEY, VERSION_KEY_SHA256, is_reserved_key,
};
pub use persisted_model::PersistedModel;
pub use sparse::SparseVectors;
pub use transport::ChromaOptions;
pub use types::{
    Capabilities, Collection, CollectionSettings, DocumentRecords, FINISHED_INGEST, Hit, Identity, Metadata,
    PageFields, Record, Space, SparseEntry, StoredRecord,
};
