//! Products in bf16: both factors rounded to it, their products summed in single precision.

use super::{
    Instructions,
    panels::{BLOCK, Bands, Block, LANES, Line, Sink, WeightLines, for_each_block},
};
use crate::kernels::{Fused, MultiplyAdd, Separate, per_instruction_set};

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
    if let Some(values) = values.as_array::<STEP>() {
        return whole_line(values);
    }
    let mut padded = [0.0; STEP];
    for (slot, value) in padded.iter_mut().zip(values) {
        *slot = *value;
    }
    whole_line(&padded)
}

/// Two loops that compilers turn into vectors, where one over pairs is left scalar.
#[inline(always)]
fn whole_line(values: &[f32; STEP]) -> Line {
    let mut rounded = [0; STEP];
    for (slot, value) in rounded.iter_mut().zip(values) {
        *slot = round(*value);
    }
    let mut line = Line::default();
    if cfg!(target_endian = "little") {
        // SAFETY: both are 128 bytes of integers, which any bits are.
        let pairs: [u64; LANES] = unsafe { std::mem::transmute(rounded) };
        for (word, pair) in line.0.iter_mut().zip(pairs) {
            *word = (pair | pair >> 16) as u32;
        }
    } else {
        for (word, [low, high]) in line.0.iter_mut().zip(rounded.as_chunks().0) {
            *word = low | high << 16;
        }
    }
    line
}

per_instruction_set! {
    /// Rounds `inputs`, rows of `length` values.
    fn round_rows(inputs: &[f32], length: usize, bands: &mut Bands) = round_rows_body
}

#[inline(always)]
fn round_rows_body<A: MultiplyAdd>(inputs: &[f32], length: usize, bands: &mut Bands) {
    bands.reset(inputs.len() / length, depth(length));
    for (index, row) in inputs.chunks_exact(length).enumerate() {
        for (slot, values) in bands.row_mut(index).zip(row.chunks(STEP)) {
            *slot = line(values);
        }
    }
}

/// What is made of products of blocks, compiled for every set of instructions that those have.
pub(crate) trait Computation {
    /// Computes; `multiply` takes one or two bands and a pair of panels of the same depth, and leaves the second half
    /// of the block alone if there is one band.
    fn run<A: MultiplyAdd>(self, multiply: impl FnMut(&[Line], &[Line], &mut Block));
}

/// Runs `computation` with these `instructions`.
pub(crate) fn compute(instructions: Instructions, computation: impl Computation) {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a caller has these instructions only if the processor has them.
        Instructions::Amx => unsafe { compute_with_tiles(computation) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Instructions::Avx512 => unsafe { compute_with_vectors(computation) },
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Amx | Instructions::Avx512 => compute_portably(computation),
        Instructions::Portable => compute_portably(computation),
    }
}

/// # Safety
/// The processor must have [`Instructions::Amx`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn compute_with_tiles(computation: impl Computation) {
    // SAFETY: as the caller vouches.
    let tiles = unsafe { super::amx::Tiles::configure() };
    computation.run::<Fused>(|left, right, out| super::amx::multiply_bfloat16(&tiles, left, right, out));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn compute_with_vectors(computation: impl Computation) {
    computation.run::<Fused>(|left, right, out| super::vectors::multiply_bfloat16(left, right, out));
}

fn compute_portably(computation: impl Computation) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2(computation: impl Computation) {
            computation.run::<Fused>(multiply_block::<Fused>);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor was just found to have AVX2 and FMA.
            return unsafe { avx2(computation) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    computation.run::<Fused>(multiply_block::<Fused>);
    #[cfg(not(target_arch = "aarch64"))]
    computation.run::<Separate>(multiply_block::<Separate>);
}

/// A product of all rows with all outputs.
pub(crate) struct Product<'a, W, S> {
    /// The rows.
    pub(crate) bands: &'a Bands,
    /// The weights of the outputs.
    pub(crate) weights: &'a W,
    /// Memory for weights that must be unpacked.
    pub(crate) unpacked: &'a mut Vec<Line>,
    /// Takes the sums.
    pub(crate) sink: S,
}

impl<W: WeightLines, S: Sink> Computation for Product<'_, W, S> {
    #[inline(always)]
    fn run<A: MultiplyAdd>(mut self, mut multiply: impl FnMut(&[Line], &[Line], &mut Block)) {
        let mut block = Block::default();
        for_each_block::<A>(
            self.bands,
            self.weights,
            self.unpacked,
            |row, output, rows, left, right| {
                multiply(left, right, &mut block);
                self.sink.write::<A>(row, output, &block.0[..rows]);
            },
        );
    }
}

/// In plain Rust, see `vectors::multiply_bfloat16`.
#[inline(always)]
fn multiply_block<A: MultiplyAdd>(left: &[Line], right: &[Line], out: &mut Block) {
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
