//! Writes what waits, and keeps the cache within its bound.

use std::sync::Arc;

use super::{PAUSE, Shared};
use crate::{
    error::chain,
    store::{EmbeddingDigest, EmbeddingWrite, StoreError, StoredEmbedding},
};

/// Embeddings of one transaction: enough to share its cost, few enough to be done in milliseconds.
const EMBEDDINGS_A_WRITE: usize = 256;
/// Marks of one transaction.
const MARKS_A_WRITE: usize = 2_048;

/// Writes until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, max_bytes: u64) {
    // A bound that was lowered since the last run holds from the start.
    let mut size = shared.table.write(EmbeddingWrite::default()).await;
    loop {
        if let Err(error) = trim(&shared, size, max_bytes).await {
            shared.failed("write", &chain(&error));
            // What could not be written is dropped, so nothing piles up; the database is given time.
            tokio::time::sleep(PAUSE).await;
        }
        let write = loop {
            let work = shared.work.notified();
            if let Some(write) = next(&shared) {
                break write;
            }
            shared.idle.notify_waiters();
            work.await;
        };
        let written: Vec<EmbeddingDigest> = write.insert.iter().map(|(digest, _)| *digest).collect();
        size = shared.table.write(write).await;
        forget(&shared, &written);
    }
}

/// Evicts until the cache is as small as it has to be.
async fn trim(shared: &Shared, size: Result<u64, StoreError>, max_bytes: u64) -> Result<(), StoreError> {
    let mut size = size?;
    while size > max_bytes {
        let before = size;
        size = shared.table.evict(size - max_bytes).await?;
        if size >= before {
            // There is nothing left to evict, or others write as fast.
            break;
        }
    }
    Ok(())
}

/// What is to be written next. Embeddings stay where they can be found until they are in the table.
fn next(shared: &Shared) -> Option<EmbeddingWrite> {
    let mut waiting = shared.waiting();
    if waiting.is_empty() {
        return None;
    }
    let digests: Vec<EmbeddingDigest> = waiting.order.iter().take(EMBEDDINGS_A_WRITE).copied().collect();
    let insert: Vec<(EmbeddingDigest, StoredEmbedding)> = digests
        .into_iter()
        .filter_map(|digest| {
            let embedding = waiting.embeddings.get(&digest)?;
            Some((digest, embedding.as_ref().clone()))
        })
        .collect();
    let mark: Vec<EmbeddingDigest> = waiting.marks.iter().take(MARKS_A_WRITE).copied().collect();
    for digest in &mark {
        waiting.marks.remove(digest);
    }
    Some(EmbeddingWrite { insert, mark })
}

fn forget(shared: &Shared, written: &[EmbeddingDigest]) {
    let mut waiting = shared.waiting();
    for digest in written {
        waiting.order.pop_front();
        if let Some(embedding) = waiting.embeddings.remove(digest) {
            waiting.bytes = waiting.bytes.saturating_sub(embedding.size());
        }
    }
}
