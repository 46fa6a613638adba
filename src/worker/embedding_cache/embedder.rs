//! An embedder that looks before it computes.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::EmbeddingCache;
use crate::{
    domain::{embedding::ModelDescription, names::TenantName},
    embed::{EmbedError, EmbeddedText, Embedder, Purpose, RefusedText},
    store::{EmbeddingDigest, StoredEmbedding},
    worker::progress::ProgressHandle,
};

/// Begins every digest. Another form of the payload gets another one.
const FORM: &[u8] = b"chroma-sync dense f32 1";
/// How far the sum of a vector's squares may be from 1 before it is taken for damaged. Vectors are kept in single
/// precision, digit for digit, so that a record is the same whether its vector was computed or found.
const NORM_TOLERANCE: f32 = 0.02;

/// A model with the cache before it, for one attempt. Counts what was computed and what was found.
pub(in crate::worker) struct CachedEmbedder {
    inner: Arc<dyn Embedder>,
    cache: Option<EmbeddingCache>,
    /// Has taken in what the digests of the attempt have in common.
    prefix: Sha256,
    progress: ProgressHandle,
}

impl CachedEmbedder {
    /// `inner` for an attempt of `tenant`; without a cache it only counts.
    pub(in crate::worker) fn new(
        inner: Arc<dyn Embedder>,
        cache: Option<EmbeddingCache>,
        tenant: &TenantName,
        progress: ProgressHandle,
    ) -> Self {
        let is_shared = cache.as_ref().is_some_and(|cache| cache.0.options.shared);
        let tenant = match is_shared {
            true => "",
            false => tenant.as_str(),
        };
        let mut prefix = Sha256::new();
        for part in [FORM, tenant.as_bytes(), inner.fingerprint().as_bytes()] {
            add(&mut prefix, part);
        }
        Self {
            inner,
            cache,
            prefix,
            progress,
        }
    }

    async fn embed_with(
        &self,
        cache: &EmbeddingCache,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: String,
    ) -> Result<Vec<EmbeddedText>, EmbedError> {
        let mut prefix = self.prefix.clone();
        add(&mut prefix, instruction.as_bytes());
        let digests: Vec<EmbeddingDigest> = texts.iter().map(|text| digest(&prefix, text)).collect();
        let dimensions = self.inner.model().dimensions as usize;
        let mut known: HashMap<EmbeddingDigest, EmbeddedText> = HashMap::with_capacity(digests.len());
        for (digest, stored) in cache.find(&digests).await {
            match decode(&stored, dimensions) {
                Some(embedded) => {
                    known.insert(digest, embedded);
                }
                None => tracing::warn!(
                    digest = hex::encode(digest),
                    "a cached embedding is damaged and is computed anew"
                ),
            }
        }
        // A text that comes twice is computed once.
        let (mut wanted, mut missing) = (Vec::new(), Vec::new());
        let mut places: HashMap<EmbeddingDigest, usize> = HashMap::new();
        for (digest, text) in digests.iter().zip(&texts) {
            if !known.contains_key(digest)
                && let Entry::Vacant(place) = places.entry(*digest)
            {
                place.insert(missing.len());
                wanted.push(*digest);
                missing.push(Arc::clone(text));
            }
        }
        let computed = match missing.is_empty() {
            true => Vec::new(),
            false => {
                let computed = self.inner.embed(missing, purpose, &instruction).await;
                computed.map_err(|error| as_seen_by_caller(error, &wanted, &digests))?
            }
        };
        let count = computed.len() as u64;
        cache.put(
            wanted
                .into_iter()
                .zip(&computed)
                .map(|(digest, embedded)| (digest, encode(embedded)))
                .collect(),
        );
        let embedded: Vec<EmbeddedText> = digests
            .iter()
            .filter_map(|digest| {
                let place = places.get(digest).and_then(|place| computed.get(*place));
                place.or_else(|| known.get(digest)).cloned()
            })
            .collect();
        self.progress
            .embedded(count, (embedded.len() as u64).saturating_sub(count));
        Ok(embedded)
    }
}

impl Embedder for CachedEmbedder {
    fn model(&self) -> &ModelDescription {
        self.inner.model()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
        let instruction = instruction.to_owned();
        Box::pin(async move {
            match (&self.cache, purpose) {
                (Some(cache), Purpose::Document) => self.embed_with(cache, texts, purpose, instruction).await,
                (None, _) | (Some(_), Purpose::Query) => {
                    let embedded = self.inner.embed(texts, purpose, &instruction).await?;
                    self.progress.embedded(embedded.len() as u64, 0);
                    Ok(embedded)
                }
            }
        })
    }
}

/// A refusal names texts by their place among those that were computed; the caller knows them by theirs, in order.
fn as_seen_by_caller(
    error: EmbedError,
    computed: &[EmbeddingDigest],
    asked: &[EmbeddingDigest],
) -> EmbedError {
    let EmbedError::TextsRefused { texts } = error else {
        return error;
    };
    let problems: HashMap<&EmbeddingDigest, &str> = texts
        .iter()
        .filter_map(|text| Some((computed.get(text.index)?, text.problem.as_str())))
        .collect();
    let refused = asked.iter().enumerate().filter_map(|(index, digest)| {
        let problem = (*problems.get(digest)?).to_owned();
        Some(RefusedText { index, problem })
    });
    EmbedError::TextsRefused {
        texts: refused.collect(),
    }
}

/// A part whose length goes first, so that no two lists of parts run together into the same bytes.
fn add(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

fn digest(prefix: &Sha256, text: &str) -> EmbeddingDigest {
    let mut hasher = prefix.clone();
    add(&mut hasher, text.as_bytes());
    hasher.finalize().into()
}

fn encode(embedded: &EmbeddedText) -> StoredEmbedding {
    StoredEmbedding {
        payload: embedded
            .vector
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect(),
        tokens: embedded.tokens,
        truncated: embedded.truncated,
    }
}

/// None for what is no vector of this model: a bit that rotted must not end up in a collection, which would answer
/// nonsense from then on.
fn decode(stored: &StoredEmbedding, dimensions: usize) -> Option<EmbeddedText> {
    let (numbers, rest) = stored.payload.as_chunks::<4>();
    let vector: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let norm: f32 = vector.iter().map(|number| number * number).sum();
    // A text without tokens has zeros.
    let is_sound = norm == 0.0 || (norm - 1.0).abs() <= NORM_TOLERANCE;
    (rest.is_empty() && vector.len() == dimensions && is_sound).then_some(EmbeddedText {
        vector,
        tokens: stored.tokens,
        truncated: stored.truncated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(vector: &[f32]) -> StoredEmbedding {
        encode(&EmbeddedText {
            vector: vector.to_vec(),
            tokens: 7,
            truncated: true,
        })
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

    #[test]
    fn a_digest_depends_on_where_its_parts_end() {
        let with = |parts: [&str; 2]| {
            let mut prefix = Sha256::new();
            add(&mut prefix, parts[0].as_bytes());
            digest(&prefix, parts[1])
        };
        assert_eq!(with(["ab", "c"]), with(["ab", "c"]));
        assert_ne!(with(["ab", "c"]), with(["a", "bc"]));
        assert_ne!(with(["", "abc"]), with(["abc", ""]));
    }
}
