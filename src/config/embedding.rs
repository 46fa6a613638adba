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

impl EmbeddingConfig {
    /// The first option whose value makes no sense by itself, and what is wrong with it.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=MAX_TEXTS_PER_CALL).contains(&self.max_texts_per_call) {
            return Some(("embedding.max_texts_per_call", "must be from 1 to 8192"));
        }
        (self.max_waiting_calls == 0).then_some(("embedding.max_waiting_calls", "must be at least 1"))
    }
}
