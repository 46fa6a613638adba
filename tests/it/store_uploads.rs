//! Uploads in the store: who has them, how many at once, and when they go.

use std::time::Duration;

use chroma_sync::{
    domain::{
        ids::{InvocationId, UploadId},
        invocation::{InvocationInput, NewInvocation, UploadedFile},
        names::{FileName, TenantName},
        source::Source,
        user_metadata::UserMetadata,
    },
    store::{Held, Scope, TakenUploads},
};
use uuid::Uuid;

use crate::harness::stores::{
    TestStore, created, created_source, new_invocation, new_source, on_both_stores,
};

const LEASE: Duration = Duration::from_secs(60);
const KEEP: Duration = Duration::from_secs(3_600);
const AGAIN: Duration = Duration::from_secs(10);

fn file(upload_id: UploadId) -> NewInvocation {
    NewInvocation {
        input: InvocationInput::FileUpload(UploadedFile {
            upload_id,
            file_name: FileName::parse("file_name", "a.txt").unwrap(),
            custom_id: None,
            metadata: UserMetadata::default(),
            content_type: None,
            content_sha256: "0".repeat(64),
            size_bytes: 4,
        }),
        ..new_invocation("files")
    }
}

async fn begin(test: &TestStore, tenant: &TenantName, most: u32) -> (UploadId, bool) {
    let id = UploadId::generate();
    let begun = test.store.begin_upload(id, tenant, LEASE, most).await.unwrap();
    (id, begun)
}

async fn take(test: &TestStore) -> TakenUploads {
    test.store.take_removable_uploads(KEEP, AGAIN, 10).await.unwrap()
}

fn nothing() -> TakenUploads {
    TakenUploads::default()
}

/// An upload that belongs to a pending invocation.
async fn owned(test: &TestStore) -> (Source, UploadId, InvocationId) {
    let tenant = test.fresh_tenant();
    let new = new_source("db", "owner/name");
    let source = test.store.create_source(&tenant, new, None).await.unwrap();
    let source = created_source(source);
    let (id, begun) = begin(test, &tenant, 1).await;
    assert!(begun);
    let invocation = test
        .store
        .create_invocation(&tenant, &source, file(id), None, None)
        .await
        .unwrap();
    (source, id, created(invocation).id)
}

on_both_stores!(
    a_tenant_has_so_many_uploads_at_once_and_no_more,
    many_that_begin_at_once_stay_within_the_limit,
    a_lease_that_is_renewed_holds_and_one_that_runs_out_is_lost,
    an_upload_is_kept_as_long_as_its_invocation_and_a_while_longer,
    a_repeated_request_is_the_same_whatever_its_upload_is_called,
);

async fn a_tenant_has_so_many_uploads_at_once_and_no_more(test: TestStore) {
    let (one, other) = (test.fresh_tenant(), test.fresh_tenant());
    let (first, begun) = begin(&test, &one, 2).await;
    assert!(begun);
    assert!(begin(&test, &one, 2).await.1);
    assert!(!begin(&test, &one, 2).await.1);
    assert!(
        begin(&test, &other, 2).await.1,
        "another tenant has its own limit"
    );
    test.store.delete_upload(first).await.unwrap();
    assert!(begin(&test, &one, 2).await.1);
    // What nobody renews counts no more.
    test.clock.advance(LEASE);
    assert!(begin(&test, &one, 2).await.1);
}

async fn many_that_begin_at_once_stay_within_the_limit(test: TestStore) {
    let tenant = test.fresh_tenant();
    let second = test.second().await;
    let begun = futures::future::join_all((0..16).map(|n| {
        let store = if n % 2 == 0 { &test.store } else { &second };
        store.begin_upload(UploadId::generate(), &tenant, LEASE, 5)
    }))
    .await;
    let begun = begun.into_iter().filter(|begun| *begun.as_ref().unwrap()).count();
    assert_eq!(begun, 5);
}

async fn a_lease_that_is_renewed_holds_and_one_that_runs_out_is_lost(test: TestStore) {
    let (id, _) = begin(&test, &test.fresh_tenant(), 1).await;
    assert_eq!(take(&test).await, nothing());
    test.clock.advance(LEASE / 2);
    assert_eq!(test.store.renew_upload(id, LEASE).await.unwrap(), Held::Held);
    test.clock.advance(LEASE / 2);
    assert_eq!(take(&test).await, nothing());
    test.clock.advance(LEASE / 2);
    let expected = TakenUploads {
        removable: vec![id],
        seen: 1,
    };
    assert_eq!(take(&test).await, expected);
    // Whoever removes it has it now, alone, until that fails.
    assert_eq!(test.store.renew_upload(id, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(take(&test).await, nothing());
    test.clock.advance(Duration::from_secs(60));
    assert_eq!(take(&test).await, expected);
    test.store.delete_upload(id).await.unwrap();
    test.clock.advance(Duration::from_secs(60));
    assert_eq!(take(&test).await, nothing());
}

async fn an_upload_is_kept_as_long_as_its_invocation_and_a_while_longer(test: TestStore) {
    let (source, id, invocation) = owned(&test).await;
    let put_off = TakenUploads {
        removable: vec![],
        seen: 1,
    };
    for _ in 0..3 {
        assert_eq!(take(&test).await, put_off);
        assert_eq!(take(&test).await, nothing());
        test.clock.advance(AGAIN);
    }
    assert!(begin(&test, &source.tenant, 1).await.1, "it is uploaded no more");
    let scope = Scope::tenant(source.tenant.clone());
    test.store.cancel_invocation(&scope, invocation).await.unwrap();
    assert_eq!(take(&test).await, put_off);
    test.clock.advance(KEEP);
    let taken = take(&test).await;
    assert!(taken.removable.contains(&id), "{taken:?}");
}

async fn a_repeated_request_is_the_same_whatever_its_upload_is_called(test: TestStore) {
    let (source, _, _) = owned(&test).await;
    let request = Some(Uuid::now_v7());
    let send = async |new: NewInvocation| {
        let store = &test.store;
        let outcome = store.create_invocation(&source.tenant, &source, new, request, None);
        outcome.await.unwrap()
    };
    let first = created(send(file(UploadId::generate())).await);
    let again = send(file(UploadId::generate())).await;
    assert_eq!(again, chroma_sync::store::CreateInvocation::Repeated(first));
    let mut other = file(UploadId::generate());
    if let InvocationInput::FileUpload(file) = &mut other.input {
        file.content_sha256 = "1".repeat(64);
    }
    let other = send(other).await;
    assert_eq!(other, chroma_sync::store::CreateInvocation::RequestIdReused);
}
