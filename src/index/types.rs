//! Collections and records as Chroma keeps them.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::IndexError;
use crate::domain::{
    embedding::{MINILM, QWEN3},
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

/// The embedding function that is stored with a collection, so that a client can query it by text.
///
/// Only names that the stock clients know may be stored: `get_collection` of the Python client raises
/// on any other.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct EmbeddingFunction {
    /// Name in Chroma's registry of embedding functions.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub config: Metadata,
}

impl EmbeddingFunction {
    /// The stock embedding function whose vectors are those of `model`.
    ///
    /// # Errors
    /// [`IndexError::NoEmbeddingFunction`] when stock clients know none.
    pub fn for_model(model: &str) -> Result<Self, IndexError> {
        let (name, config) = match model {
            MINILM => ("default", Value::Null),
            // A null task makes the Python client fail, and the default task is one of the hosted
            // service, so both are spelt out. Documents are embedded without an instruction.
            QWEN3 => (
                "chroma-cloud-qwen",
                json!({
                    "api_key_env_var": "CHROMA_API_KEY",
                    "model": QWEN3,
                    "task": "generic_retrieval",
                    "instructions": {
                        "generic_retrieval": {"documents": "", "query": "Retrieve semantically similar text"},
                    },
                }),
            ),
            _ => {
                return Err(IndexError::NoEmbeddingFunction {
                    model: model.to_owned(),
                });
            }
        };
        let config = match config {
            Value::Object(config) => config,
            _ => Metadata::new(),
        };
        Ok(Self {
            name: name.to_owned(),
            config,
        })
    }

    /// Whether vectors of `other` may stand in a collection that stores `self`.
    pub fn is_compatible_with(&self, other: &Self) -> bool {
        // Clients have three names for the same MiniLM; the third takes any model.
        let canonical = |function: &Self| match function.name.as_str() {
            "default" | "onnx_mini_lm_l6_v2" => MINILM.to_owned(),
            "sentence_transformer" => {
                match function
                    .config
                    .get("model_name")
                    .and_then(Value::as_str)
                    .unwrap_or("all-MiniLM-L6-v2")
                {
                    "all-MiniLM-L6-v2" => MINILM.to_owned(),
                    model => model.to_owned(),
                }
            }
            "chroma-cloud-qwen" => function
                .config
                .get("model")
                .and_then(Value::as_str)
                .unwrap_or(QWEN3)
                .to_owned(),
            name => name.to_owned(),
        };
        canonical(self) == canonical(other)
    }
}

/// How a collection is made where it does not exist yet, and what it must be like where it does.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionSettings {
    /// Stored with the collection.
    pub embedding_function: EmbeddingFunction,
    /// Length of the vectors that will be written.
    pub dimensions: u32,
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
    /// Its metadata.
    pub metadata: Metadata,
}

impl Collection {
    /// Whether a finished sync wrote it: `finished_ingest` is the boolean true.
    pub fn is_finished(&self) -> bool {
        self.metadata.get(FINISHED_INGEST) == Some(&Value::Bool(true))
    }

    /// Whether records that are made for `settings` may stand in it.
    pub fn is_compatible_with(&self, settings: &CollectionSettings) -> bool {
        self.check_dimensions(settings.dimensions).is_ok()
            && self
                .embedding_function
                .as_ref()
                .is_none_or(|function| function.is_compatible_with(&settings.embedding_function))
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
}

/// What a collection holds of one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentRecords {
    /// Ids of its records, in no order.
    pub ids: Vec<String>,
    /// Every key that the metadata of any of them has.
    pub metadata_keys: BTreeSet<String>,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn minilm_is_stored_under_the_name_that_needs_no_key_and_no_package() {
        let function = EmbeddingFunction::for_model(MINILM).unwrap();
        assert_eq!(function.name, "default");
        assert!(function.config.is_empty());
    }

    #[test]
    fn qwen3_is_stored_with_a_task_since_clients_fail_without_one() {
        let function = EmbeddingFunction::for_model(QWEN3).unwrap();
        assert_eq!(function.config["task"], "generic_retrieval");
        assert_eq!(
            function.config["instructions"]["generic_retrieval"]["documents"],
            ""
        );
    }

    #[test]
    fn a_model_that_no_client_knows_has_no_embedding_function() {
        let error = EmbeddingFunction::for_model("a/b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "model \"a/b\" has no embedding function that chroma clients know"
        );
    }

    #[test]
    fn the_three_names_of_minilm_are_compatible_and_another_model_is_not() {
        let minilm = EmbeddingFunction::for_model(MINILM).unwrap();
        let named = |name: &str, model: Option<&str>| EmbeddingFunction {
            name: name.to_owned(),
            config: model
                .map(|model| ("model_name".to_owned(), model.into()))
                .into_iter()
                .collect(),
        };
        assert!(named("onnx_mini_lm_l6_v2", None).is_compatible_with(&minilm));
        assert!(named("sentence_transformer", Some(MINILM)).is_compatible_with(&minilm));
        assert!(!named("sentence_transformer", Some("all-mpnet-base-v2")).is_compatible_with(&minilm));
        assert!(!named("openai", None).is_compatible_with(&minilm));
        assert!(
            !EmbeddingFunction::for_model(QWEN3)
                .unwrap()
                .is_compatible_with(&minilm)
        );
    }
}
