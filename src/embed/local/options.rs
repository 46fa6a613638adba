//! How models run in this process.

use std::{num::NonZeroUsize, thread};

use chroma_sync_encoder::Precision;

use super::{description::Architecture, workers::Workers};
use crate::embed::{LoadError, ModelFiles, fingerprint::Fingerprint};

/// The default of [`LocalOptions::max_tokens`]: a chunk of 16 KiB, the largest, has some 4,000 tokens of English or
/// of code.
const MAX_TOKENS: usize = 4096;

/// How a model runs.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// Where it computes.
    pub device: Device,
    /// Threads of the model's own, each of which computes a batch by itself. On a GPU there is one, whatever this is.
    pub threads: NonZeroUsize,
    /// What its weights are held in, and what products are computed in; none is what is fastest without harm: on the
    /// CPU [`Precision::automatic`], on a GPU bf16 for Qwen3 and else 32-bit floats.
    pub precision: Option<Precision>,
    /// The most tokens of a text that are read, where the model itself reads more. The time of a text grows a
    /// little faster than its tokens, the memory of a thread with them.
    pub max_tokens: NonZeroUsize,
}

impl Default for LocalOptions {
    /// The CPU, as many threads as the process may use processors, single precision, 4,096 tokens.
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            precision: Some(Precision::Single),
            max_tokens: NonZeroUsize::new(MAX_TOKENS).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl LocalOptions {
    /// Refuses what no model can run with.
    ///
    /// # Errors
    /// [`LoadError::WithoutCuda`] or [`LoadError::PrecisionOnDevice`].
    pub fn check(&self) -> Result<(), LoadError> {
        match self.device {
            Device::Cpu => Ok(()),
            Device::Cuda { .. } if self.precision == Some(Precision::EightBit) => {
                Err(LoadError::PrecisionOnDevice)
            }
            Device::Cuda { .. } if !cfg!(feature = "cuda") => Err(LoadError::WithoutCuda),
            Device::Cuda { .. } => Ok(()),
        }
    }

    /// What the weights of a model are held in, and its products computed in.
    pub(super) fn precision(&self, architecture: &Architecture) -> Precision {
        self.precision.unwrap_or_else(|| match self.device {
            Device::Cpu => Precision::automatic(),
            Device::Cuda { .. } => match architecture {
                Architecture::Qwen3(_) => Precision::Bfloat16,
                // They are small, and lose more by it.
                Architecture::Bert(_) | Architecture::MaskedLanguageModel(_) => Precision::Single,
            },
        })
    }

    /// The threads that a model gets.
    pub(super) fn workers(&self) -> Workers {
        match self.device {
            Device::Cpu => Workers::on_processors(self.threads.get()),
            Device::Cuda { .. } => Workers::ON_A_DEVICE,
        }
    }
}

/// What tells vectors of the model in `files`, computed in `precision` and reading `max_tokens`, from those of any
/// other. Where they are computed changes the last digits alone.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn fingerprint(
    files: &ModelFiles,
    precision: Precision,
    max_tokens: usize,
) -> Result<Fingerprint, LoadError> {
    // A text that is cut elsewhere has another vector.
    Fingerprint::open(files, &format!("{precision:?}, {max_tokens} tokens"))
}

/// Where models compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processors.
    Cpu,
    /// An NVIDIA GPU; needs the feature `cuda`.
    Cuda {
        /// The number that the driver gives it, from 0.
        ordinal: usize,
    },
}
