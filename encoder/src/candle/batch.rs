//! Sequences of token ids as rectangles on the device, and what attention must not see of them.

use candle_core::{Result, Tensor};

use super::Device;

/// The most scores that attention holds at once, over all sequences and heads: 128 MB.
const MAX_SCORES: usize = 32 << 20;

/// What padding holds; any id that the vocabulary has.
const PADDING: u32 = 0;

/// The sequences of a batch that have tokens, each padded to the longest.
#[derive(Debug)]
pub(super) struct Batch {
    /// `[sequences * longest]`.
    pub(super) ids: Tensor,
    /// Tokens of each sequence, above zero.
    pub(super) lengths: Vec<usize>,
    /// The largest of them.
    pub(super) longest: usize,
    device: candle_core::Device,
}

impl Batch {
    /// None if no sequence has tokens.
    pub(super) fn new(sequences: &[&[u32]], device: &Device) -> Result<Option<Self>> {
        let lengths: Vec<usize> = sequences
            .iter()
            .map(|sequence| sequence.len())
            .filter(|length| *length > 0)
            .collect();
        let Some(longest) = lengths.iter().copied().max() else {
            return Ok(None);
        };
        let mut ids = Vec::with_capacity(lengths.len() * longest);
        for sequence in sequences.iter().filter(|sequence| !sequence.is_empty()) {
            ids.extend_from_slice(sequence);
            ids.resize(ids.len() + longest - sequence.len(), PADDING);
        }
        let Device(device) = device;
        Ok(Some(Self {
            ids: Tensor::new(ids.as_slice(), device)?,
            lengths,
            longest,
            device: device.clone(),
        }))
    }

    /// Queries of each sequence whose scores, with `heads` heads, are at most [`MAX_SCORES`]; at least one.
    pub(super) fn block(&self, heads: usize) -> usize {
        let of_a_query = self.lengths.len() * heads * self.longest;
        (MAX_SCORES / of_a_query.max(1)).clamp(1, self.longest)
    }

    /// `[sequences, longest]` of host values on the device: what `value` gives for the length of a sequence and a place in
    /// it.
    pub(super) fn of_places(&self, value: impl Fn(usize, usize) -> f32) -> Result<Tensor> {
        let places = |length: &usize| {
            let length = *length;
            let value = &value;
            (0..self.longest).map(move |place| value(length, place))
        };
        let values: Vec<f32> = self.lengths.iter().flat_map(places).collect();
        Tensor::from_vec(values, (self.lengths.len(), self.longest), &self.device)
    }

    /// Rows of `states`, `[sequences * longest, width]`, of each sequence's last token: `[sequences, width]`.
    pub(super) fn last_tokens(&self, states: &Tensor) -> Result<Tensor> {
        let rows = self.lengths.iter().enumerate();
        let rows: Vec<u32> = rows
            .map(|(index, length)| (index * self.longest + length - 1) as u32)
            .collect();
        states.index_select(&Tensor::new(rows.as_slice(), &self.device)?, 0)
    }

    /// Each of `sequences` with what `vectors` has for those that have tokens; the others with `empty`.
    pub(super) fn spread<V>(
        sequences: &[&[u32]],
        vectors: impl IntoIterator<Item = V>,
        empty: impl Fn() -> V,
    ) -> Vec<V> {
        let mut vectors = vectors.into_iter();
        let place = |sequence: &&[u32]| {
            let found = (!sequence.is_empty()).then(|| vectors.next());
            found.flatten().unwrap_or_else(&empty)
        };
        sequences.iter().map(place).collect()
    }
}

/// What is hidden from the queries of a batch, in blocks of queries.
#[derive(Debug)]
pub(super) struct Mask {
    pub(super) blocks: Vec<Block>,
}

/// Some of the queries of all sequences.
#[derive(Debug)]
pub(super) struct Block {
    /// The first.
    pub(super) first: usize,
    /// How many.
    pub(super) queries: usize,
    /// Keys, from the first, of which at least one of them sees any.
    pub(super) keys: usize,
    /// What is added to scores of the shape `[sequences, heads, queries, keys]`: zero, or -infinity for what is hidden.
    pub(super) summand: Tensor,
}

impl Mask {
    /// Every token sees all tokens of its sequence, and no padding. A block has at most `block` queries.
    pub(super) fn padding(batch: &Batch, block: usize) -> Result<Self> {
        let summand = batch
            .of_places(|length, place| hidden_if(place >= length))?
            .reshape((batch.lengths.len(), 1, 1, batch.longest))?;
        let blocks = blocks(batch, block).map(|(first, queries)| Block {
            first,
            queries,
            keys: batch.longest,
            summand: summand.clone(),
        });
        Ok(Self {
            blocks: blocks.collect(),
        })
    }

    /// Every token sees itself and those before it. A block has at most `block` queries.
    pub(super) fn causal(batch: &Batch, block: usize) -> Result<Self> {
        let hide = |(first, queries): (usize, usize)| {
            let keys = first + queries;
            let row = |query| (0..keys).map(move |key| hidden_if(key > query));
            let values: Vec<f32> = (first..keys).flat_map(row).collect();
            Ok(Block {
                first,
                queries,
                keys,
                summand: Tensor::from_vec(values, (queries, keys), &batch.device)?,
            })
        };
        let blocks = blocks(batch, block).map(hide).collect::<Result<_>>()?;
        Ok(Self { blocks })
    }
}

fn hidden_if(hidden: bool) -> f32 {
    if hidden { f32::NEG_INFINITY } else { 0.0 }
}

/// The first query of each block, and how many it has.
fn blocks(batch: &Batch, block: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
    let longest = batch.longest;
    (0..longest)
        .step_by(block)
        .map(move |first| (first, block.min(longest - first)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::{super::layers::attend, *};

    /// Sequences of these lengths.
    fn batch(lengths: &[usize]) -> Batch {
        let sequences: Vec<Vec<u32>> = lengths.iter().map(|length| vec![1; *length]).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        Batch::new(&sequences, &Device::cpu()).unwrap().unwrap()
    }

    /// Different numbers of this shape.
    fn numbers(shape: (usize, usize, usize, usize)) -> Tensor {
        let (sequences, heads, longest, width) = shape;
        let values =
            (0..sequences * heads * longest * width).map(|index| ((index * 37) % 101) as f32 / 50.0 - 1.0);
        Tensor::from_vec(values.collect(), shape, &candle_core::Device::Cpu).unwrap()
    }

    fn attention(mask: &Mask) -> Vec<f32> {
        let (queries, keys) = (numbers((2, 4, 11, 8)), numbers((2, 2, 11, 8)));
        let context = attend(&queries, &keys, &keys, mask).unwrap();
        context.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn attention_in_blocks_is_attention_at_once() {
        let batch = batch(&[11, 6]);
        for (whole, cut) in [
            (Mask::causal(&batch, 11), Mask::causal(&batch, 4)),
            (Mask::padding(&batch, 11), Mask::padding(&batch, 4)),
        ] {
            let (whole, cut) = (whole.unwrap(), cut.unwrap());
            assert_eq!((whole.blocks.len(), cut.blocks.len()), (1, 3));
            for (whole, cut) in attention(&whole).into_iter().zip(attention(&cut)) {
                assert!((whole - cut).abs() <= 1e-6, "{whole} and {cut}");
            }
        }
    }

    #[test]
    fn the_first_token_of_a_causal_sequence_sees_itself_alone() {
        let mask = Mask::causal(&batch(&[11, 6]), 11).unwrap();
        // Heads 2 and 3 share the second of the keys: [sequence 0, token 0, head 3] is its first value.
        let values: Vec<f32> = numbers((2, 2, 11, 8)).flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(attention(&mask)[3 * 8..4 * 8], values[11 * 8..12 * 8]);
    }

    #[test]
    fn a_block_holds_no_more_scores_than_there_is_room_for() {
        assert_eq!(batch(&[300; 8]).block(16), 300, "all at once");
        let long = batch(&[4096, 4096]);
        let block = long.block(16);
        assert!((1..4096).contains(&block));
        assert!(block * 2 * 16 * 4096 <= MAX_SCORES);
    }

    #[test]
    fn sequences_are_padded_on_the_right_and_empty_ones_are_left_out() {
        let batch = Batch::new(&[&[5, 6, 7], &[], &[8]], &Device::cpu())
            .unwrap()
            .unwrap();
        assert_eq!(
            batch.ids.to_vec1::<u32>().unwrap(),
            [5, 6, 7, 8, PADDING, PADDING]
        );
        assert_eq!((batch.lengths, batch.longest), (vec![3, 1], 3));
        assert!(Batch::new(&[&[], &[]], &Device::cpu()).unwrap().is_none());
        let spread = Batch::spread(&[&[5], &[], &[8]], ["first", "last"], || "none");
        assert_eq!(spread, ["first", "none", "last"]);
    }
}
