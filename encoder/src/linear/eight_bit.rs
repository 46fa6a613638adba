//! Weights in 8 bits: integers with a scale for each 32 inputs of each output.
//!
//! They are unpacked to bf16 as many at a time as stay in the cache, and then multiplied as such. Activations stay in
//! bf16: rounded to 8 bits as well, even with as many scales, they cost MiniLM four times the accuracy.

use super::{
    bfloat16,
    panels::{BLOCK, LANES, Line, WeightLines},
};
use crate::kernels::MultiplyAdd;

/// Inputs that share a scale, those of a tile of bf16.
const STEP: usize = 2 * LANES;

/// The largest magnitude of a quantised value.
const LARGEST: f32 = 127.0;

/// The weights of sixteen outputs for 32 inputs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Tile {
    /// What the quantised weights of each output are multiplied with.
    scales: [f32; LANES],
    /// For each pair of inputs, the first one's weights of all outputs, then the second one's.
    values: [[[i8; LANES]; 2]; LANES],
}

/// Weights in 8 bits, in the order of [`super::panels`].
#[derive(Debug)]
pub(crate) struct EightBitPanels {
    tiles: Vec<Tile>,
    steps: usize,
}

impl EightBitPanels {
    /// Room for `outputs` rows of `inputs` values.
    pub(crate) fn zeros(outputs: usize, inputs: usize) -> Self {
        let steps = inputs.div_ceil(STEP);
        let tile = Tile {
            scales: [0.0; LANES],
            values: [[[0; LANES]; 2]; LANES],
        };
        Self {
            tiles: vec![tile; outputs.div_ceil(BLOCK) * 2 * steps],
            steps,
        }
    }

    /// Quantises the weights of one output.
    pub(crate) fn write_output(&mut self, output: usize, row: &[f32]) {
        let lane = output % LANES;
        let tiles = &mut self.tiles[output / LANES * self.steps..][..self.steps];
        for (tile, values) in tiles.iter_mut().zip(row.chunks(STEP)) {
            let largest = values
                .iter()
                .fold(0.0_f32, |largest, value| largest.max(value.abs()));
            // What is not finite must show in the vectors, and no integer can hold it.
            let finite = values.iter().all(|value| value.is_finite());
            tile.scales[lane] = if finite { largest / LARGEST } else { f32::NAN };
            let factor = if largest > 0.0 { LARGEST / largest } else { 0.0 };
            for (index, value) in values.iter().enumerate() {
                tile.values[index / 2][index % 2][lane] = (value * factor).round_ties_even() as i8;
            }
        }
    }
}

impl WeightLines for EightBitPanels {
    fn depth(&self) -> usize {
        self.steps * LANES
    }

    fn pairs(&self) -> usize {
        self.tiles.len() / (2 * self.steps)
    }

    #[inline(always)]
    fn lines<'a, A: MultiplyAdd>(
        &'a self,
        pairs: std::ops::Range<usize>,
        unpacked: &'a mut Vec<Line>,
    ) -> &'a [Line] {
        let tiles = &self.tiles[pairs.start * 2 * self.steps..pairs.end * 2 * self.steps];
        let count = tiles.len() * LANES;
        if unpacked.len() < count {
            unpacked.resize(count, Line::default());
        }
        for (tile, lines) in tiles.iter().zip(unpacked.as_chunks_mut::<LANES>().0) {
            for ([low, high], line) in tile.values.iter().zip(lines) {
                for lane in 0..LANES {
                    let scale = tile.scales[lane];
                    let low = bfloat16::round(f32::from(low[lane]) * scale);
                    let high = bfloat16::round(f32::from(high[lane]) * scale);
                    line.0[lane] = low | high << 16;
                }
            }
        }
        &unpacked[..count]
    }
}
