//! Dense models in this process.

use std::sync::Arc;

#[cfg(feature = "candle")]
use chroma_sync_encoder::candle;
use chroma_sync_encoder::{Encoder, Qwen3, Qwen3Scratch, Scratch};
use futures::future::BoxFuture;

#[cfg(feature = "candle")]
use super::engine;
use super::{
    LocalModel, LocalOptions, Surroundings, Tokens, other_kind,
    pool::{Encoded, Model, Pool},
    start,
    tokenizer::TextTokenizer,
};
use crate::{
    domain::embedding::ModelDescription,
    embed::{
        EmbedError, EmbeddedText, Embedder, LoadError, ModelFiles, Purpose, check_count,
        fingerprint::Fingerprint,
    },
};

/// A dense model with its own threads.
///
/// Dropping it ends the threads; calls that wait for an answer end with [`EmbedError::Stopped`].
pub struct LocalEmbedder {
    description: ModelDescription,
    fingerprint: Fingerprint,
    pool: Pool<SentenceEncoder>,
}

/// What computes the vectors.
pub(super) enum Network {
    Bert(Encoder),
    Qwen3(Qwen3),
    #[cfg(feature = "candle")]
    DeviceBert(candle::Bert),
    #[cfg(feature = "candle")]
    DeviceQwen3(candle::Qwen3),
}

impl Network {
    /// Whether texts may have an instruction before them.
    fn takes_instructions(&self) -> bool {
        match self {
            Self::Bert(_) => false,
            Self::Qwen3(_) => true,
            #[cfg(feature = "candle")]
            Self::DeviceBert(_) => false,
            #[cfg(feature = "candle")]
            Self::DeviceQwen3(_) => true,
        }
    }
}

/// Working memory of a thread; the part of the other architecture stays empty, as do both on a device.
#[derive(Default)]
pub(super) struct NetworkScratch {
    bert: Scratch,
    qwen3: Qwen3Scratch,
}

/// Tokenizer and network of one model.
struct SentenceEncoder {
    tokenizer: TextTokenizer,
    network: Network,
}

impl Model for SentenceEncoder {
    type Scratch = NetworkScratch;
    type Vector = Vec<f32>;

    fn tokenize(&self, text: &str, instruction: &str) -> Result<Tokens, EmbedError> {
        match self.network.takes_instructions() {
            false => self.tokenizer.tokenize(text, ""),
            true => self.tokenizer.tokenize(text, instruction),
        }
    }

    fn encode(
        &self,
        sequences: &[&[u32]],
        scratch: &mut NetworkScratch,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        match &self.network {
            Network::Bert(encoder) => Ok(encoder.embed(sequences, &mut scratch.bert, pause)),
            Network::Qwen3(decoder) => Ok(decoder.embed(sequences, &mut scratch.qwen3, pause)),
            #[cfg(feature = "candle")]
            Network::DeviceBert(encoder) => encoder.embed(sequences, pause).map_err(engine::failed),
            #[cfg(feature = "candle")]
            Network::DeviceQwen3(decoder) => decoder.embed(sequences, pause).map_err(engine::failed),
        }
    }

    fn is_finite(vector: &Vec<f32>) -> bool {
        vector.iter().all(|value| value.is_finite())
    }
}

impl LocalEmbedder {
    /// Loads the dense model in `files`; see [`LocalModel::load`].
    ///
    /// # Errors
    /// As [`LocalModel::load`], and if the model is sparse.
    pub fn load(files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
        match LocalModel::load(files, options)? {
            LocalModel::Dense(embedder) => Ok(embedder),
            LocalModel::Sparse(_) => Err(other_kind(files, "it is sparse, and a dense one is called for")),
        }
    }

    /// Tries `network` once and starts its threads.
    pub(super) fn start(
        files: &ModelFiles,
        network: Network,
        dimensions: usize,
        surroundings: Surroundings,
    ) -> Result<Self, LoadError> {
        let Surroundings {
            tokenizer,
            fingerprint,
            workers,
            weights,
        } = surroundings;
        let description = ModelDescription {
            name: files.name().to_owned(),
            dimensions: dimensions as u32,
            max_tokens: tokenizer.max_tokens() as u32,
            takes_instructions: network.takes_instructions(),
        };
        let encoder = SentenceEncoder { tokenizer, network };
        let pool = start(files, encoder, workers, weights, "embed")?;
        Ok(Self {
            description,
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

impl Embedder for LocalEmbedder {
    fn model(&self) -> &ModelDescription {
        &self.description
    }

    fn fingerprint(&self) -> BoxFuture<'_, Result<String, EmbedError>> {
        Box::pin(self.fingerprint.get())
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
        let instruction = instruction.to_owned();
        Box::pin(async move {
            check_count(&texts)?;
            let embedded = self.pool.embed(texts, instruction, purpose).await?;
            Ok(embedded.into_iter().map(embedded_text).collect())
        })
    }
}

fn embedded_text(encoded: Encoded<Vec<f32>>) -> EmbeddedText {
    EmbeddedText {
        vector: encoded.vector,
        tokens: encoded.tokens,
        truncated: encoded.truncated,
    }
}
