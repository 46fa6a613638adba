//! What events about objects ask the store.

use chroma_sync::domain::{ids::SourceId, s3::ObjectKey};

use crate::harness::stores::TestStore;

/// Calls every function of `store/auto_sync.rs`.
pub async fn call_all(test: &TestStore) {
    test.store.auto_synced_sources("bucket").await.unwrap();
    let key = ObjectKey::parse("key", "a.txt", None).unwrap();
    let collections = test.store.collections_of_object(SourceId::generate(), &key).await;
    assert_eq!(collections.unwrap(), []);
}
