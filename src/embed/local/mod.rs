//! Models that run in this process, on the CPU.
//!
//! A model is loaded from files as the Hugging Face hub has them; see [`ModelDirectories`]. What it is, the files
//! say ([`description`]): dense are BERT encoders whose tokens are averaged, such as
//! `sentence-transformers/all-MiniLM-L6-v2`, and Qwen3 decoders of which the last token counts, such as
//! `Qwen/Qwen3-Embedding-0.6B`; sparse are BERTs with the head of a masked language model, such as
//! `prithivida/Splade_PP_en_v1`. Vectors equal those of the `sentence-transformers` package up to the rounding of the
//! precision (`tests/golden/`).
//!
//! [`ModelDirectories`]: super::ModelDirectories

mod batches;
mod dense;
mod description;
mod options;
mod pool;
mod sparse;
mod tokenizer;
mod weights;

use std::path::PathBuf;

use chroma_sync_encoder::{Encoder, MaskedLanguageModel, Qwen3, Qwen3Config, TensorError, Weights};

pub use dense::LocalEmbedder;
pub use options::LocalOptions;
pub use sparse::LocalSparseEmbedder;
pub use tokenizer::Tokens;

use self::{
    dense::Network,
    description::{Architecture, Description},
    tokenizer::{TextTokenizer, TokenizerError},
};
use super::{LoadError, ModelFiles};

const TOKENIZER: &str = "tokenizer.json";

/// The largest `tokenizer.json`, in bytes; those of large vocabularies have some 20 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A model that runs in this process.
pub enum LocalModel {
    /// It makes dense vectors.
    Dense(LocalEmbedder),
    /// It makes sparse vectors.
    Sparse(LocalSparseEmbedder),
}

impl LocalModel {
    /// Loads the model in `files` and starts its threads.
    ///
    /// Reads all files: some 0.1 s for a model of 90 MB, seconds for one of 1 GB, so call it before the runtime
    /// serves, or on a blocking thread. The weights files stay mapped: they may be replaced by others, but must not
    /// be rewritten in place.
    ///
    /// # Errors
    /// If a file is missing, damaged, or describes a model that is not supported; the error names the file.
    pub fn load(files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
        let Description {
            architecture,
            max_tokens,
        } = Description::read(files, options.max_tokens.get())?;
        let vocabulary = match &architecture {
            Architecture::Bert(config) | Architecture::MaskedLanguageModel(config) => config.vocabulary,
            Architecture::Qwen3(config) => config.vocabulary,
        };
        let tokenizer = TextTokenizer::parse(
            &files.read(TOKENIZER, MAX_TOKENIZER_BYTES)?,
            vocabulary,
            max_tokens,
        )
        .map_err(|error| tokenizer_load_error(files, error))?;

        let (path, tensors) = weights::open(files)?;
        let failed = |source: TensorError| LoadError::Weights {
            path: path.clone(),
            source: source.into(),
        };
        let precision = options.precision();
        match architecture {
            Architecture::Bert(config) => {
                let weights = Weights::read(&tensors, &config, precision).map_err(failed)?;
                let dimensions = config.hidden;
                let network = Network::Bert(Encoder::new(config, weights));
                LocalEmbedder::start(files, network, dimensions, tokenizer, options, path).map(Self::Dense)
            }
            Architecture::Qwen3(config) => {
                let config = Qwen3Config {
                    positions: max_tokens,
                    ..config
                };
                let dimensions = config.hidden;
                let network = Network::Qwen3(Qwen3::read(&tensors, config, precision).map_err(failed)?);
                LocalEmbedder::start(files, network, dimensions, tokenizer, options, path).map(Self::Dense)
            }
            Architecture::MaskedLanguageModel(config) => {
                let network = MaskedLanguageModel::read(&tensors, config, precision).map_err(failed)?;
                LocalSparseEmbedder::start(files, network, tokenizer, options, path).map(Self::Sparse)
            }
        }
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

/// A model of another kind than the caller can use.
fn other_kind(files: &ModelFiles, problem: &str) -> LoadError {
    let path: PathBuf = files.path("config.json");
    LoadError::Unsupported {
        path,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests;
