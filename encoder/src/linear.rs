//! Fully connected layers, with weights in the precision that the caller picks.
//!
//! Weights are packed once, when they are read, into the order in which the kernels read them; there is no
//! other copy of them. Inputs and outputs are single precision whatever the weights are.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod bfloat16;
mod eight_bit;
mod instructions;
mod panels;
mod sinks;
mod stored;
#[cfg(target_arch = "x86_64")]
mod vectors;

pub use attention::{AttentionShape, HeadRows};
pub use instructions::Instructions;
pub use stored::StoredRows;

use crate::kernels::bias_gelu;
use crate::matrix::{Matrix, MatrixMut, Output, multiply};

/// How weights are held, and what the products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Precision {
    /// 32-bit floats throughout.
    #[serde(rename = "f32")]
    Single,
    /// Weights and the inputs of products in bf16, 8 bits of precision; sums in 32-bit floats. Half the memory.
    #[serde(rename = "bf16")]
    Bfloat16,
    /// Weights in 8-bit integers with a scale for each 32 of them, products as in bf16. A little more than a quarter of
    /// the memory.
    #[serde(rename = "int8")]
    EightBit,
}

impl Precision {
    /// What is fastest on this processor without harm: bf16 where it is faster (the least cosine of MiniLM's
    /// vectors to those of single precision is 0.9999), else single precision.
    pub fn automatic() -> Self {
        if Instructions::fastest().halve_the_time() {
            Self::Bfloat16
        } else {
            Self::Single
        }
    }
}

/// A fully connected layer: `out = inputs * weight + bias`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    inputs: usize,
    outputs: usize,
    bias: Vec<f32>,
}

/// Outputs of a panel of weights in single precision: four times what the product's kernel computes at once with
/// AVX-512. Rows of all outputs would put each few floats that the kernel reads on a page of their own, which takes more
/// than twice as long for a query of 16 tokens; narrower panels are slower for a thousand.
const SINGLE_PANEL: usize = 192;

/// Weights that are one panel, since caches hold them: 4 MiB.
const SINGLE_WHOLE: usize = 1 << 20;

/// Outputs of each panel but the last one, of a layer with these inputs and outputs.
fn single_panel(inputs: usize, outputs: usize) -> usize {
    if inputs * outputs <= SINGLE_WHOLE {
        outputs
    } else {
        SINGLE_PANEL
    }
}

#[derive(Debug)]
enum Weight {
    /// Panels of [`single_panel`] outputs, the last one of what is left; in a panel row-major, a row for each input.
    Single(Vec<f32>),
    Packed(Packed),
}

/// Weights that are multiplied in bf16.
#[derive(Debug)]
enum Packed {
    Bfloat16(panels::Panels),
    EightBit(eight_bit::EightBitPanels),
}

impl Packed {
    /// Gives `sink` the product with rows that were rounded before.
    fn multiply(
        &self,
        instructions: Instructions,
        bands: &panels::Bands,
        unpacked: &mut Vec<panels::Line>,
        sink: impl panels::Sink,
    ) {
        match self {
            Self::Bfloat16(weights) => {
                let product = bfloat16::Product {
                    bands,
                    weights,
                    unpacked,
                    sink,
                };
                bfloat16::compute(instructions, product);
            }
            Self::EightBit(weights) => {
                let product = bfloat16::Product {
                    bands,
                    weights,
                    unpacked,
                    sink,
                };
                bfloat16::compute(instructions, product);
            }
        }
    }
}

/// Working memory of the products of one thread, and the instructions they use.
#[derive(Debug)]
pub struct LinearScratch {
    instructions: Instructions,
    bands: panels::Bands,
    wide: panels::Bands,
    between: Vec<f32>,
    unpacked: Vec<panels::Line>,
    attention: attention::AttentionScratch,
}

impl Default for LinearScratch {
    fn default() -> Self {
        Self::of(Instructions::fastest())
    }
}

impl LinearScratch {
    /// For products with other instructions than the fastest; none if they are not available.
    pub fn with_instructions(instructions: Instructions) -> Option<Self> {
        Instructions::available()
            .contains(&instructions)
            .then(|| Self::of(instructions))
    }

    fn of(instructions: Instructions) -> Self {
        Self {
            instructions,
            bands: panels::Bands::default(),
            wide: panels::Bands::default(),
            between: Vec::new(),
            unpacked: Vec::new(),
            attention: attention::AttentionScratch::default(),
        }
    }

    /// Whether [`Self::attend`] is faster than products in single precision on this processor.
    pub fn attends_faster(&self) -> bool {
        match self.instructions {
            Instructions::Amx => true,
            Instructions::Avx512 | Instructions::Portable => false,
        }
    }

    /// Attention of one sequence with its products in bf16: `out` has a row of `heads * width` floats for each
    /// token, and `queries` as well; `keys` and `values` have rows of `key_heads * width`. Scores are divided by the
    /// root of `width` before the softmax.
    ///
    /// # Panics
    /// If `out` is not whole rows, a row is not in its slice, or `heads` is no multiple of `key_heads`.
    pub fn attend(
        &mut self,
        shape: AttentionShape,
        queries: HeadRows<'_>,
        keys: HeadRows<'_>,
        values: HeadRows<'_>,
        out: &mut [f32],
    ) {
        let AttentionShape {
            heads,
            key_heads,
            width,
            ..
        } = shape;
        assert!(
            key_heads > 0 && width > 0 && heads.is_multiple_of(key_heads),
            "{heads} heads of {width} floats cannot share {key_heads}"
        );
        assert!(
            out.len().is_multiple_of(heads * width),
            "the output is not whole rows"
        );
        attention::attend(
            self.instructions,
            shape,
            queries,
            keys,
            values,
            out,
            &mut self.attention,
        );
    }
}

impl Linear {
    /// A layer whose outputs are those of all `parts`, one after the other; the parts read the same inputs.
    ///
    /// Each part is read row by row, so no copy of it in another format is made.
    ///
    /// # Panics
    /// If there is no part, the parts have different numbers of inputs or none, or the bias does not have one
    /// value for each output.
    pub fn new(parts: &[StoredRows<'_>], bias: Option<Vec<f32>>, precision: Precision) -> Self {
        let inputs = parts.first().map_or(0, StoredRows::inputs);
        assert!(inputs > 0, "a layer needs inputs");
        assert!(
            parts.iter().all(|part| part.inputs() == inputs),
            "parts of a layer read the same inputs"
        );
        let outputs = parts.iter().map(StoredRows::outputs).sum();
        let bias = bias.unwrap_or_default();
        assert!(
            bias.is_empty() || bias.len() == outputs,
            "{} summands do not fit {outputs} outputs",
            bias.len()
        );
        let weight = match precision {
            Precision::Single => {
                let panel_outputs = single_panel(inputs, outputs);
                let mut weight = vec![0.0; inputs * outputs];
                for_each_row(parts, |output, row| {
                    let start = output - output % panel_outputs;
                    let width = panel_outputs.min(outputs - start);
                    let panel = &mut weight[start * inputs..][..width * inputs];
                    for (value, row) in row.iter().zip(panel.chunks_exact_mut(width)) {
                        row[output - start] = *value;
                    }
                });
                Weight::Single(weight)
            }
            Precision::Bfloat16 => {
                let mut panels = panels::Panels::zeros(outputs, bfloat16::depth(inputs));
                for_each_row(parts, |output, row| {
                    panels.write_output(output, row.chunks(2).map(bfloat16::word));
                });
                Weight::Packed(Packed::Bfloat16(panels))
            }
            Precision::EightBit => {
                let mut weights = eight_bit::EightBitPanels::zeros(outputs, inputs);
                for_each_row(parts, |output, row| weights.write_output(output, row));
                Weight::Packed(Packed::EightBit(weights))
            }
        };
        Self {
            weight,
            inputs,
            outputs,
            bias,
        }
    }

    /// Floats of a row of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Floats of a row of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// One float for each output, or none if the layer has no bias.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// What the weights are held in.
    pub fn precision(&self) -> Precision {
        match self.weight {
            Weight::Single(_) => Precision::Single,
            Weight::Packed(Packed::Bfloat16(_)) => Precision::Bfloat16,
            Weight::Packed(Packed::EightBit(_)) => Precision::EightBit,
        }
    }

    /// `out = inputs * weight`, row by row; the bias is left to the kernel that reads the output next.
    ///
    /// # Panics
    /// If `inputs` and `out` are not the same number of whole rows.
    pub fn apply(&self, inputs: &[f32], out: &mut [f32], scratch: &mut LinearScratch) {
        self.multiply(inputs, out, &[], scratch);
    }

    /// `out = inputs * weight + bias`, row by row; a layer without bias adds nothing.
    ///
    /// # Panics
    /// If `inputs` and `out` are not the same number of whole rows.
    pub fn apply_with_bias(&self, inputs: &[f32], out: &mut [f32], scratch: &mut LinearScratch) {
        self.multiply(inputs, out, &self.bias, scratch);
    }

    /// `out = gelu(inputs * weight + bias) * next.weight`, row by row, with `next`'s bias left out. Where both
    /// layers are multiplied in bf16, GELU is as exact as that can tell, and what lies between is never written in full.
    ///
    /// # Panics
    /// If this layer has no bias, `inputs` and `out` are not the same number of whole rows, or `next` reads another number of inputs.
    pub(crate) fn apply_gelu_and(
        &self,
        next: &Self,
        inputs: &[f32],
        out: &mut [f32],
        scratch: &mut LinearScratch,
    ) {
        let rows = inputs.len() / self.inputs;
        assert_eq!(
            (inputs.len(), out.len(), self.outputs),
            (rows * self.inputs, rows * next.outputs, next.inputs),
            "inputs and outputs are not as many whole rows of both layers"
        );
        assert_eq!(
            self.bias.len(),
            self.outputs,
            "the layer before GELU needs a bias"
        );
        let (Weight::Packed(first), Weight::Packed(second)) = (&self.weight, &next.weight) else {
            scratch.between.resize(rows * self.outputs, 0.0);
            let mut between = std::mem::take(&mut scratch.between);
            self.apply(inputs, &mut between, scratch);
            bias_gelu(&mut between, &self.bias);
            next.apply(&between, out, scratch);
            scratch.between = between;
            return;
        };
        bfloat16::round_rows(inputs, self.inputs, &mut scratch.bands);
        let LinearScratch {
            instructions,
            bands,
            wide,
            unpacked,
            ..
        } = scratch;
        wide.reset(rows, bfloat16::depth(self.outputs));
        let (length, bias) = (self.outputs, self.bias.as_slice());
        let sink = sinks::GeluBands {
            out: wide,
            length,
            bias,
        };
        first.multiply(*instructions, bands, unpacked, sink);
        let sink = sinks::Rows {
            out,
            length: next.outputs,
            bias: &[],
        };
        second.multiply(*instructions, wide, unpacked, sink);
    }

    fn multiply(&self, inputs: &[f32], out: &mut [f32], bias: &[f32], scratch: &mut LinearScratch) {
        let rows = inputs.len() / self.inputs;
        assert_eq!(
            (inputs.len(), out.len()),
            (rows * self.inputs, rows * self.outputs),
            "inputs and outputs are not as many whole rows"
        );
        if rows == 0 {
            return;
        }
        let length = self.outputs;
        match &self.weight {
            Weight::Single(weight) => {
                let output = if bias.is_empty() {
                    Output::Replace
                } else {
                    for row in out.chunks_exact_mut(length) {
                        row.copy_from_slice(bias);
                    }
                    Output::Add
                };
                let panel_outputs = single_panel(self.inputs, length);
                let panels = weight.chunks(panel_outputs * self.inputs);
                for (panel, start) in panels.zip((0..length).step_by(panel_outputs)) {
                    let width = panel_outputs.min(length - start);
                    multiply(
                        MatrixMut::rows(&mut out[start..], rows, width, length),
                        output,
                        1.0,
                        Matrix::dense(inputs, rows, self.inputs),
                        Matrix::dense(panel, self.inputs, width),
                    );
                }
            }
            Weight::Packed(weights) => {
                bfloat16::round_rows(inputs, self.inputs, &mut scratch.bands);
                let LinearScratch {
                    instructions,
                    bands,
                    unpacked,
                    ..
                } = scratch;
                weights.multiply(*instructions, bands, unpacked, sinks::Rows { out, length, bias });
            }
        }
    }
}

/// Calls `write` with the index and the values of each row of all parts.
fn for_each_row(parts: &[StoredRows<'_>], mut write: impl FnMut(usize, &[f32])) {
    let mut row = vec![0.0; parts.first().map_or(0, StoredRows::inputs)];
    let mut output = 0;
    for part in parts {
        for index in 0..part.outputs() {
            part.read(index, &mut row);
            write(output, &row);
            output += 1;
        }
    }
}

#[cfg(test)]
mod tests;
