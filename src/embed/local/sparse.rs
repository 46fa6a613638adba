//! Sparse models in this process.

use std::{path::PathBuf, sync::Arc};

use chroma_sync_encoder::{MaskedLanguageModel, MaskedLanguageScratch, WeightedTerms};
use futures::future::BoxFuture;

use super::{
    LocalModel, LocalOptions, Tokens, other_kind,
    pool::{Encoded, Model, Pool},
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

/// Tokenizer and network of one model.
struct TermWeigher {
    tokenizer: TextTokenizer,
    network: MaskedLanguageModel,
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
    ) -> Vec<WeightedTerms> {
        self.network.weigh(sequences, scratch, pause)
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

    /// Tries `network` once and starts its threads. `weights` is the file to name if it is damaged.
    pub(super) fn start(
        files: &ModelFiles,
        network: MaskedLanguageModel,
        tokenizer: TextTokenizer,
        options: LocalOptions,
        weights: PathBuf,
    ) -> Result<Self, LoadError> {
        let fingerprint = options.fingerprint(files, tokenizer.max_tokens())?;
        let weigher = TermWeigher { tokenizer, network };
        // Bits that rotted in the file show as NaN or infinity in nearly every vector.
        let trial = weigher.encode(&[&[0]], &mut MaskedLanguageScratch::default(), &mut || {});
        if !trial.iter().all(TermWeigher::is_finite) {
            return Err(LoadError::NotFinite { path: weights });
        }
        let pool =
            Pool::start(weigher, options.threads.get(), "sparse").map_err(|source| LoadError::Thread {
                model: files.name().to_owned(),
                source,
            })?;
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
