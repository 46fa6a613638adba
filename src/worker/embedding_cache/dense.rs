//! A dense model that looks before it computes.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{
    EmbeddingCache,
    lookup::{self, Cached, Embedded, Prefix},
};
use crate::{
    domain::{embedding::ModelDescription, names::TenantName},
    embed::{EmbedError, EmbeddedText, Embedder, Purpose},
    store::StoredEmbedding,
    worker::progress::ProgressHandle,
};

/// Begins every digest. Another form of the payload gets another one.
const FORM: &[u8] = b"chroma-sync dense f32 1";
/// How far the sum of a vector's squares may be from 1 before it is taken for damaged.
const NORM_TOLERANCE: f32 = 0.02;

/// A model with the cache before it, for one attempt. Counts what was computed and what was found.
pub(in crate::worker) struct CachedEmbedder {
    inner: Arc<dyn Embedder>,
    fingerprint: String,
    cache: Option<EmbeddingCache>,
    prefix: Prefix,
    progress: ProgressHandle,
}

impl CachedEmbedder {
    /// `inner` for an attempt of `tenant`; without a cache it only counts.
    ///
    /// # Errors
    /// Those of [`Embedder::fingerprint`].
    pub(in crate::worker) async fn new(
        inner: Arc<dyn Embedder>,
        cache: Option<EmbeddingCache>,
        tenant: &TenantName,
        progress: ProgressHandle,
    ) -> Result<Self, EmbedError> {
        let fingerprint = inner.fingerprint().await?;
        let owner = cache.as_ref().map_or("", |cache| cache.owner(tenant));
        let prefix = Prefix::of(&[FORM, owner.as_bytes(), fingerprint.as_bytes()]);
        Ok(Self {
            inner,
            fingerprint,
            cache,
            prefix,
            progress,
        })
    }
}

impl Embedder for CachedEmbedder {
    fn model(&self) -> &ModelDescription {
        self.inner.model()
    }

    fn fingerprint(&self) -> BoxFuture<'_, Result<String, EmbedError>> {
        Box::pin(async { Ok(self.fingerprint.clone()) })
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
        let instruction = instruction.to_owned();
        Box::pin(async move {
            let cache = self.cache.as_ref().filter(|_| purpose == Purpose::Document);
            let Some(cache) = cache else {
                let embedded = self.inner.embed(texts, purpose, &instruction).await?;
                self.progress.embedded(embedded.len() as u64, 0);
                return Ok(embedded);
            };
            let mut prefix = self.prefix.clone();
            prefix.add(instruction.as_bytes());
            let dimensions = self.inner.model().dimensions as usize;
            let Embedded { embeddings, computed } =
                lookup::embed(cache, &prefix, dimensions, texts, |missing| {
                    self.inner.embed(missing, purpose, &instruction)
                })
                .await?;
            let cached = (embeddings.len() as u64).saturating_sub(computed);
            self.progress.embedded(computed, cached);
            Ok(embeddings)
        })
    }
}

/// In single precision, digit for digit, so that a record is the same whether its vector was computed or found.
impl Cached for EmbeddedText {
    fn encode(&self) -> StoredEmbedding {
        StoredEmbedding {
            payload: self
                .vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            tokens: self.tokens,
            truncated: self.truncated,
        }
    }

    fn decode(stored: &StoredEmbedding, dimensions: usize) -> Option<Self> {
        let (numbers, rest) = stored.payload.as_chunks::<4>();
        let vector: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let norm: f32 = vector.iter().map(|number| number * number).sum();
        // A text without tokens has zeros.
        let is_sound = norm == 0.0 || (norm - 1.0).abs() <= NORM_TOLERANCE;
        (rest.is_empty() && vector.len() == dimensions && is_sound).then_some(Self {
            vector,
            tokens: stored.tokens,
            truncated: stored.truncated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(vector: &[f32]) -> StoredEmbedding {
        let embedded = EmbeddedText {
            vector: vector.to_vec(),
            tokens: 7,
            truncated: true,
        };
        embedded.encode()
    }

    fn decode(stored: &StoredEmbedding, dimensions: usize) -> Option<EmbeddedText> {
        Cached::decode(stored, dimensions)
    }

    #[test]
    fn a_vector_is_read_back_digit_for_digit_with_its_facts() {
        let vector = [0.6, -0.8, f32::MIN_POSITIVE];
        let read = decode(&stored(&vector), 3).unwrap();
        assert_eq!(read.vector, vector);
        assert_eq!((read.tokens, read.truncated), (7, true));
        assert_eq!(decode(&stored(&[0.0, 0.0]), 2).unwrap().vector, [0.0, 0.0]);
    }

    #[test]
    fn what_is_no_vector_of_the_model_is_refused() {
        let whole = stored(&[0.6, 0.8]);
        assert!(decode(&whole, 3).is_none(), "another length");
        let cut = StoredEmbedding {
            payload: whole.payload[..7].to_vec(),
            ..whole
        };
        assert!(decode(&cut, 2).is_none(), "half a number");
        for damaged in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [0.6, 8.0]] {
            assert!(decode(&stored(&damaged), 2).is_none(), "{damaged:?}");
        }
    }
}
