//! What dense and sparse embedders have in common before the cache: look, compute what is missing, keep it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::EmbeddingCache;
use crate::{
    embed::{EmbedError, RefusedText},
    store::{EmbeddingDigest, StoredEmbedding},
};

/// How an embedding lies in the cache.
pub(super) trait Cached: Clone + Send + Sync {
    /// As it is kept.
    fn encode(&self) -> StoredEmbedding;

    /// None for what is no embedding of a model with so many dimensions: a bit that rotted must not end up in a
    /// collection, which would answer nonsense from then on.
    fn decode(stored: &StoredEmbedding, dimensions: usize) -> Option<Self>;
}

/// What the digests of one embedder and tenant have in common.
#[derive(Clone)]
pub(super) struct Prefix(Sha256);

impl Prefix {
    /// Takes in these parts.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut prefix = Self(Sha256::new());
        for part in parts {
            prefix.add(part);
        }
        prefix
    }

    /// A part whose length goes first, so that no two lists of parts run together into the same bytes.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn digest(&self, text: &str) -> EmbeddingDigest {
        let mut digest = self.clone();
        digest.add(text.as_bytes());
        digest.0.finalize().into()
    }
}

/// The embeddings of texts, and how many of them were computed.
pub(super) struct Embedded<T> {
    pub(super) embeddings: Vec<T>,
    pub(super) computed: u64,
}

/// Finds the embeddings of `texts` in the cache, has `compute` make the others, and leaves those to be kept.
pub(super) async fn embed<T, F>(
    cache: &EmbeddingCache,
    prefix: &Prefix,
    dimensions: usize,
    texts: Vec<Arc<str>>,
    compute: impl FnOnce(Vec<Arc<str>>) -> F,
) -> Result<Embedded<T>, EmbedError>
where
    T: Cached,
    F: Future<Output = Result<Vec<T>, EmbedError>>,
{
    let digests: Vec<EmbeddingDigest> = texts.iter().map(|text| prefix.digest(text)).collect();
    let mut known: HashMap<EmbeddingDigest, T> = HashMap::with_capacity(digests.len());
    for (digest, stored) in cache.find(&digests).await {
        match T::decode(&stored, dimensions) {
            Some(embedding) => {
                known.insert(digest, embedding);
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
            let computed = compute(missing).await;
            computed.map_err(|error| as_seen_by_caller(error, &wanted, &digests))?
        }
    };
    let kept = wanted
        .into_iter()
        .zip(&computed)
        .map(|(digest, embedding)| (digest, embedding.encode()));
    cache.put(kept.collect());
    let embeddings = digests
        .iter()
        .filter_map(|digest| {
            let place = places.get(digest).and_then(|place| computed.get(*place));
            place.or_else(|| known.get(digest)).cloned()
        })
        .collect();
    Ok(Embedded {
        embeddings,
        computed: computed.len() as u64,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_text_is_named_by_each_place_the_caller_has_it_at() {
        let digest = |text: &str| Prefix::of(&[]).digest(text);
        let asked = ["known", "good", "bad", "good", "bad"].map(digest);
        let computed = ["good", "bad"].map(digest);
        let refused = |index: usize| RefusedText {
            index,
            problem: "too long".to_owned(),
        };
        let error = EmbedError::TextsRefused {
            texts: vec![refused(1)],
        };
        let EmbedError::TextsRefused { texts } = as_seen_by_caller(error, &computed, &asked) else {
            panic!("it is another error")
        };
        assert_eq!(texts, [refused(2), refused(4)]);
        let stopped = as_seen_by_caller(EmbedError::Stopped, &computed, &asked);
        assert!(matches!(stopped, EmbedError::Stopped));
    }

    #[test]
    fn a_digest_depends_on_where_its_parts_end() {
        let with = |parts: [&str; 2]| Prefix::of(&[parts[0].as_bytes()]).digest(parts[1]);
        assert_eq!(with(["ab", "c"]), with(["ab", "c"]));
        assert_ne!(with(["ab", "c"]), with(["a", "bc"]));
        assert_ne!(with(["", "abc"]), with(["abc", ""]));
    }
}
