//! Sparse embeddings: which model makes them, and where a record has them.

use crate::{domain::user_metadata::check_key, error::FieldViolation};

/// Okapi BM25 as Chroma computes it: no weights, any number of texts a second.
pub const BM25: &str = "Chroma/BM25";
/// The learned sparse model that Chroma Sync documents.
pub const SPLADE: &str = "prithivida/Splade_PP_en_v1";
/// The documented key of a record's metadata.
pub const DEFAULT_SPARSE_KEY: &str = "sparse_embedding";

/// A sparse embedding: the weights of a few indices; all others weigh nothing.
///
/// Chroma takes indices of 32 bits, ascending and each once, and as many finite values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseVector {
    /// Ascending, each once.
    pub indices: Vec<u32>,
    /// The weight of each index; as many as there are indices.
    pub values: Vec<f32>,
}

/// Sparse settings of a source; everything is checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SparseSettings {
    /// [`BM25`] or [`SPLADE`].
    pub model: String,
    /// Key of the vector in a record's metadata.
    pub key: String,
}

/// Sparse settings in the words of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SparseRequest {
    /// Required.
    pub model: Option<String>,
    /// None: [`DEFAULT_SPARSE_KEY`].
    pub key: Option<String>,
}

impl SparseSettings {
    /// Fills in the default of the key and checks it; whether the model is served is for the catalog to say.
    ///
    /// # Errors
    /// The violation names `field` and its part.
    pub(super) fn parse(field: &str, request: SparseRequest) -> Result<Self, FieldViolation> {
        let SparseRequest { model, key } = request;
        let model = model.ok_or_else(|| {
            let problem = format!("is required: {BM25:?} or {SPLADE:?}");
            FieldViolation::new(format!("{field}.model"), problem)
        })?;
        let key = key.unwrap_or_else(|| DEFAULT_SPARSE_KEY.to_owned());
        check_key(&key).map_err(|problem| FieldViolation::new(format!("{field}.key"), problem))?;
        Ok(Self { model, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_one_that_a_caller_may_use() {
        let asked = |key: &str| SparseRequest {
            model: Some(BM25.to_owned()),
            key: Some(key.to_owned()),
        };
        let long = "k".repeat(257);
        for key in ["", "#document", "$and", "document_key", "chroma_x", "a\nb", &long] {
            let violation = SparseSettings::parse("embedding.sparse", asked(key)).unwrap_err();
            assert_eq!(violation.field, "embedding.sparse.key", "{key:?}");
        }
        assert_eq!(SparseSettings::parse("s", asked("bm25")).unwrap().key, "bm25");
        let violation = SparseSettings::parse("s", SparseRequest::default()).unwrap_err();
        assert_eq!(violation.field, "s.model");
    }
}
