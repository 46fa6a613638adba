//! Block products with AVX-512's dot products, for processors that have them but no tiles.

use std::arch::x86_64::{
    __m512bh, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::panels::{Block, LANES, Line};

/// Rows that are summed at once: with two registers of sums for each, 16 of 32 registers.
const ROWS: usize = 8;

/// Defines a function that multiplies with the instruction `$multiply`.
macro_rules! block_product {
    (
        $(#[$doc:meta])*
        $name:ident, $features:literal, $block:ty, $zero:ident, $store:ident, |$sum:ident, $value:ident, $weight:ident| $multiply:expr
    ) => {
        $(#[$doc])*
        ///
        /// `left` has one or two bands and `right` two panels, all of the same number of lines.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn $name(left: &[Line], right: &[Line], out: &mut $block) {
            let depth = right.len() / 2;
            let (first, second) = right.split_at(depth);
            for (band, out) in left.chunks_exact(depth).zip(out.0.chunks_exact_mut(LANES)) {
                for (part, out) in out.chunks_exact_mut(ROWS).enumerate() {
                    let mut sums = [[$zero(); 2]; ROWS];
                    let tiles = band.chunks_exact(LANES).zip(first.chunks_exact(LANES).zip(second.chunks_exact(LANES)));
                    for (rows, (first, second)) in tiles {
                        let rows = &rows[part * ROWS..][..ROWS];
                        for word in 0..LANES {
                            // SAFETY: a line has the size of a register.
                            let weights = [&first[word], &second[word]]
                                .map(|line| unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) });
                            for (sums, row) in sums.iter_mut().zip(rows) {
                                let $value = _mm512_set1_epi32(row.0[word].cast_signed());
                                for ($sum, $weight) in sums.iter_mut().zip(weights) {
                                    *$sum = $multiply;
                                }
                            }
                        }
                    }
                    for (sums, out) in sums.iter().zip(out) {
                        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<LANES>().0) {
                            // SAFETY: sixteen words have the size of a register.
                            unsafe { $store(out.as_mut_ptr().cast(), *sum) };
                        }
                    }
                }
            }
        }
    };
}

block_product! {
    /// The product of bf16, summed in single precision.
    multiply_bfloat16, "avx512f,avx512bf16", Block, _mm512_setzero_ps, _mm512_storeu_ps,
    |sum, value, weight| {
        // SAFETY: registers of 64 bytes; any bits are bf16.
        let (value, weight) = unsafe {
            (
                std::mem::transmute::<std::arch::x86_64::__m512i, __m512bh>(value),
                std::mem::transmute::<std::arch::x86_64::__m512i, __m512bh>(weight),
            )
        };
        _mm512_dpbf16_ps(*sum, value, weight)
    }
}

block_product! {
    /// The product of unsigned bytes on the left and signed ones on the right, summed in 32-bit integers.
    multiply_bytes, "avx512f,avx512vnni", Block<i32>, _mm512_setzero_si512, _mm512_storeu_si512,
    |sum, value, weight| _mm512_dpbusd_epi32(*sum, value, weight)
}
