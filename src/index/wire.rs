//! The JSON of Chroma's v2 API, and its translation into our types.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    error::IndexError,
    function::EmbeddingFunction,
    types::{Collection, Hit, Identity, Metadata, Space, StoredRecord},
};
use crate::domain::names::{CollectionName, DatabaseName, TenantName};

#[derive(Deserialize)]
pub(super) struct IdentityBody {
    tenant: String,
    #[serde(default)]
    databases: Vec<String>,
}

impl IdentityBody {
    /// None when the tenant is no name, or is the `*` that stands for every tenant: a caller has one.
    pub fn into_identity(self) -> Option<Identity> {
        let tenant = TenantName::parse("tenant", &self.tenant).ok()?;
        // The stock clients read `*` and an empty list as every database.
        let every = self.databases.is_empty() || self.databases.iter().any(|name| name == ANY);
        let databases = (!every).then(|| {
            let names = self.databases.into_iter();
            names.map(DatabaseName::from_stored).collect()
        });
        (self.tenant != ANY).then_some(Identity { tenant, databases })
    }
}

/// What stands for every name in an identity.
const ANY: &str = "*";

#[derive(Deserialize)]
pub(super) struct CollectionBody {
    id: Uuid,
    name: String,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    dimension: Option<u32>,
    #[serde(default)]
    configuration_json: Option<ConfigurationBody>,
    #[serde(default)]
    schema: Option<SchemaBody>,
}

/// What of a schema matters here: indexes by the keys of metadata.
#[derive(Deserialize)]
struct SchemaBody {
    #[serde(default)]
    keys: BTreeMap<String, Value>,
}

impl SchemaBody {
    /// The sparse indexes that are in use.
    fn sparse_indexes(&self) -> BTreeMap<String, Option<EmbeddingFunction>> {
        let index = |types: &Value| {
            let index = types.get("sparse_vector")?.get("sparse_vector_index")?;
            let enabled = index.get("enabled")?.as_bool()?;
            let function = index
                .get("config")
                .and_then(|config| config.get("embedding_function"));
            enabled.then(|| function.and_then(known_function))
        };
        let keys = self.keys.iter();
        keys.filter_map(|(key, types)| Some((key.clone(), index(types)?)))
            .collect()
    }
}

/// One of type `legacy` or `unknown` has no name: clients then use their default.
fn known_function(value: &Value) -> Option<EmbeddingFunction> {
    EmbeddingFunction::deserialize(value).ok()
}

/// A single-node server describes its index as `hnsw`, a distributed one as `spann`.
#[derive(Deserialize)]
struct ConfigurationBody {
    #[serde(default)]
    hnsw: Option<IndexBody>,
    #[serde(default)]
    spann: Option<IndexBody>,
    #[serde(default)]
    embedding_function: Option<Value>,
}

#[derive(Deserialize)]
struct IndexBody {
    #[serde(default)]
    space: Option<Space>,
}

impl CollectionBody {
    pub fn into_collection(self, tenant: &TenantName, database: &DatabaseName) -> Collection {
        let (space, function) = match self.configuration_json {
            Some(ConfigurationBody {
                hnsw,
                spann,
                embedding_function,
            }) => {
                let space = hnsw.or(spann).and_then(|index| index.space);
                (space, embedding_function)
            }
            None => (None, None),
        };
        Collection {
            id: self.id,
            tenant: tenant.clone(),
            database: database.clone(),
            name: CollectionName::from_stored(self.name),
            dimension: self.dimension,
            space: space.unwrap_or(Space::L2),
            embedding_function: function.as_ref().and_then(known_function),
            sparse_indexes: self.schema.as_ref().map(SchemaBody::sparse_indexes),
            metadata: self.metadata.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DeletedBody {
    #[serde(default)]
    pub deleted: u64,
}

/// Columns of records; those that were not asked for are null.
#[derive(Deserialize)]
pub(super) struct GetBody {
    ids: Vec<String>,
    #[serde(default)]
    documents: Option<Vec<Option<String>>>,
    #[serde(default)]
    metadatas: Option<Vec<Option<Metadata>>>,
    #[serde(default)]
    embeddings: Option<Vec<Option<Vec<f32>>>>,
}

impl GetBody {
    pub fn into_records(self) -> Result<Vec<StoredRecord>, IndexError> {
        let count = self.ids.len();
        let documents = column(self.documents, count)?;
        let metadatas = column(self.metadatas, count)?;
        let embeddings = column(self.embeddings, count)?;
        let rows = self.ids.into_iter().zip(documents).zip(metadatas).zip(embeddings);
        Ok(rows
            .map(|(((id, document), metadata), vector)| StoredRecord {
                id,
                document,
                metadata: metadata.unwrap_or_default(),
                vector,
            })
            .collect())
    }
}

/// Columns of hits, one row of columns for each query vector; we send one.
#[derive(Deserialize)]
pub(super) struct QueryBody {
    ids: Vec<Vec<String>>,
    distances: Vec<Vec<Option<f32>>>,
    #[serde(default)]
    documents: Option<Vec<Vec<Option<String>>>>,
    #[serde(default)]
    metadatas: Option<Vec<Vec<Option<Metadata>>>>,
}

impl QueryBody {
    pub fn into_hits(self) -> Result<Vec<Hit>, IndexError> {
        let first = |rows: Option<Vec<Vec<_>>>| rows.and_then(|rows| rows.into_iter().next());
        let ids = self.ids.into_iter().next().unwrap_or_default();
        let distances = column(self.distances.into_iter().next(), ids.len())?;
        let documents = column(first(self.documents), ids.len())?;
        let metadatas = column(self.metadatas.and_then(|rows| rows.into_iter().next()), ids.len())?;
        let rows = ids.into_iter().zip(distances).zip(documents).zip(metadatas);
        Ok(rows
            .map(|(((id, distance), document), metadata)| Hit {
                id,
                // The distance to a vector that has none, such as one of zeros, is the largest there is.
                distance: distance.unwrap_or(f32::INFINITY),
                document,
                metadata: metadata.unwrap_or_default(),
            })
            .collect())
    }
}

/// A column of `count` values; an absent one is all `None`.
pub(super) fn column<T>(values: Option<Vec<Option<T>>>, count: usize) -> Result<Vec<Option<T>>, IndexError> {
    match values {
        None => Ok(std::iter::repeat_with(|| None).take(count).collect()),
        Some(values) if values.len() == count => Ok(values),
        Some(values) => Err(IndexError::InvalidResponse {
            problem: format!("{} values for {count} records", values.len()),
            source: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    fn collection(body: Value) -> Collection {
        let body: CollectionBody = serde_json::from_value(body).unwrap();
        body.into_collection(
            &TenantName::default_tenant(),
            &DatabaseName::from_stored("db".to_owned()),
        )
    }

    #[test]
    fn a_collection_is_read_from_either_kind_of_server() {
        let id = "a2ed88ce-c881-4645-83ed-17c6300a2859";
        let function = json!({"type": "known", "name": "default", "config": {}});
        for index in ["hnsw", "spann"] {
            let read = collection(json!({
                "id": id, "name": "abc", "dimension": 3, "metadata": {"finished_ingest": true},
                "configuration_json": {index: {"space": "cosine"}, "embedding_function": function},
            }));
            assert_eq!((read.space, read.dimension), (Space::Cosine, Some(3)));
            assert_eq!(read.embedding_function.as_ref().unwrap().name, "default");
            assert!(read.is_finished());
        }
    }

    #[test]
    fn a_collection_that_says_little_has_chromas_defaults() {
        let read = collection(json!({
            "id": "a2ed88ce-c881-4645-83ed-17c6300a2859", "name": "abc", "dimension": null, "metadata": null,
            "configuration_json": {"hnsw": null, "spann": null, "embedding_function": {"type": "legacy"}},
        }));
        assert_eq!((read.space, read.dimension), (Space::L2, None));
        assert_eq!(read.embedding_function, None);
        assert!(!read.is_finished());
    }

    #[test]
    fn the_sparse_indexes_of_a_collection_are_those_of_its_schema_that_are_in_use() {
        let index = |enabled: bool, function: Value| {
            json!({"sparse_vector": {"sparse_vector_index": {
                "enabled": enabled, "config": {"embedding_function": function},
            }}})
        };
        let bm25 = json!({"type": "known", "name": "chroma_bm25", "config": {}});
        let read = collection(json!({
            "id": "a2ed88ce-c881-4645-83ed-17c6300a2859", "name": "abc",
            "schema": {"defaults": index(false, bm25.clone()), "keys": {
                "on": index(true, bm25.clone()), "bare": index(true, json!({"type": "unknown"})),
                "off": index(false, bm25), "text": {"string": {}},
            }},
        }));
        let found = read.sparse_indexes.unwrap();
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(keys, ["bare", "on"]);
        assert_eq!(found["on"].as_ref().unwrap().name, "chroma_bm25");
        assert_eq!(found["bare"], None);
    }

    #[test]
    fn columns_of_different_lengths_are_refused() {
        let body: GetBody = serde_json::from_value(json!({"ids": ["a", "b"], "documents": ["x"]})).unwrap();
        assert!(matches!(
            body.into_records(),
            Err(IndexError::InvalidResponse { .. })
        ));
    }
}
