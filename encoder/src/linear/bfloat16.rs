//! Products in bf16: both factors rounded to it, their products summed in single precision.

use super::{
    Instructions,
    panels::{BLOCK, Bands, Block, LANES, Line, Panels, Sink, for_each_block},
};
use crate::kernels::per_instruction_set;

/// Values a tile has along the inputs; depth is padded to a multiple of it.
const STEP: usize = 2 * LANES;

/// Words of a row of `inputs` values.
pub(crate) fn depth(inputs: usize) -> usize {
    inputs.next_multiple_of(STEP) / 2
}

/// The nearest bf16, ties to even, in the low half of the result. NaN stays NaN.
#[inline(always)]
pub(crate) fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if value.is_nan() { 0x7fc0 } else { rounded }
}

/// Up to two values as one word, the first in its low half.
#[inline(always)]
pub(crate) fn word(values: &[f32]) -> u32 {
    match values {
        [low, high, ..] => round(*low) | round(*high) << 16,
        [low] => round(*low),
        [] => 0,
    }
}

/// Up to 32 values as a line.
#[inline(always)]
pub(crate) fn line(values: &[f32]) -> Line {
    let mut line = Line::default();
    match values.as_array::<STEP>() {
        Some(values) => {
            for (word, [low, high]) in line.0.iter_mut().zip(values.as_chunks().0) {
                *word = round(*low) | round(*high) << 16;
            }
        }
        None => {
            for (slot, values) in line.0.iter_mut().zip(values.chunks(2)) {
                *slot = word(values);
            }
        }
    }
    line
}

per_instruction_set! {
    /// Rounds `inputs`, rows of `length` values.
    fn round_rows(inputs: &[f32], length: usize, bands: &mut Bands) = round_rows_body
}

#[inline(always)]
fn round_rows_body<A>(inputs: &[f32], length: usize, bands: &mut Bands) {
    bands.reset(inputs.len() / length, depth(length));
    for (index, row) in inputs.chunks_exact(length).enumerate() {
        for (slot, values) in bands.row_mut(index).zip(row.chunks(STEP)) {
            *slot = line(values);
        }
    }
}

/// Gives `sink` the product of `bands` and `panels`.
pub(crate) fn multiply(instructions: Instructions, bands: &Bands, panels: &Panels, sink: &mut impl Sink) {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a caller has these instructions only if the processor has them.
        Instructions::Amx => unsafe { multiply_with_tiles(bands, panels, sink) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Instructions::Avx512 => unsafe { multiply_with_vectors(bands, panels, sink) },
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Amx | Instructions::Avx512 => multiply_portably(bands, panels, sink),
        Instructions::Portable => multiply_portably(bands, panels, sink),
    }
}

/// # Safety
/// The processor must have [`Instructions::Amx`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn multiply_with_tiles(bands: &Bands, panels: &Panels, sink: &mut impl Sink) {
    // SAFETY: as the caller vouches.
    let tiles = unsafe { super::amx::Tiles::configure() };
    let mut block = Block::default();
    for_each_block(bands, panels, |row, output, rows, left, right| {
        super::amx::multiply_bfloat16(&tiles, left, right, &mut block);
        sink.write(row, output, &block.0[..rows]);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn multiply_with_vectors(bands: &Bands, panels: &Panels, sink: &mut impl Sink) {
    let mut block = Block::default();
    for_each_block(bands, panels, |row, output, rows, left, right| {
        super::vectors::multiply_bfloat16(left, right, &mut block);
        sink.write(row, output, &block.0[..rows]);
    });
}

fn multiply_portably(bands: &Bands, panels: &Panels, sink: &mut impl Sink) {
    let mut block = Block::default();
    for_each_block(bands, panels, |row, output, rows, left, right| {
        multiply_block(left, right, &mut block);
        sink.write(row, output, &block.0[..rows]);
    });
}

per_instruction_set! {
    /// See `vectors::multiply_bfloat16`.
    fn multiply_block(left: &[Line], right: &[Line], out: &mut Block) = multiply_block_body
}

#[inline(always)]
fn multiply_block_body<A: crate::kernels::MultiplyAdd>(left: &[Line], right: &[Line], out: &mut Block) {
    const ROWS: usize = 4;
    let depth = right.len() / 2;
    for (band, out) in left.chunks_exact(depth).zip(out.0.chunks_exact_mut(LANES)) {
        for (panel, column) in right.chunks_exact(depth).zip((0..BLOCK).step_by(LANES)) {
            for (part, out) in out.chunks_exact_mut(ROWS).enumerate() {
                let mut sums = [[0.0_f32; LANES]; ROWS];
                for (rows, weights) in band.chunks_exact(LANES).zip(panel.chunks_exact(LANES)) {
                    let rows = &rows[part * ROWS..][..ROWS];
                    for (word, weights) in weights.iter().enumerate() {
                        for (sums, row) in sums.iter_mut().zip(rows) {
                            let (low, high) = widen(row.0[word]);
                            for (sum, weight) in sums.iter_mut().zip(&weights.0) {
                                let (low_weight, high_weight) = widen(*weight);
                                *sum = A::multiply_add(low, low_weight, *sum);
                                *sum = A::multiply_add(high, high_weight, *sum);
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

/// The two values of a word.
#[inline(always)]
fn widen(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}
