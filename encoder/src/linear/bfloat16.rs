//! Products in bf16: both factors rounded to it, their products summed in single precision.

use super::panels::{LANES, Line, Panels};

/// Values a tile has along the inputs; depth is padded to a multiple of it.
const STEP: usize = 32;

/// Rows of activations in bf16, each padded with zeros to whole steps.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    lines: Vec<Line>,
}

/// The nearest bf16, ties to even, in the low half of the result. NaN stays NaN.
#[inline(always)]
pub(crate) fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if value.is_nan() { 0x7fc0 } else { rounded }
}

/// Two values as one word, the first in its low half.
#[inline(always)]
pub(crate) fn word(values: &[f32]) -> u32 {
    match values {
        [low, high, ..] => round(*low) | round(*high) << 16,
        [low] => round(*low),
        [] => 0,
    }
}

/// Words of a row of `inputs` values.
pub(crate) fn depth(inputs: usize) -> usize {
    inputs.next_multiple_of(STEP) / 2
}

/// Rounds `inputs`, rows of `length` values.
pub(crate) fn round_rows(inputs: &[f32], length: usize, rows: &mut Rows) {
    let lines = depth(length) / LANES;
    rows.lines.clear();
    for row in inputs.chunks_exact(length) {
        for line in 0..lines {
            let mut words = Line::default();
            let values = &row[line * STEP..row.len().min((line + 1) * STEP)];
            for (slot, values) in words.0.iter_mut().zip(values.chunks(2)) {
                *slot = word(values);
            }
            rows.lines.push(words);
        }
    }
}

/// `out = rows * panels`; `out` has `outputs` floats in each row.
pub(crate) fn multiply(rows: &Rows, panels: &Panels, out: &mut [f32], outputs: usize) {
    let lines = panels.depth() / LANES;
    for (row, out) in rows.lines.chunks_exact(lines).zip(out.chunks_exact_mut(outputs)) {
        for (panel, out) in panels.panels().zip(out.chunks_mut(LANES)) {
            let mut sums = [0.0_f32; LANES];
            for (words, weights) in row.iter().zip(panel.chunks_exact(LANES)) {
                for (word, weights) in words.0.iter().zip(weights) {
                    let (low, high) = widen(*word);
                    for (sum, weight) in sums.iter_mut().zip(&weights.0) {
                        let (low_weight, high_weight) = widen(*weight);
                        *sum += low * low_weight;
                        *sum += high * high_weight;
                    }
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

#[inline(always)]
fn widen(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}
