//! Block products with AVX-512's dot products of bf16, for processors that have them but no tiles.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::panels::{Block, LANES, Line};

/// Rows that are summed at once: with two registers of sums for each, 16 of 32 registers.
const ROWS: usize = 8;

/// The product of bf16, summed in single precision.
///
/// `left` has one or two bands and `right` two panels, all of the same number of lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn multiply_bfloat16(left: &[Line], right: &[Line], out: &mut Block) {
    let depth = right.len() / 2;
    let (first, second) = right.split_at(depth);
    for (band, out) in left.chunks_exact(depth).zip(out.0.chunks_exact_mut(LANES)) {
        for (part, out) in out.chunks_exact_mut(ROWS).enumerate() {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            let panels = first.chunks_exact(LANES).zip(second.chunks_exact(LANES));
            for (rows, (first, second)) in band.chunks_exact(LANES).zip(panels) {
                let rows = &rows[part * ROWS..][..ROWS];
                for word in 0..LANES {
                    let weights = [load(&first[word]), load(&second[word])];
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let value = as_bfloat16(_mm512_set1_epi32(row.0[word].cast_signed()));
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = _mm512_dpbf16_ps(*sum, value, weight);
                        }
                    }
                }
            }
            for (sums, out) in sums.iter().zip(out) {
                for (sum, out) in sums.iter().zip(out.as_chunks_mut::<LANES>().0) {
                    // SAFETY: sixteen floats have the size of a register.
                    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn load(line: &Line) -> __m512bh {
    // SAFETY: a line has the size of a register.
    as_bfloat16(unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_bfloat16(register: __m512i) -> __m512bh {
    // SAFETY: both are registers of 64 bytes, and any bits are bf16.
    unsafe { std::mem::transmute(register) }
}
