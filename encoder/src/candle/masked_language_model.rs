//! [`MaskedLanguageModel`](crate::MaskedLanguageModel) on a device.

use candle_core::{Result, Tensor};

use super::{
    Bert, Device, DeviceError,
    batch::Batch,
    layers::{LayerNorm, Linear, Reader},
};
use crate::{EncoderConfig, Precision, TensorError, TensorFiles, WeightedTerms, Weights};

/// Tokens of a sequence whose logits are computed at once: 62 MB for BERT's vocabulary.
const BLOCK_ROWS: usize = 512;

/// A BERT with the head it was trained with, which weighs each term of the vocabulary for a text: SPLADE.
#[derive(Debug)]
pub struct MaskedLanguageModel {
    encoder: Bert,
    transformation: Linear,
    norm: LayerNorm,
    decoder: Linear,
    bias: Vec<f32>,
}

impl MaskedLanguageModel {
    /// Reads the tensors that `config` calls for onto `device`. The head's matrix is the word embedding where the
    /// file has none of its own.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type, `precision` is 8 bits, or the device has too little memory.
    pub fn read(
        files: &TensorFiles,
        config: EncoderConfig,
        precision: Precision,
        device: &Device,
    ) -> std::result::Result<Self, DeviceError> {
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let words = Reader::new(files, Weights::prefix(files), precision, device)?;
        let head = Reader::new(files, "cls.predictions.", precision, device)?;
        let decoder = match head.linear(&[("decoder".to_owned(), vocabulary)], hidden) {
            Err(DeviceError::Tensor(TensorError::Missing(_))) => {
                words.linear(&[("embeddings.word_embeddings".to_owned(), vocabulary)], hidden)?
            }
            found => found?,
        };
        let bias = match head.floats("bias", &[vocabulary]) {
            Err(DeviceError::Tensor(TensorError::Missing(_))) => {
                head.floats("decoder.bias", &[vocabulary])?
            }
            found => found?,
        };
        Ok(Self {
            transformation: head.linear_with_bias(&[("transform.dense".to_owned(), hidden)], hidden)?,
            norm: head.layer_norm("transform.LayerNorm", hidden, config.epsilon)?,
            decoder,
            bias: bias.to_vec1()?,
            encoder: Bert::read(files, config, precision, device)?,
        })
    }

    /// The terms that weigh something for each sequence, in order; none for an empty one.
    ///
    /// `pause` is called before each layer and each sequence, and may compute other sequences.
    ///
    /// # Errors
    /// If the device fails or has too little memory, or a sequence is longer than `config.positions`.
    pub fn weigh(
        &self,
        sequences: &[&[u32]],
        pause: &mut dyn FnMut(),
    ) -> std::result::Result<Vec<WeightedTerms>, DeviceError> {
        let mut weighed = Vec::with_capacity(sequences.len());
        if let Some(batch) = Batch::new(sequences, self.encoder.device())? {
            let states = self.encoder.states(&batch, pause)?;
            for (index, length) in batch.lengths.iter().enumerate() {
                pause();
                let largest = self.largest_logits(&states.get(index)?.narrow(0, 0, *length)?)?;
                let mut largest: Vec<f32> = largest.to_vec1()?;
                // A GPU's maximum leaves out NaN, and is this where nothing else is there.
                for logit in largest.iter_mut().filter(|logit| **logit == f32::NEG_INFINITY) {
                    *logit = f32::NAN;
                }
                weighed.push(WeightedTerms::of_logits(&largest, &self.bias));
            }
        }
        Ok(Batch::spread(sequences, weighed, WeightedTerms::default))
    }

    /// For each term the largest logit over the tokens of one sequence, without the bias: `[vocabulary]`.
    fn largest_logits(&self, states: &Tensor) -> Result<Tensor> {
        let transformed = self.transformation.apply_with_bias(states)?.gelu_erf()?;
        let transformed = self.norm.apply(&transformed)?;
        let tokens = transformed.dim(0)?;
        let mut largest: Option<Tensor> = None;
        for first in (0..tokens).step_by(BLOCK_ROWS) {
            let block = transformed.narrow(0, first, BLOCK_ROWS.min(tokens - first))?;
            let logits = self.decoder.apply_with_bias(&block)?.max(0)?;
            largest = Some(match largest {
                Some(largest) => largest.maximum(&logits)?,
                None => logits,
            });
        }
        largest.ok_or_else(|| candle_core::Error::msg("a sequence has no tokens"))
    }
}
