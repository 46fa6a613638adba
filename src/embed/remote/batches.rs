//! Cuts the texts of a call into requests.

use super::lengths::Prepared;

/// What one request may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) texts: usize,
    pub(super) tokens: usize,
    pub(super) bytes: usize,
}

/// Indices into `texts`, each once. A batch keeps to `limits`, or has one text.
///
/// Texts of like length are together, since most servers pad a batch to its longest.
pub(super) fn plan(texts: &[Prepared], limits: BatchLimits) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(texts[*index].tokens));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut tokens, mut bytes) = (0, 0);
    for index in order {
        let (more_tokens, more_bytes) = (texts[index].tokens, texts[index].text().len());
        let open = batches.last_mut().filter(|batch| {
            batch.len() < limits.texts
                && tokens + more_tokens <= limits.tokens
                && bytes + more_bytes <= limits.bytes
        });
        match open {
            Some(batch) => {
                batch.push(index);
                tokens += more_tokens;
                bytes += more_bytes;
            }
            None => {
                batches.push(vec![index]);
                (tokens, bytes) = (more_tokens, more_bytes);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::lengths::Lengths;
    use super::*;

    async fn prepared(lengths: &[usize]) -> Vec<Prepared> {
        let texts: Vec<Arc<str>> = lengths.iter().map(|length| "x".repeat(*length).into()).collect();
        Lengths::load(None, 8)
            .unwrap()
            .prepare(texts, String::new())
            .await
            .unwrap()
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_and_batches_keep_to_the_limits(
            lengths in prop::collection::vec(0_usize..400, 0..60),
            limits in (1_usize..9, 1_usize..200, 1_usize..600),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let texts = runtime.block_on(prepared(&lengths));
            let limits = BatchLimits { texts: limits.0, tokens: limits.1, bytes: limits.2 };
            let batches = plan(&texts, limits);
            let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for batch in batches {
                let tokens: usize = batch.iter().map(|index| texts[*index].tokens).sum();
                let bytes: usize = batch.iter().map(|index| texts[*index].text().len()).sum();
                let fits = batch.len() <= limits.texts && tokens <= limits.tokens && bytes <= limits.bytes;
                prop_assert!(fits || batch.len() == 1);
            }
        }
    }
}
