//! Models that run in this process, on the CPU or on a GPU ([`engine`]).
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
mod engine;
mod options;
mod pool;
mod sparse;
mod tokenizer;
mod weights;
mod workers;

use std::path::PathBuf;

use chroma_sync_encoder::Qwen3Config;

pub use dense::LocalEmbedder;
pub use options::{Device, LocalOptions};
pub use sparse::LocalSparseEmbedder;
pub use tokenizer::Tokens;

use self::{
    description::{Architecture, Description},
    engine::{Engine, Reading},
    pool::{Model, Pool},
    tokenizer::{TextTokenizer, TokenizerError},
    weights::WeightsFiles,
    workers::Workers,
};
use super::{LoadError, ModelFiles, fingerprint::Fingerprint};

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

/// What a model has beside its network.
struct Surroundings {
    tokenizer: TextTokenizer,
    fingerprint: Fingerprint,
    workers: Workers,
    /// The file to name if the weights are damaged.
    weights: PathBuf,
}

impl LocalModel {
    /// Loads the model in `files` and starts its threads.
    ///
    /// Reads all files: some 0.1 s for a model of 90 MB, seconds for one of 1 GB, so call it before the runtime
    /// serves, or on a blocking thread. The weights files stay mapped: they may be replaced by others, but must not
    /// be rewritten in place.
    ///
    /// # Errors
    /// If a file is missing, damaged, or describes a model that is not supported; the error names the file. If the
    /// device is not there, does not hold the model, or does not compute in the precision asked for.
    pub fn load(files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
        options.check()?;
        Self::load_on(&Engine::open(options.device)?, files, options)
    }

    fn load_on(engine: &Engine, files: &ModelFiles, options: LocalOptions) -> Result<Self, LoadError> {
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

        let weights = WeightsFiles::open(files)?;
        let precision = options.precision(&architecture);
        let reading = Reading {
            files: &weights,
            precision,
        };
        let surroundings = |tokenizer| {
            Ok(Surroundings {
                tokenizer,
                fingerprint: options::fingerprint(files, precision, max_tokens)?,
                workers: options.workers(),
                weights: weights.path.clone(),
            })
        };
        match architecture {
            Architecture::Bert(config) => {
                let dimensions = config.hidden;
                let network = engine.bert(&reading, config)?;
                LocalEmbedder::start(files, network, dimensions, surroundings(tokenizer)?).map(Self::Dense)
            }
            Architecture::Qwen3(config) => {
                let config = Qwen3Config {
                    positions: max_tokens,
                    ..config
                };
                let dimensions = config.hidden;
                let network = engine.qwen3(&reading, config)?;
                LocalEmbedder::start(files, network, dimensions, surroundings(tokenizer)?).map(Self::Dense)
            }
            Architecture::MaskedLanguageModel(config) => {
                let network = engine.masked_language_model(&reading, config)?;
                LocalSparseEmbedder::start(files, network, surroundings(tokenizer)?).map(Self::Sparse)
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

/// Computes one vector with `model` and starts its threads, which are called `threads`; `weights` is the file to
/// name if the vector is not finite.
fn start<M: Model>(
    files: &ModelFiles,
    model: M,
    workers: Workers,
    weights: PathBuf,
    threads: &str,
) -> Result<Pool<M>, LoadError> {
    match model.encode(&[&[0]], &mut M::Scratch::default(), &mut || {}) {
        // Bits that rotted in the file show as NaN or infinity in nearly every vector.
        Ok(vectors) if vectors.iter().all(M::is_finite) => {}
        Ok(_) => return Err(LoadError::NotFinite { path: weights }),
        Err(error) => {
            return Err(LoadError::Device {
                path: weights,
                source: error.into(),
            });
        }
    }
    Pool::start(model, workers, threads).map_err(|source| LoadError::Thread {
        model: files.name().to_owned(),
        source,
    })
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
