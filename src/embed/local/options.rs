//! How models run in this process.

use std::{num::NonZeroUsize, thread};

use chroma_sync_encoder::Precision;

use crate::embed::{LoadError, ModelFiles, fingerprint};

/// The default of [`LocalOptions::max_tokens`]: a chunk of 16 KiB, the largest, has some 4,000 tokens of English or
/// of code.
const MAX_TOKENS: usize = 4096;

/// How a model runs.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// Threads of the model's own, each of which computes a batch by itself.
    pub threads: NonZeroUsize,
    /// What its weights are held in.
    pub precision: PrecisionChoice,
    /// The most tokens of a text that are read, where the model itself reads more. The time of a text grows a
    /// little faster than its tokens, the memory of a thread with them.
    pub max_tokens: NonZeroUsize,
}

impl Default for LocalOptions {
    /// As many threads as the process may use processors, single precision, 4,096 tokens.
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            precision: PrecisionChoice::Single,
            max_tokens: NonZeroUsize::new(MAX_TOKENS).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl LocalOptions {
    /// What tells vectors of the model in `files`, run so and reading `max_tokens`, from those of any other.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn fingerprint(&self, files: &ModelFiles, max_tokens: usize) -> Result<String, LoadError> {
        // A text that is cut elsewhere has another vector.
        let computed = format!("{:?}, {max_tokens} tokens", self.precision.resolve());
        fingerprint::of_files(files, &computed)
    }
}

/// What weights are held in, and what products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrecisionChoice {
    /// What is fastest on this processor without harm: [`Precision::automatic`].
    Auto,
    /// 32-bit floats.
    Single,
    /// 16-bit floats with the range of 32-bit ones.
    Bfloat16,
    /// Weights in 8-bit integers with scales, products in bf16.
    EightBit,
}

impl PrecisionChoice {
    /// What this processor uses.
    pub fn resolve(self) -> Precision {
        match self {
            Self::Auto => Precision::automatic(),
            Self::Single => Precision::Single,
            Self::Bfloat16 => Precision::Bfloat16,
            Self::EightBit => Precision::EightBit,
        }
    }
}
