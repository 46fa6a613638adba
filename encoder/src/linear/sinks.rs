//! What becomes of a product's sums, block by block, while they are in the cache.

use super::{
    bfloat16,
    panels::{BLOCK, Bands, Sink},
};
use crate::kernels::{MultiplyAdd, gelu_to_bfloat16};

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

/// Adds the bias, applies GELU and rounds to bf16, for the layer that comes next.
pub(crate) struct GeluBands<'a> {
    /// Room for as many rows as are multiplied.
    pub(crate) out: &'a mut Bands,
    /// Outputs of the layer.
    pub(crate) length: usize,
    /// Empty, or one float for each output.
    pub(crate) bias: &'a [f32],
}

impl Sink for GeluBands<'_> {
    #[inline(always)]
    fn write<A: MultiplyAdd>(&mut self, first_row: usize, first_output: usize, block: &[[f32; BLOCK]]) {
        // Beyond the outputs there are, sums are zero, and so is their GELU.
        let mut bias = [0.0; BLOCK];
        let end = self.length.min(first_output + BLOCK);
        let given = self.bias.get(first_output..end).unwrap_or_default();
        bias[..given.len()].copy_from_slice(given);
        for (row, sums) in block.iter().enumerate() {
            let mut values = [0.0; BLOCK];
            for ((value, sum), bias) in values.iter_mut().zip(sums).zip(&bias) {
                *value = gelu_to_bfloat16::<A>(sum + bias);
            }
            *self.out.line_mut(first_row + row, first_output / BLOCK) = bfloat16::line(&values);
        }
    }
}
