//! What becomes of a product's sums, block by block, while they are in the cache.

use super::panels::{BLOCK, Sink};
use crate::kernels::MultiplyAdd;

/// Stores the sums as rows of floats.
pub(crate) struct Rows<'a> {
    /// As many rows as are multiplied, of `length` floats each.
    pub(crate) out: &'a mut [f32],
    /// Outputs of the layer.
    pub(crate) length: usize,
    /// Added to each row; empty, or one float for each output.
    pub(crate) bias: &'a [f32],
}

impl Sink for Rows<'_> {
    #[inline(always)]
    fn write<A: MultiplyAdd>(&mut self, first_row: usize, first_output: usize, block: &[[f32; BLOCK]]) {
        let width = BLOCK.min(self.length - first_output);
        let rows = self.out[first_row * self.length..].chunks_exact_mut(self.length);
        let bias = self.bias.get(first_output..first_output + width);
        for (row, sums) in rows.zip(block) {
            let row = &mut row[first_output..first_output + width];
            match (
                row.as_mut_array::<BLOCK>(),
                bias.and_then(<[f32]>::as_array::<BLOCK>),
            ) {
                (Some(row), Some(bias)) => {
                    for ((value, sum), bias) in row.iter_mut().zip(sums).zip(bias) {
                        *value = sum + bias;
                    }
                }
                (Some(row), None) if bias.is_none() => *row = *sums,
                _ => {
                    for (index, (value, sum)) in row.iter_mut().zip(sums).enumerate() {
                        *value = sum + bias.map_or(0.0, |bias| bias[index]);
                    }
                }
            }
        }
    }
}
