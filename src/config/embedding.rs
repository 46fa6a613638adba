//! `[embedding]`. Meanings and defaults are in `config/default.toml`.

use std::num::NonZeroUsize;

use serde::Deserialize;

use super::ProviderConfig;

/// `[embedding]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EmbeddingConfig {
    pub default_model: String,
    pub models: Vec<String>,
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
