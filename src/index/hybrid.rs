//! Search by dense and sparse vectors at once, which a server with Chroma's Search API has (Chroma Cloud; a
//! single-node server answers 501).
//!
//! Source of the form: what the Python client 1.5.9 sends for `Search().where(..).rank(Rrf([Knn(..), Knn(..)]))`,
//! member by member.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    batch::{self, sparse_value, to_json},
    client::ChromaClient,
    error::IndexError,
    sparse::is_about_sparse,
    transport::Call,
    types::{Collection, Hit, Metadata},
};
use crate::domain::embedding::SparseVector;

/// The constant of reciprocal rank fusion, as in the paper that has it (Cormack, Clarke and Büttcher, 2009) and in
/// Chroma's clients.
const FUSION_CONSTANT: u32 = 60;
/// The fewest records that each of the two rankings gives.
const LEAST_RANKED: u32 = 100;

/// What is looked for, in both spaces, and what hits must be like.
#[derive(Debug, Clone, PartialEq)]
pub struct HybridQuery<'a> {
    /// The dense vector.
    pub vector: Vec<f32>,
    /// Metadata key of the sparse index.
    pub sparse_key: &'a str,
    /// The sparse vector.
    pub sparse: SparseVector,
    /// A Chroma `where`.
    pub filter: Option<&'a Value>,
    /// A Chroma `where_document`.
    pub document_filter: Option<&'a Value>,
    /// Hits wanted.
    pub limit: u32,
    /// Hits to skip.
    pub offset: u32,
}

#[derive(Deserialize)]
struct SearchBody {
    ids: Vec<Vec<String>>,
    #[serde(default)]
    documents: Vec<Option<Vec<Option<String>>>>,
    #[serde(default)]
    metadatas: Vec<Option<Vec<Option<Metadata>>>>,
    #[serde(default)]
    scores: Vec<Option<Vec<Option<f32>>>>,
}

impl ChromaClient {
    /// The records whose ranks in both rankings, fused, are the best. [`Hit::distance`] is the negative sum of
    /// `1 / (60 + rank)` over the two, ranks from 0: smaller is better here too.
    ///
    /// # Errors
    /// [`IndexError::Unsupported`] by a server without the Search API; [`IndexError::DimensionMismatch`];
    /// [`IndexError::Rejected`] for a filter that Chroma does not read.
    pub async fn hybrid_query(
        &self,
        collection: &Collection,
        query: &HybridQuery<'_>,
    ) -> Result<Vec<Hit>, IndexError> {
        batch::check_vector(&query.vector).map_err(|problem| IndexError::InvalidRecord {
            what: "the query".to_owned(),
            problem,
        })?;
        let body = to_json(&json!({"searches": [search(query)?], "read_level": "index_and_wal"}))?;
        let call = Call::post("search", self.collection_url(collection, &["search"]), body);
        let answer: SearchBody =
            self.transport
                .call(call)
                .await
                .map_err(|error| match error.about(collection) {
                    // A server that has no index for the key says so before it says that it has no such search.
                    IndexError::Rejected { message, .. } if is_about_sparse(&message) => {
                        IndexError::Unsupported { message }
                    }
                    other => other,
                })?;
        Ok(hits(answer))
    }
}

fn search(query: &HybridQuery<'_>) -> Result<Value, IndexError> {
    let sparse = sparse_value(&query.sparse)?;
    let ranked = (query.limit + query.offset).max(LEAST_RANKED);
    // A record that is in one ranking alone counts in the other as if it came right after its end.
    let knn = |key: &str, query: Value| {
        json!({"$knn": {
            "query": query, "key": key, "limit": ranked, "default": f64::from(ranked), "return_rank": true,
        }})
    };
    let reciprocal = |ranking: Value| {
        json!({"$div": {
            "left": {"$val": 1.0}, "right": {"$sum": [{"$val": FUSION_CONSTANT}, ranking]},
        }})
    };
    let terms = [
        reciprocal(knn("#embedding", json!(query.vector))),
        reciprocal(knn(query.sparse_key, sparse)),
    ];
    Ok(json!({
        "filter": filter(query.filter, query.document_filter),
        "rank": {"$mul": [{"$val": -1}, {"$sum": terms}]},
        "group_by": {},
        "limit": {"offset": query.offset, "limit": query.limit},
        "select": {"keys": ["#document", "#metadata", "#score"]},
    }))
}

/// The Search API has one filter for both; the text is a key in it.
fn filter(metadata: Option<&Value>, document: Option<&Value>) -> Option<Value> {
    match (metadata.cloned(), document.map(about_document)) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one),
        (Some(metadata), Some(document)) => Some(json!({"$and": [metadata, document]})),
    }
}

/// A `where_document` as a filter on the key of the text.
fn about_document(filter: &Value) -> Value {
    let combined = ["$and", "$or"].into_iter().find_map(|operator| {
        let parts = filter.get(operator)?.as_array()?;
        let parts: Vec<Value> = parts.iter().map(about_document).collect();
        Some(json!({ operator: parts }))
    });
    combined.unwrap_or_else(|| json!({"#document": filter}))
}

fn hits(answer: SearchBody) -> Vec<Hit> {
    fn first<T>(columns: Vec<Option<Vec<Option<T>>>>) -> impl Iterator<Item = Option<T>> {
        let column = columns.into_iter().next().flatten().unwrap_or_default();
        column.into_iter().chain(std::iter::repeat_with(|| None))
    }
    let ids = answer.ids.into_iter().next().unwrap_or_default().into_iter();
    ids.zip(first(answer.scores))
        .zip(first(answer.documents))
        .zip(first(answer.metadatas))
        .map(|(((id, score), document), metadata)| Hit {
            id,
            distance: score.unwrap_or(0.0),
            document,
            metadata: metadata.unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn filters_on_texts_go_down_to_the_leaves() {
        let document = json!({"$or": [{"$contains": "a"}, {"$not_contains": "b"}]});
        assert_eq!(
            filter(None, Some(&document)).unwrap(),
            json!({"$or": [{"#document": {"$contains": "a"}}, {"#document": {"$not_contains": "b"}}]})
        );
        let metadata = json!({"language": "rust"});
        assert_eq!(filter(Some(&metadata), None).unwrap(), metadata);
        assert_eq!(
            filter(Some(&metadata), Some(&json!({"$contains": "a"}))).unwrap(),
            json!({"$and": [metadata, {"#document": {"$contains": "a"}}]})
        );
        assert_eq!(filter(None, None), None);
    }

    #[test]
    fn what_was_not_selected_is_missing_in_the_hits() {
        let body = json!({"ids": [["a", "b"]], "scores": [[-0.03, -0.02]], "documents": [["x", null]]});
        let found = hits(serde_json::from_value(body).unwrap());
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].id.as_str(), found[0].document.as_deref()),
            ("a", Some("x"))
        );
        assert_eq!((found[1].distance, found[1].document.as_deref()), (-0.02, None));
    }
}
