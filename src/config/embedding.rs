//! `[embedding]`. Meanings and defaults are in `config/default.toml`.

use std::num::NonZeroUsize;

use serde::Deserialize;

use super::ProviderConfig;

/// The most that `embedding.max_texts_per_call` may be: what an embedder takes in one call.
const MAX_TEXTS_PER_CALL: usize = 8_192;

/// `[embedding]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EmbeddingConfig {
    pub default_model: String,
    pub models: Vec<String>,
    pub device: EmbeddingDevice,
    pub threads: usize,
    pub precision: EmbeddingPrecision,
    pub max_tokens: NonZeroUsize,
    pub cache_max_bytes: u64,
    pub cache_shared: bool,
    pub max_texts_per_call: usize,
    pub max_waiting_calls: usize,
    pub providers: Vec<ProviderConfig>,
}

/// `embedding.precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EmbeddingPrecision {
    Auto,
    F32,
    Bf16,
    Int8,
}

/// `embedding.device`: `cpu`, `cuda` for the first GPU, or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[allow(missing_docs)]
pub enum EmbeddingDevice {
    Cpu,
    Cuda {
        /// The number that the driver gives the GPU, from 0.
        ordinal: usize,
    },
}

impl TryFrom<String> for EmbeddingDevice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ordinal = |digits: &str| {
            let ordinal = digits.parse().ok();
            ordinal.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let device = match text.as_str() {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda { ordinal: 0 }),
            other => other
                .strip_prefix("cuda:")
                .and_then(ordinal)
                .map(|ordinal| Self::Cuda { ordinal }),
        };
        device.ok_or_else(|| {
            format!("embedding.device is {text:?}, not \"cpu\", \"cuda\", or \"cuda:N\" with the number N of a GPU")
        })
    }
}

impl EmbeddingConfig {
    /// The first option whose value makes no sense by itself, and what is wrong with it.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=MAX_TEXTS_PER_CALL).contains(&self.max_texts_per_call) {
            return Some(("embedding.max_texts_per_call", "must be from 1 to 8192"));
        }
        (self.max_waiting_calls == 0).then_some(("embedding.max_waiting_calls", "must be at least 1"))
    }
}
