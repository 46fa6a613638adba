//! How packed weights lie in memory, the same for every precision and every kernel.
//!
//! A **word** is 32 bits: one `f32`, two bf16 or four 8-bit values that follow each other along the inputs. A
//! **line** is one word of each of sixteen outputs, 64 bytes, so a cache line, an AVX-512 register and a row of
//! an AMX tile alike. A **panel** holds the lines of sixteen outputs from the first input to the last. Sixteen
//! lines that follow each other are therefore an AMX tile as its instructions want it.
//!
//! Invariant: panels are whole. What the last one has beyond the outputs, and each has beyond the inputs, is
//! zero, which adds nothing to a product.

/// Outputs of a panel, and words of a line.
pub(crate) const LANES: usize = 16;

/// Sixteen words that lie in one cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; LANES]);

/// Packed weights.
#[derive(Debug)]
pub(crate) struct Panels {
    lines: Vec<Line>,
    depth: usize,
}

impl Panels {
    /// Panels for `outputs` of `depth` words each, all zero.
    pub(crate) fn zeros(outputs: usize, depth: usize) -> Self {
        Self {
            lines: vec![Line::default(); outputs.div_ceil(LANES) * depth],
            depth,
        }
    }

    /// Writes the words of one output, which may be fewer than the depth.
    pub(crate) fn write_output(&mut self, output: usize, words: impl Iterator<Item = u32>) {
        let lines = &mut self.lines[output / LANES * self.depth..][..self.depth];
        for (line, word) in lines.iter_mut().zip(words) {
            line.0[output % LANES] = word;
        }
    }

    /// Words of an output, and lines of a panel.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The lines of each panel.
    pub(crate) fn panels(&self) -> std::slice::ChunksExact<'_, Line> {
        self.lines.chunks_exact(self.depth.max(1))
    }
}
