//! A sentence encoder that runs in this process, on the CPU.
//!
//! The model is loaded from files as the Hugging Face hub has them; see [`ModelDirectories`]. Supported are
//! BERT encoders whose tokens are averaged, such as `sentence-transformers/all-MiniLM-L6-v2`. Vectors equal
//! those of the `sentence-transformers` package up to single-precision rounding (`tests/golden/`).
//!
//! [`ModelDirectories`]: super::ModelDirectories

mod batches;
mod description;
mod pool;
mod tokenizer;

use std::{fs::File, num::NonZeroUsize, sync::Arc, thread};

use chroma_sync_encoder::{Encoder, Scratch, Weights};
use futures::future::BoxFuture;

pub use tokenizer::Tokens;

use self::{
    description::SentenceModel,
    pool::{Model, Pool},
    tokenizer::{TextTokenizer, TokenizerError},
};
use super::{EmbedError, EmbeddedText, Embedder, LoadError, MAX_TEXTS, ModelFiles, Purpose, fingerprint};
use crate::domain::embedding::ModelDescription;

const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

/// The largest `tokenizer.json`, in bytes; those of large vocabularies have some 20 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// How weights are computed with, for the fingerprint.
const PRECISION: &str = "f32";

/// How a model runs.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// Threads of the model's own, each of which computes a batch by itself.
    pub threads: NonZeroUsize,
}

impl Default for LocalOptions {
    /// As many threads as the process may use processors.
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// A sentence encoder with its own threads.
///
/// Dropping it ends the threads; calls that wait for an answer end with [`EmbedError::Stopped`].
pub struct LocalEmbedder {
    description: ModelDescription,
    fingerprint: String,
    pool: Pool<SentenceEncoder>,
}

/// Tokenizer and encoder of one model.
struct SentenceEncoder {
    tokenizer: TextTokenizer,
    encoder: Encoder,
}

impl Model for SentenceEncoder {
    type Scratch = Scratch;

    fn tokenize(&self, text: &str) -> Result<Tokens, EmbedError> {
        self.tokenizer.tokenize(text)
    }

    fn encode(&self, sequences: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        self.encoder.embed(sequences, scratch)
    }
}

impl LocalEmbedder {
    /// Loads the model in `files` and starts its threads.
    ///
    /// Reads all files and takes some 0.1 s, so call it before the runtime serves, or on a blocking thread. The
    /// weights file stays mapped: it may be replaced by another, but must not be rewritten in place.
    ///
    /// # Errors
    /// If a file is missing, damaged, or describes a model that is not supported; the error names the file.
    pub fn load(files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
        let model = SentenceModel::read(files)?;
        let tokenizer_bytes = files.read(TOKENIZER, MAX_TOKENIZER_BYTES)?;
        let tokenizer = TextTokenizer::parse(&tokenizer_bytes, model.encoder.vocabulary, model.max_tokens)
            .map_err(|error| tokenizer_load_error(files, error))?;
        drop(tokenizer_bytes);

        let path = files.path(WEIGHTS);
        let file = File::open(&path).map_err(|source| LoadError::Read {
            path: path.clone(),
            source,
        })?;
        let weights = Weights::read(&file, &model.encoder).map_err(|source| LoadError::Weights {
            path: path.clone(),
            source: source.into(),
        })?;
        let description = ModelDescription {
            name: files.name().to_owned(),
            dimensions: model.encoder.hidden as u32,
            max_tokens: model.max_tokens as u32,
            takes_instructions: false,
        };
        let encoder = SentenceEncoder {
            tokenizer,
            encoder: Encoder::new(model.encoder, weights),
        };

        // Bits that rotted in the file show as NaN or infinity in nearly every vector.
        let trial = encoder.encoder.embed(&[&[0]], &mut Scratch::default());
        if trial.iter().flatten().any(|value| !value.is_finite()) {
            return Err(LoadError::NotFinite { path });
        }
        let pool =
            Pool::start(encoder, options.threads.get(), "embed").map_err(|source| LoadError::Thread {
                model: files.name().to_owned(),
                source,
            })?;
        Ok(Self {
            description,
            fingerprint: fingerprint::of_files(files, PRECISION)?,
            pool,
        })
    }

    /// What the model reads of `text`. Computes on the calling thread: some microseconds for each hundred bytes.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Tokens, EmbedError> {
        self.pool.model().tokenize(text)
    }
}

impl Embedder for LocalEmbedder {
    fn model(&self) -> &ModelDescription {
        &self.description
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        _instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
        Box::pin(async move {
            if texts.len() > MAX_TEXTS {
                return Err(EmbedError::TooManyTexts {
                    count: texts.len(),
                    limit: MAX_TEXTS,
                });
            }
            self.pool.embed(texts, purpose).await
        })
    }
}

fn tokenizer_load_error(files: &ModelFiles, error: TokenizerError) -> LoadError {
    let path = files.path(TOKENIZER);
    match error {
        TokenizerError::Parse(source) => LoadError::Damaged { path, source },
        TokenizerError::Vocabulary { .. } | TokenizerError::NoRoom { .. } => LoadError::Unsupported {
            path,
            problem: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
