//! Attention with both products in bf16: for each query, the mean of the values weighted by how keys fit it.
//!
//! Keys and values of a head are packed as panels, and queries are taken 32 at a time, so that their scores stay in
//! the cache. The weights of a mean go into its product as they come out of the exponential, between 0 and 1, and
//! the result is divided by their sum.

use super::{
    Instructions,
    bfloat16::{self, Computation},
    panels::{BLOCK, Bands, Block, LANES, Line, Panels},
};
use crate::kernels::{MultiplyAdd, exponential_to_bfloat16, maximum, total};

/// What attends to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Heads of the queries; a multiple of `key_heads`.
    pub heads: usize,
    /// Heads of keys and values, each of which serves `heads / key_heads` heads of queries.
    pub key_heads: usize,
    /// Floats of a head.
    pub width: usize,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
}

/// Rows of floats that start `stride` apart, each with all heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct HeadRows<'a> {
    /// From the first float of the first row on.
    pub values: &'a [f32],
    /// Floats from one row to the next.
    pub stride: usize,
}

impl<'a> HeadRows<'a> {
    #[inline(always)]
    fn head(&self, row: usize, head: usize, width: usize) -> &'a [f32] {
        &self.values[row * self.stride + head * width..][..width]
    }
}

/// Working memory of [`attend`].
#[derive(Debug, Default)]
pub(crate) struct AttentionScratch {
    keys: Panels,
    values: Panels,
    queries: Bands,
    weights: Bands,
    scores: Vec<f32>,
}

/// Attention of one sequence of `out.len() / (heads * width)` tokens; see [`super::LinearScratch::attend`].
pub(crate) fn attend(
    instructions: Instructions,
    shape: AttentionShape,
    queries: HeadRows<'_>,
    keys: HeadRows<'_>,
    values: HeadRows<'_>,
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let attention = Attention {
        shape,
        queries,
        keys,
        values,
        out,
        scratch,
    };
    bfloat16::compute(instructions, attention);
}

struct Attention<'a> {
    shape: AttentionShape,
    queries: HeadRows<'a>,
    keys: HeadRows<'a>,
    values: HeadRows<'a>,
    out: &'a mut [f32],
    scratch: &'a mut AttentionScratch,
}

impl Computation for Attention<'_> {
    #[inline(always)]
    fn run<A: MultiplyAdd>(self, mut multiply: impl FnMut(&[Line], &[Line], &mut Block)) {
        let AttentionShape {
            heads,
            key_heads,
            width,
            causal,
        } = self.shape;
        let AttentionScratch {
            keys,
            values,
            queries,
            weights,
            scores,
        } = self.scratch;
        let length = self.out.len() / (heads * width);
        let padded = length.next_multiple_of(BLOCK);
        let scale = 1.0 / (width as f32).sqrt();
        let group = heads / key_heads;
        let mut block = Block::default();
        scores.clear();
        scores.resize(BLOCK * padded, 0.0);
        for key_head in 0..key_heads {
            pack_keys(self.keys, key_head, width, length, keys);
            pack_values(self.values, key_head, width, length, values);
            for head in key_head * group..(key_head + 1) * group {
                for first in (0..length).step_by(BLOCK) {
                    let rows = BLOCK.min(length - first);
                    queries.reset(rows, bfloat16::depth(width));
                    for row in 0..rows {
                        let query = self.queries.head(first + row, head, width);
                        for (slot, values) in queries.row_mut(row).zip(query.chunks(BLOCK)) {
                            *slot = bfloat16::line(values);
                        }
                    }
                    let seen = if causal { first + rows } else { length };
                    for (index, pair) in keys.pairs().take(seen.div_ceil(BLOCK)).enumerate() {
                        multiply(queries.lines(), pair, &mut block);
                        for (scores, sums) in scores.chunks_exact_mut(padded).zip(&block.0[..rows]) {
                            scores[index * BLOCK..][..BLOCK].copy_from_slice(sums);
                        }
                    }
                    weights.reset(rows, padded / 2);
                    let mut factors = [0.0; BLOCK];
                    for (row, (scores, factor)) in scores
                        .chunks_exact(padded)
                        .zip(&mut factors)
                        .take(rows)
                        .enumerate()
                    {
                        let seen = if causal { first + row + 1 } else { length };
                        *factor = 1.0 / weigh::<A>(&scores[..seen], scale, weights.row_mut(row));
                    }
                    for (index, pair) in values.pairs().enumerate() {
                        multiply(weights.lines(), pair, &mut block);
                        let columns = BLOCK.min(width - index * BLOCK);
                        for (row, (sums, factor)) in block.0[..rows].iter().zip(factors).enumerate() {
                            let start = ((first + row) * heads + head) * width + index * BLOCK;
                            for (out, sum) in self.out[start..start + columns].iter_mut().zip(sums) {
                                *out = sum * factor;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Keys as outputs of a product over the floats of a head.
#[inline(always)]
fn pack_keys(rows: HeadRows<'_>, head: usize, width: usize, length: usize, panels: &mut Panels) {
    let depth = bfloat16::depth(width);
    panels.reset(length, depth);
    for (panel, first) in panels.panels_mut().zip((0..).step_by(LANES)) {
        for (step, tile) in panel.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut words = [[0; LANES]; LANES];
            for (key, words) in words.iter_mut().enumerate().take(length.saturating_sub(first)) {
                let row = rows.head(first + key, head, width);
                *words = bfloat16::line(&row[step * BLOCK..width.min((step + 1) * BLOCK)]).0;
            }
            for (word, line) in tile.iter_mut().enumerate() {
                for (slot, words) in line.0.iter_mut().zip(&words) {
                    *slot = words[word];
                }
            }
        }
    }
}

/// The floats of a head as outputs of a product over the tokens.
#[inline(always)]
fn pack_values(rows: HeadRows<'_>, head: usize, width: usize, length: usize, panels: &mut Panels) {
    panels.reset(width, length.next_multiple_of(BLOCK) / 2);
    for (panel, first) in panels.panels_mut().zip((0..).step_by(LANES)) {
        for (pair, line) in panel.iter_mut().enumerate() {
            let mut words = [[0; LANES]; 2];
            for (words, token) in words.iter_mut().zip(2 * pair..length) {
                let row = rows.head(token, head, width);
                let row = row.get(first..).unwrap_or_default();
                match row.get(..LANES) {
                    Some(row) => {
                        for (word, value) in words.iter_mut().zip(row) {
                            *word = bfloat16::round(*value);
                        }
                    }
                    None => {
                        for (word, value) in words.iter_mut().zip(row) {
                            *word = bfloat16::round(*value);
                        }
                    }
                }
            }
            for ((slot, low), high) in line.0.iter_mut().zip(words[0]).zip(words[1]) {
                *slot = low | high << 16;
            }
        }
    }
}

/// Writes e^(scale * (score - largest)) of each score into `lines` and zeros behind them; returns their sum.
#[inline(always)]
fn weigh<'a, A: MultiplyAdd>(scores: &[f32], scale: f32, lines: impl Iterator<Item = &'a mut Line>) -> f32 {
    let largest = maximum(scores);
    let mut sums = [0.0; LANES];
    let mut chunks = scores.chunks(BLOCK);
    for line in lines {
        let Some(chunk) = chunks.next() else {
            *line = Line::default();
            continue;
        };
        let mut values = [0.0; BLOCK];
        match chunk.as_array::<BLOCK>() {
            Some(chunk) => {
                for (value, score) in values.iter_mut().zip(chunk) {
                    *value = exponential_to_bfloat16::<A>((score - largest) * scale);
                }
            }
            None => {
                for (value, score) in values.iter_mut().zip(chunk) {
                    *value = exponential_to_bfloat16::<A>((score - largest) * scale);
                }
            }
        }
        let (low, high) = values.split_at(LANES);
        for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
            *sum += low + high;
        }
        *line = bfloat16::line(&values);
    }
    total(&sums)
}
