//! How models run in this process.

use std::{num::NonZeroUsize, thread};

use chroma_sync_encoder::Precision;

use crate::embed::{LoadError, ModelFiles, fingerprint::Fingerprint};

/// The default of [`LocalOptions::max_tokens`]: a chunk of 16 KiB, the largest, has some 4,000 tokens of English or
/// of code.
const MAX_TOKENS: usize = 4096;

/// How a model runs.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// Threads of the model's own, each of which computes a batch by itself.
    pub threads: NonZeroUsize,
    /// What its weights are held in, and what products are computed in; none is what is fastest on this processor
    /// without harm ([`Precision::automatic`]).
    pub precision: Option<Precision>,
    /// The most tokens of a text that are read, where the model itself reads more. The time of a text grows a
    /// little faster than its tokens, the memory of a thread with them.
    pub max_tokens: NonZeroUsize,
}

impl Default for LocalOptions {
    /// As many threads as the process may use processors, single precision, 4,096 tokens.
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            precision: Some(Precision::Single),
            max_tokens: NonZeroUsize::new(MAX_TOKENS).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl LocalOptions {
    /// What the weights are held in on this processor.
    pub(super) fn precision(&self) -> Precision {
        self.precision.unwrap_or_else(Precision::automatic)
    }

    /// What tells vectors of the model in `files`, run so and reading `max_tokens`, from those of any other.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn fingerprint(
        &self,
        files: &ModelFiles,
        max_tokens: usize,
    ) -> Result<Fingerprint, LoadError> {
        // A text that is cut elsewhere has another vector.
        let computed = format!("{:?}, {max_tokens} tokens", self.precision());
        Fingerprint::open(files, &computed)
    }
}
