//! The calls about the embedding cache, and about collections that give records away.

use chroma_sync::{
    domain::invocation::{Failure, Statistics},
    store::{DonorRequest, EmbeddingWrite, StoredEmbedding},
};

use crate::harness::stores::{TestStore, collection};

pub async fn call_all(test: &TestStore) {
    let table = test.embeddings().await;
    let embedding = StoredEmbedding {
        payload: vec![1; 8],
        tokens: 1,
        truncated: false,
    };
    let write = EmbeddingWrite {
        insert: vec![([1; 32], embedding)],
        mark: vec![[1; 32]],
    };
    table.write(write).await.unwrap();
    table.find(&[[1; 32], [2; 32]]).await.unwrap();
    table.evict(1).await.unwrap();

    let (claim, _) = test.claimed().await;
    let invocation = &claim.invocation;
    let _ = test
        .store
        .record_fingerprint(invocation.id, 1, "a")
        .await
        .unwrap();
    let request = DonorRequest {
        asking: invocation.id,
        source_id: invocation.source_id.unwrap(),
        database: &invocation.database,
        collection: &collection("another"),
        fingerprint: "a",
    };
    assert!(test.store.donor_collections(request).await.unwrap().is_empty());
    let failure = Failure {
        reason: "REASON".to_owned(),
        message: "message".to_owned(),
    };
    let _ = test
        .store
        .fail(invocation.id, 1, failure, Statistics::default(), test.now())
        .await
        .unwrap();
}
