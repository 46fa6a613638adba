//! A BERT sentence encoder: token ids in, one vector of length 1 for each sequence out.
//!
//! The sequences of a batch are **packed**: laid end to end without padding, so no arithmetic is spent on
//! anything but real tokens and a text's vector does not depend on its neighbours. All matrix products but
//! attention see one tall matrix of all tokens; attention runs for each sequence and head.
//!
//! Order of operations and names follow the BERT paper (Devlin et al., 2018) as `transformers`' `BertModel`
//! has it, with exact GELU, followed by the mean over all tokens and L2 normalisation. Absent on purpose:
//! dropout, the pooler and masks, of which inference on packed sequences needs none.

mod config;
mod kernels;
mod matrix;
mod weights;

pub use config::{ConfigError, EncoderConfig};
use kernels::{Normalisation, add_and_normalise, bias_gelu, mean_of_rows, scale_to_unit_length, softmax};
use matrix::{Matrix, MatrixMut, Output, multiply};
use weights::{LayerNorm, LayerWeights, Linear};
pub use weights::{TensorError, Weights};

/// Queries whose scores are computed at once, so that the scores stay in cache.
const ATTENTION_ROWS: usize = 128;

/// A model in memory.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    weights: Weights,
}

/// Working memory of one thread; it grows to what the largest batch so far needed.
#[derive(Debug, Default)]
pub struct Scratch {
    hidden: Vec<f32>,
    projections: Vec<f32>,
    context: Vec<f32>,
    scores: Vec<f32>,
    wide: Vec<f32>,
    summand: Vec<f32>,
}

impl Encoder {
    /// Weights read with this `config`.
    pub fn new(config: EncoderConfig, weights: Weights) -> Self {
        Self { config, weights }
    }

    /// One vector of `config.hidden` floats and length 1 for each sequence, in order; zeros for an empty one.
    ///
    /// # Panics
    /// If a sequence is longer than `config.positions` or holds an id beyond `config.vocabulary`.
    pub fn embed(&self, sequences: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let hidden = self.config.hidden;
        let tokens: usize = sequences.iter().map(|sequence| sequence.len()).sum();
        let Scratch {
            hidden: states,
            projections,
            context,
            scores,
            wide,
            summand,
        } = scratch;
        let states = sized(states, tokens * hidden);
        let projections = sized(projections, tokens * 3 * hidden);
        let context = sized(context, tokens * hidden);
        let wide = sized(wide, tokens * self.config.intermediate);
        let summand = sized(summand, tokens * hidden);

        self.look_up(sequences, states);
        for layer in &self.weights.layers {
            linear_with_bias(states, &layer.projections, projections);
            let mut start = 0;
            for sequence in sequences {
                let end = start + sequence.len();
                let projections = &projections[start * 3 * hidden..end * 3 * hidden];
                self.attend(projections, &mut context[start * hidden..end * hidden], scores);
                start = end;
            }
            linear(context, &layer.attention_output, summand);
            let normalisation = self.normalisation(&layer.attention_norm);
            add_and_normalise(states, summand, &layer.attention_output.bias, normalisation);
            self.feed_forward(layer, states, wide, summand);
        }

        let mut start = 0;
        let pool = |sequence: &&[u32]| {
            let end = start + sequence.len() * hidden;
            let mut vector = vec![0.0; hidden];
            mean_of_rows(&states[start..end], &mut vector);
            scale_to_unit_length(&mut vector);
            start = end;
            vector
        };
        sequences.iter().map(pool).collect()
    }

    /// Sum of word, position and token type embedding of each token, normalised.
    fn look_up(&self, sequences: &[&[u32]], states: &mut [f32]) {
        let hidden = self.config.hidden;
        let mut rest = states;
        for sequence in sequences {
            let (rows, others) = rest.split_at_mut(sequence.len() * hidden);
            for (id, row) in sequence.iter().zip(rows.chunks_exact_mut(hidden)) {
                self.weights.words.read_row(*id, row);
            }
            let positions = &self.weights.positions[..rows.len()];
            let normalisation = self.normalisation(&self.weights.embedding_norm);
            add_and_normalise(rows, positions, &self.weights.token_type, normalisation);
            rest = others;
        }
    }

    /// Attention of one sequence: `projections` has query, key and value of all heads side by side in each row.
    fn attend(&self, projections: &[f32], context: &mut [f32], scores: &mut Vec<f32>) {
        let hidden = self.config.hidden;
        let width = hidden / self.config.heads;
        let length = context.len() / hidden;
        if length == 0 {
            return;
        }
        let scale = 1.0 / (width as f32).sqrt();
        let scores = sized(scores, ATTENTION_ROWS.min(length) * length);
        for head in 0..self.config.heads {
            let column = head * width;
            let part = |offset: usize, first: usize, rows: usize| {
                let start = first * 3 * hidden + offset + column;
                Matrix::rows(&projections[start..], rows, width, 3 * hidden)
            };
            let keys = part(hidden, 0, length);
            let values = part(2 * hidden, 0, length);
            for first in (0..length).step_by(ATTENTION_ROWS) {
                let rows = ATTENTION_ROWS.min(length - first);
                let scores = &mut scores[..rows * length];
                let queries = part(0, first, rows);
                multiply(
                    MatrixMut::dense(scores, rows, length),
                    Output::Replace,
                    scale,
                    queries,
                    keys.transposed(),
                );
                softmax(scores, length);
                multiply(
                    MatrixMut::rows(&mut context[first * hidden + column..], rows, width, hidden),
                    Output::Replace,
                    1.0,
                    Matrix::dense(scores, rows, length),
                    values,
                );
            }
        }
    }

    /// The two feed-forward layers with GELU between them, residual sum and normalisation, in place.
    fn feed_forward(&self, layer: &LayerWeights, states: &mut [f32], wide: &mut [f32], summand: &mut [f32]) {
        linear(states, &layer.expansion, wide);
        bias_gelu(wide, &layer.expansion.bias);
        linear(wide, &layer.contraction, summand);
        let normalisation = self.normalisation(&layer.feed_forward_norm);
        add_and_normalise(states, summand, &layer.contraction.bias, normalisation);
    }

    fn normalisation<'a>(&self, norm: &'a LayerNorm) -> Normalisation<'a> {
        Normalisation {
            scale: &norm.scale,
            shift: &norm.shift,
            epsilon: self.config.epsilon,
        }
    }
}

/// `out = inputs * weight`; the bias is left to the kernel that reads the output next.
fn linear(inputs: &[f32], layer: &Linear, out: &mut [f32]) {
    apply(inputs, layer, out, Output::Replace);
}

/// `out = inputs * weight + bias`.
fn linear_with_bias(inputs: &[f32], layer: &Linear, out: &mut [f32]) {
    for row in out.chunks_exact_mut(layer.bias.len()) {
        row.copy_from_slice(&layer.bias);
    }
    apply(inputs, layer, out, Output::Add);
}

fn apply(inputs: &[f32], layer: &Linear, out: &mut [f32], output: Output) {
    let outputs = layer.bias.len();
    let rows = out.len() / outputs;
    let inner = layer.weight.len() / outputs;
    multiply(
        MatrixMut::dense(out, rows, outputs),
        output,
        1.0,
        Matrix::dense(inputs, rows, inner),
        Matrix::dense(&layer.weight, inner, outputs),
    );
}

/// The first `length` floats of `buffer`, which grows if it must; their values are left over from before.
fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
