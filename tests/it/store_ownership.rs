//! Which documents a source has in a collection.

use chroma_sync::{
    domain::{
        document::{Document, DocumentOutcome, SkipRule},
        ids::{InvocationId, WorkerId},
        invocation::Statistics,
        names::DatabaseName,
        source::Source,
    },
    store::{Held, OwnedDocuments},
};

use crate::harness::stores::{TestStore, collection, created, new_invocation, on_both_stores};

on_both_stores! {
    a_source_owns_what_its_earlier_invocations_left_in_the_collection,
    what_says_nothing_about_the_collection_leaves_ownership_as_it_was,
    what_the_asking_invocation_removed_is_no_longer_owned,
    ownership_is_read_page_by_page_without_repeating_a_key,
}

/// An invocation of `source` into `collection_name` that records `ledger` and ends.
async fn past_invocation(
    test: &TestStore,
    source: &Source,
    collection_name: &str,
    ledger: &[(&str, DocumentOutcome)],
) -> InvocationId {
    let id = current_invocation(test, source, collection_name, ledger).await;
    let ended = test
        .store
        .complete(id, 1, Statistics::default(), test.now())
        .await
        .unwrap();
    assert_eq!(ended.unwrap().id, id);
    id
}

async fn current_invocation(
    test: &TestStore,
    source: &Source,
    collection_name: &str,
    ledger: &[(&str, DocumentOutcome)],
) -> InvocationId {
    let new = new_invocation(collection_name);
    let id = created(
        test.store
            .create_invocation(&source.tenant, source, new, None, None)
            .await
            .unwrap(),
    )
    .id;
    assert_eq!(test.claim(&WorkerId::generate()).await.unwrap().invocation.id, id);
    let rows = (0..).zip(ledger).map(|(ordinal, (key, outcome))| Document {
        ordinal,
        document_key: (*key).to_owned(),
        version_key: format!("version of {key}"),
        size_bytes: Some(10),
        outcome: outcome.clone(),
        chunks: 2,
        memo: None,
    });
    assert_eq!(
        test.store.record_discovered(id, 1, rows.collect()).await.unwrap(),
        Held::Held
    );
    id
}

fn owned(
    test: &TestStore,
    source: &Source,
    database: &DatabaseName,
    name: &str,
    asking: InvocationId,
) -> OwnedDocuments {
    test.store
        .owned_documents(source.id, database, &collection(name), asking)
}

async fn keys(mut owned: OwnedDocuments) -> Vec<String> {
    let mut keys = Vec::new();
    while let Some(page) = owned.next_page().await.unwrap() {
        assert!(!page.is_empty());
        keys.extend(page.into_iter().map(|document| document.document_key));
    }
    assert_eq!(owned.next_page().await.unwrap(), None);
    keys.sort();
    keys
}

async fn a_source_owns_what_its_earlier_invocations_left_in_the_collection(test: TestStore) {
    use DocumentOutcome::{Indexed, Removed, Unchanged};
    let tenant = test.fresh_tenant();
    let (source, other) = (test.source(&tenant).await, test.source(&tenant).await);
    past_invocation(
        &test,
        &source,
        "docs",
        &[("a", Indexed), ("b", Indexed), ("c", Indexed)],
    )
    .await;
    past_invocation(
        &test,
        &source,
        "docs",
        &[("a", Unchanged), ("b", Removed), ("d", Indexed)],
    )
    .await;
    past_invocation(&test, &source, "elsewhere", &[("e", Indexed)]).await;
    past_invocation(&test, &other, "docs", &[("f", Indexed)]).await;
    let asking = current_invocation(&test, &source, "docs", &[("g", Indexed)]).await;

    let database = &source.database;
    assert_eq!(
        keys(owned(&test, &source, database, "docs", asking)).await,
        ["a", "c", "d"]
    );
    assert_eq!(
        keys(owned(&test, &source, database, "elsewhere", asking)).await,
        ["e"]
    );
    assert_eq!(keys(owned(&test, &other, database, "docs", asking)).await, ["f"]);
    let nowhere = crate::harness::stores::database("nowhere");
    assert!(
        keys(owned(&test, &source, &nowhere, "docs", asking))
            .await
            .is_empty()
    );
    let mut pages = owned(&test, &source, database, "elsewhere", asking);
    let page = pages.next_page().await.unwrap().expect("a page");
    assert_eq!(
        (page[0].version_key.as_str(), page[0].chunks),
        ("version of e", 2)
    );
}

async fn what_says_nothing_about_the_collection_leaves_ownership_as_it_was(test: TestStore) {
    use DocumentOutcome::{Discovered, Failed, Indexed, Removed, Skipped};
    let source = test.source(&test.fresh_tenant()).await;
    past_invocation(
        &test,
        &source,
        "docs",
        &[("a", Indexed), ("b", Indexed), ("c", Indexed), ("d", Removed)],
    )
    .await;
    let silent = [
        ("a", Discovered),
        ("b", Skipped(SkipRule::Binary)),
        ("c", Failed("no".to_owned())),
        ("d", Discovered),
    ];
    past_invocation(&test, &source, "docs", &silent).await;
    let asking = current_invocation(&test, &source, "docs", &[]).await;
    assert_eq!(
        keys(owned(&test, &source, &source.database, "docs", asking)).await,
        ["a", "b", "c"]
    );
}

async fn what_the_asking_invocation_removed_is_no_longer_owned(test: TestStore) {
    use DocumentOutcome::{Indexed, Removed};
    let source = test.source(&test.fresh_tenant()).await;
    past_invocation(
        &test,
        &source,
        "docs",
        &[("a", Indexed), ("b", Indexed), ("c", Indexed)],
    )
    .await;
    let asking = current_invocation(&test, &source, "docs", &[("a", Indexed), ("b", Removed)]).await;
    assert_eq!(
        keys(owned(&test, &source, &source.database, "docs", asking)).await,
        ["a", "c"]
    );
}

async fn ownership_is_read_page_by_page_without_repeating_a_key(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let names: Vec<String> = (0..2_300).map(|n| format!("{n:05}")).collect();
    let indexed = |range: std::ops::Range<usize>| -> Vec<(&str, DocumentOutcome)> {
        names[range]
            .iter()
            .map(|name| (name.as_str(), DocumentOutcome::Indexed))
            .collect()
    };
    past_invocation(&test, &source, "docs", &indexed(0..2_100)).await;
    past_invocation(&test, &source, "docs", &indexed(1_000..2_300)).await;
    let asking = current_invocation(&test, &source, "docs", &[]).await;
    assert_eq!(
        keys(owned(&test, &source, &source.database, "docs", asking)).await,
        names
    );
}
