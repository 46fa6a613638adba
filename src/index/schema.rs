//! The schema of a collection whose records have sparse vectors.
//!
//! Source of the form: what the Python client 1.5.9 sends for the same indexes, field by field. A schema takes the
//! place of the older `configuration`: a server refuses a collection that is given both.

use serde_json::{Map, Value, json};

use super::{
    function::{EmbeddingFunction, SparseIndex},
    types::CollectionSettings,
};

/// Chroma's names of the parts of a record that are not metadata.
const DOCUMENT: &str = "#document";
const EMBEDDING: &str = "#embedding";

/// The schema of a collection with `sparse` beside the dense vectors.
pub(super) fn schema(settings: &CollectionSettings, sparse: &SparseIndex) -> Value {
    let mut dense = json!({"space": "cosine"});
    if let Some(function) = &settings.embedding_function {
        dense["embedding_function"] = known(function);
    }
    let mut dense_of_document = dense.clone();
    dense_of_document["source_key"] = json!(DOCUMENT);
    let enabled = |config: Value| json!({"enabled": true, "config": config});
    let disabled = |config: Value| json!({"enabled": false, "config": config});
    let mut keys = Map::new();
    keys.insert(
        DOCUMENT.to_owned(),
        json!({"string": {"fts_index": enabled(json!({})), "string_inverted_index": disabled(json!({}))}}),
    );
    keys.insert(
        EMBEDDING.to_owned(),
        json!({"float_list": {"vector_index": enabled(dense_of_document)}}),
    );
    let mut index = json!({"embedding_function": known(&sparse.embedding_function), "source_key": DOCUMENT});
    if sparse.inverse_document_frequency {
        index["bm25"] = json!(true);
    }
    keys.insert(
        sparse.key.clone(),
        json!({"sparse_vector": {"sparse_vector_index": enabled(index)}}),
    );
    json!({
        "defaults": {
            "string": {"fts_index": disabled(json!({})), "string_inverted_index": enabled(json!({}))},
            "float_list": {"vector_index": disabled(dense)},
            "sparse_vector": {
                "sparse_vector_index": disabled(json!({"embedding_function": {"type": "unknown"}})),
            },
            "int": {"int_inverted_index": enabled(json!({}))},
            "float": {"float_inverted_index": enabled(json!({}))},
            "bool": {"bool_inverted_index": enabled(json!({}))},
        },
        "keys": keys,
    })
}

/// An embedding function as Chroma writes those of its registry.
pub(super) fn known(function: &EmbeddingFunction) -> Value {
    json!({"type": "known", "name": function.name, "config": function.config})
}
