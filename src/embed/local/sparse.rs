//! Sparse models in this process.

use std::sync::Arc;

#[cfg(feature = "candle")]
use chroma_sync_encoder::candle;
use chroma_sync_encoder::{MaskedLanguageModel, MaskedLanguageScratch, WeightedTerms};
use futures::future::BoxFuture;

#[cfg(feature = "candle")]
use super::engine;
use super::{
    LocalModel, LocalOptions, Surroundings, Tokens, other_kind,
    pool::{Encoded, Model, Pool},
    start,
    tokenizer::TextTokenizer,
};
use crate::embed::{
    EmbedError, LoadError, ModelFiles, Purpose, SparseEmbedder, SparseVector, check_count,
    fingerprint::Fingerprint,
};

/// A sparse model with its own threads: the indices of its vectors are ids of its vocabulary.
///
/// Dropping it ends the threads; calls that wait for an answer end with [`EmbedError::Stopped`].
pub struct LocalSparseEmbedder {
    name: String,
    fingerprint: Fingerprint,
    pool: Pool<TermWeigher>,
}

/// What computes the vectors.
pub(super) enum TermNetwork {
    MaskedLanguageModel(MaskedLanguageModel),
    #[cfg(feature = "candle")]
    DeviceMaskedLanguageModel(candle::MaskedLanguageModel),
}

/// Tokenizer and network of one model.
struct TermWeigher {
    tokenizer: TextTokenizer,
    network: TermNetwork,
}

impl Model for TermWeigher {
    type Scratch = MaskedLanguageScratch;
    type Vector = WeightedTerms;

    fn tokenize(&self, text: &str, _instruction: &str) -> Result<Tokens, EmbedError> {
        self.tokenizer.tokenize(text, "")
    }

    fn encode(
        &self,
        sequences: &[&[u32]],
        scratch: &mut MaskedLanguageScratch,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<WeightedTerms>, EmbedError> {
        match &self.network {
            TermNetwork::MaskedLanguageModel(network) => Ok(network.weigh(sequences, scratch, pause)),
            #[cfg(feature = "candle")]
            TermNetwork::DeviceMaskedLanguageModel(network) => {
                network.weigh(sequences, pause).map_err(engine::failed)
            }
        }
    }

    fn is_finite(vector: &WeightedTerms) -> bool {
        vector.weights.iter().all(|weight| weight.is_finite())
    }
}

impl LocalSparseEmbedder {
    /// Loads the sparse model in `files`; see [`LocalModel::load`].
    ///
    /// # Errors
    /// As [`LocalModel::load`], and if the model is dense.
    pub fn load(files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
        match LocalModel::load(files, options)? {
            LocalModel::Sparse(embedder) => Ok(embedder),
            LocalModel::Dense(_) => Err(other_kind(files, "it is dense, and a sparse one is called for")),
        }
    }

    /// Tries `network` once and starts its threads.
    pub(super) fn start(
        files: &ModelFiles,
        network: TermNetwork,
        surroundings: Surroundings,
    ) -> Result<Self, LoadError> {
        let Surroundings {
            tokenizer,
            fingerprint,
            workers,
            weights,
        } = surroundings;
        let weigher = TermWeigher { tokenizer, network };
        let pool = start(files, weigher, workers, weights, "sparse")?;
        Ok(Self {
            name: files.name().to_owned(),
            fingerprint,
            pool,
        })
    }

    /// What the model reads of `text`. Computes on the calling thread: some microseconds for each hundred bytes.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Tokens, EmbedError> {
        self.pool.model().tokenize(text, "")
    }
}

impl SparseEmbedder for LocalSparseEmbedder {
    fn model(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> BoxFuture<'_, Result<Option<String>, EmbedError>> {
        Box::pin(async { self.fingerprint.get().await.map(Some) })
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<SparseVector>, EmbedError>> {
        Box::pin(async move {
            check_count(&texts)?;
            let weighed = self.pool.embed(texts, String::new(), purpose).await?;
            Ok(weighed.into_iter().map(sparse_vector).collect())
        })
    }
}

fn sparse_vector(encoded: Encoded<WeightedTerms>) -> SparseVector {
    SparseVector {
        indices: encoded.vector.ids,
        values: encoded.vector.weights,
    }
}
