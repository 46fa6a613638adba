//! Search by a dense and a sparse vector at once, where the server has it: Chroma's Search API.
//!
//! A single-node server does not have it ([`IndexError::Unsupported`]); whoever asks then searches by the dense
//! vector alone. Source of the form: what the Python client 1.5.9 sends for `Rrf` of two `Knn`s.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    batch::{check_sparse, check_vector, sparse_value, to_json},
    client::ChromaClient,
    error::IndexError,
    sparse::is_about_sparse,
    transport::Call,
    types::{Collection, Metadata, SparseEntry},
    wire::column,
};

/// How much the first ranks differ from each other in the fusion; the constant of the paper that proposed it.
const FUSION: u32 = 60;
/// Records that each vector ranks at least; a record that only one of them ranks counts with that rank alone.
const MIN_CANDIDATES: u32 = 100;

/// A record that answers a hybrid search.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedHit {
    /// Its id.
    pub id: String,
    /// The sum of `1 / (60 + rank)` over the vectors that rank it; larger is better.
    pub score: f64,
    /// The text of the chunk.
    pub document: Option<String>,
    /// Its metadata, its sparse vector included.
    pub metadata: Metadata,
}

impl ChromaClient {
    /// The records that the dense `vector` and the `sparse` one of the same question find, best first, at most
    /// `n_results`: reciprocal rank fusion of both orders. `filter` is a Chroma `where`.
    ///
    /// # Errors
    /// [`IndexError::Unsupported`] on a single-node server, and for a collection without an index for `sparse`,
    /// which is looked at first and refused with 400; [`IndexError::InvalidRecord`],
    /// [`IndexError::CollectionNotFound`]; [`IndexError::Rejected`] for a filter that Chroma does not read.
    pub async fn hybrid_search(
        &self,
        collection: &Collection,
        vector: &[f32],
        sparse: &SparseEntry,
        n_results: u32,
        filter: Option<&Value>,
    ) -> Result<Vec<RankedHit>, IndexError> {
        check_vector(vector)
            .and_then(|()| check_sparse(&sparse.vector))
            .map_err(|problem| IndexError::InvalidRecord {
                what: "the query".to_owned(),
                problem,
            })?;
        let candidates = n_results.max(MIN_CANDIDATES);
        let ranked = |query: Value, key: &str| {
            let rank =
                json!({"$knn": {"query": query, "key": key, "limit": candidates, "return_rank": true}});
            json!({"$div": {"left": {"$val": 1.0}, "right": {"$sum": [{"$val": FUSION}, rank]}}})
        };
        let both = [
            ranked(json!(vector), "#embedding"),
            ranked(sparse_value(&sparse.vector)?, &sparse.key),
        ];
        let search = json!({
            "filter": filter,
            // The smallest comes first.
            "rank": {"$mul": [{"$val": -1}, {"$sum": both}]},
            "group_by": {},
            "limit": {"offset": 0, "limit": n_results},
            "select": {"keys": ["#document", "#metadata", "#score"]},
        });
        let body = to_json(&json!({"searches": [search], "read_level": "index_and_wal"}))?;
        let call = Call::post("search", self.collection_url(collection, &["search"]), body);
        let answer = self.transport.call::<SearchBody>(call).await;
        let answer = answer.map_err(|error| match error.about(collection) {
            IndexError::Rejected { message, .. } if is_about_sparse(&message) => {
                IndexError::Unsupported { message }
            }
            other => other,
        });
        answer?.into_hits()
    }
}

/// Columns of hits, one row of columns for each search; we send one.
#[derive(Deserialize)]
struct SearchBody {
    ids: Vec<Vec<String>>,
    #[serde(default)]
    documents: Vec<Option<Vec<Option<String>>>>,
    #[serde(default)]
    metadatas: Vec<Option<Vec<Option<Metadata>>>>,
    #[serde(default)]
    scores: Vec<Option<Vec<Option<f64>>>>,
}

impl SearchBody {
    fn into_hits(self) -> Result<Vec<RankedHit>, IndexError> {
        let ids = self.ids.into_iter().next().unwrap_or_default();
        let documents = column(self.documents.into_iter().next().flatten(), ids.len())?;
        let metadatas = column(self.metadatas.into_iter().next().flatten(), ids.len())?;
        let scores = column(self.scores.into_iter().next().flatten(), ids.len())?;
        let rows = ids.into_iter().zip(documents).zip(metadatas).zip(scores);
        Ok(rows
            .map(|(((id, document), metadata), score)| RankedHit {
                id,
                score: -score.unwrap_or_default(),
                document,
                metadata: metadata.unwrap_or_default(),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_answer_is_read_with_the_best_first_and_a_score_that_grows() {
        let body = json!({
            "ids": [["a-0", "b-0"]], "documents": [["A", null]], "metadatas": [[{"k": 1}, null]],
            "scores": [[-0.032, -0.016]], "embeddings": [null], "select": [["#document", "#metadata", "#score"]],
        });
        let hits = serde_json::from_value::<SearchBody>(body)
            .unwrap()
            .into_hits()
            .unwrap();
        let [first, second] = hits.as_slice() else {
            panic!("{hits:?}")
        };
        assert_eq!((first.id.as_str(), first.score), ("a-0", 0.032));
        assert_eq!(
            (first.document.as_deref(), &first.metadata["k"]),
            (Some("A"), &json!(1))
        );
        assert_eq!(
            (second.id.as_str(), second.score, second.document.clone()),
            ("b-0", 0.016, None)
        );
        let torn = json!({"ids": [["a-0"]], "scores": [[]]});
        let error = serde_json::from_value::<SearchBody>(torn)
            .unwrap()
            .into_hits()
            .unwrap_err();
        assert!(matches!(error, IndexError::InvalidResponse { .. }));
    }
}
