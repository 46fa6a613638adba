//! Products of 8-bit integers: weights scaled for each output, activations for each row when they arrive.
//!
//! Activations are stored with 128 added, since the processors' instructions multiply unsigned by signed; what
//! that adds to a sum is taken off again. Sums are exact integers, so all kernels give the same result.

use super::{
    Instructions,
    panels::{BLOCK, Bands, Block, LANES, Line, Panels, Sink, for_each_block},
};
use crate::kernels::{Fused, per_instruction_set};

/// Values a tile has along the inputs; depth is padded to a multiple of it.
const STEP: usize = 4 * LANES;

/// The largest magnitude of a quantised value.
const LARGEST: f32 = 127.0;

/// Added to quantised activations.
const OFFSET: i32 = 128;

/// Weights in 8 bits.
#[derive(Debug)]
pub(crate) struct Weights {
    panels: Panels,
    /// What a quantised weight is multiplied with, for each output that the panels have room for.
    scales: Vec<f32>,
    /// The sum of the quantised weights of each output, times [`OFFSET`].
    offsets: Vec<i32>,
}

/// Quantised activations.
#[derive(Debug, Default)]
pub(crate) struct QuantisedRows {
    bands: Bands,
    scales: Vec<f32>,
}

impl Weights {
    /// Room for `outputs` rows of `inputs` values.
    pub(crate) fn zeros(outputs: usize, inputs: usize) -> Self {
        let padded = outputs.next_multiple_of(BLOCK);
        Self {
            panels: Panels::zeros(outputs, inputs.next_multiple_of(STEP) / 4),
            scales: vec![0.0; padded],
            offsets: vec![0; padded],
        }
    }

    /// Quantises the weights of one output.
    pub(crate) fn write_output(&mut self, output: usize, row: &[f32]) {
        let (scale, factor) = scale_of(row);
        let quantised = |value: &f32| nearest(value * factor);
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

/// What quantised values of `row` are multiplied with, and what makes them of its values. Not finite if a value is not.
#[inline(always)]
fn scale_of(row: &[f32]) -> (f32, f32) {
    // As integers, magnitudes order as they do as floats, with what is not a number above all.
    let magnitude = |value: &f32| value.abs().to_bits();
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut largest = [0; LANES];
    for chunk in chunks {
        for (largest, value) in largest.iter_mut().zip(chunk) {
            *largest = magnitude(value).max(*largest);
        }
    }
    let largest = largest.iter().copied().chain(rest.iter().map(magnitude)).max();
    let largest = f32::from_bits(largest.unwrap_or(0));
    if largest == 0.0 {
        (0.0, 0.0)
    } else {
        (largest / LARGEST, LARGEST / largest)
    }
}

/// The nearest integer of a value within -127..=127.
#[inline(always)]
fn nearest(value: f32) -> i8 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the representation.
    const ROUND: f32 = 12_582_912.0;
    ((value + ROUND).to_bits() as u8).cast_signed()
}

per_instruction_set! {
    /// Quantises `inputs`, rows of `length` values.
    fn quantise_rows(inputs: &[f32], length: usize, rows: &mut QuantisedRows) = quantise_rows_body
}

#[inline(always)]
fn quantise_rows_body<A>(inputs: &[f32], length: usize, rows: &mut QuantisedRows) {
    rows.bands
        .reset(inputs.len() / length, length.next_multiple_of(STEP) / 4);
    rows.scales.clear();
    for (index, row) in inputs.chunks_exact(length).enumerate() {
        let (scale, factor) = scale_of(row);
        rows.scales.push(scale);
        for (slot, values) in rows.bands.row_mut(index).zip(row.chunks(STEP)) {
            // Its top bit flipped, a signed byte has 128 added.
            let byte = |value: &f32| nearest(value * factor).cast_unsigned() ^ 0x80;
            let mut bytes = [OFFSET as u8; STEP];
            match values.as_array::<STEP>() {
                Some(values) => bytes = std::array::from_fn(|index| byte(&values[index])),
                None => {
                    for (slot, value) in bytes.iter_mut().zip(values) {
                        *slot = byte(value);
                    }
                }
            }
            for (word, bytes) in slot.0.iter_mut().zip(bytes.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
        }
    }
}

/// Gives `sink` the product of `rows` and `weights`.
pub(crate) fn multiply(
    instructions: Instructions,
    rows: &QuantisedRows,
    weights: &Weights,
    sink: &mut impl Sink,
) {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a caller has these instructions only if the processor has them.
        Instructions::Amx => unsafe { multiply_with_tiles(rows, weights, sink) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Instructions::Avx512 => unsafe { multiply_with_vectors(rows, weights, sink) },
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Amx | Instructions::Avx512 => multiply_portably(rows, weights, sink),
        Instructions::Portable => multiply_portably(rows, weights, sink),
    }
}

/// # Safety
/// The processor must have [`Instructions::Amx`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply_with_tiles(rows: &QuantisedRows, weights: &Weights, sink: &mut impl Sink) {
    // SAFETY: as the caller vouches.
    let tiles = unsafe { super::amx::Tiles::configure() };
    let (mut sums, mut block) = (Block::default(), Block::default());
    for_each_block(&rows.bands, &weights.panels, |row, output, count, left, right| {
        super::amx::multiply_bytes(&tiles, left, right, &mut sums);
        scale(
            rows,
            weights,
            row,
            output,
            &sums.0[..count],
            &mut block.0[..count],
        );
        sink.write::<Fused>(row, output, &block.0[..count]);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_with_vectors(rows: &QuantisedRows, weights: &Weights, sink: &mut impl Sink) {
    let (mut sums, mut block) = (Block::default(), Block::default());
    for_each_block(&rows.bands, &weights.panels, |row, output, count, left, right| {
        super::vectors::multiply_bytes(left, right, &mut sums);
        scale(
            rows,
            weights,
            row,
            output,
            &sums.0[..count],
            &mut block.0[..count],
        );
        sink.write::<Fused>(row, output, &block.0[..count]);
    });
}

fn multiply_portably(rows: &QuantisedRows, weights: &Weights, sink: &mut impl Sink) {
    let (mut sums, mut block) = (Block::default(), Block::default());
    for_each_block(&rows.bands, &weights.panels, |row, output, count, left, right| {
        multiply_block(left, right, &mut sums);
        scale(
            rows,
            weights,
            row,
            output,
            &sums.0[..count],
            &mut block.0[..count],
        );
        sink.write::<Fused>(row, output, &block.0[..count]);
    });
}

/// Makes floats of the sums of rows and outputs from the given ones on.
#[inline(always)]
fn scale(
    rows: &QuantisedRows,
    weights: &Weights,
    first_row: usize,
    first_output: usize,
    sums: &[[i32; BLOCK]],
    out: &mut [[f32; BLOCK]],
) {
    let scales = &weights.scales[first_output..first_output + BLOCK];
    let offsets = &weights.offsets[first_output..first_output + BLOCK];
    for ((sums, out), row_scale) in sums.iter().zip(out).zip(&rows.scales[first_row..]) {
        for (((out, sum), scale), offset) in out.iter_mut().zip(sums).zip(scales).zip(offsets) {
            *out = (sum - offset) as f32 * scale * row_scale;
        }
    }
}

per_instruction_set! {
    /// See `vectors::multiply_bytes`.
    fn multiply_block(left: &[Line], right: &[Line], out: &mut Block<i32>) = multiply_block_body
}

#[inline(always)]
fn multiply_block_body<A>(left: &[Line], right: &[Line], out: &mut Block<i32>) {
    const ROWS: usize = 2;
    let depth = right.len() / 2;
    for (band, out) in left.chunks_exact(depth).zip(out.0.chunks_exact_mut(LANES)) {
        for (panel, column) in right.chunks_exact(depth).zip((0..BLOCK).step_by(LANES)) {
            for (part, out) in out.chunks_exact_mut(ROWS).enumerate() {
                let mut sums = [[0_i32; LANES]; ROWS];
                for (rows, weights) in band.chunks_exact(LANES).zip(panel.chunks_exact(LANES)) {
                    let rows = &rows[part * ROWS..][..ROWS];
                    for (word, weights) in weights.iter().enumerate() {
                        for (sums, row) in sums.iter_mut().zip(rows) {
                            let values = row.0[word];
                            for (sum, weight) in sums.iter_mut().zip(&weights.0) {
                                for shift in [0, 8, 16, 24] {
                                    let value = (values >> shift & 0xff).cast_signed();
                                    *sum += value * ((weight << (24 - shift)).cast_signed() >> 24);
                                }
                            }
                        }
                    }
                }
                for (sums, out) in sums.iter().zip(out) {
                    out[column..column + LANES].copy_from_slice(sums);
                }
            }
        }
    }
}
