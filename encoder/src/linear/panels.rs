//! How the factors of a packed product lie in memory, the same for every kernel.
//!
//! A **word** is 32 bits: two bf16 that follow each other along the inputs. A
//! **line** is sixteen words, 64 bytes, so a cache line, an AVX-512 register and a row of an AMX tile alike.
//!
//! - Of weights, a line has one word of each of sixteen outputs, and a **panel** has the lines of sixteen outputs
//!   from the first input to the last.
//! - Of activations, a line has sixteen words of one row, and a **band** has the lines of sixteen rows: first the
//!   first line of each, then the second.
//!
//! So sixteen lines that follow each other are in both a tile as the AMX instructions want it, and a panel and a band
//! of the same inputs have the same number of lines, their **depth**.
//!
//! Invariant: panels and bands are whole, and panels come in pairs. What they have beyond the inputs is zero, which
//! adds nothing to a product; what bands have beyond the rows is whatever was there, and no kernel gives it on.

use std::ops::Range;

use crate::kernels::MultiplyAdd;

/// Outputs of a panel, rows of a band and words of a line.
pub(crate) const LANES: usize = 16;

/// Rows and columns of the block of sums that a product is computed in.
pub(crate) const BLOCK: usize = 2 * LANES;

/// About as many bytes of weights as stay in a second-level cache beside what else is used.
const CACHED_BYTES: usize = 768 << 10;

/// Sixteen words that lie in one cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; LANES]);

/// Sums of a product, of 32 rows and as many outputs.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [[f32; BLOCK]; BLOCK]);

impl Default for Block {
    fn default() -> Self {
        Self([[0.0; BLOCK]; BLOCK])
    }
}

/// Packed weights.
#[derive(Debug, Default)]
pub(crate) struct Panels {
    lines: Vec<Line>,
    depth: usize,
}

impl Panels {
    /// Panels for `outputs` of `depth` words each, all zero.
    pub(crate) fn zeros(outputs: usize, depth: usize) -> Self {
        Self {
            lines: vec![Line::default(); outputs.div_ceil(BLOCK) * 2 * depth],
            depth,
        }
    }

    /// Makes room for `outputs` of `depth` words each. Every word must be written.
    pub(crate) fn reset(&mut self, outputs: usize, depth: usize) {
        self.lines
            .resize(outputs.div_ceil(BLOCK) * 2 * depth, Line::default());
        self.depth = depth;
    }

    /// The lines of each panel.
    #[inline(always)]
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = &mut [Line]> {
        self.lines.chunks_exact_mut(self.depth.max(1))
    }

    /// The lines of each pair of panels.
    #[inline(always)]
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &[Line]> {
        self.lines.chunks_exact((2 * self.depth).max(1))
    }

    /// Writes the words of one output, which may be fewer than the depth.
    pub(crate) fn write_output(&mut self, output: usize, words: impl Iterator<Item = u32>) {
        let lines = &mut self.lines[output / LANES * self.depth..][..self.depth];
        for (line, word) in lines.iter_mut().zip(words) {
            line.0[output % LANES] = word;
        }
    }
}

/// Packed activations.
#[derive(Debug, Default)]
pub(crate) struct Bands {
    lines: Vec<Line>,
    depth: usize,
    rows: usize,
}

impl Bands {
    /// Makes room for `rows` of `depth` words each, a multiple of [`LANES`]. Every line of a row must be written.
    pub(crate) fn reset(&mut self, rows: usize, depth: usize) {
        let lines = rows.div_ceil(LANES) * depth;
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::default());
        }
        self.depth = depth;
        self.rows = rows;
    }

    /// The lines of all bands.
    #[inline(always)]
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines[..self.rows.div_ceil(LANES) * self.depth]
    }

    /// The line of `row` that has the words from `16 * step` on.
    #[inline(always)]
    pub(crate) fn line_mut(&mut self, row: usize, step: usize) -> &mut Line {
        &mut self.lines[row / LANES * self.depth + step * LANES + row % LANES]
    }

    /// The lines of a row, in order.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> impl Iterator<Item = &mut Line> {
        let band = &mut self.lines[row / LANES * self.depth..][..self.depth];
        band[row % LANES..].iter_mut().step_by(LANES)
    }
}

/// Takes the sums of a product as they are made.
pub(crate) trait Sink {
    /// Takes the sums of rows from `first_row` on, one for each in `block`, and of 32 outputs from `first_output`
    /// on, of which the last may be beyond the outputs there are.
    fn write<A: MultiplyAdd>(&mut self, first_row: usize, first_output: usize, block: &[[f32; BLOCK]]);
}

/// Weights that can be read as lines of bf16.
pub(crate) trait WeightLines {
    /// Lines of a panel.
    fn depth(&self) -> usize;

    /// Pairs of panels.
    fn pairs(&self) -> usize;

    /// The lines of these pairs; `unpacked` is memory for those that are not there as such.
    fn lines<'a, A: MultiplyAdd>(&'a self, pairs: Range<usize>, unpacked: &'a mut Vec<Line>) -> &'a [Line];
}

impl WeightLines for Panels {
    fn depth(&self) -> usize {
        self.depth
    }

    fn pairs(&self) -> usize {
        self.lines.len() / (2 * self.depth)
    }

    #[inline(always)]
    fn lines<'a, A: MultiplyAdd>(&'a self, pairs: Range<usize>, _unpacked: &'a mut Vec<Line>) -> &'a [Line] {
        &self.lines[pairs.start * 2 * self.depth..pairs.end * 2 * self.depth]
    }
}

/// Calls `each` with the first row, the first output, the number of rows, one or two bands of the rows and a pair of
/// panels of the outputs, until all rows were multiplied with all outputs.
#[inline(always)]
pub(crate) fn for_each_block<A: MultiplyAdd>(
    bands: &Bands,
    weights: &impl WeightLines,
    unpacked: &mut Vec<Line>,
    mut each: impl FnMut(usize, usize, usize, &[Line], &[Line]),
) {
    let depth = weights.depth();
    assert_eq!(
        bands.depth, depth,
        "rows of another length than the layer's inputs"
    );
    let group = (CACHED_BYTES / (2 * depth * size_of::<Line>())).max(1);
    for first_pair in (0..weights.pairs()).step_by(group) {
        let pairs = first_pair..weights.pairs().min(first_pair + group);
        let lines = weights.lines::<A>(pairs, unpacked);
        for (left_index, left) in bands.lines().chunks(2 * depth).enumerate() {
            let first_row = left_index * BLOCK;
            for (right_index, right) in lines.chunks_exact(2 * depth).enumerate() {
                let first_output = (first_pair + right_index) * BLOCK;
                each(
                    first_row,
                    first_output,
                    BLOCK.min(bands.rows - first_row),
                    left,
                    right,
                );
            }
        }
    }
}
