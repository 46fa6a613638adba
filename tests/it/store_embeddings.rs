//! The embedding cache, as the store keeps it.

use std::time::Duration;

use chroma_sync::store::{EmbeddingDigest, EmbeddingTable, EmbeddingWrite, StoredEmbedding};

use crate::harness::stores::{TestStore, on_both_stores};

on_both_stores! {
    what_was_written_is_found_with_its_facts_and_nothing_else_is,
    what_is_there_already_stays_and_is_counted_once,
    processes_that_write_the_same_at_once_agree_on_the_size,
    the_least_lately_used_goes_first_and_the_size_follows,
    an_unlogged_table_that_was_emptied_counts_from_nothing,
}

/// What each row takes beside its payload.
const OVERHEAD: u64 = 192;

fn digest(n: u32) -> EmbeddingDigest {
    let mut digest = [7; 32];
    digest[..4].copy_from_slice(&n.to_be_bytes());
    digest
}

fn embedding(n: u32) -> StoredEmbedding {
    StoredEmbedding {
        payload: n.to_le_bytes().repeat(100),
        tokens: n,
        truncated: n % 2 == 1,
    }
}

fn inserting(numbers: impl IntoIterator<Item = u32>) -> EmbeddingWrite {
    EmbeddingWrite {
        insert: numbers.into_iter().map(|n| (digest(n), embedding(n))).collect(),
        mark: Vec::new(),
    }
}

async fn found(table: &EmbeddingTable, numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let digests: Vec<EmbeddingDigest> = numbers.into_iter().map(digest).collect();
    let found = table.find(&digests).await.unwrap().found;
    let mut tokens: Vec<u32> = found.into_values().map(|embedding| embedding.tokens).collect();
    tokens.sort_unstable();
    tokens
}

async fn what_was_written_is_found_with_its_facts_and_nothing_else_is(test: TestStore) {
    let table = test.embeddings().await;
    assert!(table.find(&[]).await.unwrap().found.is_empty());
    assert!(table.find(&[digest(1)]).await.unwrap().found.is_empty());
    table.write(inserting(0..300)).await.unwrap();
    let asked: Vec<EmbeddingDigest> = (200..1_000).map(digest).collect();
    let answer = table.find(&asked).await.unwrap();
    assert_eq!(answer.found.len(), 100);
    for n in [200, 299] {
        assert_eq!(answer.found[&digest(n)], embedding(n));
    }
    assert_eq!(answer.unmarked, Vec::<EmbeddingDigest>::new());
    // Another process finds it as well, and so does one that comes later.
    assert_eq!(found(&test.embeddings().await, 298..400).await, [298, 299]);
}

async fn what_is_there_already_stays_and_is_counted_once(test: TestStore) {
    let table = test.embeddings().await;
    let size = table.write(inserting([1, 1, 2])).await.unwrap();
    assert_eq!(size, 2 * (400 + OVERHEAD));
    assert_eq!(size, embedding(1).size() + embedding(2).size());
    let other = StoredEmbedding {
        payload: vec![1],
        tokens: 9,
        truncated: false,
    };
    let write = EmbeddingWrite {
        insert: vec![(digest(1), other)],
        mark: vec![digest(1), digest(77)],
    };
    assert_eq!(table.write(write).await.unwrap(), size);
    assert_eq!(
        table.find(&[digest(1)]).await.unwrap().found[&digest(1)],
        embedding(1)
    );
    assert_eq!(table.write(EmbeddingWrite::default()).await.unwrap(), size);
}

async fn processes_that_write_the_same_at_once_agree_on_the_size(test: TestStore) {
    let tables = [
        test.embeddings().await,
        test.embeddings().await,
        test.embeddings().await,
    ];
    let writes = (0..24_u32).map(|n| {
        let table = tables[n as usize % 3].clone();
        // Each overlaps with its neighbours, and each third one goes backwards.
        let numbers: Vec<u32> = (n * 10..n * 10 + 40).collect();
        let numbers: Vec<u32> = match n % 3 {
            0 => numbers.into_iter().rev().collect(),
            _ => numbers,
        };
        async move { table.write(inserting(numbers)).await.unwrap() }
    });
    futures::future::join_all(writes).await;
    let expected: u64 = 270 * (400 + OVERHEAD);
    assert_eq!(
        tables[0].write(EmbeddingWrite::default()).await.unwrap(),
        expected
    );
    assert_eq!(found(&tables[1], 0..400).await.len(), 270);
}

async fn the_least_lately_used_goes_first_and_the_size_follows(test: TestStore) {
    let table = test.embeddings().await;
    let hour = Duration::from_secs(3_600);
    for batch in 0..3 {
        let numbers = batch * 800..(batch + 1) * 800;
        table.write(inserting(numbers)).await.unwrap();
        test.clock.advance(hour * 7);
    }
    // A use of hours ago is to be marked anew; marking it saves it.
    let answer = table
        .find(&[digest(0), digest(799), digest(2_399)])
        .await
        .unwrap();
    let mut unmarked = answer.unmarked;
    unmarked.sort_unstable();
    assert_eq!(unmarked, [digest(0), digest(799), digest(2_399)]);
    let mark = EmbeddingWrite {
        insert: Vec::new(),
        mark: vec![digest(0), digest(799)],
    };
    table.write(mark).await.unwrap();
    let answer = table.find(&[digest(0), digest(799)]).await.unwrap();
    assert_eq!(answer.unmarked, Vec::<EmbeddingDigest>::new());

    let row = 400 + OVERHEAD;
    // Half a row more than nine rows is ten rows.
    let size = table.evict(9 * row + row / 2).await.unwrap();
    assert_eq!(size, 2_390 * row);
    assert_eq!(found(&table, 800..2_400).await.len(), 1_600);
    let size = table.evict(u64::MAX).await.unwrap();
    assert_eq!(size, 1_390 * row);
    assert_eq!(found(&table, 0..800).await, [0, 799]);
    assert_eq!(found(&table, 1_600..2_400).await.len(), 800);
    for left in [390, 0, 0] {
        assert_eq!(table.evict(u64::MAX).await.unwrap(), left * row);
    }
    assert_eq!(found(&table, 0..2_400).await, Vec::<u32>::new());
}

async fn an_unlogged_table_that_was_emptied_counts_from_nothing(test: TestStore) {
    let table = test.embeddings().await;
    table.write(inserting(0..10)).await.unwrap();
    // As PostgreSQL leaves it after a crash.
    test.execute_on_embeddings("DELETE FROM embedding_cache").await;
    test.execute_on_embeddings("DELETE FROM embedding_cache_size")
        .await;
    assert_eq!(table.write(inserting(0..2)).await.unwrap(), 2 * (400 + OVERHEAD));
    assert_eq!(found(&table, 0..10).await, [0, 1]);
}
