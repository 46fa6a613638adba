//! The calls of what uploads files and removes them.

use std::time::Duration;

use chroma_sync::domain::{
    ids::UploadId,
    invocation::{InvocationInput, UploadedFile},
    names::FileName,
    user_metadata::UserMetadata,
};

use crate::harness::stores::{LEASE, TestStore, created, new_invocation};

pub async fn call_all(test: &TestStore) {
    let store = &test.store;
    let source = test.source(&test.fresh_tenant()).await;
    let id = UploadId::generate();
    assert!(store.begin_upload(id, &source.tenant, LEASE, 1).await.unwrap());
    let _ = store.renew_upload(id, LEASE).await.unwrap();
    let mut new = new_invocation("with-upload");
    new.input = InvocationInput::FileUpload(UploadedFile {
        upload_id: id,
        file_name: FileName::parse("file_name", "a.txt").unwrap(),
        custom_id: None,
        metadata: UserMetadata::default(),
        content_type: None,
        content_sha256: "0".repeat(64),
        size_bytes: 4,
    });
    let outcome = store
        .create_invocation(&source.tenant, &source, new, None, None)
        .await;
    created(outcome.unwrap());
    let taken = store.take_removable_uploads(Duration::ZERO, LEASE, 10).await;
    assert_eq!(taken.unwrap().seen, 1);
    store.delete_upload(id).await.unwrap();
}
