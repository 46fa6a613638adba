//! [`Encoder`](crate::Encoder) on a device.

use candle_core::{DType, Result, Tensor};

use super::{
    Device, DeviceError,
    batch::{Batch, Mask},
    layers::{LayerNorm, Linear, Reader, attend},
};
use crate::{
    EncoderConfig, Precision, TensorFiles, Weights, kernels::scale_to_unit_length, weights::WORD_EMBEDDINGS,
};

/// A BERT sentence encoder: the mean over all tokens, scaled to length 1.
#[derive(Debug)]
pub struct Bert {
    config: EncoderConfig,
    device: Device,
    words: Tensor,
    /// Position and token type embedding, summed.
    positions: Tensor,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value of all heads.
    projections: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    expansion: Linear,
    contraction: Linear,
    feed_forward_norm: LayerNorm,
}

impl Bert {
    /// Reads the tensors that `config` calls for onto `device`, with or without the prefix `bert.`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type, `precision` is 8 bits, or the device has too little memory.
    pub fn read(
        files: &TensorFiles,
        config: EncoderConfig,
        precision: Precision,
        device: &Device,
    ) -> std::result::Result<Self, DeviceError> {
        let reader = Reader::new(files, Weights::prefix(files), precision, device)?;
        let hidden = config.hidden;
        let types = reader.floats(
            "embeddings.token_type_embeddings.weight",
            &[config.token_types, hidden],
        )?;
        let positions = reader.floats(
            "embeddings.position_embeddings.weight",
            &[config.positions, hidden],
        )?;
        Ok(Self {
            words: reader.table(WORD_EMBEDDINGS, config.vocabulary, hidden)?,
            positions: positions.broadcast_add(&types.get(0)?)?,
            embedding_norm: reader.layer_norm("embeddings.LayerNorm", hidden, config.epsilon)?,
            layers: (0..config.layers)
                .map(|index| Layer::read(&reader, index, &config))
                .collect::<std::result::Result<_, _>>()?,
            device: device.clone(),
            config,
        })
    }

    /// One vector of `config.hidden` floats and length 1 for each sequence, in order; zeros for an empty one.
    ///
    /// `pause` is called before each layer, and may compute other sequences.
    ///
    /// # Errors
    /// If the device fails or has too little memory, or a sequence is longer than `config.positions`.
    pub fn embed(
        &self,
        sequences: &[&[u32]],
        pause: &mut dyn FnMut(),
    ) -> std::result::Result<Vec<Vec<f32>>, DeviceError> {
        let mut vectors = Vec::new();
        if let Some(batch) = Batch::new(sequences, &self.device)? {
            let states = self.states(&batch, pause)?;
            let (count, longest) = (batch.lengths.len(), batch.longest);
            let share = |length: usize, place: usize| if place < length { 1.0 / length as f32 } else { 0.0 };
            let shares = batch.of_places(share)?.reshape((count, 1, longest))?;
            vectors = shares.matmul(&states)?.squeeze(1)?.to_vec2()?;
        }
        for vector in &mut vectors {
            scale_to_unit_length(vector);
        }
        Ok(Batch::spread(sequences, vectors, || {
            vec![0.0; self.config.hidden]
        }))
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// What the last layer makes of each token: `[sequences, longest, hidden]`.
    pub(super) fn states(&self, batch: &Batch, pause: &mut dyn FnMut()) -> Result<Tensor> {
        let EncoderConfig { hidden, heads, .. } = self.config;
        let (sequences, longest) = (batch.lengths.len(), batch.longest);
        let mask = Mask::padding(batch, batch.block(heads))?;
        let words = self.words.index_select(&batch.ids, 0)?.to_dtype(DType::F32)?;
        let sum = words
            .reshape((sequences, longest, hidden))?
            .broadcast_add(&self.positions.narrow(0, 0, longest)?)?;
        let mut states = self
            .embedding_norm
            .apply(&sum.reshape((sequences * longest, hidden))?)?;
        for layer in &self.layers {
            pause();
            // Query, key and value: [3, sequences, heads, longest, width].
            let projections = layer
                .projections
                .apply_with_bias(&states)?
                .to_dtype(layer.projections.products())?
                .reshape((sequences, longest, 3, heads, hidden / heads))?
                .permute((2, 0, 3, 1, 4))?
                .contiguous()?;
            let (queries, keys, values) = (projections.get(0)?, projections.get(1)?, projections.get(2)?);
            let context = attend(&queries, &keys, &values, &mask)?;
            let summand = layer.attention_output.apply_with_bias(&context)?;
            states = layer.attention_norm.apply(&(states + summand)?)?;
            let wide = layer.expansion.apply_with_bias(&states)?.gelu_erf()?;
            let summand = layer.contraction.apply_with_bias(&wide)?;
            states = layer.feed_forward_norm.apply(&(states + summand)?)?;
        }
        states.reshape((sequences, longest, hidden))
    }
}

impl Layer {
    fn read(
        reader: &Reader<'_>,
        index: usize,
        config: &EncoderConfig,
    ) -> std::result::Result<Self, DeviceError> {
        let (hidden, intermediate, epsilon) = (config.hidden, config.intermediate, config.epsilon);
        let named = |name: &str| format!("encoder.layer.{index}.{name}");
        let norm = |name: &str| reader.layer_norm(&named(name), hidden, epsilon);
        let single = |name: &str, inputs: usize, outputs: usize| {
            reader.linear_with_bias(&[(named(name), outputs)], inputs)
        };
        let projections =
            ["query", "key", "value"].map(|part| (named(&format!("attention.self.{part}")), hidden));
        Ok(Self {
            projections: reader.linear_with_bias(&projections, hidden)?,
            attention_output: single("attention.output.dense", hidden, hidden)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            expansion: single("intermediate.dense", hidden, intermediate)?,
            contraction: single("output.dense", intermediate, hidden)?,
            feed_forward_norm: norm("output.LayerNorm")?,
        })
    }
}
