//! Products of 8-bit integers: weights scaled for each output, activations for each row when they arrive.
//!
//! Activations are stored with 128 added, since the processors' instructions multiply unsigned by signed; what
//! that adds to a sum is taken off again. Sums are exact integers, so all kernels give the same result.

use super::panels::{LANES, Line, Panels};

/// Values a tile has along the inputs; depth is padded to a multiple of it.
const STEP: usize = 64;

/// The largest magnitude of a quantised value.
const LARGEST: f32 = 127.0;

/// Added to quantised activations.
const OFFSET: i32 = 128;

/// Weights in 8 bits.
#[derive(Debug)]
pub(crate) struct Weights {
    panels: Panels,
    /// What a quantised weight is multiplied with, for each output.
    scales: Vec<f32>,
    /// The sum of the quantised weights of each output, times [`OFFSET`].
    offsets: Vec<i32>,
}

/// Rows of quantised activations, each padded to whole steps.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    lines: Vec<Line>,
    scales: Vec<f32>,
}

impl Weights {
    /// Room for `outputs` rows of `inputs` values.
    pub(crate) fn zeros(outputs: usize, inputs: usize) -> Self {
        Self {
            panels: Panels::zeros(outputs, inputs.next_multiple_of(STEP) / 4),
            scales: vec![0.0; outputs],
            offsets: vec![0; outputs],
        }
    }

    /// Quantises the weights of one output.
    pub(crate) fn write_output(&mut self, output: usize, row: &[f32]) {
        let (scale, factor) = scale_of(row);
        let quantised = |value: &f32| (value * factor).round_ties_even() as i8;
        self.scales[output] = scale;
        self.offsets[output] = OFFSET * row.iter().map(|value| i32::from(quantised(value))).sum::<i32>();
        let word = |values: &[f32]| {
            let mut bytes = [0; 4];
            for (byte, value) in bytes.iter_mut().zip(values) {
                *byte = quantised(value).cast_unsigned();
            }
            u32::from_le_bytes(bytes)
        };
        self.panels.write_output(output, row.chunks(4).map(word));
    }
}

/// What quantised values of `row` are multiplied with, and what makes them of its values.
fn scale_of(row: &[f32]) -> (f32, f32) {
    let largest = row
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if largest > 0.0 {
        (largest / LARGEST, LARGEST / largest)
    } else {
        (0.0, 0.0)
    }
}

/// Quantises `inputs`, rows of `length` values.
pub(crate) fn quantise_rows(inputs: &[f32], length: usize, rows: &mut Rows) {
    rows.lines.clear();
    rows.scales.clear();
    for row in inputs.chunks_exact(length) {
        let (scale, factor) = scale_of(row);
        rows.scales.push(scale);
        for values in row.chunks(STEP) {
            let mut bytes = [OFFSET as u8; STEP];
            for (byte, value) in bytes.iter_mut().zip(values) {
                *byte = ((value * factor).round_ties_even() as i32 + OFFSET) as u8;
            }
            let mut line = Line::default();
            for (word, bytes) in line.0.iter_mut().zip(bytes.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            rows.lines.push(line);
        }
    }
}

/// `out = rows * weights`; `out` has a float for each output in each row.
pub(crate) fn multiply(rows: &Rows, weights: &Weights, out: &mut [f32]) {
    let outputs = weights.scales.len();
    let lines = weights.panels.depth() / LANES;
    let row_lines = rows.lines.chunks_exact(lines).zip(&rows.scales);
    for ((row, row_scale), out) in row_lines.zip(out.chunks_exact_mut(outputs)) {
        for (index, panel) in weights.panels.panels().enumerate() {
            let mut sums = [0_i32; LANES];
            for (words, weights) in row.iter().zip(panel.chunks_exact(LANES)) {
                for (word, weights) in words.0.iter().zip(weights) {
                    let values = word.to_le_bytes().map(i32::from);
                    for (sum, weight) in sums.iter_mut().zip(&weights.0) {
                        let weight = weight.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
                        *sum += values[0] * weight[0]
                            + values[1] * weight[1]
                            + values[2] * weight[2]
                            + values[3] * weight[3];
                    }
                }
            }
            let first = index * LANES;
            let columns = first..outputs.min(first + LANES);
            let scales = &weights.scales[columns.clone()];
            let offsets = &weights.offsets[columns.clone()];
            for (((out, sum), scale), offset) in out[columns].iter_mut().zip(sums).zip(scales).zip(offsets) {
                *out = (sum - offset) as f32 * scale * row_scale;
            }
        }
    }
}
