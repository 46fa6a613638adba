//! A sparse model that looks before it computes, where computing takes longer than looking.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{
    EmbeddingCache,
    lookup::{self, Cached, Prefix},
};
use crate::{
    domain::{embedding::SparseVector, names::TenantName},
    embed::{EmbedError, Purpose, SparseEmbedder},
    store::StoredEmbedding,
};

/// Begins every digest. Another form of the payload gets another one.
const FORM: &[u8] = b"chroma-sync sparse u32 f32 1";

/// `inner` with the cache before it, if it is one that is worth it.
///
/// # Errors
/// Those of [`SparseEmbedder::fingerprint`].
pub(in crate::worker) async fn cached(
    inner: Arc<dyn SparseEmbedder>,
    cache: Option<&EmbeddingCache>,
    tenant: &TenantName,
) -> Result<Arc<dyn SparseEmbedder>, EmbedError> {
    let fingerprint = inner.fingerprint().await?;
    Ok(match (cache, fingerprint) {
        (Some(cache), Some(fingerprint)) => Arc::new(CachedSparseEmbedder {
            prefix: Prefix::of(&[FORM, cache.owner(tenant).as_bytes(), fingerprint.as_bytes()]),
            cache: cache.clone(),
            inner,
        }),
        (None, _) | (Some(_), None) => inner,
    })
}

struct CachedSparseEmbedder {
    inner: Arc<dyn SparseEmbedder>,
    cache: EmbeddingCache,
    prefix: Prefix,
}

impl SparseEmbedder for CachedSparseEmbedder {
    fn model(&self) -> &str {
        self.inner.model()
    }

    fn fingerprint(&self) -> BoxFuture<'_, Result<Option<String>, EmbedError>> {
        self.inner.fingerprint()
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<SparseVector>, EmbedError>> {
        Box::pin(async move {
            match purpose {
                Purpose::Query => self.inner.embed(texts, purpose).await,
                Purpose::Document => {
                    let compute = |missing| self.inner.embed(missing, purpose);
                    let embedded = lookup::embed(&self.cache, &self.prefix, 0, texts, compute).await?;
                    Ok(embedded.embeddings)
                }
            }
        })
    }
}

/// Pairs of an index and its weight, four bytes each.
impl Cached for SparseVector {
    fn encode(&self) -> StoredEmbedding {
        let pairs = self.indices.iter().zip(&self.values);
        StoredEmbedding {
            payload: pairs
                .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()].concat())
                .collect(),
            tokens: 0,
            truncated: false,
        }
    }

    fn decode(stored: &StoredEmbedding, _dimensions: usize) -> Option<Self> {
        let (words, rest) = stored.payload.as_chunks::<4>();
        let (pairs, odd) = words.as_chunks::<2>();
        let vector = Self {
            indices: pairs
                .iter()
                .map(|[index, _]| u32::from_le_bytes(*index))
                .collect(),
            values: pairs
                .iter()
                .map(|[_, value]| f32::from_le_bytes(*value))
                .collect(),
        };
        let is_sound = vector.indices.is_sorted_by(|one, other| one < other)
            && vector.values.iter().all(|value| value.is_finite());
        (rest.is_empty() && odd.is_empty() && is_sound).then_some(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(indices: &[u32], values: &[f32]) -> StoredEmbedding {
        let vector = SparseVector {
            indices: indices.to_vec(),
            values: values.to_vec(),
        };
        vector.encode()
    }

    fn decode(stored: &StoredEmbedding) -> Option<SparseVector> {
        Cached::decode(stored, 0)
    }

    #[test]
    fn a_sparse_vector_is_read_back_digit_for_digit() {
        let read = decode(&stored(&[1, 7, u32::MAX], &[0.5, 1.25, 3.0e-9])).unwrap();
        assert_eq!(read.indices, [1, 7, u32::MAX]);
        assert_eq!(read.values, [0.5, 1.25, 3.0e-9]);
        assert_eq!(decode(&stored(&[], &[])), Some(SparseVector::default()));
    }

    #[test]
    fn what_is_no_sparse_vector_is_refused() {
        let mut cut = stored(&[1, 2], &[0.5, 0.5]);
        cut.payload.truncate(12);
        let cases = [
            cut,
            stored(&[2, 1], &[0.5, 0.5]),
            stored(&[1, 1], &[0.5, 0.5]),
            stored(&[1], &[f32::NAN]),
        ];
        for case in cases {
            assert_eq!(decode(&case), None, "{case:?}");
        }
    }
}
