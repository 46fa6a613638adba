//! Which collections of a source may give records away.

use chroma_sync::{
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Failure, Statistics},
        names::CollectionName,
        source::Source,
    },
    store::{DonorRequest, Held},
};

use crate::harness::stores::{TestStore, collection, created, database, new_invocation, on_both_stores};

on_both_stores! {
    collections_that_were_finished_with_the_same_fingerprint_are_donors_the_newest_first,
    a_collection_that_anything_else_was_written_to_is_no_donor,
    an_invocation_whose_attempts_disagree_makes_no_donor,
    a_lost_lease_writes_no_fingerprint,
}

/// How an invocation ends.
enum End {
    Complete,
    Failed,
}

/// Runs an invocation of `source` into a collection, with a fingerprint if it got that far.
async fn run(test: &TestStore, source: &Source, name: &str, fingerprint: Option<&str>, end: End) {
    let new = new_invocation(name);
    let outcome = test
        .store
        .create_invocation(&source.tenant, source, new, None, None)
        .await;
    let invocation = created(outcome.unwrap());
    let claim = test.claim(&WorkerId::generate()).await.unwrap();
    assert_eq!(claim.invocation.id, invocation.id);
    if let Some(fingerprint) = fingerprint {
        let held = test.store.record_fingerprint(invocation.id, 1, fingerprint).await;
        assert_eq!(held.unwrap(), Held::Held);
    }
    let statistics = Statistics::default();
    let ended = match end {
        End::Complete => {
            test.store
                .complete(invocation.id, 1, statistics, test.now())
                .await
        }
        End::Failed => {
            let failure = Failure {
                reason: "REASON".to_owned(),
                message: "message".to_owned(),
            };
            test.store
                .fail(invocation.id, 1, failure, statistics, test.now())
                .await
        }
    };
    assert_eq!(ended.unwrap().unwrap().id, invocation.id);
}

async fn donors(test: &TestStore, source: &Source, own: &str, fingerprint: &str) -> Vec<String> {
    let request = DonorRequest {
        asking: InvocationId::generate(),
        source_id: source.id,
        database: &database("db"),
        collection: &collection(own),
        fingerprint,
    };
    let found = test.store.donor_collections(request).await.unwrap();
    found.iter().map(CollectionName::to_string).collect()
}

async fn collections_that_were_finished_with_the_same_fingerprint_are_donors_the_newest_first(
    test: TestStore,
) {
    let tenant = test.fresh_tenant();
    let (source, other) = (test.source(&tenant).await, test.source(&tenant).await);
    run(&test, &source, "old", Some("a"), End::Complete).await;
    run(&test, &source, "middle", Some("a"), End::Complete).await;
    run(&test, &source, "other-weights", Some("b"), End::Complete).await;
    run(&test, &source, "failed", Some("a"), End::Failed).await;
    run(&test, &other, "of-another-source", Some("a"), End::Complete).await;
    run(&test, &source, "old", Some("a"), End::Complete).await;
    assert_eq!(donors(&test, &source, "new", "a").await, ["old", "middle"]);
    assert_eq!(donors(&test, &source, "old", "a").await, ["middle"]);
    assert_eq!(donors(&test, &source, "new", "b").await, ["other-weights"]);
    assert_eq!(donors(&test, &source, "new", "c").await, Vec::<String>::new());
}

async fn a_collection_that_anything_else_was_written_to_is_no_donor(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    // What never got to a fingerprint wrote nothing, unless a release before fingerprints completed it.
    run(&test, &source, "after-a-failure", None, End::Failed).await;
    run(&test, &source, "after-a-failure", Some("a"), End::Complete).await;
    run(&test, &source, "of-old", None, End::Complete).await;
    run(&test, &source, "of-old", Some("a"), End::Complete).await;
    run(&test, &source, "mixed", Some("b"), End::Failed).await;
    run(&test, &source, "mixed", Some("a"), End::Complete).await;
    assert_eq!(donors(&test, &source, "new", "a").await, ["after-a-failure"]);
}

async fn an_invocation_whose_attempts_disagree_makes_no_donor(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let (id, source_id) = (claim.invocation.id, claim.invocation.source_id.unwrap());
    for fingerprint in ["a", "a", "b", "a"] {
        let held = test.store.record_fingerprint(id, 1, fingerprint).await;
        assert_eq!(held.unwrap(), Held::Held);
    }
    let ended = test
        .store
        .complete(id, 1, Statistics::default(), test.now())
        .await;
    assert_eq!(ended.unwrap().unwrap().id, id);
    for fingerprint in ["a", "b"] {
        let request = DonorRequest {
            asking: InvocationId::generate(),
            source_id,
            database: &claim.invocation.database,
            collection: &collection("new"),
            fingerprint,
        };
        assert_eq!(test.store.donor_collections(request).await.unwrap(), []);
    }
}

async fn a_lost_lease_writes_no_fingerprint(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let stale = test.store.record_fingerprint(id, claim.attempt + 1, "a").await;
    assert_eq!(stale.unwrap(), Held::Lost);
}
