//! A BERT sentence encoder.
//!
//! Order of operations and names follow the BERT paper (Devlin et al., 2018) as `transformers`' `BertModel`
//! has it, with exact GELU, followed by the mean over all tokens and L2 normalisation. Absent on purpose:
//! dropout, the pooler and masks, of which inference on packed sequences needs none.

use crate::{
    AttentionShape, EncoderConfig, HeadRows, LinearScratch, Precision, Weights,
    kernels::{Normalisation, add_and_normalise, mean_of_rows, scale_to_unit_length, softmax},
    matrix::{Matrix, MatrixMut, Output, multiply},
    sized,
    weights::LayerNorm,
};

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
    summand: Vec<f32>,
    linear: LinearScratch,
}

impl Encoder {
    /// Weights read with this `config`.
    pub fn new(config: EncoderConfig, weights: Weights) -> Self {
        Self { config, weights }
    }

    /// One vector of `config.hidden` floats and length 1 for each sequence, in order; zeros for an empty one.
    ///
    /// `pause` is called before each layer, and may do other work with other working memory.
    ///
    /// # Panics
    /// If a sequence is longer than `config.positions` or holds an id beyond `config.vocabulary`.
    pub fn embed(
        &self,
        sequences: &[&[u32]],
        scratch: &mut Scratch,
        pause: &mut dyn FnMut(),
    ) -> Vec<Vec<f32>> {
        let hidden = self.config.hidden;
        let states = self.states(sequences, scratch, pause);
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

    /// What the last layer makes of each token: `config.hidden` floats a token, sequence after sequence.
    ///
    /// # Panics
    /// If a sequence is longer than `config.positions` or holds an id beyond `config.vocabulary`.
    pub fn states<'a>(
        &self,
        sequences: &[&[u32]],
        scratch: &'a mut Scratch,
        pause: &mut dyn FnMut(),
    ) -> &'a [f32] {
        let hidden = self.config.hidden;
        let tokens: usize = sequences.iter().map(|sequence| sequence.len()).sum();
        let Scratch {
            hidden: states,
            projections,
            context,
            scores,
            summand,
            linear,
        } = scratch;
        let states = sized(states, tokens * hidden);
        let projections = sized(projections, tokens * 3 * hidden);
        let context = sized(context, tokens * hidden);
        let summand = sized(summand, tokens * hidden);

        let shape = AttentionShape {
            heads: self.config.heads,
            key_heads: self.config.heads,
            width: hidden / self.config.heads,
            causal: false,
        };
        let in_bfloat16 = self.weights.precision != Precision::Single && linear.attends_faster();
        self.look_up(sequences, states);
        for layer in &self.weights.layers {
            pause();
            layer.projections.apply_with_bias(states, projections, linear);
            let mut start = 0;
            for sequence in sequences {
                let end = start + sequence.len();
                let projections = &projections[start * 3 * hidden..end * 3 * hidden];
                let context = &mut context[start * hidden..end * hidden];
                if in_bfloat16 {
                    attend_in_bfloat16(shape, projections, context, linear);
                } else {
                    self.attend(projections, context, scores);
                }
                start = end;
            }
            layer.attention_output.apply(context, summand, linear);
            let normalisation = self.normalisation(&layer.attention_norm);
            add_and_normalise(states, summand, layer.attention_output.bias(), normalisation);
            layer
                .expansion
                .apply_gelu_and(&layer.contraction, states, summand, linear);
            let normalisation = self.normalisation(&layer.feed_forward_norm);
            add_and_normalise(states, summand, layer.contraction.bias(), normalisation);
        }
        states
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

    fn normalisation<'a>(&self, norm: &'a LayerNorm) -> Normalisation<'a> {
        Normalisation {
            scale: &norm.scale,
            shift: &norm.shift,
            epsilon: self.config.epsilon,
        }
    }
}

/// [`Encoder::attend`] with its products in bf16.
fn attend_in_bfloat16(
    shape: AttentionShape,
    projections: &[f32],
    context: &mut [f32],
    linear: &mut LinearScratch,
) {
    let hidden = shape.heads * shape.width;
    let [queries, keys, values] = [0, hidden, 2 * hidden].map(|offset| HeadRows {
        values: projections.get(offset..).unwrap_or_default(),
        stride: 3 * hidden,
    });
    linear.attend(shape, queries, keys, values, context);
}
