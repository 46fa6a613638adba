//! The weights of a BERT encoder.
//!
//! Each weight is held once. The word embedding, half of a small model, stays in the file; the other tensors are
//! copied out, matrices packed by [`Linear`], query, key and value side by side.
//!
//! Invariant: every tensor has the shape that the [`EncoderConfig`] calls for.

use super::{
    EncoderConfig, Linear, Precision,
    tensors::{EmbeddingTable, Reader, TensorError, TensorFiles},
};

/// Name of the word embedding, without prefix.
pub(crate) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// All weights of an encoder.
#[derive(Debug)]
pub struct Weights {
    /// One row for each token id.
    pub(super) words: EmbeddingTable,
    /// One row for each position.
    pub(super) positions: Vec<f32>,
    /// Row 0 of the token type embedding: the type of all tokens of a single text.
    pub(super) token_type: Vec<f32>,
    /// Normalises the sum of the three.
    pub(super) embedding_norm: LayerNorm,
    /// From the first layer to the last.
    pub(super) layers: Vec<LayerWeights>,
    /// What the matrices are held in.
    pub(super) precision: Precision,
}

/// One encoder layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    /// Query, key and value of all heads: `hidden` to `3 * hidden`.
    pub(super) projections: Linear,
    /// Mixes the heads: `hidden` to `hidden`.
    pub(super) attention_output: Linear,
    /// After attention and residual sum.
    pub(super) attention_norm: LayerNorm,
    /// `hidden` to `intermediate`.
    pub(super) expansion: Linear,
    /// `intermediate` to `hidden`.
    pub(super) contraction: Linear,
    /// After feed-forward and residual sum.
    pub(super) feed_forward_norm: LayerNorm,
}

/// Scale and shift of a layer normalisation.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl LayerNorm {
    /// Reads the tensors `{name}.weight` and `{name}.bias`.
    pub(super) fn read(reader: &Reader<'_>, name: &str, length: usize) -> Result<Self, TensorError> {
        Ok(Self {
            scale: reader.floats(&format!("{name}.weight"), &[length])?,
            shift: reader.floats(&format!("{name}.bias"), &[length])?,
        })
    }
}

impl Weights {
    /// Reads the tensors that `config` calls for, with or without the prefix `bert.`; others are ignored.
    /// Matrices are held in `precision`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn read(
        files: &TensorFiles,
        config: &EncoderConfig,
        precision: Precision,
    ) -> Result<Self, TensorError> {
        let reader = Reader::new(files, Self::prefix(files), precision);
        let hidden = config.hidden;
        let mut token_type = reader.floats(
            "embeddings.token_type_embeddings.weight",
            &[config.token_types, hidden],
        )?;
        token_type.truncate(hidden);
        Ok(Self {
            words: reader.table(WORD_EMBEDDINGS, config.vocabulary, hidden)?,
            positions: reader.floats(
                "embeddings.position_embeddings.weight",
                &[config.positions, hidden],
            )?,
            token_type,
            embedding_norm: LayerNorm::read(&reader, "embeddings.LayerNorm", hidden)?,
            layers: (0..config.layers)
                .map(|index| LayerWeights::read(&reader, index, config))
                .collect::<Result<_, _>>()?,
            precision,
        })
    }

    /// What the names of the encoder's tensors begin with.
    pub(super) fn prefix(files: &TensorFiles) -> &'static str {
        const PREFIX: &str = "bert.";
        if files.has(&format!("{PREFIX}{WORD_EMBEDDINGS}")) {
            PREFIX
        } else {
            ""
        }
    }
}

impl LayerWeights {
    fn read(reader: &Reader<'_>, index: usize, config: &EncoderConfig) -> Result<Self, TensorError> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let named = |name: &str| format!("encoder.layer.{index}.{name}");
        let projections =
            ["query", "key", "value"].map(|part| (named(&format!("attention.self.{part}")), hidden));
        let single = |name: &str, inputs: usize, outputs: usize| {
            reader.linear_with_bias(&[(named(name), outputs)], inputs)
        };
        Ok(Self {
            projections: reader.linear_with_bias(&projections, hidden)?,
            attention_output: single("attention.output.dense", hidden, hidden)?,
            attention_norm: LayerNorm::read(reader, &named("attention.output.LayerNorm"), hidden)?,
            expansion: single("intermediate.dense", hidden, intermediate)?,
            contraction: single("output.dense", intermediate, hidden)?,
            feed_forward_norm: LayerNorm::read(reader, &named("output.LayerNorm"), hidden)?,
        })
    }
}
