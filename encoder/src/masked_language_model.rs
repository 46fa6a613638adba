//! A BERT with the head it was trained with, which weighs each term of the vocabulary for a text: SPLADE.
//!
//! For a sequence, the weight of a term is `ln(1 + max(0, logit))` of its largest logit over all tokens (Formal et
//! al., "SPLADE v2", 2021). Both functions grow with the logit, so they are applied once, to the largest. Logits
//! are as many as the vocabulary for each token; they are computed in blocks of `BLOCK_ROWS` tokens, of which
//! only the largest of each term is kept.

use crate::{
    Encoder, EncoderConfig, Linear, Precision, Scratch, TensorError, TensorFiles, Weights,
    kernels::{Normalisation, add_and_normalise, bias_gelu, decoder::raise_to_columns},
    sized,
    tensors::Reader,
    weights::{LayerNorm, WORD_EMBEDDINGS},
};

/// Tokens whose logits are computed at once: 16 MB for BERT's vocabulary.
const BLOCK_ROWS: usize = 128;

/// A model in memory.
#[derive(Debug)]
pub struct MaskedLanguageModel {
    encoder: Encoder,
    transformation: Linear,
    norm: LayerNorm,
    epsilon: f32,
    decoder: Linear,
    bias: Vec<f32>,
}

/// Working memory of one thread; it grows to what the largest batch so far needed.
#[derive(Debug, Default)]
pub struct MaskedLanguageScratch {
    encoder: Scratch,
    head: HeadScratch,
}

#[derive(Debug, Default)]
struct HeadScratch {
    transformed: Vec<f32>,
    zeros: Vec<f32>,
    logits: Vec<f32>,
    largest: Vec<f32>,
    linear: crate::LinearScratch,
}

/// The terms that weigh something for a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WeightedTerms {
    /// Token ids, ascending, each once.
    pub ids: Vec<u32>,
    /// The weight of each id, above zero.
    pub weights: Vec<f32>,
}

impl WeightedTerms {
    /// What terms weigh whose largest logits, without the bias, are `largest`.
    pub(crate) fn of_logits(largest: &[f32], bias: &[f32]) -> Self {
        let mut terms = Self::default();
        for (id, (logit, bias)) in largest.iter().zip(bias).enumerate() {
            let logit = logit + bias;
            // NaN is kept, so that the caller sees that the model is damaged.
            if logit > 0.0 || logit.is_nan() {
                terms.ids.push(id as u32);
                terms.weights.push(logit.ln_1p());
            }
        }
        terms
    }
}

impl MaskedLanguageModel {
    /// Reads the tensors that `config` calls for. The head's matrix is the word embedding where the file has none
    /// of its own. Matrices are held in `precision`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn read(
        files: &TensorFiles,
        config: EncoderConfig,
        precision: Precision,
    ) -> Result<Self, TensorError> {
        const DECODER: &str = "decoder.weight";
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let words = Reader::new(files, Weights::prefix(files), precision);
        let head = Reader::new(files, "cls.predictions.", precision);
        let decoder = match head.rows(DECODER, vocabulary, hidden) {
            Err(TensorError::Missing(_)) => words.rows(WORD_EMBEDDINGS, vocabulary, hidden)?,
            found => found?,
        };
        let bias = match head.floats("bias", &[vocabulary]) {
            Err(TensorError::Missing(_)) => head.floats("decoder.bias", &[vocabulary])?,
            found => found?,
        };
        Ok(Self {
            transformation: head.linear_with_bias(&[("transform.dense".to_owned(), hidden)], hidden)?,
            norm: LayerNorm::read(&head, "transform.LayerNorm", hidden)?,
            epsilon: config.epsilon,
            decoder: Linear::new(&[decoder], None, precision),
            bias,
            encoder: Encoder::new(config.clone(), Weights::read(files, &config, precision)?),
        })
    }

    /// The terms that weigh something for each sequence, in order; none for an empty one.
    ///
    /// `pause` is called many times in between, and may do other work with other working memory.
    ///
    /// # Panics
    /// If a sequence is longer than `config.positions` or holds an id beyond `config.vocabulary`.
    pub fn weigh(
        &self,
        sequences: &[&[u32]],
        scratch: &mut MaskedLanguageScratch,
        pause: &mut dyn FnMut(),
    ) -> Vec<WeightedTerms> {
        let hidden = self.norm.scale.len();
        let MaskedLanguageScratch { encoder, head } = scratch;
        let mut states = self.encoder.states(sequences, encoder, pause);
        let weigh = |sequence: &&[u32]| {
            let (rows, rest) = states.split_at(sequence.len() * hidden);
            states = rest;
            self.weigh_sequence(rows, head, pause)
        };
        sequences.iter().map(weigh).collect()
    }

    fn weigh_sequence(
        &self,
        states: &[f32],
        scratch: &mut HeadScratch,
        pause: &mut dyn FnMut(),
    ) -> WeightedTerms {
        let (hidden, vocabulary) = (self.norm.scale.len(), self.bias.len());
        let largest = sized(&mut scratch.largest, vocabulary);
        largest.fill(f32::NEG_INFINITY);
        let normalisation = Normalisation {
            scale: &self.norm.scale,
            shift: &self.norm.shift,
            epsilon: self.epsilon,
        };
        for states in states.chunks(BLOCK_ROWS * hidden) {
            let rows = states.len() / hidden;
            let transformed = sized(&mut scratch.transformed, rows * hidden);
            self.transformation
                .apply(states, transformed, &mut scratch.linear);
            bias_gelu(transformed, self.transformation.bias());
            let zeros = sized(&mut scratch.zeros, rows * hidden);
            add_and_normalise(transformed, zeros, &zeros[..hidden], normalisation);
            let logits = sized(&mut scratch.logits, rows * vocabulary);
            self.decoder.apply(transformed, logits, &mut scratch.linear);
            raise_to_columns(largest, logits);
            pause();
        }
        WeightedTerms::of_logits(largest, &self.bias)
    }
}
