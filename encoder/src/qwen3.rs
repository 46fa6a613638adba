//! A Qwen3 decoder as a sentence encoder: the state of each sequence's last token, scaled to length 1.
//!
//! Order of operations and names follow `transformers`' `Qwen3Model`: normalisation by the root mean square before
//! each half of a layer, heads of keys and values that several heads of queries share, queries and keys normalised
//! and turned by their positions, a gated feed-forward unit. A token sees itself and those before it, so packed
//! sequences need no mask but the triangle, and of the last layer only the last token of each sequence is computed.
//!
//! Memory of a thread: some 36 bytes times `hidden` for each token of a batch, plus blocks of `BLOCK_ROWS` in the
//! feed-forward unit and of at most `ATTENTION_ROWS` in attention, whatever the length of a sequence. Absent on
//! purpose: a cache of keys and values, sampling and the head over the vocabulary, which only generation needs.

mod config;

pub use config::Qwen3Config;

use crate::{
    AttentionShape, HeadRows, Linear, LinearScratch, Precision, TensorError, TensorFiles,
    kernels::{
        decoder::{
            HeadRotation, add, causal_softmax, gate, normalise_and_rotate_heads, normalise_root_mean_square,
        },
        scale_to_unit_length,
    },
    matrix::{Matrix, MatrixMut, Output, multiply},
    sized,
    tensors::{EmbeddingTable, Reader},
};

/// Queries whose scores are computed at once, so that the scores stay in cache.
const ATTENTION_ROWS: usize = 128;

/// Tokens that pass the feed-forward unit at once, which is where a token needs the most memory.
const BLOCK_ROWS: usize = 256;

/// Name of the word embedding, without prefix.
pub(crate) const WORD_EMBEDDINGS: &str = "embed_tokens.weight";

/// A model in memory.
#[derive(Debug)]
pub struct Qwen3 {
    config: Qwen3Config,
    words: EmbeddingTable,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    precision: Precision,
    /// For each position the cosines, then the sines, of its angles.
    angles: Vec<f32>,
}

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    /// `hidden` to all heads.
    queries: Linear,
    /// `hidden` to all heads of keys, then all of values.
    keys_values: Linear,
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
    /// All heads to `hidden`.
    attention_output: Linear,
    feed_forward_norm: Vec<f32>,
    /// `hidden` to gates, then values.
    expansion: Linear,
    /// `intermediate` to `hidden`.
    contraction: Linear,
}

/// Working memory of one thread; it grows to what the largest batch so far needed.
#[derive(Debug, Default)]
pub struct Qwen3Scratch {
    states: Vec<f32>,
    normalised: Vec<f32>,
    queries: Vec<f32>,
    keys_values: Vec<f32>,
    context: Vec<f32>,
    scores: Vec<f32>,
    wide: Vec<f32>,
    gated: Vec<f32>,
    linear: LinearScratch,
}

impl Qwen3 {
    /// Reads the tensors that `config` calls for, with or without the prefix `model.`; others are ignored.
    /// Matrices are held in `precision`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn read(files: &TensorFiles, config: Qwen3Config, precision: Precision) -> Result<Self, TensorError> {
        let reader = Reader::new(files, prefix(files), precision);
        Ok(Self {
            words: reader.table(WORD_EMBEDDINGS, config.vocabulary, config.hidden)?,
            layers: (0..config.layers)
                .map(|index| Layer::read(&reader, index, &config))
                .collect::<Result<_, _>>()?,
            norm: reader.floats("norm.weight", &[config.hidden])?,
            precision,
            angles: angles(&config),
            config,
        })
    }

    /// One vector of `config.hidden` floats and length 1 for each sequence, in order; zeros for an empty one.
    ///
    /// `pause` is called several times a layer, and may do other work with other working memory.
    ///
    /// # Panics
    /// If a sequence is longer than `config.positions` or holds an id beyond `config.vocabulary`.
    pub fn embed(
        &self,
        sequences: &[&[u32]],
        scratch: &mut Qwen3Scratch,
        pause: &mut dyn FnMut(),
    ) -> Vec<Vec<f32>> {
        let hidden = self.config.hidden;
        let lengths: Vec<usize> = sequences
            .iter()
            .map(|sequence| sequence.len())
            .filter(|length| *length > 0)
            .collect();
        let tokens: usize = lengths.iter().sum();
        let ids = sequences.iter().copied().flatten();
        let states = sized(&mut scratch.states, tokens * hidden);
        for (id, row) in ids.zip(states.chunks_exact_mut(hidden)) {
            self.words.read_row(*id, row);
        }

        if let Some((last, layers)) = self.layers.split_last() {
            for layer in layers {
                pause();
                self.attend(layer, &lengths, Rows::All, scratch, pause);
                self.feed_forward(layer, tokens, scratch, pause);
            }
            pause();
            self.attend(last, &lengths, Rows::Last, scratch, pause);
            self.feed_forward(last, lengths.len(), scratch, pause);
        }

        let mut rows = scratch.states.chunks_exact(hidden);
        let pool = |sequence: &&[u32]| {
            let mut vector = vec![0.0; hidden];
            if let Some(row) = (!sequence.is_empty()).then(|| rows.next()).flatten() {
                normalise_root_mean_square(row, &mut vector, &self.norm, self.config.epsilon);
                scale_to_unit_length(&mut vector);
            }
            vector
        };
        sequences.iter().map(pool).collect()
    }

    /// The attention half of `layer`, with its residual sum. `rows` says which tokens the states hold afterwards.
    fn attend(
        &self,
        layer: &Layer,
        lengths: &[usize],
        rows: Rows,
        scratch: &mut Qwen3Scratch,
        pause: &mut dyn FnMut(),
    ) {
        let Qwen3Config {
            hidden,
            heads,
            key_value_heads,
            head_width: width,
            epsilon,
            ..
        } = self.config;
        let (query_width, shared_width) = (heads * width, key_value_heads * width);
        let tokens: usize = lengths.iter().sum();
        let states = &mut scratch.states[..tokens * hidden];
        let mut normalised = sized(&mut scratch.normalised, tokens * hidden);
        normalise_root_mean_square(states, normalised, &layer.attention_norm, epsilon);
        let keys_values = sized(&mut scratch.keys_values, tokens * 2 * shared_width);
        layer
            .keys_values
            .apply(normalised, keys_values, &mut scratch.linear);
        pause();

        let kept = match rows {
            Rows::All => tokens,
            Rows::Last => {
                keep_last(states, lengths, hidden);
                keep_last(normalised, lengths, hidden);
                normalised = &mut normalised[..lengths.len() * hidden];
                lengths.len()
            }
        };
        let queries = sized(&mut scratch.queries, kept * query_width);
        layer.queries.apply(normalised, queries, &mut scratch.linear);
        pause();

        let context = sized(&mut scratch.context, kept * query_width);
        let (mut start, mut query_start) = (0, 0);
        for length in lengths {
            let asked = match rows {
                Rows::All => *length,
                Rows::Last => 1,
            };
            let query_range = query_start * query_width..(query_start + asked) * query_width;
            let mut sequence = Sequence {
                queries: &mut queries[query_range.clone()],
                keys_values: &mut keys_values[start * 2 * shared_width..(start + length) * 2 * shared_width],
                first: length - asked,
            };
            let context = &mut context[query_range];
            let in_bfloat16 = self.precision != Precision::Single && scratch.linear.attends_faster();
            self.turn(layer, &mut sequence);
            match rows {
                Rows::All if in_bfloat16 => self.attend_in_bfloat16(&sequence, context, &mut scratch.linear),
                Rows::All | Rows::Last => {
                    self.attend_in_floats(&sequence, context, &mut scratch.scores, pause)
                }
            }
            pause();
            start += length;
            query_start += asked;
        }

        let summand = sized(&mut scratch.normalised, kept * hidden);
        layer
            .attention_output
            .apply(context, summand, &mut scratch.linear);
        add(&mut scratch.states[..kept * hidden], summand);
        pause();
    }

    /// Normalises and turns the queries and keys of a sequence.
    fn turn(&self, layer: &Layer, sequence: &mut Sequence<'_>) {
        let Qwen3Config {
            heads,
            key_value_heads,
            head_width: width,
            epsilon,
            ..
        } = self.config;
        let rotation = |heads: usize, stride: usize, scale, first: usize| HeadRotation {
            heads,
            stride,
            scale,
            epsilon,
            angles: &self.angles[first * width..],
        };
        let queries = rotation(heads, heads * width, &layer.query_norm, sequence.first);
        normalise_and_rotate_heads(sequence.queries, queries);
        let keys = rotation(key_value_heads, 2 * key_value_heads * width, &layer.key_norm, 0);
        normalise_and_rotate_heads(sequence.keys_values, keys);
    }

    /// Attention of all tokens of a sequence, with its products in bf16.
    fn attend_in_bfloat16(&self, sequence: &Sequence<'_>, context: &mut [f32], linear: &mut LinearScratch) {
        let shape = AttentionShape {
            heads: self.config.heads,
            key_heads: self.config.key_value_heads,
            width: self.config.head_width,
            causal: true,
        };
        let queries = HeadRows {
            values: sequence.queries,
            stride: shape.heads * shape.width,
        };
        let shared = shape.key_heads * shape.width;
        let [keys, values] = [0, shared].map(|offset| HeadRows {
            values: sequence.keys_values.get(offset..).unwrap_or_default(),
            stride: 2 * shared,
        });
        linear.attend(shape, queries, keys, values, context);
    }

    /// Attention of the last tokens of a sequence, or all, in single precision.
    fn attend_in_floats(
        &self,
        sequence: &Sequence<'_>,
        context: &mut [f32],
        scores: &mut Vec<f32>,
        pause: &mut dyn FnMut(),
    ) {
        let Qwen3Config {
            heads,
            key_value_heads,
            head_width: width,
            ..
        } = self.config;
        let Sequence {
            queries,
            keys_values,
            first,
        } = sequence;
        let (query_stride, stride) = (heads * width, 2 * key_value_heads * width);
        let asked = queries.len() / query_stride;
        let length = first + asked;
        let scale = 1.0 / (width as f32).sqrt();
        let scores = sized(scores, ATTENTION_ROWS.min(asked) * length);
        for head in 0..heads {
            let column = head * width;
            let shared = head / (heads / key_value_heads) * width;
            for begin in (0..asked).step_by(ATTENTION_ROWS) {
                let rows = ATTENTION_ROWS.min(asked - begin);
                // Keys after the last of these queries are seen by none of them.
                let visible = first + begin + rows;
                let scores = &mut scores[..rows * visible];
                let queries = Matrix::rows(
                    &queries[begin * query_stride + column..],
                    rows,
                    width,
                    query_stride,
                );
                let keys = Matrix::rows(&keys_values[shared..], visible, width, stride);
                let values = Matrix::rows(
                    &keys_values[key_value_heads * width + shared..],
                    visible,
                    width,
                    stride,
                );
                multiply(
                    MatrixMut::dense(scores, rows, visible),
                    Output::Replace,
                    scale,
                    queries,
                    keys.transposed(),
                );
                causal_softmax(scores, visible, first + begin + 1);
                multiply(
                    MatrixMut::rows(
                        &mut context[begin * query_stride + column..],
                        rows,
                        width,
                        query_stride,
                    ),
                    Output::Replace,
                    1.0,
                    Matrix::dense(scores, rows, visible),
                    values,
                );
            }
            pause();
        }
    }

    /// The feed-forward half of `layer` for the first `tokens` states, with its residual sum.
    fn feed_forward(
        &self,
        layer: &Layer,
        tokens: usize,
        scratch: &mut Qwen3Scratch,
        pause: &mut dyn FnMut(),
    ) {
        let Qwen3Config {
            hidden,
            intermediate,
            epsilon,
            ..
        } = self.config;
        for states in scratch.states[..tokens * hidden].chunks_mut(BLOCK_ROWS * hidden) {
            let rows = states.len() / hidden;
            let normalised = sized(&mut scratch.normalised, rows * hidden);
            let wide = sized(&mut scratch.wide, rows * 2 * intermediate);
            let gated = sized(&mut scratch.gated, rows * intermediate);
            normalise_root_mean_square(states, normalised, &layer.feed_forward_norm, epsilon);
            layer.expansion.apply(normalised, wide, &mut scratch.linear);
            gate(wide, gated, intermediate);
            layer.contraction.apply(gated, normalised, &mut scratch.linear);
            add(states, normalised);
            pause();
        }
    }
}

/// The tokens that a layer computes.
#[derive(Debug, Clone, Copy)]
enum Rows {
    All,
    /// The last of each sequence.
    Last,
}

/// What attention reads of one sequence.
struct Sequence<'a> {
    /// Of the tokens from `first` to the end.
    queries: &'a mut [f32],
    /// Of all tokens.
    keys_values: &'a mut [f32],
    first: usize,
}

impl Layer {
    fn read(reader: &Reader<'_>, index: usize, config: &Qwen3Config) -> Result<Self, TensorError> {
        let Qwen3Config {
            hidden,
            intermediate,
            head_width,
            ..
        } = *config;
        let (all, shared) = (config.heads * head_width, config.key_value_heads * head_width);
        let named = |name: &str| format!("layers.{index}.{name}");
        let norm = |name: &str, length: usize| reader.floats(&named(&format!("{name}.weight")), &[length]);
        let linear = |parts: &[(&str, usize)], inputs: usize| {
            let parts: Vec<_> = parts
                .iter()
                .map(|(name, outputs)| (named(name), *outputs))
                .collect();
            reader.linear(&parts, inputs)
        };
        Ok(Self {
            attention_norm: norm("input_layernorm", hidden)?,
            queries: linear(&[("self_attn.q_proj", all)], hidden)?,
            keys_values: linear(
                &[("self_attn.k_proj", shared), ("self_attn.v_proj", shared)],
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

/// Moves the last of the `lengths` rows of each sequence to the front; a row has `width` floats.
fn keep_last(rows: &mut [f32], lengths: &[usize], width: usize) {
    let mut end = 0;
    for (index, length) in lengths.iter().enumerate() {
        end += length;
        rows.copy_within((end - 1) * width..end * width, index * width);
    }
}

/// What the names of tensors begin with.
pub(crate) fn prefix(files: &TensorFiles) -> &'static str {
    const PREFIX: &str = "model.";
    if files.has(&format!("{PREFIX}{WORD_EMBEDDINGS}")) {
        PREFIX
    } else {
        ""
    }
}

/// For each position of `config` the cosines, then the sines, of its angles.
///
/// The angle i of position p is `p * theta^(-2i / width)`, in the precision that the reference computes it in.
pub(crate) fn angles(config: &Qwen3Config) -> Vec<f32> {
    let (width, half) = (config.head_width, config.head_width / 2);
    let frequencies: Vec<f32> = (0..half)
        .map(|index| (1.0 / config.theta.powf(2.0 * index as f64 / width as f64)) as f32)
        .collect();
    let mut angles = Vec::with_capacity(config.positions * width);
    for position in 0..config.positions {
        let of_position = |frequency: &f32| f64::from(position as f32 * frequency);
        angles.extend(
            frequencies
                .iter()
                .map(|frequency| of_position(frequency).cos() as f32),
        );
        angles.extend(
            frequencies
                .iter()
                .map(|frequency| of_position(frequency).sin() as f32),
        );
    }
    angles
}
