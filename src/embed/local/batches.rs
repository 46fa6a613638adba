//! Cuts the texts of a request into batches.

/// Tokens of a packed batch. From 256 to 4096 the speed is the same within 4 %, while working memory grows with them,
/// as does the time until a thread looks at its queue again.
const MAX_PACKED_TOKENS: usize = 1024;

/// Tokens of a padded batch, with padding: enough to fill a GPU, and a part of a second of its time with a large
/// model, which a query waits for.
const MAX_PADDED_TOKENS: usize = 8192;

/// Below this many tokens the products lose speed, so a request is not cut smaller to keep threads busy.
const MIN_BATCH_TOKENS: usize = 128;

/// How the texts of a batch lie in memory, which decides what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// End to end: a text costs its tokens.
    Packed,
    /// Side by side: a text costs as many tokens as the longest has.
    Padded,
}

impl Layout {
    /// What a text of `length` tokens costs in a batch whose longest has `longest`; none if it should not be in it.
    fn cost(self, length: usize, longest: usize) -> Option<usize> {
        match self {
            Self::Packed => Some(length),
            // So at most half of a batch is padding.
            Self::Padded => (2 * length >= longest).then_some(longest),
        }
    }

    /// The most tokens of a batch.
    fn budget(self, total: usize, threads: usize) -> usize {
        match self {
            Self::Packed => total
                .div_ceil(threads.max(1))
                .clamp(MIN_BATCH_TOKENS, MAX_PACKED_TOKENS),
            Self::Padded => MAX_PADDED_TOKENS,
        }
    }
}

/// Distributes texts of these `lengths` over batches: each holds indices into `lengths`, all together hold
/// each index once. A batch has at most as many tokens as `layout` allows, or one text.
///
/// The longest come first, so that the last batches, which end a request, are the short ones. (Batches of
/// equal lengths are no faster, as they are where sequences are padded.)
pub(super) fn plan(lengths: &[usize], threads: usize, layout: Layout) -> Vec<Vec<usize>> {
    let budget = layout.budget(lengths.iter().sum(), threads);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut room, mut longest) = (0, 0);
    for index in order {
        let length = lengths[index];
        let cost = layout.cost(length, longest).filter(|cost| *cost <= room);
        match (batches.last_mut(), cost) {
            (Some(batch), Some(cost)) => {
                batch.push(index);
                room -= cost;
            }
            (Some(_) | None, _) => {
                batches.push(vec![index]);
                room = budget.saturating_sub(length);
                longest = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_text_is_in_one_batch_and_no_batch_is_over_the_budget(
            lengths in proptest::collection::vec(0usize..600, 0..200),
            threads in 1usize..9,
        ) {
            let batches = plan(&lengths, threads, Layout::Packed);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.iter().map(|index| lengths[*index]).sum();
                prop_assert!(tokens <= MAX_PACKED_TOKENS || batch.len() == 1, "{} tokens", tokens);
            }
        }

        #[test]
        fn each_text_is_in_one_padded_batch_of_which_no_more_than_half_is_padding(
            lengths in proptest::collection::vec(0usize..9000, 0..200),
        ) {
            let batches = plan(&lengths, 1, Layout::Padded);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.iter().map(|index| lengths[*index]).sum();
                let padded = batch.len() * lengths[batch[0]];
                prop_assert!(batch.iter().all(|index| lengths[*index] <= lengths[batch[0]]));
                prop_assert!(padded <= MAX_PADDED_TOKENS || batch.len() == 1, "{} with padding", padded);
                prop_assert!(2 * tokens >= padded, "{} of {} are padding", padded - tokens, padded);
            }
        }
    }

    #[test]
    fn a_small_request_is_spread_over_the_threads() {
        assert_eq!(plan(&[250; 4], 2, Layout::Packed), [[0, 1], [2, 3]]);
        assert_eq!(
            plan(&[10; 8], 4, Layout::Packed).len(),
            1,
            "a batch of 20 tokens is not worth a thread"
        );
        assert_eq!(
            plan(&[100, 10, 90, 9, 60], 1, Layout::Padded),
            [vec![0, 2, 4], vec![1, 3]],
            "texts of like lengths go together"
        );
    }
}
