//! [`Qwen3`](crate::Qwen3) on a device.

use candle_core::{DType, Result, Tensor};
use candle_nn::{ops, rotary_emb::rope};

use super::{
    Device, DeviceError,
    batch::{Batch, Mask},
    layers::{Linear, Reader, attend},
};
use crate::{
    Precision, Qwen3Config, TensorFiles,
    kernels::scale_to_unit_length,
    qwen3::{WORD_EMBEDDINGS, angles, prefix},
};

/// A Qwen3 decoder as a sentence encoder: the state of each sequence's last token, scaled to length 1.
#[derive(Debug)]
pub struct Qwen3 {
    config: Qwen3Config,
    device: Device,
    words: Tensor,
    /// Of the angles of each position: `[positions, head_width / 2]`.
    cosines: Tensor,
    sines: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    /// Query of all heads, then key and value of all heads that have them.
    projections: Linear,
    query_norm: Tensor,
    key_norm: Tensor,
    attention_output: Linear,
    feed_forward_norm: Tensor,
    /// Gates, then values.
    expansion: Linear,
    contraction: Linear,
}

impl Qwen3 {
    /// Reads the tensors that `config` calls for onto `device`, with or without the prefix `model.`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type, `precision` is 8 bits, or the device has too little memory.
    pub fn read(
        files: &TensorFiles,
        config: Qwen3Config,
        precision: Precision,
        device: &Device,
    ) -> std::result::Result<Self, DeviceError> {
        let reader = Reader::new(files, prefix(files), precision, device)?;
        let half = config.head_width / 2;
        let angles = reader.values(angles(&config), &[config.positions, config.head_width])?;
        Ok(Self {
            words: reader.table(WORD_EMBEDDINGS, config.vocabulary, config.hidden)?,
            cosines: angles.narrow(1, 0, half)?.contiguous()?,
            sines: angles.narrow(1, half, half)?.contiguous()?,
            layers: (0..config.layers)
                .map(|index| Layer::read(&reader, index, &config))
                .collect::<std::result::Result<_, _>>()?,
            norm: reader.floats("norm.weight", &[config.hidden])?,
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
            let last = batch.last_tokens(&self.states(&batch, pause)?)?;
            vectors = ops::rms_norm(&last, &self.norm, self.config.epsilon)?.to_vec2()?;
        }
        for vector in &mut vectors {
            scale_to_unit_length(vector);
        }
        Ok(Batch::spread(sequences, vectors, || {
            vec![0.0; self.config.hidden]
        }))
    }

    /// What the last layer makes of each token, before the last normalisation: `[sequences * longest, hidden]`.
    fn states(&self, batch: &Batch, pause: &mut dyn FnMut()) -> Result<Tensor> {
        let epsilon = self.config.epsilon;
        let mask = Mask::causal(batch, batch.block(self.config.heads))?;
        let mut states = self.words.index_select(&batch.ids, 0)?.to_dtype(DType::F32)?;
        for layer in &self.layers {
            pause();
            let normalised = ops::rms_norm(&states, &layer.attention_norm, epsilon)?;
            let context = self.attend(layer, &normalised, batch, &mask)?;
            states = (states + layer.attention_output.apply_with_bias(&context)?)?;
            let normalised = ops::rms_norm(&states, &layer.feed_forward_norm, epsilon)?;
            let gated = ops::swiglu(&layer.expansion.apply(&normalised)?)?;
            states = (states + layer.contraction.apply_with_bias(&gated)?)?;
        }
        Ok(states)
    }

    /// Attention over `states`, without the matrix that mixes the heads.
    fn attend(&self, layer: &Layer, states: &Tensor, batch: &Batch, mask: &Mask) -> Result<Tensor> {
        let Qwen3Config {
            heads,
            key_value_heads: shared,
            head_width: width,
            epsilon,
            ..
        } = self.config;
        let projections = layer.projections.apply(states)?.reshape((
            batch.lengths.len(),
            batch.longest,
            heads + 2 * shared,
            width,
        ))?;
        let part =
            |first: usize, count: usize| projections.narrow(2, first, count)?.transpose(1, 2)?.contiguous();
        let cosines = self.cosines.narrow(0, 0, batch.longest)?;
        let sines = self.sines.narrow(0, 0, batch.longest)?;
        let turned = |part: Tensor, norm: &Tensor| {
            let normalised = ops::rms_norm(&part.to_dtype(DType::F32)?, norm, epsilon)?;
            rope(&normalised, &cosines, &sines)?.to_dtype(part.dtype())
        };
        let queries = turned(part(0, heads)?, &layer.query_norm)?;
        let keys = turned(part(heads, shared)?, &layer.key_norm)?;
        attend(&queries, &keys, &part(heads + shared, shared)?, mask)
    }
}

impl Layer {
    fn read(
        reader: &Reader<'_>,
        index: usize,
        config: &Qwen3Config,
    ) -> std::result::Result<Self, DeviceError> {
        let Qwen3Config {
            hidden,
            intermediate,
            head_width,
            ..
        } = *config;
        let (all, shared) = (config.heads * head_width, config.key_value_heads * head_width);
        let named = |name: &str| format!("layers.{index}.{name}");
        let norm = |name: &str, width: usize| reader.floats(&named(&format!("{name}.weight")), &[width]);
        let linear = |parts: &[(&str, usize)], inputs: usize| {
            let parts: Vec<_> = parts
                .iter()
                .map(|(name, outputs)| (named(name), *outputs))
                .collect();
            reader.linear(&parts, inputs)
        };
        Ok(Self {
            attention_norm: norm("input_layernorm", hidden)?,
            projections: linear(
                &[
                    ("self_attn.q_proj", all),
                    ("self_attn.k_proj", shared),
                    ("self_attn.v_proj", shared),
                ],
                hidden,
            )?,
            query_norm: norm("self_attn.q_norm", head_width)?,
            key_norm: norm("self_attn.k_norm", head_width)?,
            attention_output: linear(&[("self_attn.o_proj", hidden)], all)?,
            feed_forward_norm: norm("post_attention_layernorm", hidden)?,
            expansion: linear(
                &[("mlp.gate_proj", intermediate), ("mlp.up_proj", intermediate)],
                hidden,
            )?,
            contraction: linear(&[("mlp.down_proj", hidden)], intermediate)?,
        })
    }
}
